"""Paired comparisons of many arms with one, over groups: bootstrap, effect sizes, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from mmkp.evaluation.score import CHUNK, DRAWS, MIN_GROUPS, sign_flips

RESOLUTION = 10  # the least p that the draws can show is this far below what the correction asks for


@dataclass(frozen=True)
class Comparison:
    """An error against the reference's on the same items.

    Attributes:
        mean, base: of the error and of the reference's, over items.
        ratio: mean / base; ci95 over groups.
        difference: mean - base, negative where the error fell; ci95 over groups.
        dz: Cohen's d of paired data: the groups' mean differences over their standard deviation; negative is a gain.
        p: two-sided; p_holm: corrected over the family.
        groups: that have both; seeds: that know both; seeds_better: those of them whose mean error lies below the
            reference's of the same seed; lowest_seed: the ratio of the seed that gains most.
        reason: why there is no interval.
    """

    mean: float | None
    base: float | None
    ratio: float | None
    groups: int
    ratio_ci95: tuple[float, float] | None = None
    difference: float | None = None
    difference_ci95: tuple[float, float] | None = None
    dz: float | None = None
    p: float | None = None
    p_holm: float | None = None
    reason: str = ""
    seeds_better: int = 0
    seeds: int = 0
    lowest_seed: float | None = None


def compare_family(
    groups: np.ndarray, pairs: Sequence[tuple[Float[np.ndarray, "S N"], Float[np.ndarray, "S N"]]], alpha: float = 0.01,
    seed: int = 0,
) -> list[Comparison]:  # fmt: skip
    """Compare each pair over all seeds: the error of an item is its mean over the seeds that know both of its errors.

    The p of a comparison is the larger of two. One is of the paired bootstrap over groups: twice the smaller share of
    draws whose mean difference lies on either side of 0. It promises too much where groups are few, so that the other
    is of the sign-flip test: the share of the ways to exchange both errors within groups that differ as much as what
    was found, all of them where the groups are at most 15. There are as many draws as Holm's correction of this family
    needs to be able to find anything, at least 10,000.

    Args:
        groups: (N,) of each item.
        pairs: for each comparison the errors and the reference's of the same seeds; NaN where an item is not known.
        alpha: what p is held against.
        seed: of the draws.

    Returns:
        One comparison per pair; without p, and with the reason, where fewer than 5 groups have both.
    """
    names, index = np.unique(groups, return_inverse=True)
    draws = max(DRAWS, math.ceil(2 * RESOLUTION * len(pairs) / alpha)) if pairs else 0
    averaged = [_averaged(*pair) for pair in pairs]
    made = [_describe(index, len(names), *pair, *both) for pair, both in zip(pairs, averaged, strict=True)]
    tested = [i for i, c in enumerate(made) if not c.reason]
    if tested:
        sums = np.stack([_sums(index, len(names), *averaged[i]) for i in tested])  # (C, 3, G)
        low, high, p = _bootstrap(sums, draws, seed)
        p = np.maximum(p, sign_flips(sums[:, 0] - sums[:, 1], draws, seed))
        for at, i in enumerate(tested):
            spans = [(float(low[k, at]), float(high[k, at])) for k in (0, 1)]
            made[i] = replace(made[i], difference_ci95=spans[0], ratio_ci95=spans[1], p=float(p[at]))
    return [replace(c, p_holm=p) for c, p in zip(made, holm([c.p for c in made]), strict=True)]


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; None is no test and does not count.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6, 1979.
    """
    known = sorted((v, i) for i, v in enumerate(p) if v is not None)
    made: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        made[i] = largest
    return made


def over_seeds(values: Float[np.ndarray, "S N"]) -> Float[np.ndarray, " N"]:
    """The mean of each item over the seeds that know it; NaN where none does."""
    known = ~np.isnan(values)
    return np.where(known.any(0), np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def _averaged(values: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = ~(np.isnan(values) | np.isnan(base))
    return over_seeds(np.where(both, values, np.nan)), over_seeds(np.where(both, base, np.nan))


def _sums(index: np.ndarray, count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By group the sum of errors, of the reference's, and the number of items, (3, G)."""
    known = ~np.isnan(a)
    columns = (np.where(known, a, 0.0), np.where(known, b, 0.0), known.astype(float))
    return np.stack([np.bincount(index, v, minlength=count) for v in columns])


def _describe(
    index: np.ndarray, count: int, values: np.ndarray, base: np.ndarray, a: np.ndarray, b: np.ndarray
) -> Comparison:
    if not len(values):
        return Comparison(None, None, None, 0, reason="no seed in common")
    total, total_base, items = _sums(index, count, a, b)
    there = items > 0
    groups = int(there.sum())
    if not groups:
        return Comparison(None, None, None, 0, reason="no item that both know")
    mean, of = total.sum() / items.sum(), total_base.sum() / items.sum()
    each = (total - total_base)[there] / items[there]
    spread = each.std(ddof=1) if groups > 1 else 0.0
    both = [(x, y) for x, y in zip(values, base, strict=True) if not np.isnan(x - y).all()]
    gaps = [x - y for x, y in both]
    ratios = [1 + np.nanmean(x - y) / max(np.nanmean(np.where(np.isnan(x), np.nan, y)), 1e-12) for x, y in both]
    return Comparison(
        float(mean), float(of), float(mean / max(of, 1e-12)), groups, difference=float(mean - of),
        dz=float(each.mean() / spread) if spread > 0 else None,
        reason="" if groups >= MIN_GROUPS else f"{groups} groups; a test needs at least {MIN_GROUPS}",
        seeds_better=sum(bool(np.nanmean(gap) < 0) for gap in gaps), seeds=len(gaps), lowest_seed=float(min(ratios)),
    )  # fmt: skip


def _bootstrap(
    sums: Float[np.ndarray, "C 3 G"], draws: int, seed: int
) -> tuple[Float[np.ndarray, "2 C"], Float[np.ndarray, "2 C"], Float[np.ndarray, " C"]]:
    """Low and high ends of difference and ratio, and p."""
    rng, count = np.random.default_rng(seed), sums.shape[-1]
    above, below = np.zeros(len(sums)), np.zeros(len(sums))
    for first in range(0, draws, CHUNK):
        size = min(CHUNK, draws - first)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        total, base, items = np.moveaxis(weights @ np.moveaxis(sums, 2, 1), 2, 0)  # (C, size) each
        known = items > 0
        gap = np.where(known, (total - base) / np.maximum(items, 1), np.nan)
        above, below = above + (gap >= 0).sum(1), below + (gap <= 0).sum(1)
        if first == 0:  # enough for the intervals; only p needs more
            ratio = np.where(known, total / np.maximum(base, 1e-12), np.nan)
            low, high = np.nanpercentile(np.stack([gap, ratio]), [2.5, 97.5], axis=2)
    return low, high, np.minimum(1.0, 2 * (1 + np.minimum(above, below)) / (1 + draws))
