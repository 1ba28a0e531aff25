"""Does a confidence mean what it says? Reliability tables and the expected calibration error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mmkp.errors import InputError
from mmkp.metrics.arrays import Array, as_double, namespace


class ReliabilityTable(NamedTuple):
    """A row per bin, (bins,) each; NaN confidence and accuracy where a bin is empty."""

    confidence: Any
    accuracy: Any
    count: Any


def reliability_table(
    confidence: Float[Array, " *shape"], correct: Bool[Array, " *shape"], bins: int = 15, equal_mass: bool = False
) -> ReliabilityTable:
    """Mean confidence and share of right ones, by bin of confidence.

    Args:
        confidence: in [0, 1]. Any shape: index with a mask first to leave points out.
        correct: the same shape.
        bins: of equal width, bin i being (i / bins, (i + 1) / bins], with 0 in the first.
        equal_mass: bins of equal count instead; equal confidences share a bin.

    Raises:
        InputError: a confidence outside [0, 1] or NaN, fewer than one bin, two shapes.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 2-3.
    """
    xp = namespace(confidence, correct)
    if confidence.shape != correct.shape or bins < 1:
        got = f"{tuple(confidence.shape)}, {tuple(correct.shape)}, {bins} bins"
        raise InputError("reliability_table", expected="two arrays of one shape and at least one bin", got=got)
    confidence, right = as_double(confidence).reshape(-1), as_double(correct).reshape(-1)
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise InputError("confidence", expected="numbers in [0, 1]", got="others, or NaN")
    index = _equal_mass(confidence, bins, xp) if equal_mass else _equal_width(confidence, bins, xp)
    count = xp.bincount(index, minlength=bins)
    sums = [xp.bincount(index, weights=v, minlength=bins) for v in (confidence, right)]
    mean, accuracy = (xp.where(count > 0, s / count.clip(1), np.nan) for s in sums)
    return ReliabilityTable(mean, accuracy, count)


def expected_calibration_error(
    confidence: Float[Array, " *shape"], correct: Bool[Array, " *shape"], bins: int = 15, equal_mass: bool = False
) -> float | None:
    """Summary: mean distance of confidence and accuracy over the bins of `reliability_table`, weighted by count.

    Returns:
        In [0, 1]; None where there is nothing to judge.
    """
    table = reliability_table(confidence, correct, bins, equal_mass)
    there = table.count > 0
    if not there.any():
        return None
    share = as_double(table.count[there]) / as_double(table.count).sum()
    return float((share * abs(table.confidence[there] - table.accuracy[there])).sum())


def _equal_width(confidence: Any, bins: int, xp: Any) -> Any:
    edges = confidence.new_tensor(range(bins + 1)) if xp is not np else np.arange(bins + 1.0)
    return (xp.searchsorted(edges / bins, confidence) - 1).clip(0)


def _equal_mass(confidence: Any, bins: int, xp: Any) -> Any:
    ordered = xp.sort(confidence)
    rank = xp.searchsorted(ordered if xp is np else ordered.values, confidence)
    return rank * bins // max(len(confidence), 1)
