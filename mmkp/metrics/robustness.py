"""Robustness against corruptions, for errors: lower is better.

The papers write these for an accuracy. Here the performance of a model is minus its error, so that every robustness
stays "higher is better", while the two corruption errors of Hendrycks and Dietterich stay "lower is better".

A *curve* is (..., S + 1): the error e_0 on clear data and e_1 ... e_S at S severities (1 to S unless others are
named), in any one unit (NME).
A baseline has the shape of the curves; its axes have names of their own so that another shape meets a plain error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from mmkp.errors import InputError
from mmkp.metrics.arrays import Array, as_double, namespace, summary

CONFLICT_LIMIT = 1.10  # a lying modality may cost a tenth of the error of the image alone


@runtime_checkable
class PairedBootstrap(Protocol):
    """What compares two errors item by item with an interval over groups: mmkp.evaluation.score.GroupBootstrap."""

    def compare(self, values: np.ndarray, base: np.ndarray) -> dict[str, Any]: ...


def severity_area(curves: Float[Array, "*curves S"], at: Sequence[int | float] | None = None) -> Any:
    """Area under the error over severity, by trapezoids, the severities v_0 ... v_S scaled to an axis of length 1.

        A(e) = sum_{s=1..S} (v_s - v_{s-1}) / (v_S - v_0) (e_{s-1} + e_s) / 2

    Args:
        curves: (..., S + 1), S at least 1.
        at: the S + 1 severities in rising order, 0 for clear data; evenly spread without.

    Returns:
        (...) in the unit of the errors; a flat curve has its own height as area. NaN where a severity is not known.
    """
    _check("severity_area", curves)
    values = as_double(curves)
    middles = (values[..., 1:] + values[..., :-1]) / 2
    if at is None:
        return middles.mean(-1)
    widths = np.diff(np.asarray(at, dtype=np.float64))
    if len(at) != values.shape[-1] or not (widths > 0).all():
        expected = f"{values.shape[-1]} severities in rising order"
        raise InputError("severity_area", expected=expected, got=str(list(at)))
    return sum(float(width) * middles[..., i] for i, width in enumerate(widths / widths.sum()))


def relative_robustness(
    curves: Float[Array, "*curves S"], baseline: Float[Array, "*base B"] | None = None,
    at: Sequence[int | float] | None = None,
) -> Any:  # fmt: skip
    """How good a model is under corruption, whatever it is on clear data.

        tau(f) = -A(e_f), or with a baseline b: tau(f, b) = A(e_b) - A(e_f)

    Args:
        curves: (..., S + 1) of the model.
        baseline: the same shape, of the model to compare with; 0 is then as good, above 0 better.
        at: the severities, as in `severity_area`.

    Returns:
        (...) in the unit of the errors, higher is better.

    Source:
        MultiBench (Liang et al., NeurIPS Datasets and Benchmarks 2021): area under the performance over the strength
        of the imperfection (their eval_scripts/robustness.py), here with minus the error as performance and an axis of
        length 1. With a baseline it is tau of Taori et al. (NeurIPS 2020), two models compared under shift.
    """
    if baseline is None:
        return -severity_area(curves, at)
    _check_pair("relative_robustness", curves, baseline)
    return severity_area(baseline, at) - severity_area(curves, at)


def effective_robustness(
    curves: Float[Array, "*curves S"], baseline: Float[Array, "*base B"], at: Sequence[int | float] | None = None
) -> Any:
    """What a model keeps under corruption beyond what its error on clear data lets one expect.

        rho(f) = A(beta) - A(e_f),    beta_s = b_s + e_0 - b_0

    beta is the baseline's curve, shifted to the model's own error on clear data: rho is the area by which the
    baseline's error rises more than the model's.

    Args:
        curves: (..., S + 1) of the model.
        baseline: the same shape, of the baseline (late fusion in the paper).
        at: the severities, as in `severity_area`.

    Returns:
        (...) in the unit of the errors: 0 for the baseline itself and for any curve parallel to it, higher is better.

    Source:
        MultiBench (Liang et al. 2021, their eval_scripts/robustness.py): sum over strengths of f - beta_f, here
        integrated by trapezoids over an axis of length 1, so that the number of severities does not matter. After rho
        of Taori et al. 2020; see `effective_robustness_by_trend` for their own beta.
    """
    _check_pair("effective_robustness", curves, baseline)
    own, base = as_double(curves), as_double(baseline)
    return severity_area(base - base[..., :1], at) - severity_area(own - own[..., :1], at)


def effective_robustness_by_trend(
    clear: Float[Array, " N"], corrupted: Float[Array, " N"],
    baseline_clear: Float[Array, " M"], baseline_corrupted: Float[Array, " M"],
) -> Float[Array, " N"]:  # fmt: skip
    """Effective robustness of N models against the trend of M baselines.

        rho(f) = beta(e_clear) - e_corrupted,    log beta(e) = a + b log e by least squares over the baselines

    Args:
        clear, corrupted: errors of the models, above 0.
        baseline_clear, baseline_corrupted: of the baselines, which show at least two errors on clear data.

    Returns:
        (N,) in the unit of the errors, higher is better.

    Raises:
        InputError: an error that is not above 0; baselines through which no line goes.

    Source:
        Taori et al., Measuring Robustness to Natural Distribution Shifts in Image Classification, NeurIPS 2020: rho.
        Their fit is linear between logits of accuracies; an error has no upper bound, so here between logarithms.
    """
    xp = namespace(clear, corrupted, baseline_clear, baseline_corrupted)
    values = [as_double(v) for v in (clear, corrupted, baseline_clear, baseline_corrupted)]
    if not all(bool((v > 0).all()) for v in values) or len(baseline_clear) < 2:
        raise InputError("effective_robustness_by_trend", expected="errors above 0 and two baselines", got="others")
    log_clear, log_corrupted = xp.log(values[2]), xp.log(values[3])
    away = log_clear - log_clear.mean()
    spread = float((away**2).sum())
    if spread < 1e-12:
        raise InputError(
            "effective_robustness_by_trend", expected="baselines that differ on clear data", got="one error for all",
            remedy="Use effective_robustness, which needs one baseline only.",
        )  # fmt: skip
    slope = float((away * log_corrupted).sum()) / spread
    offset = float(log_corrupted.mean()) - slope * float(log_clear.mean())
    return xp.exp(offset + slope * xp.log(values[0])) - values[1]


def corruption_error(
    curves: Float[Array, "*curves S"], baseline: Float[Array, "*base B"], relative: bool = False
) -> Any:
    """Error over all severities of a corruption, in units of the baseline's.

        CE = sum_{s>=1} e_s / sum_{s>=1} b_s,    relative CE = sum_{s>=1} (e_s - e_0) / sum_{s>=1} (b_s - b_0)

    Args:
        curves: (..., S + 1) of the model.
        baseline: the same shape.
        relative: the rise above clear data instead of the error itself.

    Returns:
        (...) 1 is as bad as the baseline, lower is better; NaN where the baseline's sum is not above 0.

    Source:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
        ICLR 2019: CE and relative CE; written there for error rates, and the same for any error.
    """
    _check_pair("corruption_error", curves, baseline)
    xp = namespace(curves, baseline)
    own, base = (as_double(c[..., 1:]) - (as_double(c[..., :1]) if relative else 0.0) for c in (curves, baseline))
    total, base_total = own.sum(-1), base.sum(-1)
    there = base_total > 0
    return xp.where(there, total / xp.where(there, base_total, 1.0), np.nan)


def mean_corruption_error(
    curves: Float[Array, "C S"], baseline: Float[Array, "C B"], relative: bool = False
) -> float | None:
    """Summary: mean of `corruption_error` over C corruptions, each normalised by itself; None where none is known.

    Source: Hendrycks and Dietterich 2019: mCE and relative mCE.
    """
    return summary(corruption_error(curves, baseline, relative))


def conflict_ratio(
    lying: Float[np.ndarray, " N"], alone: Float[np.ndarray, " M"], bootstrap: PairedBootstrap,
    limit: float = CONFLICT_LIMIT,
) -> dict[str, Any]:  # fmt: skip
    """Error with a modality that lies, over the error of the image alone, paired item by item.

        R = mean_i e_i(image, lie) / mean_i e_i(image)

    Args:
        lying: (N,) errors of all modalities together, one of them another clip's; NaN where not known.
        alone: (N,) errors of the image alone, in the same order.
        bootstrap: over the groups of the N items.
        limit: what the ratio may be.

    Returns:
        What `bootstrap.compare` says (ratio, ci95, or a reason), the limit, p (one-sided, of a ratio below the limit),
        and `within`: whether the upper end of the interval keeps it; None without an interval.
    """
    if lying.shape != alone.shape:
        raise InputError("conflict_ratio", expected="errors of the same items", got=f"{lying.shape}, {alone.shape}")
    found = bootstrap.compare(lying, alone)
    within = None if found.get("ci95") is None else bool(found["ci95"][1] <= limit)
    return {**found, "p": bootstrap.compare(lying, limit * alone)["p"], "limit": limit, "within": within}


def _check(where: str, curves: Any) -> None:
    if curves.shape[-1] < 2:
        raise InputError(where, expected="errors on clear data and at one severity or more", got=f"{curves.shape[-1]}")


def _check_pair(where: str, curves: Any, baseline: Any) -> None:
    _check(where, curves)
    if curves.shape != baseline.shape:
        got = f"{tuple(curves.shape)} and {tuple(baseline.shape)}"
        raise InputError(where, expected="curves of one shape", got=got, remedy="Give the same severities for both.")
