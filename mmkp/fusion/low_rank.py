"""Low-rank multimodal fusion: every product of the modalities' features, without the tensor that would hold them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.fusion.tokens import at_least_one


class LowRankFusion(nn.Module):
    """At each place y = b + sum_r a_r prod_m W_rm [x_m; 1], which is a tensor of rank R applied to the outer product.

    With the 1 appended (here the bias of W), features alone and products of two pass beside those of all. The factor
    of an absent modality is left out of the product. Every factor starts near 1, so that no product starts vanishing.

    Source: Liu et al. 2018, equations 5 to 7; the weights a_r as in the authors' code.

    Args:
        members: names in canonical order.
        channels: D.
        rank: R, products that are summed.

    Raises:
        InputError: a rank under 1.
    """

    def __init__(self, members: tuple[str, ...], channels: int, rank: int = 4) -> None:
        super().__init__()
        self.members = members
        self.rank = at_least_one("fusion.rank", rank)
        self.factors = nn.ModuleDict({m: _factor(channels, rank) for m in members})
        self.weight = nn.Parameter(torch.full((rank,), 1 / math.sqrt(rank)))
        self.bias = nn.Parameter(torch.full((channels,), -math.sqrt(rank)))  # takes the sum of the 1s away

    def forward(
        self, grids: dict[str, Float[Tensor, "B D h w"]], present: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B D h w"]:
        """(B, D, h, w) from grids of that shape."""
        like = next(iter(grids.values()))
        product = like.new_ones(like.shape[0], self.rank, *like.shape[1:], dtype=torch.float32)
        for at, name in enumerate(self.members):
            if name in grids:
                here = present[:, at, None, None, None]
                factor = self.factors[name](torch.where(here, grids[name], 0.0)).float()
                product = product * torch.where(here[:, None], factor.unflatten(1, (self.rank, -1)), 1.0)
        joined = (product * self.weight.view(1, -1, 1, 1, 1)).sum(1) + self.bias[:, None, None]
        limit = torch.finfo(like.dtype).max / 64  # half precision: a product saturates, with room for the head's sums
        return joined.clamp(-limit, limit).to(like.dtype)


def _factor(channels: int, rank: int) -> nn.Conv2d:
    factor = nn.Conv2d(channels, rank * channels, 1)
    with torch.no_grad():
        factor.bias.fill_(1.0)  # type: ignore[union-attr]
    return factor
