"""The criterion of SimCC: the divergence of both classifications."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from mmkp import losses
from mmkp.codecs.simcc import SimccCodec, SimccTarget
from mmkp.schema import KeypointSchema


class SimccCriterion(nn.Module):
    """Divergence of columns and rows from the smoothed labels, nats; how smooth they are is the codec's.

    Args:
        codec: that made the targets.
        schema: not used.
    """

    codecs = ("simcc",)

    def __init__(self, codec: SimccCodec, schema: KeypointSchema) -> None:
        super().__init__()
        self.codec = codec

    def forward(
        self, raw: Float[Tensor, "B K N"], target: SimccTarget, point_weight: Float[Tensor, " K"]
    ) -> Float[Tensor, " B"]:
        """The loss of every item; `point_weight` says how much each keypoint counts."""
        return losses.simcc_divergence(self.codec.log_density(raw), target.both(), target.weight * point_weight)
