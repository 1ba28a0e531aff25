"""Faces in the wild: people nobody has trained on here, a picture each, labels made by others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import convention
import numpy as np
import ours
from cells import Cells, Material
from views import View, reduced

from mmkp import metrics
from mmkp.data import open_dataset
from mmkp.evaluation.score import GroupBootstrap
from mmkp.hub import Loaded

# What may suit a peer; the best on the validation people is taken. (0, 480): the whole picture, enlarged.
MESH_VIEWS = (View(0, 480), View(1.3, 256), View(2.0, 256), View(1.6, 512))
PREDICTOR_VIEWS = (View(1.5, 256), View(1.5, 512))
RECTANGLES = tuple((scale, drop) for scale in (0.65, 0.75, 0.85, 0.95) for drop in (-0.12, -0.05, 0.02))
SMALL_MESH = (View(1.0, 256), View(1.3, 256), View(1.6, 384), View(1.6, 192), View(2.0, 512))
SMALL_PREDICTOR = (View(1.2, 192), View(1.2, 384))
CONVENTION_STEP = 4  # every fourth training picture is enough for six numbers a point
CALIBRATION_STEP = 3  # every third validation picture is enough to lay a rectangle
PARTS = ("all", "eyes+lips", "eyes", "lips", "nose", "brows", "jaw")


@dataclass(frozen=True)
class Line:
    """A line of the table: who, in what setting, and its points on the test people."""

    system: str
    setting: str
    xy: np.ndarray
    ours: bool = False


def material(spec: str, split: str, step: int = 1) -> Material:
    """A split held in memory; every `step`-th picture of it."""
    data: Any = open_dataset(spec, split)
    return Material(f"{data.fingerprint} {split} {step}", [data[i] for i in range(0, len(data), step)])


def errors_of(data: Material, xy: np.ndarray) -> np.ndarray:
    """(N, 68) of the outer-eye distance; a miss counts 1."""
    known = np.isfinite(data.true_xy).all(-1)
    length = data.schema.normalizer(data.true_xy, np.stack([s.box_xywh for s in data.samples]))
    return metrics.normalized_errors(xy, data.true_xy, known, length)


def mean_nme(data: Material, xy: np.ndarray) -> float:
    """Mean over the items and all points, a miss 1."""
    return float(np.nanmean(metrics.nme(errors_of(data, xy))))


def best_mesh(cells: Cells, data: Material, views: tuple[View, ...]) -> View:
    """The view in which mediapipe does best on the validation people."""
    return min(views, key=lambda view: mean_nme(data, cells.peer("mediapipe", data, view)))


def best_predictor(cells: Cells, data: Material, views: tuple[View, ...]) -> tuple[View, dict[str, Any]]:
    """The rectangle in which dlib's predictor does best on the validation people, then the view."""

    def cost(view: View, rectangle: tuple[float, float]) -> float:
        scale, drop = rectangle
        return mean_nme(few, cells.peer("dlib", few, view, scale=scale, drop=drop))

    few = Material(f"{data.key} every {CALIBRATION_STEP}", data.samples[::CALIBRATION_STEP])
    rectangle = min(RECTANGLES, key=partial(cost, views[0]))
    view = min(views, key=partial(cost, rectangle=rectangle))
    return view, {"scale": rectangle[0], "drop": rectangle[1]}


def small(views: tuple[View, ...], input_px: int) -> tuple[View, ...]:
    """The views of a box that was reduced to `input_px` first."""
    return tuple(View(view.margin, view.side_px, input_px) for view in views)


