"""Concatenation: the lifted grids side by side in the channels, mixed by a 1x1 convolution."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.fusion.stack import GridStack


class ConcatFusion(nn.Module):
    """A learned token stands in for an absent grid, the same whatever the absent input holds."""

    def __init__(self, members: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.stack = GridStack(members, channels)
        self.mix = nn.Sequential(
            nn.Conv2d(len(members) * channels, 2 * channels, 1), nn.GELU(), nn.Conv2d(2 * channels, channels, 1)
        )

    def forward(self, grids: dict[str, Tensor], present: Bool[Tensor, "B M"]) -> Float[Tensor, "B D h w"]:
        """(B, D, h, w) from grids of that shape."""
        stacked, _ = self.stack(grids, present)
        return self.mix(torch.flatten(stacked, 1, 2))
