"""Losses of heatmaps, per item: they see grids and distributions, never pixels."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mmkp.codecs.heatmap import HeatmapTarget
from mmkp.losses.masking import weighted_mean


def heatmap_cross_entropy(
    log_density: Float[Tensor, "B K h w"], target: HeatmapTarget, weight: Float[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """Kullback-Leibler divergence from the target's Gaussian to the predicted distribution, nats.

    The divergence is the cross-entropy less the target's own entropy, so that 0 is perfect.
    """
    # products and sums, because autocast would run an einsum in half precision
    cross = -((log_density * target.row[..., :, None]).sum(-2) * target.column).sum(-1)
    entropy = -sum((p * p.clamp_min(1e-12).log()).sum(-1) for p in (target.row, target.column))
    return weighted_mean(cross - entropy, weight)


def heatmap_mse(
    log_density: Float[Tensor, "B K h w"], target: HeatmapTarget, weight: Float[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """Squared difference of the heatmaps, both scaled so that the target's peak is 1, summed over the grid."""
    heat = target.heatmap()
    peak = heat.flatten(2).amax(-1)[..., None, None]
    return weighted_mean((((log_density.exp() - heat) / peak) ** 2).flatten(2).sum(-1), weight)
