"""mmkp's own part of the speed comparison, a process like the peers': see jobs.py."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import torch

from mmkp.hub import Loaded, load


def measure(loaded: Loaded, job: jobs.Job, batch: int, rounds: int) -> dict[str, float]:
    """Milliseconds an image of one core, the fastest round's median: all of it, and the forward pass alone."""
    model, processor = loaded.model, loaded.processor
    starts = range(0, len(job.pictures) - batch + 1, batch)
    parts = [(job.pictures[i : i + batch], list(job.boxes_xywh[i : i + batch])) for i in starts]

    def ready(pictures: list[np.ndarray], boxes: list[np.ndarray]) -> dict[str, Any]:
        return dict(processor(images=pictures, boxes=boxes, return_tensors="pt"))

    def whole(pictures: list[np.ndarray], boxes: list[np.ndarray]) -> None:
        outputs = model(**ready(pictures, boxes))
        processor.post_process_keypoint_detection(outputs)

    prepared = [ready(*part) for part in parts]
    with torch.inference_mode():
        return {
            "whole": median_ms([lambda part=part: whole(*part) for part in parts], rounds) / batch,
            "forward": median_ms([lambda inputs=inputs: model(**inputs) for inputs in prepared], rounds) / batch,
        }


def median_ms(calls: list[Callable[[], object]], rounds: int) -> float:
    """Of the fastest round; the time is that of all threads together."""
    taken = []
    for _ in range(rounds):
        spent = []
        for call in calls:
            began = time.process_time()
            call()
            spent.append((time.process_time() - began) * 1e3)
        taken.append(float(np.median(spent)))
    return min(taken)


def main() -> None:
    """JOB ANSWER OPTIONS: `model`, `batches`, `rounds`, `core`."""
    job, options = jobs.read_job(Path(sys.argv[1])), json.loads(sys.argv[3])
    if options["core"] is not None:
        os.sched_setaffinity(0, {options["core"]})
    torch.set_num_threads(1)
    before = jobs.peak_mib()
    loaded = load(options["model"])
    answer: dict[str, Any] = {"before_mib": before}
    for batch in options["batches"]:
        for what, spent in measure(loaded, job, batch, options["rounds"]).items():
            answer[f"{what}_{batch}"] = spent
        answer[f"peak_mib_{batch}"] = jobs.peak_mib()
    np.savez(sys.argv[2], **answer)


if __name__ == "__main__":
    main()
