"""The losses of part affinity fields and their heat, per item."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mmkp.losses.masking import weighted_mean


def field_squares(
    fields: Float[Tensor, "B E 2 h w"], target: Float[Tensor, "B E 2 h w"], weight: Float[Tensor, "B E"]
) -> Float[Tensor, " B"]:
    """Squared length of the difference of the vectors, summed over the grid, the mean over limbs.

    Source: Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields, CVPR 2017, eq. 5.
    """
    return weighted_mean((fields - target).square().flatten(2).sum(-1), weight)


def heat_squares(
    heat: Float[Tensor, "B C h w"], target: Float[Tensor, "B C h w"], weight: Float[Tensor, "B C"]
) -> Float[Tensor, " B"]:
    """Squared difference of the heat, summed over the grid, the mean over channels.

    Source: Cao et al., CVPR 2017, eq. 5.
    """
    return weighted_mean((heat - target).square().flatten(2).sum(-1), weight)
