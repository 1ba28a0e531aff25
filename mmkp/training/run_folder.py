"""The folder of a run: what lies where, and when an old run may be continued."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from mmkp.environment import environment
from mmkp.errors import InputError
from mmkp.recipe import Recipe, parse_recipe

# What may differ when a run goes on. The batch too, as long as the global batch stays what it was (checked in the
# loop): on two processes each reads half of it.
FREE = {f"training.{k}" for k in ("workers", "threads", "log_every", "trackers", "batch_size", "accumulate")}


class RunFolder:
    """Looks at the folder first; `prepare` makes it, once all else is known to be right.

    Args:
        path: where.
        recipe: what is about to be trained.
        resume: continue what lies there.
        main: only the main process writes.

    Raises:
        InputError: the folder holds a run already (and no resume was asked for), or one of another recipe.
    """

    def __init__(self, path: Path, recipe: Recipe, resume: bool, main: bool = True) -> None:
        self.path, self.checkpoints, self.metrics = path, path / "checkpoints", path / "metrics.jsonl"
        self.recipe, self.main = recipe, main
        self.resumed = resume and (path / "recipe.yaml").is_file()
        if self.resumed:
            self._same_recipe(recipe)
        elif main and any(self.checkpoints.glob("step-*")):
            raise InputError(
                f"run folder {path}", expected="an empty or new folder", got="a run",
                remedy="Continue it with --resume, or choose another --out.",
            )  # fmt: skip

    def prepare(self) -> None:
        """Make the folder and write what the run is; only the main process does.

        Raises:
            InputError: the folder cannot be written, or another process trains in it.
        """
        if not self.main:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            for left in self.path.glob(".model-*"):  # by a run that was killed while it saved
                shutil.rmtree(left, ignore_errors=True)
            if not self.resumed:
                _write_atomically(self.path / "recipe.yaml", self.recipe.to_yaml())
            _write_atomically(self.path / "environment.json", json.dumps(environment(), indent=2))
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            where = f"run folder {self.path}"
            raise InputError(where, expected="a folder that can be written", got=str(error)) from error

    def _lock(self) -> None:
        """Keep other processes out of the folder for as long as this one lives."""
        import fcntl

        self.lock = (self.path / ".lock").open("w")
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"run folder {self.path}",
                expected="a folder in which nobody trains",
                got="another process at work",
                remedy="Wait for it or end it, or choose another --out.",
            ) from error

    def _same_recipe(self, recipe: Recipe) -> None:
        try:
            plain = yaml.safe_load((self.path / "recipe.yaml").read_text())
        except yaml.YAMLError as error:
            where = f"resume {self.path}"
            raise InputError(where, expected="the run's recipe.yaml, whole", got=str(error)) from error
        with suppress(InputError):  # keys that recipes have got since then had their defaults
            plain = yaml.safe_load(parse_recipe(plain).to_yaml())
        before, now = _flat(plain), _flat(yaml.safe_load(recipe.to_yaml()))
        changed = sorted(k for k in {*before, *now} - FREE if before.get(k) != now.get(k))
        if changed:
            lines = "; ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in changed[:5])
            raise InputError(
                f"resume {self.path}", expected="the recipe that the run began with", got=lines,
                remedy="Drop the override, or train into another --out.",
            )  # fmt: skip

    def cut_metrics(self, step: int) -> None:
        """Drop the rows of metrics.jsonl beyond `step`: they will be written again."""
        if self.metrics.exists():
            rows = [line for line in self.metrics.read_text().splitlines() if _step_of(line) <= step]
            _write_atomically(self.metrics, "".join(row + "\n" for row in rows))

    def save_model(self, model: Any, processor: Any) -> None:
        """Put model and processor into the folder, each file whole or not at all."""
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".model-") as part:
            model.save_pretrained(part)
            processor.save_pretrained(part)
            for file in Path(part).iterdir():
                file.chmod(0o644)  # safetensors writes for the owner alone
                os.replace(file, self.path / file.name)


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 1 << 60  # a row cut off by a kill


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    os.replace(part, path)


def _flat(plain: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(plain, dict):
        return {prefix: plain}
    return {k: v for key, inner in plain.items() for k, v in _flat(inner, f"{prefix}.{key}".lstrip(".")).items()}
