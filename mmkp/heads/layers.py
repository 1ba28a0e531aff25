"""What the heads of heatmaps share: norms by name, and the last layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from mmkp.errors import choose

CHANNELS_PER_GROUP = 4  # at least: a group of one channel over one cell would be norm and no signal


def group_norm(channels: int) -> nn.GroupNorm:
    """As many groups as divide the channels, 8 at most."""
    most = max(1, min(8, channels // CHANNELS_PER_GROUP))
    return nn.GroupNorm(next(g for g in range(most, 0, -1) if channels % g == 0), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {"group": group_norm, "batch": nn.BatchNorm2d}


def make_norm(name: str, channels: int) -> nn.Module:
    """`batch` as the papers have it, or `group`, by which neither items nor absent modalities touch each other.

    Raises:
        InputError: neither of them.
    """
    factory: Any = choose("head.norm", name, NORMS)
    return factory(channels)


def last_layer(channels: int, num_keypoints: int, codec: Any) -> nn.Conv2d:
    """A map per keypoint.

    A softmax over cells would not see a bias. Heat is regressed: with a bias, and from near 0, where most of every
    target lies (standard deviation 0.001 as in Xiao et al. 2018's code).
    """
    is_heat = getattr(codec, "raw_is_heat", False)
    layer = nn.Conv2d(channels, num_keypoints, 1, bias=is_heat)
    if is_heat and layer.bias is not None:
        nn.init.normal_(layer.weight, std=0.001)
        nn.init.zeros_(layer.bias)
    return layer
