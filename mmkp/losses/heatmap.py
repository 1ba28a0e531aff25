"""Losses of heatmaps, per item: they see grids and distributions, never pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


def heat_mse(
    heat: Float[Tensor, "B K h w"],
    target: Float[Tensor, "B K h w"],
    weight: Float[Tensor, "B K"],
    foreground: float = 0.0,
) -> Float[Tensor, " B"]:
    """Squared difference of the heat, the mean over the grid (Xiao et al., ECCV 2018, section 2).

    Args:
        heat, target: of peak 1.
        weight: of each keypoint.
        foreground: how much more a cell counts that lies on the target (see `foreground_weight`).
    """
    return _mean_over_cells((heat - target) ** 2, target, weight, foreground)


def adaptive_wing(
    heat: Float[Tensor, "B K h w"],
    target: Float[Tensor, "B K h w"],
    weight: Float[Tensor, "B K"],
    foreground: float = 0.0,
    shape: tuple[float, float, float, float] = (2.1, 14.0, 1.0, 0.5),
) -> Float[Tensor, " B"]:
    """A logarithm for small differences, steep on the target and flat off it; a line for large ones; mean over cells.

    Args:
        heat, target: of peak 1.
        weight: of each keypoint.
        foreground: how much more a cell counts that lies on the target (see `foreground_weight`).
        shape: alpha, omega, epsilon, and theta, the difference at which the line begins.

    Source: Wang et al., Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression, ICCV 2019, eq. 3.
    """
    alpha, omega, epsilon, theta = shape
    power, ratio = alpha - target, theta / epsilon
    bend = ratio**power
    slope = omega / (1 + bend) * power * ratio ** (power - 1) / epsilon
    offset = theta * slope - omega * torch.log1p(bend)
    difference = (heat - target).abs()
    near = omega * torch.log1p((difference.clamp_max(theta) / epsilon) ** power)
    return _mean_over_cells(
        torch.where(difference < theta, near, slope * difference - offset), target, weight, foreground
    )


def foreground_weight(target: Float[Tensor, "B K h w"], foreground: float) -> Float[Tensor, "B K h w"]:
    """1 + `foreground` for cells whose target, or a neighbour's of the eight, is at least 0.2, and 1 elsewhere.

    Source: Wang et al., ICCV 2019, section 4.4 (weighted loss map, there with a `foreground` of 10).
    """
    return 1 + foreground * (F.max_pool2d(target, 3, stride=1, padding=1) >= 0.2).to(target.dtype)


def _mean_over_cells(
    values: Float[Tensor, "B K h w"], target: Float[Tensor, "B K h w"], weight: Float[Tensor, "B K"], foreground: float
) -> Float[Tensor, " B"]:
    if foreground:
        values = values * foreground_weight(target, foreground)
    return weighted_mean(values.flatten(2).mean(-1), weight)
