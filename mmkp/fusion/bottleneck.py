"""Attention bottleneck: the modalities see each other only through a few shared tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.fusion.lift import COARSE_CELLS, sincos_positions
from mmkp.fusion.tokens import ImageOrPlaces, at_least_one, real_tokens


class BottleneckFusion(nn.Module):
    """Each modality attends to its own tokens and to shared ones; these become the mean of what each made of them.

    After the last layer the places of a coarse grid read the shared tokens, and what they read is added to the grid.
    Only present modalities count in the mean; without an image, a learned grid of places asks and tells nothing.

    Source: multimodal bottleneck transformer, Nagrani et al. 2021, equations 8 and 9 (4 shared tokens there too); the
    reading at the end is ours, so that one layer is enough for the image to hear the others.

    Args:
        members: names in canonical order.
        channels: D.
        heads: attention heads.
        layers: rounds of exchange.
        bottlenecks: shared tokens.

    Raises:
        InputError: fewer than one layer or shared token.
    """

    uses_tokens = True

    def __init__(
        self, members: tuple[str, ...], channels: int, heads: int = 4, layers: int = 2, bottlenecks: int = 4
    ) -> None:
        super().__init__()
        self.layers = at_least_one("fusion.layers", layers)
        count = at_least_one("fusion.bottlenecks", bottlenecks)
        self.image = ImageOrPlaces(members, channels)
        self.others = {m: i for i, m in enumerate(members) if m != "image"}
        self.place = nn.Linear(channels, channels)
        self.shared = nn.Parameter(torch.randn(1, count, channels) * 0.02)
        self.streams: Any = nn.ModuleDict(
            {m: nn.ModuleList(_layer(channels, heads) for _ in range(layers)) for m in ("image", *self.others)}
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.read = nn.MultiheadAttention(channels, heads, bias=False, batch_first=True)
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
        grid, has_image = self.image(grids, present, grid_hw)
        asking, cells_hw = self._coarse(grid)
        own = {"image": (asking, torch.ones_like(asking[..., 0], dtype=torch.bool))}
        here = {"image": has_image}
        for name, at in self.others.items():
            if name in tokens:
                own[name] = real_tokens(tokens[name], token_masks[name], present[:, at])
                here[name] = present[:, at]
        asking, shared = self.exchange(own, here)
        question, memory = self.norms[0](asking), self.norms[1](shared)
        heard, _ = self.read(question, memory, memory, need_weights=False)
        answer = self.out(asking + heard).transpose(1, 2).unflatten(2, cells_hw)
        return grid + F.interpolate(answer, size=grid_hw, mode="bilinear", align_corners=False).to(grid.dtype)

    def exchange(
        self, own: dict[str, tuple[Tensor, Tensor]], here: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B N D"]]:
        """The image's tokens and the shared tokens after all layers.

        Args:
            own: by modality, tokens (B, L, D) and their mask (B, L), True where real.
            here: by modality (B,), True where the item has it.
        """
        counts = torch.stack([here[m] for m in own], 1)[..., None, None]
        shared = self.shared.expand(counts.shape[0], -1, -1)
        values = {m: v for m, (v, _) in own.items()}
        for i in range(self.layers):
            told = []
            for name, (_, mask) in own.items():
                length = mask.shape[1]
                padding = F.pad(~mask, (0, shared.shape[1]), value=False)
                both = torch.cat([values[name], shared.to(values[name].dtype)], 1)
                both = self.streams[name][i](both, src_key_padding_mask=padding)
                values[name] = both[:, :length]
                told.append(both[:, length:])
            mean = (torch.stack(told, 1) * counts).sum(1) / counts.sum(1).clamp_min(1)
            shared = torch.where(counts.any(1), mean, shared)
        return values["image"], shared

    def _coarse(self, grid: Tensor) -> tuple[Tensor, tuple[int, int]]:
        height, width = (min(COARSE_CELLS, side) for side in grid.shape[-2:])
        places = sincos_positions(height, width, grid.shape[1], grid.device).to(self.place.weight.dtype)
        coarse = F.adaptive_avg_pool2d(grid, (height, width)).flatten(2).transpose(1, 2)
        return coarse + self.place(places), (height, width)


def _layer(channels: int, heads: int) -> nn.TransformerEncoderLayer:
    # without biases, as mmkp.encoders.layers.transformer says
    return nn.TransformerEncoderLayer(
        channels, heads, 2 * channels, 0.0, "gelu", batch_first=True, norm_first=True, bias=False
    )
