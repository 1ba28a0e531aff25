"""How a study's arms bear corruptions, and modalities that lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmkp.data.corruptions import CORRUPTIONS
from mmkp.metrics.robustness import CONFLICT_LIMIT, conflict_ratio, effective_robustness, relative_robustness
from mmkp.study.analysis import Origin, label
from mmkp.study.grid_results import GridResults
from mmkp.study.statistics import over_seeds
from mmkp.study.tables import Estimate, Table, p_value

CONFLICT = "conflict_"  # how the names of lying modalities begin
Curve = dict[int, float]


def corruption_names(grid: GridResults) -> list[str]:
    """Those that any cell holds, in the study's order."""
    held = {c for cell in grid.cells.values() for (c, v, _, _) in cell.blocks if v > 0}
    asked = dict.fromkeys(n for section in grid.study.corruptions for n in section.names)
    return [n for n in asked if n in held]


def severities(grid: GridResults, arm: str, name: str, part: str) -> list[int]:
    """That an arm was put through with all its modalities."""
    subset = grid.whole(arm)
    blocks = {b for (a, _), cell in grid.cells.items() if a == arm for b in cell.blocks}
    return sorted(v for (c, v, s, p) in blocks if (c, s, p) == (name, subset, part) and v > 0)


def curve(grid: GridResults, arm: str, name: str, part: str) -> Curve:
    """Mean error by severity, 0 being the same items when clear; empty where the arm was not put through it."""
    found = severities(grid, arm, name, part)
    if not found:
        return {}
    items = {v: _errors(grid, arm, name, v, part) for v in found}
    items[0] = np.where(~np.isnan(np.stack(list(items.values()))).any(0), _errors(grid, arm, "clear", 0, part), np.nan)
    return {v: float(np.nanmean(items[v])) for v in sorted(items) if not np.isnan(items[v]).all()}


def reference_curve(grid: GridResults, like: Curve, arm: str, name: str, part: str) -> Curve:
    """The reference's, which stays flat where it lacks the modality that is spoiled."""
    base = grid.reference
    if base is None or not like:
        return {}
    own = curve(grid, base, name, part)
    if own:
        return own
    if set(_modalities(name)) & set(grid.loaded.modalities[base]):
        return {}  # it would notice, and nobody looked
    shown = _errors(grid, arm, name, max(like), part)
    clear = np.where(np.isnan(shown), np.nan, _errors(grid, base, "clear", 0, part))
    return {} if np.isnan(clear).all() else dict.fromkeys(like, float(np.nanmean(clear)))


def robustness_table(grid: GridResults, part: str, origin: Origin) -> Table:
    """Error by severity of every corruption, with relative and effective robustness against the reference."""
    top = max((v for s in grid.study.corruptions for v in s.severities), default=5)
    head = ["corruption", "arm", "clear", *(str(v) for v in range(1, top + 1)), "relative", "effective"]
    rows: list[list[Any]] = []
    for name in corruption_names(grid):
        for arm in grid.arms:
            own = curve(grid, arm, name, part)
            if own:
                base = reference_curve(grid, own, arm, name, part)
                errors = [Estimate(own.get(v)) for v in range(top + 1)]
                rows.append([name, label(grid, arm), *errors, *_robust(own, base)])
    text = (
        f"NME / {grid.normalizer} of {part} by severity. Relative robustness: the area by which the error lies below "
        f"{grid.reference}'s (MultiBench, for errors); effective: the same after both start at 0; higher is better. "
        f"Where {grid.reference} lacks the spoiled modality, its curve is flat."
    )
    return Table("robustness", "Corruptions", origin.caption(text), head, rows)


def _robust(own: Curve, base: Curve) -> list[Estimate | None]:
    shared = sorted(set(own) & set(base))
    if len(shared) < 2 or shared[0] != 0:
        return [None, None]
    a, b = (np.array([c[v] for v in shared]) for c in (own, base))
    return [Estimate(float(f(a, b))) for f in (relative_robustness, effective_robustness)]


def conflict_table(grid: GridResults, part: str, origin: Origin) -> Table:
    """What a lying modality costs beside the reference, which does not hear it."""
    rows: list[list[Any]] = []
    for name in (n for n in corruption_names(grid) if n.startswith(CONFLICT)):
        for arm in grid.arms:
            found = severities(grid, arm, name, part)
            if not found or grid.reference is None:
                continue
            lying = _errors(grid, arm, name, found[-1], part)
            alone = _errors(grid, grid.reference, "clear", 0, part)
            made = conflict_ratio(lying, np.where(np.isnan(lying), np.nan, alone), grid.draws)
            within = {True: "yes", False: "no", None: made.get("reason", "")}[made["within"]]
            ratio = Estimate(made["ratio"], made.get("ci95"), digits=3)
            rows.append([name, label(grid, arm), found[-1], ratio, p_value(made.get("p")), within])
    text = (
        f"Error of {part} with a clear image and another clip's sound or words (strongest severity asked), as a ratio "
        f"to {grid.reference}'s on the same items. p: one-sided, of being below 1. Within: the interval's upper end "
        f"is at most {CONFLICT_LIMIT:.2f}."
    )
    head = ["conflict", "arm", "severity", "ratio", "p", "within"]
    return Table("conflict", "A modality that lies", origin.caption(text), head, rows)


def _errors(grid: GridResults, arm: str, name: str, severity: int, part: str) -> np.ndarray:
    return over_seeds(grid.values(arm, (name, severity, grid.whole(arm), part)))


def _modalities(name: str) -> tuple[str, ...]:
    """That a corruption spoils; a name that is not registered is an occluder of another schema's group."""
    return CORRUPTIONS[name].modalities if name in CORRUPTIONS else ("image",)
