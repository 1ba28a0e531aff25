"""Losses of coordinates, per item. Lengths are in the unit of the coordinates; x and y are summed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmkp.losses.masking import weighted_mean


def euclidean(
    xy: Float[Tensor, "B K 2"], target_xy: Float[Tensor, "B K 2"], weight: Float[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """Distance between points, in the unit of the points; smooth at 0 (below a hundredth of the unit)."""
    return weighted_mean(((xy - target_xy).square().sum(-1) + 1e-4).sqrt() - 1e-2, weight)


def squared(
    xy: Float[Tensor, "B K 2"], target_xy: Float[Tensor, "B K 2"], weight: Float[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """L2: the squared distance between points (DeepPose, Toshev and Szegedy, CVPR 2014)."""
    return weighted_mean((xy - target_xy).square().sum(-1), weight)


def absolute(
    xy: Float[Tensor, "B K 2"], target_xy: Float[Tensor, "B K 2"], weight: Float[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """L1: the absolute differences of x and of y."""
    return weighted_mean((xy - target_xy).abs().sum(-1), weight)


def smooth_l1(
    xy: Float[Tensor, "B K 2"], target_xy: Float[Tensor, "B K 2"], weight: Float[Tensor, "B K"], beta: float = 1.0
) -> Float[Tensor, " B"]:
    """Squares up to the difference `beta`, straight beyond (Girshick, Fast R-CNN, ICCV 2015, eq. 3)."""
    return weighted_mean(F.smooth_l1_loss(xy, target_xy, beta=beta, reduction="none").sum(-1), weight)


def wing(
    xy: Float[Tensor, "B K 2"],
    target_xy: Float[Tensor, "B K 2"],
    weight: Float[Tensor, "B K"],
    width: float = 10.0,
    curvature: float = 2.0,
) -> Float[Tensor, " B"]:
    """A logarithm up to the difference `width`, straight beyond: small errors pull harder than they do in L1.

    Source: Feng et al., Wing Loss for Robust Facial Landmark Localisation, CVPR 2018, eq. 5; w is `width`, epsilon
    `curvature`, the unit there is the px of the network's input.
    """
    difference = (xy - target_xy).abs()
    shift = width - width * math.log1p(width / curvature)
    curve = width * torch.log1p(difference.clamp_max(width) / curvature)
    return weighted_mean(torch.where(difference < width, curve, difference - shift).sum(-1), weight)


def oks(
    xy: Float[Tensor, "B K 2"],
    target_xy: Float[Tensor, "B K 2"],
    weight: Float[Tensor, "B K"],
    sigmas: Float[Tensor, " K"],
    area: float,
) -> Float[Tensor, " B"]:
    """1 - exp(-d^2 / (2 s^2 k^2)), the part of COCO's object keypoint similarity that is missing.

    Args:
        xy, target_xy: points.
        weight: of the points.
        sigmas: of the schema; k = 2 sigma, as COCO counts.
        area: s^2, the object's, in the square of the points' unit.
    """
    exponent = (xy - target_xy).square().sum(-1) / (2 * area * (2 * sigmas).square())
    return weighted_mean(-torch.expm1(-exponent), weight)
