"""Heads: features on the grid -> raw output, which a codec reads."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmkp.errors import InputError, choose
from mmkp.heads.heatmap import HeatmapHead

HEADS: dict[str, Any] = {
    "heatmap": HeatmapHead,
}


def make_head(name: str, channels: int, num_keypoints: int, codec: str, **options: Any) -> nn.Module:
    """A head by name.

    Raises:
        InputError: no such head, a codec that it does not fit, an option that it does not have.
    """
    factory: Any = choose("head.name", name, HEADS)
    if codec not in factory.codecs:
        raise InputError(f"head {name}", expected=f"a codec among {', '.join(factory.codecs)}", got=repr(codec))
    try:
        return factory(channels, num_keypoints, **options)
    except TypeError as error:
        raise InputError(f"head {name}", expected="options that it has", got=str(options)) from error
