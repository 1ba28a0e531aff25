"""The result beside its baselines on the same items: errors, intervals, and paired ratios, from written predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mmkp import metrics
from mmkp.errors import InputError
from mmkp.evaluation.predictions import Predictions
from mmkp.evaluation.score import GroupBootstrap
from mmkp.schema import KeypointSchema

RESULT = "fine-tuned"


@dataclass
class Comparison:
    """What was measured.

    Attributes:
        subset: of the modalities.
        n, groups: items and groups.
        rows: condition -> name -> `nme` (mean, ci95, n, reason) and, for baselines, `ratio` of the result to it
            (ratio, ci95, p, better).
    """

    subset: str
    n: int
    groups: int
    normalizer: str
    rows: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For summary.json."""
        return {"subset": self.subset, "n": self.n, "groups": self.groups, "conditions": self.rows}


def compare(folders: dict[str, Path], schema: KeypointSchema, subset: str, mean_shape: bool = True) -> Comparison:
    """Compare evaluations of the same items.

    Args:
        folders: name -> an evaluation's folder; `fine-tuned` is the result.
        schema: of the keypoints.
        subset: of the modalities, as the evaluations name it.
        mean_shape: whether the training's mean shape in each item's box is a baseline.

    Raises:
        InputError: evaluations of other items.
    """
    made = {name: Predictions.load(folder) for name, folder in folders.items()}
    own = made[RESULT]
    for name, other in made.items():
        if not np.array_equal(other.ids, own.ids):
            raise InputError(f"comparison with {name}", expected="the same items", got="others")
    draws = GroupBootstrap(own.groups)
    found = Comparison(subset, len(own.ids), int(draws.count), schema.normalizer.name)
    for condition in own.visible:
        if "even_times" in condition or (condition, subset) not in own.keypoints_xy:
            continue
        errors = {name: _errors(p, p.keypoints_xy[condition, subset], condition, schema) for name, p in made.items()}
        if mean_shape:
            errors["mean shape"] = _errors(own, own.mean_shape_xy, condition, schema)
        found.rows[condition] = {
            name: {"nme": draws.interval(values)}
            | ({} if name == RESULT else {"ratio": draws.compare(errors[RESULT], values)})
            for name, values in errors.items()
        }
    return found


def _errors(
    predictions: Predictions, xy: Float[np.ndarray, "N K 2"], condition: str, schema: KeypointSchema
) -> Float[np.ndarray, " N"]:
    """NME of every item."""
    length = schema.normalizer(predictions.true_xy, predictions.boxes)
    labelled = predictions.visible[condition] > 0
    return metrics.nme(metrics.normalized_errors(xy, predictions.true_xy, labelled, length))
