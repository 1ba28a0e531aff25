"""Criteria: what is minimised, per item, for a codec's targets. Built from the pure functions of mmkp.losses.

A criterion is a module, because some learn (the flow of RLE); `codecs` lists the codecs whose targets it understands.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkp.criteria.heatmap import HeatmapCriterion
from mmkp.criteria.heatmap_regression import HeatmapRegressionCriterion
from mmkp.criteria.openpose import OpenposeCriterion
from mmkp.criteria.regression import RegressionCriterion
from mmkp.criteria.rle import RleCriterion
from mmkp.criteria.simcc import SimccCriterion
from mmkp.errors import InputError, choose
from mmkp.schema import KeypointSchema

CRITERIA: dict[str, Any] = {
    "heatmap": HeatmapCriterion,
    "heatmap_regression": HeatmapRegressionCriterion,
    "regression": RegressionCriterion,
    "rle": RleCriterion,
    "simcc": SimccCriterion,
    "openpose": OpenposeCriterion,
}


def make_criterion(name: str, codec_name: str, codec: Any, schema: KeypointSchema, **options: Any) -> nn.Module:
    """A criterion by name.

    Args:
        name: of the criterion.
        codec_name, codec: whose targets it compares with.
        schema: of the keypoints.
        options: the criterion's own.

    Raises:
        InputError: no such criterion, a codec that it does not fit, an option that it does not have.
    """
    factory: Any = choose("loss.name", name, CRITERIA)
    if codec_name not in factory.codecs:
        fitting = [n for n, c in CRITERIA.items() if codec_name in c.codecs]
        raise InputError(
            f"loss {name}", expected=f"a codec among {', '.join(factory.codecs)}", got=repr(codec_name),
            remedy=f"For {codec_name} choose the loss {' or '.join(fitting)}." if fitting else "",
        )  # fmt: skip
    try:
        return factory(codec, schema, **options)
    except TypeError as error:
        raise InputError(f"loss {name}", expected="options that it has", got=str(options)) from error


def point_weights(schema: KeypointSchema, group_weights: dict[str, float] | None) -> Tensor:
    """(K,) the weight of each keypoint's loss: 1, or what its group of the schema is given.

    Raises:
        InputError: a group that the schema lacks.
    """
    weights = torch.ones(schema.num_keypoints)
    for group, weight in (group_weights or {}).items():
        if group not in schema.groups:
            raise InputError(
                "loss.group_weights", expected=f"a group of {schema.name}: {', '.join(schema.groups)}", got=repr(group)
            )
        weights[list(schema.groups[group])] = float(weight)
    return weights
