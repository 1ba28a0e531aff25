"""What a network costs: parameters, FLOPs, time per image, memory; and the probe that turns seconds into steps."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmkp.recipe import Recipe
from mmkp.training.loop import Trainer

PROBE_STEPS, PROBE_WARM = 30, 14  # the first steps allocate, and compile convolutions for each number of pictures
TIMED, TIMED_WARM = 12, 4
BATCHES = (1, 32)


class Probe(Trainer):
    """A run of a few steps that only tells what a step costs; nothing of it is kept."""

    waited_s = 0.0  # stands in for the log of a run

    def seconds_per_step(self) -> float:
        """Median CPU-seconds of a step, of all threads together."""
        batches, spent = self._batches(self), []  # type: ignore[arg-type]
        for _ in range(PROBE_STEPS):
            began = time.process_time()
            self._step(batches)
            spent.append(time.process_time() - began)
        return float(np.median(spent[PROBE_WARM:]))


def steps_within(cpu_seconds: float, recipe: Recipe, scratch: Path) -> tuple[int, float]:
    """How many steps fit into a budget, and the CPU-seconds of one. `recipe` must allow at least `PROBE_STEPS`."""
    each = Probe(recipe, scratch).seconds_per_step()
    return max(PROBE_STEPS, round(cpu_seconds / each)), each


def cost_of(model: Any, processor: Any, modalities: tuple[str, ...]) -> dict[str, Any]:
    """Parameters, FLOPs and time of the forward pass, with all of a model's modalities.

    Returns:
        parameters; flops of one item; ms_1 and ms_32, median ms per item at these batch sizes: CPU time of all threads
        on a CPU, wall time on a GPU; device.
    """
    model.eval()
    device = model.device
    made: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "device": device.type}
    with torch.inference_mode():
        one = _inputs(processor, modalities, 1, device)
        with FlopCounterMode(display=False) as counter:
            model(**one)
        made["flops"] = int(counter.get_total_flops())
        for batch in BATCHES:
            made[f"ms_{batch}"] = _milliseconds(model, _inputs(processor, modalities, batch, device)) / batch
    return made


def _inputs(processor: Any, modalities: tuple[str, ...], batch: int, device: torch.device) -> dict[str, Any]:
    size, rate = processor.image_processor.size_hw, processor.feature_extractor.sampling_rate
    blank: dict[str, tuple[str, Any]] = {
        "image": ("images", np.zeros((*size, 3), np.uint8)), "text": ("text", "place the red b|ook"),
        "audio": ("audio", np.zeros(rate, np.float32)),
    }  # fmt: skip
    given: dict[str, Any] = {blank[m][0]: [blank[m][1]] * batch for m in modalities}
    made = dict(processor(**given, sampling_rate=rate))
    return {k: v.to(device) if torch.is_tensor(v) else v for k, v in made.items()}


def _milliseconds(model: Any, inputs: dict[str, Any]) -> float:
    gpu = model.device.type == "cuda"
    clock, spent = time.perf_counter if gpu else time.process_time, []
    for _ in range(TIMED):
        began = clock()
        model(**inputs)
        if gpu:
            torch.cuda.synchronize()
        spent.append((clock() - began) * 1000)
    return float(np.median(spent[TIMED_WARM:]))


def peak_memory_mb() -> dict[str, float]:
    """Most memory that this process has held, MB; that of the GPU beside it where there is one."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB elsewhere
    made = {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}
    if torch.cuda.is_available():
        made["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return made
