"""What the learned fusions share: the grids in canonical order, with a learned token in the place of the absent."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class GridStack(nn.Module):
    """Dict of grids -> one tensor.

    Args:
        members: names in canonical order.
        channels: D.
    """

    def __init__(self, members: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.members = members
        self.absent = nn.Parameter(torch.randn(len(members), channels) * 0.02)

    def forward(
        self, grids: dict[str, Float[Tensor, "B D h w"]], present: Bool[Tensor, "B M"]
    ) -> tuple[Float[Tensor, "B M D h w"], Bool[Tensor, "B M"]]:
        """The stacked grids and which of them are real; the others hold the learned token."""
        like = next(iter(grids.values()))
        there = torch.tensor([m in grids for m in self.members], device=present.device)
        present = present & there
        stacked = torch.stack([grids.get(m, torch.zeros_like(like)) for m in self.members], dim=1)
        token = self.absent[None, :, :, None, None].to(stacked.dtype)
        return torch.where(present[:, :, None, None, None], stacked, token), present
