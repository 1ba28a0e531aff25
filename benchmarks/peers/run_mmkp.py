"""mmkp's own part of the speed comparison, a process like the peers': see jobs.py."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import torch

from mmkp.hub import Loaded, load


def measure(loaded: Loaded, job: jobs.Job, batch: int, rounds: int) -> dict[str, float]:
    """Milliseconds an image of one core, all threads together, the fastest round's median: all of it, and the forward
    pass within it."""
    model, processor = loaded.model, loaded.processor
    starts = range(0, len(job.pictures) - batch + 1, batch)
    parts = [(job.pictures[i : i + batch], list(job.boxes_xywh[i : i + batch])) for i in starts]

    def ready(pictures: list[np.ndarray], boxes: list[np.ndarray]) -> dict[str, Any]:
        return dict(processor(images=pictures, boxes=boxes, return_tensors="pt"))

    def timed(part: tuple) -> tuple[float, float]:
        began = time.process_time()
        inputs = ready(*part)
        prepared = time.process_time()
        outputs = model(**inputs)
        detected = time.process_time()
        processor.post_process_keypoint_detection(outputs)
        return time.process_time() - began, detected - prepared

    with torch.inference_mode():
        spent = np.array([[timed(part) for part in parts] for _ in range(1 + rounds)])[1:]  # the first warms up
    whole, forward = np.median(spent, axis=1).min(0) * 1e3 / batch
    return {"whole": float(whole), "forward": float(forward)}


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
