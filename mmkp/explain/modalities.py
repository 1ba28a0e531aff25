"""What each modality is worth: Shapley values of the error, by condition and group of keypoints. Never sees a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mmkp import metrics
from mmkp.evaluation.predict import effective_condition
from mmkp.evaluation.predictions import Predictions
from mmkp.evaluation.score import GroupBootstrap
from mmkp.explain.shapley import shapley_values
from mmkp.schema import KeypointSchema

ALL = "all"  # every keypoint


def point_groups(schema: KeypointSchema) -> dict[str, np.ndarray]:
    """All keypoints under `all`, then the schema's groups; index arrays."""
    return {ALL: np.arange(schema.num_keypoints), **schema.group_indices()}


def subset_errors(
    predictions: Predictions, schema: KeypointSchema, condition: str, modalities: Sequence[str]
) -> Float[np.ndarray, "subsets N K"]:
    """The normalized error of every keypoint for every subset of the modalities.

    Returns:
        (2^M, N, K): modality i belongs to row s where bit i of s is set; row 0, nothing known, is the mean shape.
        NaN where nothing is labelled.
    """
    length = schema.normalizer(predictions.true_xy, predictions.boxes)
    labelled = predictions.visible[condition] > 0
    answers = [predictions.mean_shape_xy]
    for number in range(1, 1 << len(modalities)):
        subset = "+".join(m for i, m in enumerate(modalities) if number >> i & 1)
        cells = predictions.keypoints_xy
        found = cells.get((condition, subset))  # a control of the text alone is stored only where a text is in play
        answers.append(cells[effective_condition(condition, subset), subset] if found is None else found)
    return np.stack([metrics.normalized_errors(xy, predictions.true_xy, labelled, length) for xy in answers])


def attribute(
    predictions: Predictions, schema: KeypointSchema, conditions: Sequence[str], modalities: Sequence[str]
) -> dict[str, Any]:
    """Shapley values of the modalities, by condition and group of keypoints.

    The value of a subset is minus the item's NME with that subset; that of nothing is minus the NME of the mean shape.
    So a modality's value is the error that it takes away, and the values of an item sum to what all of them take away.

    Returns:
        condition -> group -> {`shapley`: {modality: statistic}, `gain`, `prior`, `error`: statistic}; a statistic has
        mean, ci95 and n (`GroupBootstrap.interval`), in the schema's normalizer. `prior` is the NME of the mean shape,
        `error` that of all modalities, `gain` their difference.
    """
    draws = GroupBootstrap(predictions.groups)
    found: dict[str, Any] = {}
    for condition in conditions:
        errors = subset_errors(predictions, schema, condition, modalities)
        found[condition] = {
            group: _of_group(np.stack([metrics.nme(e, points) for e in errors]), modalities, draws)
            for group, points in point_groups(schema).items()
        }
    return found


def _of_group(
    errors: Float[np.ndarray, "subsets N"], modalities: Sequence[str], draws: GroupBootstrap
) -> dict[str, Any]:
    values = shapley_values(-errors)
    return {
        "shapley": {m: draws.interval(v) for m, v in zip(modalities, values, strict=True)},
        "gain": draws.interval(errors[0] - errors[-1]),
        "prior": draws.interval(errors[0]),
        "error": draws.interval(errors[-1]),
    }
