"""How a study's arms bear corruptions, and modalities that lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from mmkp.data.corruptions import CORRUPTIONS
from mmkp.metrics.robustness import CONFLICT_LIMIT, conflict_ratio, effective_robustness, relative_robustness
from mmkp.study.analysis import Origin, label
from mmkp.study.grid_results import GridResults
from mmkp.study.statistics import over_seeds
from mmkp.study.tables import Estimate, Table, p_value

CONFLICT = "conflict_"  # how the names of lying modalities begin
Curve = dict[int, float]
BySeed = Float[np.ndarray, "V S N"]  # errors at every severity, by seed and item


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
    """Mean error by severity, 0 being clear, over the items that are known at all of them; empty where there are none.

    Of the seeds that the reference has too, so that arms can be compared; of all, where it shares none.
    """
    at, errors = _by_seed(grid, arm, name, part)
    means = _over_seeds(errors)
    return {v: float(np.nanmean(m)) for v, m in zip(at, means, strict=True) if not np.isnan(m).all()}


def robustness_table(grid: GridResults, part: str, origin: Origin) -> Table:
    """Error by severity of every corruption, with relative and effective robustness against the reference."""
    top = max((v for s in grid.study.corruptions for v in s.severities), default=5)
    base = grid.reference or "the reference"
    measured = [str(v) for v in range(1, top + 1)] + ["relative", f"area below {base}", f"effective, against {base}"]
    head = ["corruption", "arm", "n", "groups", "clear", *measured]
    rows: list[list[Any]] = []
    for name in corruption_names(grid):
        for arm in grid.arms:
            own = curve(grid, arm, name, part)
            if own:
                errors = [Estimate(own.get(v)) for v in range(top + 1)]
                known = ~np.isnan(_over_seeds(_by_seed(grid, arm, name, part)[1])[0])
                area = [own_area(grid, arm, name, part), *areas(grid, arm, name, part)]
                rows.append([name, label(grid, arm), *_count(grid, known), *errors, *area])
    text = (
        f"NME / {grid.normalizer} of {part} by severity, of the n items in so many groups that are known at all of an "
        f"arm's severities, over the seeds that {base} has too. Relative (MultiBench): minus the area under the arm's "
        f"own curve over severity, the axis scaled to 0 to 1. Area below {base}: between its curve and the arm's (tau "
        "of Taori et al. 2020). Effective: the same after both curves start at 0 (MultiBench, where the baseline is "
        f"late fusion; here it is {base}). All with 95 % intervals over groups; higher is better. Where {base} lacks "
        "the spoiled modality, its curve is flat."
    )
    return Table("robustness", "Corruptions", origin.caption(text, items=False), head, rows)


def own_area(grid: GridResults, arm: str, name: str, part: str) -> Estimate | None:
    """Relative robustness as MultiBench has it; None without two severities, or the clear items."""
    at, own = _by_seed(grid, arm, name, part)
    if len(at) < 2 or at[0] != 0:
        return None
    found = grid.draws.interval(relative_robustness(_over_seeds(own).T, at=at))
    return Estimate(found["mean"], found["ci95"])


def areas(grid: GridResults, arm: str, name: str, part: str) -> list[Estimate | None]:
    """Relative and effective robustness against the reference, over the items and seeds that both have.

    None where they share no seed, no two severities, or not the clear items.
    """
    at, own = _by_seed(grid, arm, name, part)
    base_at, base = _reference_by_seed(grid, arm, name, part)
    both = [v for v in at if v in base_at]
    if len(both) < 2 or both[0] != 0:
        return [None, None]
    own, base = own[[at.index(v) for v in both]], base[[base_at.index(v) for v in both]]
    known = ~np.isnan(own + base).any(0)
    curves, baseline = (_over_seeds(np.where(known, v, np.nan)).T for v in (own, base))  # (N, V)
    found = [grid.draws.interval(f(curves, baseline, both)) for f in (relative_robustness, effective_robustness)]
    return [Estimate(f["mean"], f["ci95"]) for f in found]


def conflict_table(grid: GridResults, part: str, origin: Origin) -> Table:
    """What a lying modality costs beside the reference, which does not hear it."""
    rows: list[list[Any]] = []
    for name in (n for n in corruption_names(grid) if n.startswith(CONFLICT)):
        for arm in (a for a in grid.arms if "image" in grid.loaded.modalities[a]):
            found, base = severities(grid, arm, name, part), grid.reference
            if not found or base is None:
                continue
            pair = grid.paired(
                arm, (name, found[-1], grid.whole(arm), part), base, ("clear", 0, grid.whole(base), part)
            )  # fmt: skip
            known = ~np.isnan(pair[0] + pair[1])
            lying, alone = (over_seeds(np.where(known, v, np.nan)) for v in pair)
            made = conflict_ratio(lying, alone, grid.draws)
            reason = made.get("reason", "") if len(known) else "no seed in common"
            within = {True: "yes", False: "no", None: reason}[made["within"]]
            ratio = Estimate(made["ratio"], made.get("ci95"), digits=3)
            count = _count(grid, known.any(0))
            rows.append([name, label(grid, arm), found[-1], ratio, p_value(made.get("p")), *count, within])
    text = (
        f"Error of {part} with a clear image and another clip's sound or words (strongest severity asked), as a ratio "
        f"to {grid.reference}'s on the same n items and seeds. p: one-sided, of being below {CONFLICT_LIMIT:.2f}. "
        f"Within: the interval's upper end is at most {CONFLICT_LIMIT:.2f}."
    )
    head = ["conflict", "arm", "severity", "ratio", "p", "n", "groups", "within"]
    return Table("conflict", "A modality that lies", origin.caption(text, items=False), head, rows)


def _seeds(grid: GridResults, arm: str) -> list[int]:
    return grid.shared(arm, grid.reference) or grid.seeds(arm)


def _by_seed(grid: GridResults, arm: str, name: str, part: str) -> tuple[list[int], BySeed]:
    """An arm's severities, and its errors at them; NaN where an item is not known at all of them."""
    found, subset = severities(grid, arm, name, part), grid.whole(arm)
    if not found:
        return [], np.full((0, len(_seeds(grid, arm)), len(grid.ids)), np.nan)
    at = [0, *found] if "clear" in grid.conditions else found
    blocks = [(name if v else "clear", v, subset, part) for v in at]
    errors = np.stack([grid.of_seeds(arm, block, _seeds(grid, arm)) for block in blocks])
    return at, np.where(np.isnan(errors).any(0), np.nan, errors)


