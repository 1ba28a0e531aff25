"""SimCC: two classifications per keypoint, over the columns and over the rows, in bins finer than a pixel.

Source: Li et al., SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation, ECCV 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mmkp import geometry
from mmkp.codecs.regression import learnable
from mmkp.errors import InputError
from mmkp.experts import join_logits

DECODERS = ("argmax", "soft_argmax")
SCORE_RADIUS_SIGMAS = 2  # holds 95 % of a Gaussian


class SimccTarget(NamedTuple):
    """The targets of a batch: columns and rows each sum to 1; `weight` is 0 for a point that is not learned from."""

    column: Float[Tensor, "B K U"]
    row: Float[Tensor, "B K V"]
    weight: Float[Tensor, "B K"]

    def both(self) -> Float[Tensor, "B K N"]:
        """Columns and rows as they stand in the head's output."""
        return torch.cat([self.column, self.row], dim=-1)


@dataclass(frozen=True)
class SimccCodec:
    """Keypoints in the input frame <-> logits over the bins of x, then over the bins of y.

    Args:
        input_size_hw: px.
        stride: not used: the bins divide the input's pixels.
        split_ratio: bins per px (the paper takes 2 and 3).
        sigma_bins: standard deviation of the Gaussian that smooths the labels, bins (6 in the authors' code).
        decode_by: `argmax`, the best bin with the peak of the parabola through it and its neighbours in the logarithm,
            which is exact for a Gaussian; or `soft_argmax`, the mean of each distribution.
    """

    input_size_hw: tuple[int, int]
    stride: int = 4
    split_ratio: int = 2
    sigma_bins: float = 6.0
    decode_by: str = "argmax"

    declares_distribution = True
    joins = ("average", "weighted", "product")
    loss = "simcc"

    def __post_init__(self) -> None:
        if self.decode_by not in DECODERS:
            raise InputError("codec.decode_by", expected=" or ".join(DECODERS), got=repr(self.decode_by))
        if not self.sigma_bins > 0:
            raise InputError("codec.sigma_bins", expected="a length above 0, in bins", got=str(self.sigma_bins))
        if type(self.split_ratio) is not int or self.split_ratio < 1:
            raise InputError(
                "codec.split_ratio", expected="a whole number of bins per px, at least 1", got=repr(self.split_ratio)
            )

    @property
    def bins_xy(self) -> tuple[int, int]:
        """Bins along x and along y."""
        height, width = self.input_size_hw
        return width * self.split_ratio, height * self.split_ratio

    @property
    def resolution_px(self) -> float:
        """The largest error of encode and decode on a point at least 4 sigma from the border, px of the input."""
        return 0.02

    def raw_shape(self, num_keypoints: int) -> tuple[int, ...]:
        """(K, bins of x + bins of y)."""
        return num_keypoints, sum(self.bins_xy)

    def encode(self, keypoints_xy: Float[Tensor, "B K 2"], labelled: Bool[Tensor, "B K"] | None = None) -> SimccTarget:
        """Targets for a batch.

        Args:
            keypoints_xy: px, input frame; NaN where not known.
            labelled: False where the point carries no label.

        Returns:
            Targets; a point outside the input, NaN or not labelled gets weight 0.
        """
        xy, weight = learnable(keypoints_xy, labelled, self.input_size_hw)
        at = geometry.grid_to_input(xy, self.split_ratio)  # a px is a cell of `split_ratio` bins
        column, row = (self._smoothed(at[..., axis], bins) for axis, bins in enumerate(self.bins_xy))
        return SimccTarget(column, row, weight)

    def _smoothed(self, position: Float[Tensor, "B K"], bins: int) -> Float[Tensor, "B K N"]:
        at = torch.arange(bins, device=position.device, dtype=position.dtype)
        return torch.softmax(-((at - position[..., None]) ** 2) / (2 * self.sigma_bins**2), dim=-1)

    def raw_of(self, target: SimccTarget) -> Float[Tensor, "B K N"]:
        """The output of a head that knows the target."""
        return target.both().clamp_min(1e-30).log()

    def log_density(self, raw: Float[Tensor, "B K N"]) -> Float[Tensor, "B K N"]:
        """The logarithms of the two distributions that the head's output declares; each sums to 1 over its bins."""
        return torch.cat([torch.log_softmax(part, -1) for part in raw.float().split(self.bins_xy, -1)], dim=-1)

    def density(self, raw: Float[Tensor, "B K N"]) -> Float[Tensor, "B K N"]:
        """The two distributions that the head's output declares."""
        return torch.cat([torch.softmax(part, -1) for part in raw.float().split(self.bins_xy, -1)], dim=-1)

    def from_log_density(self, log_density: Float[Tensor, "B K N"]) -> Float[Tensor, "B K N"]:
        """The head's output that declares the given distributions, which need not be normalised."""
        return log_density

    def join(
        self, kind: str, members: Sequence[Float[Tensor, "B K N"]], weights: Float[Tensor, "B M"]
    ) -> Float[Tensor, "B K N"]:
        """What several heads say together (see mmkp.experts), each axis by itself."""
        return self.from_log_density(join_logits(kind, members, weights, self.density))

    def decode(self, raw: Float[Tensor, "B K N"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints and how sure the distributions are of them.

        Returns:
            keypoints_xy (B, K, 2) px, input frame; scores (B, K) in [0, 1]: the probability within 2 sigma of the
            keypoint along both axes, over what a target has there.
        """
        axes = self.log_density(raw).split(self.bins_xy, -1)
        find = _peak if self.decode_by == "argmax" else _mean
        at = [find(log_density) for log_density in axes]
        scores = [self._mass(log_density, place) for log_density, place in zip(axes, at, strict=True)]
        return geometry.input_to_grid(torch.stack(at, -1), self.split_ratio), scores[0] * scores[1]

    def _mass(self, log_density: Float[Tensor, "B K N"], position: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        bins, radius = log_density.shape[-1], max(1, round(SCORE_RADIUS_SIGMAS * self.sigma_bins))
        middle = position.round().long().clamp(0, bins - 1)
        below = F.pad(log_density.exp().cumsum(-1), (1, 0))
        ends = torch.stack([(middle - radius).clamp_min(0), (middle + radius + 1).clamp_max(bins)], -1)
        low, high = below.gather(-1, ends).unbind(-1)
        whole = torch.erf(torch.tensor((radius + 0.5) / (self.sigma_bins * 2**0.5))).item()
        return ((high - low) / whole).clamp(0, 1)


def _mean(log_density: Float[Tensor, "B K N"]) -> Float[Tensor, "B K"]:
    """The mean of the distribution, bins."""
    at = torch.arange(log_density.shape[-1], device=log_density.device, dtype=log_density.dtype)
    return (log_density.exp() * at).sum(-1)


def _peak(log_density: Float[Tensor, "B K N"]) -> Float[Tensor, "B K"]:
    """The peak of the parabola through the best bin and its neighbours, bins."""
    best = log_density.argmax(-1)
    inner = best.clamp(1, log_density.shape[-1] - 2)
    steps = torch.arange(-1, 2, device=best.device)
    left, middle, right = log_density.gather(-1, inner[..., None] + steps).unbind(-1)
    bend = left - 2 * middle + right
    curved = bend < -1e-6
    offset = (left - right) / (2 * torch.where(curved, bend, -1.0))
    return torch.where(curved, inner + offset.clamp(-1.5, 1.5), best.to(log_density.dtype))
