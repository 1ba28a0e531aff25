"""Gaussian heatmaps: the heat itself is regressed, a Gaussian of peak 1 per keypoint, not a distribution.

As in Stacked Hourglass (Newell et al., ECCV 2016), Simple Baselines (Xiao et al., ECCV 2018) and HRNet (Sun et al.,
CVPR 2019), but the Gaussian stands at the keypoint itself and not at the nearest cell (Zhang et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmkp import geometry
from mmkp.codecs import dark
from mmkp.codecs.heatmap import check_stride, density, place_on_grid
from mmkp.errors import InputError
from mmkp.experts import join_logits, weighted_sum

DECODES = ("argmax", "quarter", "dark")
FLOOR = 1e-3  # of a peak of 1, below which heat says nothing; as in transformers' VitPose post-processing


class GaussianHeatmapTarget(NamedTuple):
    """The targets of a batch. `row` and `column` reach 1 at the keypoint; `weight` is 0 where nothing is learned."""

    row: Float[Tensor, "B K h"]
    column: Float[Tensor, "B K w"]
    xy_grid: Float[Tensor, "B K 2"]
    weight: Float[Tensor, "B K"]

    def heatmap(self) -> Float[Tensor, "B K h w"]:
        """The dense target, 1 at the keypoint."""
        return self.row[..., :, None] * self.column[..., None, :]


@dataclass(frozen=True)
class GaussianHeatmapCodec:
    """Keypoints in the input frame <-> heat on the grid.

    Args:
        input_size_hw: px.
        stride: px of the input per grid cell.
        sigma_grid: the Gaussian's standard deviation, cells; 2 in Simple Baselines and HRNet at 64x48 cells.
        decode_by: `argmax`, the middle of the hottest cell; `quarter`, a quarter cell from there towards the hotter
            neighbour, on each axis (Newell et al. 2016, section 3.2); `dark`, the peak of a second-order expansion of
            the logarithm of the blurred heat (Zhang et al. 2020, section 3.3).
        blur_kernel: side of the window that `dark` blurs with, cells, odd; 1: no blur.
        blur_sigma_grid: standard deviation of that blur, cells; None: OpenCV's for the window (2 for 11), as in the
            paper. transformers' VitPose takes 0.8.
    """

    input_size_hw: tuple[int, int]
    stride: int = 4
    sigma_grid: float = 2.0
    decode_by: str = "dark"
    blur_kernel: int = 11
    blur_sigma_grid: float | None = None

    declares_distribution = True
    raw_is_heat = True  # a head's last layer needs a bias, and starts near 0
    joins = ("average", "weighted", "product")
    loss = "heatmap_regression"

    def __post_init__(self) -> None:
        if self.decode_by not in DECODES:
            raise InputError("codec.decode_by", expected=" or ".join(DECODES), got=repr(self.decode_by))
        if not self.sigma_grid > 0:
            raise InputError("codec.sigma_grid", expected="a length above 0, in cells", got=str(self.sigma_grid))
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise InputError("codec.blur_kernel", expected="an odd number of cells", got=str(self.blur_kernel))
        if self.blur_sigma_grid is not None and not self.blur_sigma_grid > 0:
            raise InputError(
                "codec.blur_sigma_grid", expected="a length above 0, in cells", got=str(self.blur_sigma_grid)
            )
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
        """The largest error of encode and decode on an axis, px of the input: for a point at least 4 sigma from the
        border, and for `dark` a sigma of at least one cell.
        """
        return 0.02 if self.decode_by == "dark" else {"argmax": 0.5, "quarter": 0.25}[self.decode_by] * self.stride

    def encode(
        self, keypoints_xy: Float[Tensor, "B K 2"], labelled: Bool[Tensor, "B K"] | None = None
    ) -> GaussianHeatmapTarget:
        """Targets for a batch.

        Args:
            keypoints_xy: px, input frame; NaN where not known.
            labelled: False where the point carries no label.

        Returns:
            Targets; a point outside the input, NaN or not labelled gets weight 0.
        """
        height, width = self.grid_hw
        xy, weight = place_on_grid(keypoints_xy, labelled, self.stride, self.grid_hw)
        return GaussianHeatmapTarget(
            row=self._marginal(xy[..., 1], height), column=self._marginal(xy[..., 0], width), xy_grid=xy, weight=weight
        )

    def _marginal(self, position: Float[Tensor, "B K"], cells: int) -> Float[Tensor, "B K cells"]:
        at = torch.arange(cells, device=position.device, dtype=position.dtype)
        return torch.exp(-((at - position[..., None]) ** 2) / (2 * self.sigma_grid**2))

    def raw_of(self, target: GaussianHeatmapTarget) -> Float[Tensor, "B K h w"]:
        """The output of a head that knows the target."""
        return target.heatmap()

    def log_density(self, raw: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
        """The logarithm of the distribution that the heat declares: above a floor, and normalised over the grid."""
        return torch.log_softmax(log_above_floor(raw).flatten(2), dim=-1).view(raw.shape)

    def from_log_density(self, log_density: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
        """The heat of peak 1 that declares the given distribution, which need not be normalised."""
        return (log_density - log_density.amax((-2, -1), keepdim=True)).exp()

    def join(
        self, kind: str, members: Sequence[Float[Tensor, "B K h w"]], weights: Float[Tensor, "B M"]
    ) -> Float[Tensor, "B K h w"]:
        """What several heads say together (see mmkp.experts), as heat again; one head alone is left as it is.

        The joint distribution says where; its peak is as hot as the members are there, in their geometric mean for
        `product` and else in their arithmetic one. So heads that agree stay sure, and heads that do not lose.
        """
        heat = [x.float() for x in members]
        log_heat = [log_above_floor(x) for x in heat]
        shape = self.from_log_density(join_logits(kind, log_heat, weights, density))
        peak = shape.flatten(2).argmax(-1)[..., None]
        there = [x.flatten(2).gather(2, peak) for x in log_heat]
        product = kind == "product"
        level = weighted_sum(there, weights).exp() if product else weighted_sum([x.exp() for x in there], weights)
        alone = ((weights > 0).sum(1) == 1).view(-1, 1, 1, 1)
        return torch.where(alone, weighted_sum(heat, weights), shape * level[..., None])

    def decode(self, raw: Float[Tensor, "B K h w"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints and how hot their cells are.

        Returns:
            keypoints_xy (B, K, 2) px, input frame; scores (B, K): the largest heat, within [0, 1].
        """
        heat = raw.float()
        row, column = dark.peak_cell(heat)
        at = row * heat.shape[-1] + column
        scores = heat.flatten(2).gather(2, at[..., None])[..., 0].clamp(0, 1)
        if self.decode_by == "dark":
            row, column = dark.inner_cell(row, column, self.grid_hw)
            xy = torch.stack([column, row], -1) + self._dark_offset(heat, row, column)
        else:
            xy = torch.stack([column, row], -1).float()
            if self.decode_by == "quarter":
                patch = dark.patch_around(heat, row, column, 1)
                slopes = torch.stack([patch[..., 1, 2] - patch[..., 1, 0], patch[..., 2, 1] - patch[..., 0, 1]], -1)
                xy = xy + 0.25 * slopes.sign()
        return geometry.grid_to_input(xy, self.stride), scores

    def _dark_offset(self, heat: Float[Tensor, "B K h w"], row: Tensor, column: Tensor) -> Float[Tensor, "B K 2"]:
        sigma = self.blur_sigma_grid
        if sigma is None:
            sigma = 0.3 * ((self.blur_kernel - 1) * 0.5 - 1) + 0.8  # cv2.getGaussianKernel's
        patch = dark.blurred_patch(heat, row, column, self.blur_kernel, sigma)
        return dark.taylor_offset(patch.clamp_min(FLOOR).log())


def log_above_floor(raw: Float[Tensor, "*rest h w"]) -> Float[Tensor, "*rest h w"]:
    """log of the heat, bent smoothly so that it stays above 0: the floor where heat is 0, the heat where it is well
    above. A hard clamp would cut the gradient of everything that a new head says.

    Source: squareplus, Barron 2021.
    """
    heat = raw.float()
    root = (heat.square() + 4 * FLOOR**2).sqrt()
    # for heat below 0 the same number by the conjugate, which does not cancel
    return torch.where(heat > 0, (heat + root) / 2, 2 * FLOOR**2 / (root - heat.clamp_max(0))).log()
