"""The criterion of heatmaps that are distributions: divergence or squares, and the distance of the mean."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmkp import losses
from mmkp.codecs.heatmap import HeatmapCodec, HeatmapTarget
from mmkp.errors import choose
from mmkp.schema import KeypointSchema

KINDS: dict[str, Any] = {
    "cross_entropy": losses.heatmap_cross_entropy,
    "mse": losses.heatmap_mse,
    "none": None,
}


class HeatmapCriterion(nn.Module):
    """Divergence of the heatmap plus distance of its mean, in cells of the grid.

    Args:
        codec: that made the targets.
        schema: not used.
        kind: `cross_entropy`, `mse`, or `none`: the coordinate alone (integral regression, Sun et al., ECCV 2018).
        coordinate: weight of the distance.
    """

    codecs = ("heatmap",)

    def __init__(
        self, codec: HeatmapCodec, schema: KeypointSchema, kind: str = "cross_entropy", coordinate: float = 1.0
    ) -> None:
        super().__init__()
        self.codec, self.coordinate = codec, coordinate
        self.measure: Any = choose("loss.kind", kind, KINDS)

    def forward(
        self, raw: Float[Tensor, "B K h w"], target: HeatmapTarget, point_weight: Float[Tensor, " K"]
    ) -> Float[Tensor, " B"]:
        """The loss of every item; `point_weight` says how much each keypoint counts."""
        weight = target.weight * point_weight
        log_density = self.codec.log_density(raw)
        value = losses.weighted_mean(weight.new_zeros(weight.shape), weight)
        if self.measure is not None:
            value = self.measure(log_density, target, weight)
        if self.coordinate:
            expected = self.codec.expected_xy_grid(log_density)
            value = value + self.coordinate * losses.euclidean(expected, target.xy_grid, weight)
        return value
