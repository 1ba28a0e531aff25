"""Does the score mean something? Calibration error and reliability of every cell, from predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmkp import metrics
from mmkp.evaluation.predictions import Predictions
from mmkp.evaluation.score import MIN_GROUPS, PCK_MAIN, GroupBootstrap
from mmkp.schema import KeypointSchema

BINS = 15


def judged(
    predictions: Predictions, schema: KeypointSchema, condition: str, subset: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, rightness and item of every labelled point of a cell, flat; right is within `PCK_MAIN`.

    Items that lack all of the subset's modalities, and so were given the mean shape with the score 0, are left out.
    """
    length = schema.normalizer(predictions.true_xy, predictions.boxes)
    labelled = predictions.visible[condition] > 0
    xy = predictions.keypoints_xy[condition, subset]
    errors = metrics.normalized_errors(xy, predictions.true_xy, labelled, length)
    answered = (predictions.scores[condition, subset] > 0).any(1, keepdims=True)
    known = ~np.isnan(errors) & answered
    scores = predictions.scores[condition, subset][known].astype(np.float64)
    return scores, errors[known] <= PCK_MAIN, np.nonzero(known)[0]


def summarize_confidence(
    predictions: Predictions, schema: KeypointSchema, draws: GroupBootstrap
) -> tuple[dict[str, Any], dict[Any, metrics.ReliabilityTable]]:
    """Expected calibration error with its interval, mean score and accuracy by condition and subset; the tables."""
    found: dict[str, Any] = {}
    tables = {}
    for condition, subset in predictions.keypoints_xy:
        scores, right, item = judged(predictions, schema, condition, subset)
        if not len(scores):
            continue
        tables[condition, subset] = metrics.reliability_table(scores, right, BINS)
        found.setdefault(condition, {})[subset] = {
            "ece": {
                "mean": metrics.expected_calibration_error(scores, right, BINS), "n": len(scores),
                "ci95": _interval(scores, right, draws.index[item], draws), "bins": BINS,
            },
            "mean_score": float(scores.mean()), "accuracy": float(right.mean()), "threshold": PCK_MAIN,
        }  # fmt: skip
    return found, tables


def _interval(scores: np.ndarray, right: np.ndarray, group: np.ndarray, draws: GroupBootstrap) -> list[float] | None:
    """Bootstrap over groups. The error is never negative: the interval lies above 0 even where all is perfect."""
    if len(np.unique(group)) < MIN_GROUPS:
        return None
    index = np.clip(np.ceil(scores * BINS).astype(int) - 1, 0, BINS - 1)
    cell, size = group * BINS + index, draws.count * BINS
    sums = [np.bincount(cell, v, minlength=size).reshape(draws.count, BINS) for v in (scores, right.astype(float))]
    count = draws.draws @ np.bincount(cell, minlength=size).reshape(draws.count, BINS)
    gap = np.abs(draws.draws @ sums[0] - draws.draws @ sums[1]).sum(1) / np.maximum(count.sum(1), 1)
    return [float(v) for v in np.percentile(gap, [2.5, 97.5])]