def _reference_by_seed(grid: GridResults, arm: str, name: str, part: str) -> tuple[list[int], BySeed]:
    """The reference's, of the seeds that it shares with the arm; flat where it lacks the modality that is spoiled."""
    base, seeds, at = grid.reference, grid.shared(arm, grid.reference), [0, *severities(grid, arm, name, part)]
    nothing: BySeed = np.zeros((0, len(seeds), len(grid.ids)))
    if base is None or not seeds:
        return [], nothing
    own, subset = severities(grid, base, name, part), grid.whole(base)
    if not own and set(_modalities(name)) & set(grid.loaded.modalities[base]):
        return [], nothing  # it would notice, and nobody looked
    if own:
        at = [0, *own]
    blocks = [(name if v and own else "clear", v if own else 0, subset, part) for v in at]
    return at, np.stack([grid.of_seeds(base, block, seeds) for block in blocks])


def _over_seeds(errors: BySeed) -> Float[np.ndarray, "V N"]:
    return np.stack([over_seeds(v) for v in errors]) if len(errors) else np.zeros((0, errors.shape[-1]))


def _count(grid: GridResults, known: np.ndarray) -> list[int]:
    """Items and their groups."""
    return [int(known.sum()), len(set(grid.groups[known]))]


def _modalities(name: str) -> tuple[str, ...]:
    """That a corruption spoils; a name that is not registered is an occluder of another schema's group."""
    return CORRUPTIONS[name].modalities if name in CORRUPTIONS else ("image",)