def peer_lines(cells: Cells, spec: str, input_px: int, corrected: bool) -> Iterator[Line]:
    """Both peers on the test people; settings by the validation people, conventions by the training people.

    Args:
        input_px: 0 for the pictures as they are; else the box is reduced to it first.
    """
    test, validation = material(spec, "test"), material(spec, "validation")
    mesh_views = small(SMALL_MESH, input_px) if input_px else MESH_VIEWS
    predictor_views = small(SMALL_PREDICTOR, input_px) if input_px else PREDICTOR_VIEWS
    mesh = best_mesh(cells, validation, mesh_views)
    view, rectangle = best_predictor(cells, validation, predictor_views)
    laid = f"{view.name}, rectangle x {rectangle['scale']:g}, {rectangle['drop']:+g} down"
    said: dict[str, tuple[str, Any]] = {
        "mediapipe": (mesh.name, partial(cells.peer, "mediapipe", view=mesh)),
        "dlib-68": (laid, partial(cells.peer, "dlib", view=view, **rectangle)),
    }
    for system, (setting, ask) in said.items():
        yield Line(system, setting, ask(material=test))
    if not input_px:
        crop = best_mesh(cells, validation, tuple(v for v in mesh_views if v.margin))
        if crop != mesh:
            yield Line("mediapipe", crop.name, cells.peer("mediapipe", test, crop))
        found = cells.peer("dlib", test, View(), own_detector=True)
        yield Line("dlib-68", "whole picture, its own detector", found)
    if corrected:
        train = material(spec, "train", CONVENTION_STEP)
        for system, (_, ask) in said.items():
            before, now = ask(material=train), ask(material=test)
            moved = convention.shift(before, train.true_xy)
            yield Line(system, f"its first, all moved by ({moved[0]:+.2f}, {moved[1]:+.2f}) px", now + moved)
            maps = convention.fit(before, train.true_xy)
            yield Line(system, "its first, convention corrected", convention.apply(maps, now))


def our_lines(cells: Cells, spec: str, models: list[Loaded], input_px: int) -> Iterator[Line]:
    """Every model on the test people: the true box, and where it can, the box that it finds."""
    test = material(spec, "test")
    if input_px:
        test = test.changed(f"reduced {input_px}", partial(reduced, input_px=input_px))
    for loaded in models:
        for box in ["truth"] if input_px else ours.boxes_of(loaded):
            said = ours.points(cells, loaded, test, ["image"], box)
            yield Line(f"mmkp {loaded.source}", f"box: {box}", said["image"], ours=True)
        yield Line(f"mean shape of {loaded.source}", "box: truth", ours.points(
            cells, loaded, test, ["image"], "truth")["mean_shape"])  # fmt: skip


def table(cells: Cells, spec: str, models: list[Loaded], input_px: int, corrected: bool = True) -> str:
    """Markdown: NME by part with an interval over people, misses, and the paired comparison with each model."""
    test = material(spec, "test")
    reference = test.changed(f"reduced {input_px}", partial(reduced, input_px=input_px)) if input_px else test
    draws, parts = GroupBootstrap(test.groups), test.schema.group_indices()
    parts = {"all": np.arange(68), "eyes+lips": np.r_[parts["eyes"], parts["lips"]], **parts}
    peers, own = list(peer_lines(cells, spec, input_px, corrected)), list(our_lines(cells, spec, models, input_px))
    compared = [line for line in own if line.ours]
    head = ["system", "setting", "missed", "all, found only", *(f"{p}" for p in PARTS)]
    head += [f"{c.system} ({c.setting}): {p}, ratio, p" for c in compared for p in ("all", "eyes+lips")]
    rows = [head, ["---"] * len(head)]
    errors = {id(line): errors_of(reference if line in own else test, line.xy) for line in [*peers, *own]}
    for line in [*peers, *own]:
        missed = ~np.isfinite(line.xy).all((1, 2))
        nmes = {p: metrics.nme(errors[id(line)], parts[p]) for p in PARTS}
        row = [line.system, line.setting, str(missed.sum()), f"{np.nanmean(nmes['all'][~missed]):.4f}"]
        row += [cell(draws.interval(nmes[p])) for p in PARTS]
        for other in compared:
            for part in ("all", "eyes+lips"):
                mine = metrics.nme(errors[id(other)], parts[part])
                row.append("" if line in own else versus(draws.compare(mine, nmes[part])))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cell(found: dict[str, Any]) -> str:
    """Mean [low, high]."""
    if found["mean"] is None:
        return "none"
    interval = found["ci95"]
    return f"{found['mean']:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def versus(found: dict[str, Any]) -> str:
    """Ours over the peer's with its interval, and p that ours is not better."""
    if found["ci95"] is None:
        return "none" if found["ratio"] is None else f"{found['ratio']:.2f}"
    return f"{found['ratio']:.2f} [{found['ci95'][0]:.2f}, {found['ci95'][1]:.2f}], p {found['p']:.4f}"
