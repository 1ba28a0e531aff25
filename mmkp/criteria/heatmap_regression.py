"""The criterion of heatmaps whose heat is regressed: squares or the adaptive wing, on the heat itself."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmkp import losses
from mmkp.codecs.gaussian_heatmap import GaussianHeatmapCodec, GaussianHeatmapTarget
from mmkp.errors import InputError, choose
from mmkp.schema import KeypointSchema

# kind: the measure, and how much more a cell on the target counts
KINDS: dict[str, tuple[Any, float]] = {
    "mse": (losses.heat_mse, 0.0),
    "weighted_mse": (losses.heat_mse, 10.0),
    "adaptive_wing": (losses.adaptive_wing, 10.0),
}


class HeatmapRegressionCriterion(nn.Module):
    """Difference of the heat from the target's Gaussian, the mean over the grid.

    Args:
        codec, schema: not used.
        kind: `mse` (Xiao et al., ECCV 2018), `weighted_mse`, in which cells on the target count more, or
            `adaptive_wing` (Wang et al., ICCV 2019).
        foreground: how much more a cell on the target counts; None: 10, as in Wang et al., but 0 for `mse`.

    Raises:
        InputError: no such kind, a foreground below 0.
    """

    codecs = ("gaussian_heatmap",)

    def __init__(
        self, codec: GaussianHeatmapCodec, schema: KeypointSchema, kind: str = "mse", foreground: float | None = None
    ) -> None:
        super().__init__()
        chosen: Any = choose("loss.kind", kind, KINDS)
        self.measure, usual = chosen
        self.foreground = usual if foreground is None else float(foreground)
        if not self.foreground >= 0:
            raise InputError("loss.foreground", expected="a weight of at least 0", got=str(foreground))

    def forward(
        self, raw: Float[Tensor, "B K h w"], target: GaussianHeatmapTarget, point_weight: Float[Tensor, " K"]
    ) -> Float[Tensor, " B"]:
        """The loss of every item; `point_weight` says how much each keypoint counts."""
        return self.measure(raw.float(), target.heatmap(), target.weight * point_weight, self.foreground)
