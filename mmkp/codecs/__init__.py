"""Codecs: keypoints in the input frame <-> what a head puts out. Encode and decode stand side by side.

What a codec offers:
    encode(keypoints_xy, labelled) -> target      a NamedTuple with `weight` (B, K), 0 for what is not learned from
    decode(raw) -> keypoints_xy, scores           (B, K, 2) px, input frame; (B, K) in [0, 1]
    join(kind, stacked, weights) -> raw           what several heads say together, for the rules in `joins`
    raw_shape(num_keypoints)                      of one item's raw output
    resolution_px                                 the largest error of encode and decode, px of the input
    loss                                          the criterion that a recipe gets without naming one
"""

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
