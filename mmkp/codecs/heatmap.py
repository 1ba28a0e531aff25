"""Heatmaps: a logit per keypoint and grid cell, read as a distribution over the grid.

Encode gives the two marginals of a Gaussian, whose outer product is the target heatmap: K * (h + w) numbers instead
of K * h * w, and still exact. Decode finds the keypoint between the cells, by DARK or by soft-argmax.
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
from mmkp.codecs import dark
from mmkp.errors import InputError
from mmkp.experts import join_logits

SCORE_RADIUS_CELLS = 2  # a 5x5 window: about 90 % of a Gaussian of sigma 1.25 cells


class HeatmapTarget(NamedTuple):
    """The targets of a batch. `row` and `column` each sum to 1; `weight` is 0 for a point that is not learned from."""

    row: Float[Tensor, "B K h"]
    column: Float[Tensor, "B K w"]
    xy_grid: Float[Tensor, "B K 2"]
    weight: Float[Tensor, "B K"]

    def heatmap(self) -> Float[Tensor, "B K h w"]:
        """The dense target, summing to 1 over the grid."""
        return self.row[..., :, None] * self.column[..., None, :]


def place_on_grid(
    keypoints_xy: Float[Tensor, "B K 2"], labelled: Bool[Tensor, "B K"] | None, stride: int, grid_hw: tuple[int, int]
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
    """Keypoints in the grid frame, and 1 for those to learn from: labelled and on the grid; the others lie at (0, 0).

    Args:
        keypoints_xy: px, input frame; NaN where not known.
        labelled: False where the point carries no label.
        stride: px of the input per grid cell.
        grid_hw: cells.
    """
    xy = geometry.input_to_grid(keypoints_xy.float(), stride)
    limits = xy.new_tensor([grid_hw[1] - 0.5, grid_hw[0] - 0.5])
    inside = ((xy > -0.5) & (xy < limits)).all(-1)
    weight = inside if labelled is None else inside & labelled
    return torch.where(weight[..., None], xy, torch.zeros_like(xy)), weight.float()


def density(logits: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
    """The distribution over the grid that logits declare."""
    return torch.softmax(logits.flatten(2), dim=-1).view(logits.shape)


def check_stride(stride: int, input_size_hw: tuple[int, int]) -> None:
    """Refuse a grid that does not divide the input.

    Raises:
        InputError: a stride that is no divisor of both sides.
    """
    if any(side % stride for side in input_size_hw):
        raise InputError("codec.stride", expected="a divisor of the input's sides", got=f"{stride} for {input_size_hw}")


@dataclass(frozen=True)
class HeatmapCodec:
    """Keypoints in the input frame <-> heatmaps on the grid.

    Args:
        input_size_hw: px.
        stride: px of the input per grid cell.
        sigma_grid: the Gaussian's standard deviation, cells.
        decode_by: `soft_argmax`, the mean of the whole distribution (Sun et al., Integral Human Pose Regression, ECCV
            2018), or `dark`, the peak of a second-order expansion of the logarithm (Zhang et al., Distribution-Aware
            Coordinate Representation, CVPR 2020, eq. 7).
    """

    input_size_hw: tuple[int, int]
    stride: int = 4
    sigma_grid: float = 1.25
    decode_by: str = "soft_argmax"

    declares_distribution = True
    joins = ("average", "weighted", "product")
    loss = "heatmap"

    def __post_init__(self) -> None:
        if self.decode_by not in ("soft_argmax", "dark"):
            raise InputError("codec.decode_by", expected="soft_argmax or dark", got=repr(self.decode_by))
        if not self.sigma_grid > 0:
            raise InputError("codec.sigma_grid", expected="a length above 0, in cells", got=str(self.sigma_grid))
        check_stride(self.stride, self.input_size_hw)

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Cells of the heatmap, height and width."""
        return self.input_size_hw[0] // self.stride, self.input_size_hw[1] // self.stride

    def raw_shape(self, num_keypoints: int) -> tuple[int, ...]:
        """(K, h, w)."""
        return num_keypoints, *self.grid_hw

    @property
    def resolution_px(self) -> float:
        """The largest error of encode and decode on a point at least 4 sigma from the border, px of the input."""
        return 0.02

    def encode(
        self, keypoints_xy: Float[Tensor, "B K 2"], labelled: Bool[Tensor, "B K"] | None = None
    ) -> HeatmapTarget:
        """Targets for a batch.

        Args:
            keypoints_xy: px, input frame; NaN where not known.
            labelled: False where the point carries no label.

        Returns:
            Targets; a point outside the input, NaN or not labelled gets weight 0.
        """
        height, width = self.grid_hw
        xy, weight = place_on_grid(keypoints_xy, labelled, self.stride, self.grid_hw)
        return HeatmapTarget(
            row=self._marginal(xy[..., 1], height), column=self._marginal(xy[..., 0], width), xy_grid=xy, weight=weight
        )

    def _marginal(self, position: Float[Tensor, "B K"], cells: int) -> Tensor:
        at = torch.arange(cells, device=position.device, dtype=position.dtype)
        return torch.softmax(-((at - position[..., None]) ** 2) / (2 * self.sigma_grid**2), dim=-1)

    def raw_of(self, target: HeatmapTarget) -> Float[Tensor, "B K h w"]:
        """The output of a head that knows the target."""
        return target.heatmap().clamp_min(1e-30).log()

    def log_density(self, raw: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
        """The logarithm of the distribution that the head's output declares; sums to 1 over the grid."""
        return torch.log_softmax(raw.float().flatten(2), dim=-1).view(raw.shape)

    def from_log_density(self, log_density: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
        """The head's output that declares the given distribution, which need not be normalised."""
        return log_density

    def join(
        self, kind: str, members: Sequence[Float[Tensor, "B K h w"]], weights: Float[Tensor, "B M"]
    ) -> Float[Tensor, "B K h w"]:
        """What several heads say together (see mmkp.experts)."""
        return self.from_log_density(join_logits(kind, members, weights, density))

    def expected_xy_grid(self, log_density: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K 2"]:
        """The mean of the distribution, in the grid frame: the differentiable decode that losses use."""
        density = log_density.exp()
        height, width = density.shape[-2:]
        columns = torch.arange(width, device=density.device, dtype=density.dtype)
        rows = torch.arange(height, device=density.device, dtype=density.dtype)
        # products and sums, because autocast would run a matrix product in half precision
        return torch.stack([(density.sum(-2) * columns).sum(-1), (density.sum(-1) * rows).sum(-1)], dim=-1)

    def decode(self, raw: Float[Tensor, "B K h w"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints and how sure the heatmap is of them.

        Returns:
            keypoints_xy (B, K, 2) px, input frame; scores (B, K) in [0, 1]: the probability within 2 cells of the
            keypoint, over what a target's Gaussian has there.
        """
        log_density = self.log_density(raw)
        xy = self.expected_xy_grid(log_density) if self.decode_by == "soft_argmax" else self._dark(log_density)
        return geometry.grid_to_input(xy, self.stride), self._scores(log_density.exp(), xy)

    def _scores(self, density: Float[Tensor, "B K h w"], xy: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
        side = 2 * SCORE_RADIUS_CELLS + 1
        near = F.avg_pool2d(density, side, stride=1, padding=SCORE_RADIUS_CELLS) * side**2
        height, width = density.shape[-2:]
        column = xy[..., 0].round().long().clamp(0, width - 1)
        row = xy[..., 1].round().long().clamp(0, height - 1)
        mass = near.flatten(2).gather(2, (row * width + column)[..., None])[..., 0]
        one_axis = torch.erf(torch.tensor((SCORE_RADIUS_CELLS + 0.5) / (self.sigma_grid * 2**0.5)))
        return (mass / one_axis.to(mass) ** 2).clamp(0, 1)

    def _dark(self, log_density: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K 2"]:
        row, column = dark.inner_cell(*dark.peak_cell(log_density), self.grid_hw)
        offset = dark.taylor_offset(dark.patch_around(log_density, row, column, 1))
        return torch.stack([column, row], -1) + offset
