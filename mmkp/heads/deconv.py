"""Deconvolution head: from a coarse grid to a fine heatmap by learned upsampling.

Source: Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018, section 2.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmkp.errors import InputError
from mmkp.heads.layers import last_layer, make_norm


class DeconvHead(nn.Module):
    """Features on a coarse grid (image.stride 16 or 32) -> heatmaps 2^layers times finer.

    Args:
        channels: D.
        num_keypoints: K.
        codec: whose raw output this is.
        grid_hw: not used.
        layers: deconvolutions 4x4 of stride 2, each with a norm and ReLU.
        width: their channels.
        norm: `batch`, as in the paper, or `group`.

    Raises:
        InputError: layers or width below 1, no such norm.
    """

    codecs = ("heatmap", "gaussian_heatmap")

    def __init__(
        self,
        channels: int,
        num_keypoints: int,
        codec: Any,
        grid_hw: tuple[int, int],
        layers: int = 3,
        width: int = 256,
        norm: str = "group",
    ) -> None:
        super().__init__()
        self.upsample(layers)
        if width < 1:
            raise InputError("head.width", expected="at least 1 channel", got=str(width))
        blocks: list[nn.Module] = []
        for inputs in [channels] + [width] * (layers - 1):
            # the padding of 1 keeps the fine grid centred on the coarse: no half pixel is lost
            enlarge = nn.ConvTranspose2d(inputs, width, 4, stride=2, padding=1, bias=False)
            blocks += [enlarge, make_norm(norm, width), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*blocks)
        self.last = last_layer(width, num_keypoints, codec)

    @staticmethod
    def upsample(layers: int = 3, **options: Any) -> int:
        """How many times finer than the grid the heatmaps lie.

        Raises:
            InputError: not 1 to 5 layers.
        """
        if layers not in range(1, 6):
            raise InputError("head.layers", expected="1 to 5 deconvolutions", got=str(layers))
        return 2**layers

    def forward(self, grid: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K fine_h fine_w"]:
        """(B, D, h, w) -> (B, K, 2^layers h, 2^layers w)."""
        return self.last(self.blocks(grid))
