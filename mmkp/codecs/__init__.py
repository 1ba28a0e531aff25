"""Codecs: keypoints in the input frame <-> what a head puts out. Encode and decode stand side by side."""

from __future__ import annotations

from typing import Any

from mmkp.codecs.heatmap import HeatmapCodec
from mmkp.errors import choose

CODECS: dict[str, Any] = {
    "heatmap": HeatmapCodec,
}


def make_codec(name: str, input_size_hw: tuple[int, int], **options: Any) -> Any:
    """A codec by name.

    Raises:
        InputError: no such codec.
    """
    return choose("codec.name", name, CODECS)(input_size_hw=input_size_hw, **options)  # type: ignore[operator]
