"""Checkpoints of a run: written whole or not at all, never unpickled, the last good one never lost.

A checkpoint is a folder `step-000500` with `state.safetensors` (weights, their moving average, the optimizer's
tensors), `rng-0.safetensors` per process, and `manifest.json` (what belongs to it, with sizes and checksums).
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

KEEP = 2
MANIFEST = "manifest.json"


@dataclass
class RunState:
    """Everything that changes while a run runs."""

    model: torch.nn.Module
    average: torch.nn.Module | None
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float | None = None
    best_step: int | None = None
    scaler: Any = None  # the loss scaler of fp16
    samples_per_step: int = 0  # the global batch, which a resume on other processes must keep

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors by name, contiguous copies on the CPU."""
        named = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        if self.average is not None:
            named |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in slots.items()}
        return {k: v.detach().cpu().contiguous().clone() for k, v in named.items()}

    def load(self, named: dict[str, torch.Tensor]) -> None:
        """Take tensors back; the inverse of `tensors`."""
        self.model.load_state_dict(_under(named, "model/"))
        if self.average is not None:
            self.average.load_state_dict(_under(named, "average/"))
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in _under(named, "optimizer/").items():
            index, slot = key.split("/")
            slots.setdefault(int(index), {})[slot] = value
        plain = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": slots, "param_groups": plain["param_groups"]})


def _under(named: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}


def save(state: RunState, folder: Path, rngs: list[dict[str, torch.Tensor]]) -> Path:
    """Write a checkpoint and remove all but the last good ones.

    Args:
        folder: of the run's checkpoints.
        rngs: the random states of every process, by rank.

    Raises:
        OSError: it could not be written; the earlier ones are untouched and nothing half-written remains.
    """
    target = folder / f"step-{state.step:06d}"
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        save_file(state.tensors(), part / "state.safetensors")
        for rank, rng in enumerate(rngs):
            save_file(rng, part / f"rng-{rank}.safetensors")
        files = {p.name: _stamp(p) for p in sorted(part.iterdir())}
        manifest = {"step": state.step, "best": state.best, "best_step": state.best_step, "files": files}
        manifest["samples_per_step"] = state.samples_per_step
        manifest["scaler"] = None if state.scaler is None else state.scaler.state_dict()
        (part / MANIFEST).write_text(json.dumps(manifest))
        for p in part.iterdir():
            _flush(p)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(part, target)
        _flush(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(f"checkpoint at step {state.step} not written: {error}") from error
    for old in found(folder)[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first, whether good or not."""
    return sorted((p for p in folder.glob("step-*") if p.suffix != ".part"), reverse=True)


def load_latest(state: RunState, folder: Path, rank: int = 0) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest good checkpoint into `state` and this process's random state.

    Returns:
        Its manifest, None where there is no good one; and a line for every broken one that was passed over.
    """
    passed: list[str] = []
    for path in found(folder):
        fault = _fault(path)
        if fault is None:
            manifest = json.loads((path / MANIFEST).read_text())
            state.load(load_file(path / "state.safetensors"))
            state.step, state.best, state.best_step = manifest["step"], manifest["best"], manifest["best_step"]
            if state.scaler is not None and manifest["scaler"]:
                state.scaler.load_state_dict(manifest["scaler"])
            rng = path / f"rng-{rank}.safetensors"
            if rng.exists():
                set_rng(load_file(rng))
            else:  # a process that the run did not have before
                torch.manual_seed((manifest["step"] << 16) + rank)
            return manifest, passed
        passed.append(f"{path.name} is broken ({fault}): passed over")
    return None, passed


def get_rng() -> dict[str, torch.Tensor]:
    """The random states that training draws from: augmentation needs none, it is a function of (seed, epoch, index)."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_rng(states: dict[str, torch.Tensor]) -> None:
    """Restore what `get_rng` gave."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _fault(path: Path) -> str | None:
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        wrong = [name for name, stamp in files.items() if _stamp(path / name) != stamp]
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{wrong[0]} is not what was written" if wrong else None


def _stamp(path: Path) -> list[int]:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return [path.stat().st_size, checksum]


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
