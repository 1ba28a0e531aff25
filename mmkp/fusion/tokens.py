"""What the fusions over tokens share: a grid that is always there, tokens without what is not real, their mean."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.errors import InputError
from mmkp.fusion.lift import sincos_positions


class ImageOrPlaces(nn.Module):
    """The image's grid; a learned grid of places stands in for every item without an image.

    Args:
        members: names in canonical order.
        channels: D.
    """

    def __init__(self, members: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.image_at = members.index("image") if "image" in members else None
        self.place = nn.Linear(channels, channels)

    def forward(
        self, grids: dict[str, Float[Tensor, "B D h w"]], present: Bool[Tensor, "B M"], grid_hw: tuple[int, int]
    ) -> tuple[Float[Tensor, "B D h w"], Bool[Tensor, " B"]]:
        """The grid, and which items have an image."""
        weight = self.place.weight
        table = sincos_positions(*grid_hw, weight.shape[0], weight.device).to(weight.dtype)
        places = self.place(table).transpose(0, 1).unflatten(1, grid_hw).expand(present.shape[0], -1, -1, -1)
        if self.image_at is None or "image" not in grids:
            return places, torch.zeros_like(present[:, 0])
        here, image = present[:, self.image_at], grids["image"]
        return torch.where(here[:, None, None, None], image, places.to(image.dtype)), here


def real_tokens(
    tokens: Float[Tensor, "B L D"], token_mask: Bool[Tensor, "B L"], here: Bool[Tensor, " B"]
) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
    """Tokens and mask of the items that have the modality; what is not real is 0, whatever it held (NaN included)."""
    mask = token_mask & here[:, None]
    return torch.where(mask[..., None], tokens, 0.0), mask


def masked_mean(tokens: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
    """The mean of the real tokens, which are 0 elsewhere; 0 for an item without any."""
    total = tokens.sum(1, dtype=torch.float32)
    return (total / mask.sum(1, keepdim=True).clamp_min(1)).to(tokens.dtype)


def at_least_one(where: str, value: int) -> int:
    """`value`, when it is a whole number of at least 1.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(where, expected="a whole number of at least 1", got=repr(value))
    return value
