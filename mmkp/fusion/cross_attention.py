"""Cross-attention: places of the image ask the tokens of the other modalities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.fusion.lift import COARSE_CELLS, sincos_positions
from mmkp.fusion.stack import GridStack


class CrossAttentionFusion(nn.Module):
    """The image's grid, pooled to a coarse one, attends to the other modalities' tokens; what it learns is added back.

    Without an image a learned token at each place does the asking. An item without other modalities gets a learned
    "nothing was said" token to attend to, so the attention never runs over an empty set.

    Args:
        members: names in canonical order; `image` is the one that asks.
        channels: D.
        heads: attention heads.
        layers: rounds of asking.
    """

    uses_tokens = True

    def __init__(self, members: tuple[str, ...], channels: int, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.stack = GridStack(("image",), channels)
        self.others = tuple(m for m in members if m != "image")
        self.image_at = members.index("image") if "image" in members else None
        self.other_at = [members.index(m) for m in self.others]
        self.place = nn.Linear(channels, channels)
        self.nothing = nn.Parameter(torch.randn(1, 1, channels) * 0.02)
        self.kind = nn.Parameter(torch.randn(len(self.others), channels) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                channels, heads, 2 * channels, 0.0, "gelu", batch_first=True, norm_first=True, bias=False
            )
            for _ in range(layers)
        )
        self.out = nn.Linear(channels, channels)

    def forward(
        self,
        grids: dict[str, Float[Tensor, "B D h w"]],
        present: Bool[Tensor, "B M"],
        tokens: dict[str, Tensor],
        token_masks: dict[str, Tensor],
        grid_hw: tuple[int, int],
    ) -> Float[Tensor, "B D h w"]:
        """(B, D, h, w) from the image's grid and the others' tokens (B, L, D) with masks (B, L), True = real."""
        batch, channels = present.shape[0], self.nothing.shape[-1]
        image = grids.get("image", self.nothing.new_zeros(batch, channels, *grid_hw))
        has_image = present[:, [self.image_at]] if self.image_at is not None and "image" in grids else None
        if has_image is None:
            has_image = torch.zeros(batch, 1, dtype=torch.bool, device=present.device)
        grid = self.stack({"image": image}, has_image)[0][:, 0]
        height, width = min(COARSE_CELLS, grid_hw[0]), min(COARSE_CELLS, grid_hw[1])
        places = self.place(sincos_positions(height, width, channels, grid.device).to(grid.dtype))
        asked = F.adaptive_avg_pool2d(grid, (height, width)).flatten(2).transpose(1, 2) + places
        memory, mask = self._memory(present, tokens, token_masks, asked)
        for layer in self.layers:
            asked = layer(asked, memory, memory_key_padding_mask=~mask)
        answer = self.out(asked).transpose(1, 2).reshape(batch, channels, height, width)
        return grid + F.interpolate(answer, size=grid_hw, mode="bilinear", align_corners=False).to(grid.dtype)

    def _memory(
        self, present: Tensor, tokens: dict[str, Tensor], token_masks: dict[str, Tensor], like: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch = present.shape[0]
        parts = [self.nothing.expand(batch, -1, -1).to(like.dtype)]
        masks = [torch.ones(batch, 1, dtype=torch.bool, device=like.device)]
        for kind, at, name in zip(self.kind, self.other_at, self.others, strict=True):
            if name in tokens:
                here = present[:, at, None]
                parts.append(torch.where(here[..., None], tokens[name] + kind.to(like.dtype), 0.0))
                masks.append(token_masks[name] & here)
        return torch.cat(parts, 1), torch.cat(masks, 1)
