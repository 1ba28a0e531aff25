"""What an image costs: milliseconds of one core and memory, everyone on the same crops, in one run."""

from __future__ import annotations

import os
from typing import Any

import jobs
import numpy as np
from cells import Cells
from talkers import RECTANGLE
from views import View, show
from wild import material

CROPS, ROUNDS = 64, 3
SHOWN = View(1.6, 256)  # the crops: the box with a margin, which mediapipe needs and the others can do with
BATCHES = (1, 32)


def table(cells: Cells, spec: str, models: list[str]) -> str:
    """Markdown: CPU milliseconds an image, how many times a peer's mmkp's is, and the largest resident memory."""
    test = material(spec, "test", 6)
    shown = show(test.samples[:CROPS], SHOWN)
    job = jobs.Job(shown.pictures, shown.boxes_xywh, np.zeros(len(shown.pictures), bool))
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    shared: dict[str, Any] = {"rounds": ROUNDS, "core": core}
    lines: list[tuple[str, float, float]] = []
    for system, peer, options in (
        ("mediapipe, detector and mesh", "mediapipe", {}),
        ("mediapipe, following (mesh alone)", "mediapipe", {"static": False}),
        ("dlib-68 in a given rectangle", "dlib", RECTANGLE),
        ("dlib-68 with its own detector", "dlib", {"own_detector": True}),
    ):
        answer = cells.ask(peer, job, **options, **shared)
        lines.append((system, float(np.median(answer["cpu_ms"])), float(answer["peak_mib"])))
    for model in models:
        said = cells.ask("mmkp", job, model=model, batches=BATCHES, **shared)
        for batch in BATCHES:
            for what, words in (("whole", "crop, forward, points"), ("forward", "forward alone")):
                name = f"mmkp {model}, {words}, batch {batch}"
                lines.append((name, float(said[f"{what}_{batch}"]), float(said[f"peak_mib_{batch}"])))
    mesh, found = lines[0][1], lines[3][1]
    rows = [["system", "CPU ms / image", "of mediapipe", "of dlib with detector", "peak MiB"], ["---"] * 5]
    rows += [[n, f"{ms:.2f}", f"{ms / mesh:.2f}", f"{ms / found:.2f}", f"{mib:.0f}"] for n, ms, mib in lines]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    note = f"{len(job.pictures)} crops of 256x256 px, medians, bound to one core, time of all threads together."
    return f"{text}\n\n{note}"
