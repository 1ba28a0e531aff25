"""Heatmap head: a few separable convolutions and a logit, or the heat, per keypoint and cell."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmkp.encoders.image import conv_norm
from mmkp.heads.layers import last_layer


class HeatmapHead(nn.Module):
    """Features on the grid -> heatmaps on the grid.

    Args:
        channels: D.
        num_keypoints: K.
        codec: whose raw output this is.
        grid_hw: not used: the output lies on the grid.
        layers: residual blocks of depthwise 5x5 and pointwise convolution.
        kernel: of the depthwise convolution, cells.
    """

    codecs = ("heatmap", "gaussian_heatmap")

    def __init__(
        self, channels: int, num_keypoints: int, codec: Any, grid_hw: tuple[int, int], layers: int = 2, kernel: int = 5
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(conv_norm(channels, channels, kernel) for _ in range(layers))
        self.logits = last_layer(channels, num_keypoints, codec)

    def forward(self, grid: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K h w"]:
        """(B, D, h, w) -> (B, K, h, w)."""
        for block in self.blocks:
            grid = grid + block(grid)
        return self.logits(grid)
