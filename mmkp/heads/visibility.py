"""Visibility: can each keypoint be seen? Beside any head, from the same fused grid."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class VisibilityHead(nn.Module):
    """Features on the grid -> a logit per keypoint.

    Every keypoint has its own place to look: a learned softmax over cells would be tied to one grid, so each looks at
    the whole by an attention of its own over the cells.

    Args:
        channels: D.
        num_keypoints: K.
    """

    def __init__(self, channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, num_keypoints, 1, bias=False)  # a softmax over cells would not see one
        self.judge = nn.Conv2d(channels, num_keypoints, 1)

    def forward(self, grid: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        """(B, D, h, w) -> (B, K)."""
        attention = torch.softmax(self.look(grid).float().flatten(2), dim=-1)
        return (attention * self.judge(grid).float().flatten(2)).sum(-1)
