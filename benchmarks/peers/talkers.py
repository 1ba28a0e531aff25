"""People who talk, with the mouth seen and covered: eyes and lips by clip, people nobody has trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import ours
import wild
from cells import Cells, Material
from views import View
from wild import Line

from mmkp import metrics
from mmkp.data import open_dataset
from mmkp.data.corrupt import covered
from mmkp.evaluation.predict import all_subsets
from mmkp.hub import Loaded

CROP = View(1.6, 512)  # for mediapipe, beside the whole frame
# For dlib's predictor: the rectangle as the validation people of the wild faces choose it (wild.py, `best_predictor`);
# enlarged twofold, since it answers in whole pixels.
PREDICTOR, RECTANGLE = View(1.5, 512), {"scale": 0.75, "drop": -0.05}
PARTS = ("eyes", "lips")
CAVEAT = (
    "Labels: mediapipe's on the clear frames, face mesh with refined eyes and lips, followed through the clip; a peer "
    "that runs just that repeats them on clear frames, where its error says nothing. Four clips of three people: no "
    "intervals."
)


def peer_lines(cells: Cells, data: Material, frame_step: int) -> Iterator[Line]:
    """Both peers in the ways that they can be used. A face is followed only where no frames are left out."""
    yield Line("mediapipe", "whole frame, each by itself", cells.peer("mediapipe", data, View()))
    if frame_step == 1:
        followed = cells.peer("mediapipe", data, View(), static=False, by_clip=True)
        yield Line("mediapipe", "whole frame, face followed", followed)
    yield Line("mediapipe", f"{CROP.name}, each by itself", cells.peer("mediapipe", data, CROP))
    laid = f"{PREDICTOR.name}, rectangle x {RECTANGLE['scale']:g}, {RECTANGLE['drop']:+g} down"
    yield Line("dlib-68", laid, cells.peer("dlib", data, PREDICTOR, **RECTANGLE))
    yield Line("dlib-68", "whole frame, its own detector", cells.peer("dlib", data, View(), own_detector=True))


def our_lines(cells: Cells, data: Material, models: list[Loaded]) -> Iterator[Line]:
    """Every subset that holds the picture, with the true box and where it can with the one that the model finds."""
    for loaded in models:
        subsets = [s for s in all_subsets(loaded.model.modalities) if "image" in s.split("+")]
        without = [s for s in all_subsets(loaded.model.modalities) if s not in subsets]
        for box in ours.boxes_of(loaded):
            asked = [*subsets, *without] if box == "truth" else subsets
            said = ours.points(cells, loaded, data, asked, box)
            for subset in [*asked, *(["mean_shape"] if box == "truth" else [])]:
                yield Line(f"mmkp {loaded.source}", f"{subset}, box: {box}", said[subset], ours=True)


def table(cells: Cells, spec: str, models: list[Loaded], frame_step: int) -> str:
    """Markdown: a line per system and condition; eyes / lips NME (missed frames) of each clip, and the clips' mean."""
    clear = _clear(spec, frame_step)
    clips = list(dict.fromkeys(clear.groups.tolist()))
    head = ["condition", "system", "setting", *clips, "mean eyes / lips", "missed"]
    rows = [head, ["---"] * len(head)]
    for condition, data in (("clear", clear), ("covered", clear.changed("covered", covered))):
        for line in [*peer_lines(cells, data, frame_step), *our_lines(cells, data, models)]:
            rows.append([condition, line.system, line.setting, *_figures(data, line.xy, clips)])
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{text}\n\n{CAVEAT} {len(clear)} frames a condition; eyes / lips over the outer-eye distance."


def _clear(spec: str, frame_step: int) -> Material:
    data: Any = open_dataset(spec, "others", frame_step=frame_step)
    return Material(f"{data.fingerprint} {frame_step}", [data[i] for i in range(len(data))])


def _figures(data: Material, xy: np.ndarray, clips: list[str]) -> list[str]:
    errors, indices = wild.errors_of(data, xy), data.schema.group_indices()
    missed = ~np.isfinite(xy).all((1, 2))
    nmes = np.stack([metrics.nme(errors, indices[part]) for part in PARTS], 1)
    own = [data.groups == clip for clip in clips]
    by_clip = np.stack([np.nanmean(nmes[clip], 0) for clip in own])
    cells = [
        f"{eyes:.4f} / {lips:.4f}" + (f" ({missed[clip].sum()})" if missed[clip].any() else "")
        for (eyes, lips), clip in zip(by_clip, own, strict=True)
    ]
    mean = by_clip.mean(0)
    return [*cells, f"{mean[0]:.4f} / {mean[1]:.4f}", str(missed.sum())]
