"""What all losses share: the mean over the keypoints that count."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def weighted_mean(values: Float[Tensor, "B K"], weight: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """The mean over keypoints by weight; 0 for an item in which every weight is 0."""
    return (values * weight).sum(-1) / weight.sum(-1).clamp_min(1e-6)
