"""SimCC head: a map per keypoint, read as one vector by two linear layers, for the columns and for the rows.

Source: Li et al., SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation, ECCV 2022,
section 3.1: no upsampling, the grid's cells are turned straight into bins.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmkp.codecs.simcc import SimccCodec
from mmkp.encoders.image import conv_norm


class SimccHead(nn.Module):
    """Features on the grid -> logits over the bins of x, then over the bins of y.

    Args:
        channels: D.
        num_keypoints: K.
        codec: says how many bins each axis has.
        grid_hw: cells of the grid.
        layers: residual blocks of depthwise and pointwise convolution before the maps.
        kernel: of the depthwise convolution, cells.
    """

    codecs = ("simcc",)

    def __init__(
        self, channels: int, num_keypoints: int, codec: SimccCodec, grid_hw: tuple[int, int], layers: int = 2,
        kernel: int = 5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.blocks = nn.ModuleList(conv_norm(channels, channels, kernel) for _ in range(layers))
        self.maps = nn.Conv2d(channels, num_keypoints, 1)
        cells = grid_hw[0] * grid_hw[1]
        self.columns, self.rows = (nn.Linear(cells, bins) for bins in codec.bins_xy)

    def forward(self, grid: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K N"]:
        """(B, D, h, w) -> (B, K, bins of x + bins of y)."""
        for block in self.blocks:
            grid = grid + block(grid)
        maps = self.maps(grid).flatten(2)
        return torch.cat([self.columns(maps), self.rows(maps)], dim=-1)
