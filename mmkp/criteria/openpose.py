"""The criterion of OpenPose: squares of heat and of fields."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmkp import losses
from mmkp.codecs.openpose import OpenposeCodec, OpenposeTarget
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema


class OpenposeCriterion(nn.Module):
    """Squares of the heat plus squares of the fields, each summed over the grid (Cao et al., CVPR 2017, eq. 5).

    A limb counts as much as its two ends do on average; the background as much as one keypoint of weight 1.

    Args:
        codec: that made the targets.
        schema: of the keypoints.
        heat, fields: how much each counts; 1 and 1 in the paper.

    Raises:
        InputError: a weight below 0.
    """

    codecs = ("openpose",)

    def __init__(self, codec: OpenposeCodec, schema: KeypointSchema, heat: float = 1.0, fields: float = 1.0) -> None:
        super().__init__()
        if not (heat >= 0 and fields >= 0):
            raise InputError("loss openpose", expected="weights of at least 0", got=f"heat {heat}, fields {fields}")
        self.codec, self.heat, self.fields = codec, float(heat), float(fields)
        limbs = torch.tensor(codec.limbs(schema.num_keypoints), dtype=torch.long).view(-1, 2)
        self.limbs: Tensor
        self.register_buffer("limbs", limbs, persistent=False)

    def forward(
        self, raw: Float[Tensor, "B R h w"], target: OpenposeTarget, point_weight: Float[Tensor, " K"]
    ) -> Float[Tensor, " B"]:
        """The loss of every item; `point_weight` says how much each keypoint counts."""
        heat, fields = self.codec.split(raw)
        heat_weight = torch.cat([target.weight * point_weight, target.background_weight[:, None]], 1)
        limb_weight = target.limb_weight * point_weight[self.limbs].mean(-1)
        return self.heat * losses.heat_squares(heat, target.heat, heat_weight) + self.fields * losses.field_squares(
            fields, target.fields, limb_weight
        )
