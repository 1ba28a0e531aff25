"""Codecs: keypoints in the input frame <-> what a head puts out. Encode and decode stand side by side."""

from __future__ import annotations

from typing import Any

from mmkp.codecs.heatmap import HeatmapCodec
from mmkp.errors import InputError, choose

CODECS: dict[str, Any] = {
    "heatmap": HeatmapCodec,
}


def make_codec(name: str, input_size_hw: tuple[int, int], **options: Any) -> Any:
    """A codec by name.

    Raises:
        InputError: no such codec, an option that it does not have.
    """
    factory: Any = choose("codec.name", name, CODECS)
    try:
        return factory(input_size_hw=input_size_hw, **options)
    except TypeError as error:
        raise InputError(f"codec {name}", expected="options that it has", got=str(options)) from error
