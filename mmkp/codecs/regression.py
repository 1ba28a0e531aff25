"""Coordinates: two numbers per keypoint, measured from the middle of the input.

The unit is the input's longer side, for both axes: points of the input lie in [-0.5, 0.5], a distance means the same
in every direction, and the output of an untrained head, near 0, is the middle. Source: DeepPose, Toshev and Szegedy,
CVPR 2014, eq. 1, which takes the box's width for x and its height for y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmkp.experts import weighted_sum


class CoordinateTarget(NamedTuple):
    """The targets of a batch. `xy` in the codec's unit, 0 where `weight` is; `weight` is 0 for what is not learned."""

    xy: Float[Tensor, "B K 2"]
    weight: Float[Tensor, "B K"]


def learnable(
    keypoints_xy: Float[Tensor, "B K 2"], labelled: Bool[Tensor, "B K"] | None, input_size_hw: tuple[int, int]
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
    """Which points can be learned from: labelled, known and within the input.

    Args:
        keypoints_xy: px, input frame; NaN where not known.
        labelled: False where the point carries no label.
        input_size_hw: px.

    Returns:
        The points in float32, the middle in place of the others; 1 for each point that can be learned from, else 0.
    """
    xy = keypoints_xy.float()
    size = xy.new_tensor([input_size_hw[1], input_size_hw[0]])
    held = ((xy > -0.5) & (xy < size - 0.5)).all(-1)
    held = held if labelled is None else held & labelled
    return torch.where(held[..., None], xy, (size - 1) / 2), held.float()


@dataclass(frozen=True)
class RegressionCodec:
    """Keypoints in the input frame <-> coordinates about the middle, in units of the input's longer side.

    Args:
        input_size_hw: px.
        stride: not used: coordinates know no cells.
    """

    input_size_hw: tuple[int, int]
    stride: int = 4

    declares_distribution = False
    joins: ClassVar[tuple[str, ...]] = ("average", "weighted")
    loss = "regression"

    @property
    def unit_px(self) -> int:
        """What 1 means, px of the input: its longer side."""
        return max(self.input_size_hw)

    @property
    def resolution_px(self) -> float:
        """The largest error of encode and decode, px of the input: float32's rounding, for sides up to 4096 px."""
        return 0.001

    def raw_shape(self, num_keypoints: int) -> tuple[int, ...]:
        """(K, 2)."""
        return num_keypoints, 2

    def middle(self, like: Tensor) -> Float[Tensor, " 2"]:
        """The middle of the input, px."""
        height, width = self.input_size_hw
        return like.new_tensor([(width - 1) / 2, (height - 1) / 2])

    def encode(
        self, keypoints_xy: Float[Tensor, "B K 2"], labelled: Bool[Tensor, "B K"] | None = None
    ) -> CoordinateTarget:
        """Targets for a batch.

        Args:
            keypoints_xy: px, input frame; NaN where not known.
            labelled: False where the point carries no label.

        Returns:
            Targets; a point outside the input, NaN or not labelled gets weight 0.
        """
        xy, weight = learnable(keypoints_xy, labelled, self.input_size_hw)
        return CoordinateTarget((xy - self.middle(xy)) / self.unit_px, weight)

    def raw_of(self, target: CoordinateTarget) -> Float[Tensor, "B K R"]:
        """The output of a head that knows the target."""
        return target.xy

    def decode(self, raw: Float[Tensor, "B K R"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints (B, K, 2) px, input frame; scores (B, K), all 1: plain coordinates do not say how sure they are."""
        xy = raw[..., :2].float()
        return xy * self.unit_px + self.middle(xy), torch.ones_like(xy[..., 0])

    def join(
        self, kind: str, members: Sequence[Float[Tensor, "B K R"]], weights: Float[Tensor, "B M"]
    ) -> Float[Tensor, "B K R"]:
        """The weighted mean of what several heads say; there is no product of coordinates without a variance."""
        return weighted_sum([x.float() for x in members], weights)
