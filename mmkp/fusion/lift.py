"""Lift: a sequence of tokens -> features on the image grid, so that every modality lies on one grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

COARSE_CELLS = 8  # sound and words carry no finer place than an eighth of the picture; positions between are smooth


def sincos_positions(height: int, width: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Sine and cosine of the cell's place in [0, 1], half of the channels for y, half for x.

    Returns:
        (height * width, channels).

    Source: the fixed embedding of Vaswani et al. 2017 in two dimensions, with frequencies pi * 2^0 ... pi * 2^5 spread
    geometrically, because a place in [0, 1] has no long sequence to tell apart.
    """
    per_axis = channels // 4
    frequency = torch.pi * 2 ** torch.linspace(0, 5, per_axis, device=device)
    y = ((torch.arange(height, device=device) + 0.5) / height)[:, None] * frequency
    x = ((torch.arange(width, device=device) + 0.5) / width)[:, None] * frequency
    rows = torch.cat([y.sin(), y.cos()], -1)[:, None].expand(height, width, -1)
    columns = torch.cat([x.sin(), x.cos()], -1)[None].expand(height, width, -1)
    table = torch.cat([rows, columns], -1).reshape(height * width, -1)
    return F.pad(table, (0, channels - table.shape[-1]))


class TokenLift(nn.Module):
    """Every place of a coarse grid asks the tokens what they mean there; the answer is interpolated to the full grid.

    Args:
        channels: D of the tokens and of the grid.
        heads: attention heads.
    """

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.place = nn.Linear(channels, channels)
        self.attention = nn.MultiheadAttention(channels, heads, bias=False, batch_first=True)
        self.mix = nn.Sequential(
            nn.LayerNorm(2 * channels), nn.Linear(2 * channels, 2 * channels), nn.GELU(),
            nn.Linear(2 * channels, channels),
        )  # fmt: skip

    def forward(
        self, tokens: Float[Tensor, "B L D"], token_mask: Bool[Tensor, "B L"], grid_hw: tuple[int, int]
    ) -> Float[Tensor, "B D h w"]:
        """Lift.

        Args:
            tokens: a sequence per item.
            token_mask: True where real; at least one per item.
            grid_hw: cells of the grid.
        """
        batch, _, channels = tokens.shape
        height, width = min(COARSE_CELLS, grid_hw[0]), min(COARSE_CELLS, grid_hw[1])
        queries = self.place(sincos_positions(height, width, channels, tokens.device).to(tokens.dtype))
        queries = queries.expand(batch, -1, -1)
        heard, _ = self.attention(queries, tokens, tokens, key_padding_mask=~token_mask, need_weights=False)
        grid = self.mix(torch.cat([heard, queries], -1))
        grid = grid.transpose(1, 2).reshape(batch, channels, height, width)
        if (height, width) == grid_hw:
            return grid
        return F.interpolate(grid, size=grid_hw, mode="bilinear", align_corners=False)
