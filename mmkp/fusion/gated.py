"""Gated fusion: at every place a softmax decides how much of each present modality passes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.fusion.stack import GridStack


class GatedFusion(nn.Module):
    """Gates per place, modality and group of channels, computed from all modalities together.

    Source: the gated multimodal unit of Arevalo et al. 2017, with a softmax over any number of modalities and the
    absent left out of it.

    Args:
        members: names in canonical order.
        channels: D.
        groups: channels in one group share a gate.
    """

    def __init__(self, members: tuple[str, ...], channels: int, groups: int = 8) -> None:
        super().__init__()
        self.stack = GridStack(members, channels)
        self.groups = groups
        self.gate = nn.Sequential(
            nn.Conv2d(len(members) * channels, channels, 1), nn.GELU(), nn.Conv2d(channels, len(members) * groups, 1)
        )
        self.value = nn.Conv2d(len(members) * channels, len(members) * channels, 1, groups=len(members))

    def forward(self, grids: dict[str, Tensor], present: Bool[Tensor, "B M"]) -> Float[Tensor, "B D h w"]:
        """(B, D, h, w) from grids of that shape."""
        stacked, present = self.stack(grids, present)
        batch, members, channels, height, width = stacked.shape
        flat = stacked.flatten(1, 2)
        gates = self.gate(flat).view(batch, members, self.groups, 1, height, width).float()
        gates = gates.masked_fill(~present.view(batch, members, 1, 1, 1, 1), torch.finfo(torch.float32).min)
        gates = torch.softmax(gates, dim=1) * present.view(batch, members, 1, 1, 1, 1)
        values = self.value(flat).view(batch, members, self.groups, channels // self.groups, height, width)
        return (gates.to(values.dtype) * values).sum(1).flatten(1, 2)
