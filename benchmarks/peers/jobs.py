"""What passes between mmkp's process and a peer's: pictures in one file, points in another; numpy alone is needed.

A peer runs in a virtual environment of its own, whose versions do not get on with mmkp's. A job is an .npz of pictures
with a box each; the answer is an .npz of points in the frames of those pictures, px, the centre of
the top-left pixel at (0, 0), NaN for a face that was not found.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

KEYPOINTS = 68
Detect = Callable[[np.ndarray, np.ndarray], "np.ndarray | None"]  # picture, box -> points (68, 2), or a miss


class Job(NamedTuple):
    """Pictures, each (H, W, 3) uint8 RGB; the box of each, (N, 4) xywh px; whether each begins a new clip, (N,)."""

    pictures: list[np.ndarray]
    boxes_xywh: np.ndarray
    begins: np.ndarray


def write_job(path: Path, job: Job) -> None:
    """One file of it all; the pictures may differ in size."""
    sizes = np.array([picture.shape[:2] for picture in job.pictures])
    pixels = np.concatenate([picture.ravel() for picture in job.pictures])
    np.savez(path, pixels=pixels, sizes_hw=sizes, boxes_xywh=job.boxes_xywh, begins=job.begins)


def read_job(path: Path) -> Job:
    """What `write_job` wrote."""
    with np.load(path) as job:
        sizes, boxes, begins = job["sizes_hw"], job["boxes_xywh"], job["begins"]
        parts = np.split(job["pixels"], np.cumsum(3 * sizes.prod(1))[:-1])
    return Job([part.reshape(*size, 3) for part, size in zip(parts, sizes, strict=True)], boxes, begins)


def peak_mib() -> float:
    """The largest resident memory of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # rusage would count what the parent held when it started this process
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def serve(make: Callable[..., Detect]) -> None:
    """The whole of a peer's process: JOB ANSWER OPTIONS, the last as JSON.

    The options are those of `make`, and three of its own: `by_clip` makes a new detector where a clip begins (one that
    follows a face must forget the last clip's), `rounds` repeats it all (the last counts), `core` binds the process.
    """
    job, answer, options = read_job(Path(sys.argv[1])), Path(sys.argv[2]), dict[str, Any](json.loads(sys.argv[3]))
    by_clip, rounds, core = options.pop("by_clip", False), options.pop("rounds", 1), options.pop("core", None)
    if core is not None:
        os.sched_setaffinity(0, {core})
    before, detect = peak_mib(), make(**options)
    points = np.full((len(job.pictures), KEYPOINTS, 2), np.nan)
    spent_ms = np.zeros(len(points))
    for number in [*range(len(points))] * rounds:
        if by_clip and job.begins[number]:
            detect = make(**options)
        began = time.process_time()
        found = detect(job.pictures[number], job.boxes_xywh[number])
        spent_ms[number] = (time.process_time() - began) * 1e3  # of all threads together
        points[number] = np.nan if found is None else found
    np.savez(answer, xy=points, cpu_ms=spent_ms, peak_mib=peak_mib(), before_mib=before)
