"""Losses of the visibility output."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmkp.losses.masking import weighted_mean


def visibility_cross_entropy(logits: Float[Tensor, "B K"], flags: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """Binary cross-entropy of "can be seen" (COCO's flag 2) against "hidden" (1), nats; without the unlabelled (0)."""
    values = F.binary_cross_entropy_with_logits(logits.float(), (flags > 1.5).float(), reduction="none")
    return weighted_mean(values, (flags > 0.5).float())
