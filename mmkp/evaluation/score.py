"""Scores from predictions: metrics per item, then means with intervals over groups. Never sees a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mmkp import metrics
from mmkp.errors import InputError
from mmkp.evaluation.predictions import Predictions
from mmkp.metrics.arrays import known_mean, select
from mmkp.schema import KeypointSchema

DRAWS = 10_000
MIN_GROUPS = 5
EXACT = 15  # groups of which every exchange of signs is counted
CHUNK = 10_000  # draws at a time
NO_ERROR = 1e-12  # of the normalizer: what rounding leaves of a point that is met
PCK_THRESHOLDS = (0.05, 0.1, 0.2)
PCK_MAIN = 0.1
SEEN, HIDDEN = "visible_recall", "hidden_recall"


def summarize(
    predictions: Predictions, schema: KeypointSchema, protocol: dict[str, Any], untold: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The summary of DESIGN's section 4: every metric by condition and subset, with intervals and groups.

    Args:
        predictions: of the subsets that can be told.
        schema: of their keypoints.
        protocol: what the figures depend on.
        untold: subsets that no item can tell of, and why: their entries have that reason in place of a mean.

    Raises:
        InputError: the normalizer is known of no item.
    """
    length = schema.normalizer(predictions.true_xy, predictions.boxes)
    if not (length > 0).any():
        raise InputError(
            f"normalizer {schema.normalizer.name}", expected="at least one item of which it is known",
            got=f"none of {len(length)}", remedy=_remedy(schema),
        )  # fmt: skip
    draws = GroupBootstrap(predictions.groups)
    conditions: dict[str, Any] = {}
    for condition, visible in predictions.visible.items():
        cells = {s: xy for (c, s), xy in predictions.keypoints_xy.items() if c == condition}
        cells["mean_shape"] = predictions.mean_shape_xy
        conditions[condition] = {
            subset: _entry(metrics.normalized_errors(xy, predictions.true_xy, visible > 0, length), schema, draws)
            for subset, xy in cells.items()
        }
        conditions[condition] |= {s: _untold(schema, reason) for s, reason in (untold or {}).items()}
    full_protocol = {
        **protocol, "normalizer": schema.normalizer.name, "pck_threshold": PCK_MAIN, "bootstrap_draws": DRAWS,
        "bootstrap_over": "groups", "groups": int(draws.count),
    }  # fmt: skip
    for (condition, subset), seen in predictions.visibility.items():
        conditions[condition][subset] |= _visibility(seen, predictions.visible[condition], schema, draws)
    return {
        "n": len(predictions.ids), "protocol": full_protocol, "primary": "nme", "schema": schema.name,
        "conditions": conditions, "comparisons": compare_all(predictions, schema, length, draws),
    }  # fmt: skip


def _remedy(schema: KeypointSchema) -> str:
    if schema.normalizer.kind != "distance":
        return "Give the rows a box that has an area."
    ends = " and ".join(schema.keypoints[i] for i in schema.normalizer.points)
    return f"Label {ends}, between which it is measured, or give the data a schema with another normalizer."


def _untold(schema: KeypointSchema, reason: str) -> dict[str, Any]:
    """An entry without figures."""
    nothing = {"mean": None, "ci95": None, "n": 0, "reason": reason}
    names = ("nme", *(f"pck@{threshold:g}" for threshold in PCK_THRESHOLDS), "pck")
    return {name: {**nothing, "groups": dict.fromkeys(schema.groups, nothing)} for name in names}


def _entry(errors: np.ndarray, schema: KeypointSchema, draws: GroupBootstrap) -> dict[str, Any]:
    groups = schema.group_indices()
    entry = {"nme": _statistic(metrics.nme, errors, groups, draws)}
    for threshold in PCK_THRESHOLDS:
        name = f"pck@{threshold:g}"
        entry[name] = _statistic(lambda e, p=None, t=threshold: metrics.pck(e, t, p), errors, groups, draws)
    entry["pck"] = entry[f"pck@{PCK_MAIN:g}"]
    return entry


def _visibility(seen: np.ndarray, visible: np.ndarray, schema: KeypointSchema, draws: GroupBootstrap) -> dict[str, Any]:
    """Of the labelled keypoints that can be seen the share that the model calls so, and of the hidden ones likewise."""
    said = np.where(np.isnan(seen), np.nan, seen > 0.5)
    right = {SEEN: np.where(visible == 2, said, np.nan), HIDDEN: np.where(visible == 1, 1 - said, np.nan)}
    groups = schema.group_indices()

    def share(values: np.ndarray, points: Any = None) -> np.ndarray:
        return known_mean(select(values, points))

    return {name: _statistic(share, values, groups, draws) for name, values in right.items()}


def _statistic(metric: Any, errors: np.ndarray, groups: dict[str, np.ndarray], draws: GroupBootstrap) -> dict[str, Any]:
    return {
        **draws.interval(metric(errors)),
        "groups": {name: draws.interval(metric(errors, points)) for name, points in groups.items()},
    }


