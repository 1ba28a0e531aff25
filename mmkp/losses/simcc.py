"""The loss of SimCC, per item."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mmkp.losses.masking import weighted_mean


def simcc_divergence(
    log_density: Float[Tensor, "B K N"], density: Float[Tensor, "B K N"], weight: Float[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """Kullback-Leibler divergence from the smoothed labels to the prediction, nats, columns and rows summed.

    Args:
        log_density: predicted; columns and rows stand one after the other, as the codec gives them.
        density: of the labels, likewise.
        weight: of the points.
    """
    return weighted_mean((density * (density.clamp_min(1e-12).log() - log_density)).sum(-1), weight)
