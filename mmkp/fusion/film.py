"""FiLM: what was said and heard scales and shifts the channels of the image's grid."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.fusion.tokens import ImageOrPlaces, at_least_one, masked_mean, real_tokens


def modulate(
    grid: Float[Tensor, "B D h w"], gamma: Float[Tensor, "B D"], beta: Float[Tensor, "B D"]
) -> Float[Tensor, "B D h w"]:
    """gamma * grid + beta, the same at every place (Perez et al. 2018, equation 2)."""
    return gamma[:, :, None, None].to(grid.dtype) * grid + beta[:, :, None, None].to(grid.dtype)


class FilmFusion(nn.Module):
    """The mean tokens of the other modalities give gamma and beta of every layer; a residual block lies between layers.

    The absent are left out of the sum that gamma and beta are read from; an image alone is modulated by what was
    learned for silence. Without an image, a learned grid of places is modulated.

    Source: feature-wise linear modulation, Perez et al. 2018, with gamma = 1 + what is predicted (section 7.1 there).

    Args:
        members: names in canonical order; `image` is the one that is modulated.
        channels: D.
        layers: modulations one after the other.

    Raises:
        InputError: fewer than one layer.
    """

    uses_tokens = True

    def __init__(self, members: tuple[str, ...], channels: int, layers: int = 2) -> None:
        super().__init__()
        self.layers = at_least_one("fusion.layers", layers)
        self.image = ImageOrPlaces(members, channels)
        self.others = {m: i for i, m in enumerate(members) if m != "image"}
        self.listen = nn.ModuleDict(
            {m: nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels)) for m in self.others}
        )
        self.silence = nn.Parameter(torch.zeros(channels))
        self.read = nn.Sequential(nn.GELU(), nn.Linear(channels, layers * 2 * channels))
        self.blocks = nn.ModuleList(_block(channels) for _ in range(layers - 1))

    def forward(
        self,
        grids: dict[str, Float[Tensor, "B D h w"]],
        present: Bool[Tensor, "B M"],
        tokens: dict[str, Tensor],
        token_masks: dict[str, Tensor],
        grid_hw: tuple[int, int],
    ) -> Float[Tensor, "B D h w"]:
        """(B, D, h, w) from the image's grid and the others' tokens (B, L, D) with masks (B, L), True = real."""
        grid, _ = self.image(grids, present, grid_hw)
        gammas, betas = self.modulation(present, tokens, token_masks)
        grid = modulate(grid, gammas[:, 0], betas[:, 0])
        for i, block in enumerate(self.blocks, start=1):
            grid = modulate(grid + block(grid), gammas[:, i], betas[:, i])
        return grid

    def modulation(
        self, present: Bool[Tensor, "B M"], tokens: dict[str, Tensor], token_masks: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "B layers D"], Float[Tensor, "B layers D"]]:
        """gamma and beta of every layer."""
        heard = self.silence.expand(present.shape[0], -1)
        for name, at in self.others.items():
            if name in tokens:
                here = present[:, at]
                mean = masked_mean(*real_tokens(tokens[name], token_masks[name], here))
                heard = heard + torch.where(here[:, None], self.listen[name](mean), 0.0)
        change, beta = self.read(heard).unflatten(1, (self.layers, 2, -1)).unbind(2)
        return 1 + change, beta


def _block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(1, channels), nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.GELU(),
        nn.Conv2d(channels, channels, 1),
    )  # fmt: skip
