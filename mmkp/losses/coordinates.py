"""Losses of coordinates, per item, in the unit of the coordinates."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mmkp.losses.masking import weighted_mean


def euclidean(
    xy: Float[Tensor, "B K 2"], target_xy: Float[Tensor, "B K 2"], weight: Float[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """Distance between points, in the unit of the points; smooth at 0 (below a hundredth of the unit)."""
    return weighted_mean(((xy - target_xy).square().sum(-1) + 1e-4).sqrt() - 1e-2, weight)