def compare_all(
    predictions: Predictions, schema: KeypointSchema, length: np.ndarray, draws: GroupBootstrap
) -> dict[str, Any]:
    """Paired comparisons of every subset that holds the image with the image alone, overall and by group."""
    found: dict[str, Any] = {}
    for condition in predictions.visible:
        seen = "+".join(part for part in condition.split("+") if part != "even_times") or "clear"
        base = predictions.keypoints_xy.get((seen, "image"))
        if base is None:
            continue
        labelled = predictions.visible[condition] > 0
        base_errors = metrics.normalized_errors(base, predictions.true_xy, labelled, length)
        for (c, subset), xy in predictions.keypoints_xy.items():
            if c == condition and subset != "image":
                errors = metrics.normalized_errors(xy, predictions.true_xy, labelled, length)
                parts: dict[str, Any] = {"all": None, **schema.group_indices()}
                found.setdefault(condition, {})[f"{subset} / image"] = {
                    name: draws.compare(metrics.nme(errors, p), metrics.nme(base_errors, p))
                    for name, p in parts.items()
                }
    return found


class GroupBootstrap:
    """The bootstrap over groups (clips, people), with the same draws for every figure, so that figures are paired.

    Args:
        groups: (N,) the group of each item.
        seed: of the draws.
    """

    def __init__(self, groups: np.ndarray, seed: int = 0) -> None:
        names, self.index = np.unique(groups, return_inverse=True)
        self.count = len(names)
        rng = np.random.default_rng(seed)
        self.draws = rng.multinomial(self.count, np.full(self.count, 1 / self.count), size=DRAWS).astype(np.float64)

    def _sums(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = ~np.isnan(values)
        total = np.bincount(self.index, np.where(known, values, 0.0), minlength=self.count)
        return total, np.bincount(self.index, known.astype(float), minlength=self.count)

    def _groups_with(self, values: np.ndarray) -> int:
        return len(np.unique(self.index[~np.isnan(values)]))

    def _means(self, values: np.ndarray) -> np.ndarray:
        total, known = self._sums(values)
        weight = self.draws @ known
        return np.where(weight > 0, self.draws @ total / np.maximum(weight, 1), np.nan)

    def interval(self, values: np.ndarray) -> dict[str, Any]:
        """Mean over items, 95 % interval over groups, and n; an interval of null carries its reason."""
        known = values[~np.isnan(values)]
        if not len(known):
            return {"mean": None, "ci95": None, "n": 0, "reason": "no labelled point"}
        made: dict[str, Any] = {"mean": float(known.mean()), "ci95": None, "n": len(known)}
        groups = self._groups_with(values)
        if groups < MIN_GROUPS:
            return {**made, "reason": f"{groups} groups; an interval needs at least {MIN_GROUPS}"}
        return {**made, "ci95": [float(v) for v in np.nanpercentile(self._means(values), [2.5, 97.5])]}

    def compare(self, values: np.ndarray, base: np.ndarray) -> dict[str, Any]:
        """Is `values` (an error) below `base`? Paired over groups.

        Returns:
            ratio of the means with its 95 % interval, p (one-sided: the share of draws without a gain; of at most 15
            groups the sign-flip test's, where that is larger), and the protocol's two words: better (p < 0.01),
            not_worse (upper end of the ratio at most 1.05); and worse (lower end of the ratio above 1).
        """
        both = ~(np.isnan(values) | np.isnan(base))
        values, base = np.where(both, values, np.nan), np.where(both, base, np.nan)
        if not both.any():
            return {"ratio": None, "ci95": None, "p": None, "reason": "no labelled point"}
        if np.nanmean(base) < NO_ERROR:
            return {"ratio": None, "ci95": None, "p": None, "reason": "nothing to be better than: an error of 0"}
        ratio = float(np.nanmean(values) / np.nanmean(base))
        groups = self._groups_with(values)
        if groups < MIN_GROUPS:
            return {"ratio": ratio, "ci95": None, "p": None, "reason": f"{groups} groups"}
        drawn, drawn_base = self._means(values), self._means(base)
        ratios = drawn / np.maximum(drawn_base, 1e-12)
        low, high = (float(v) for v in np.nanpercentile(ratios, [2.5, 97.5]))
        p = float((1 + np.sum(drawn >= drawn_base)) / (1 + DRAWS))
        if groups <= EXACT:  # so few that the bootstrap promises too much
            gap = self._sums(values)[0] - self._sums(base)[0]
            both_sides = float(sign_flips(gap[None])[0])
            p = max(p, both_sides / 2 if gap.sum() < 0 else 1 - both_sides / 2)
        return {
            "ratio": ratio, "ci95": [low, high], "p": p, "better": p < 0.01, "not_worse": high <= 1.05, "worse": low > 1
        }  # fmt: skip


def sign_flips(gaps: Float[np.ndarray, "C G"], draws: int = DRAWS, seed: int = 0) -> Float[np.ndarray, " C"]:
    """The two-sided p of the sign-flip test (Fisher's, for pairs): of all ways to exchange the two errors within groups
    the share that differs as much as what was found.

    Args:
        gaps: each group's summed difference; 0 where a group says nothing.
        draws: of signs, where there are more than 15 groups; else every way is counted.
        seed: of the draws.
    """
    count = gaps.shape[1]
    found = np.abs(gaps.sum(1)) * (1 - 1e-12)  # what a rounding tells apart is as much
    if count <= EXACT:
        ways = np.arange(1 << (count - 1))[:, None] >> np.arange(count) & 1  # the last group's sign stays: both sides
        return (np.abs((1 - 2.0 * ways) @ gaps.T) >= found).mean(0)
    rng, as_much = np.random.default_rng(seed), np.zeros(len(gaps))
    for first in range(0, draws, CHUNK):
        signs = 1 - 2.0 * rng.integers(0, 2, (min(CHUNK, draws - first), count))
        as_much += (np.abs(signs @ gaps.T) >= found).sum(0)
    return (1 + as_much) / (1 + draws)
