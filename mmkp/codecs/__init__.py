"""Codecs: keypoints in the input frame <-> what a head puts out. Encode and decode stand side by side.

What a codec offers:
    encode(keypoints_xy, labelled) -> target      a NamedTuple with `weight` (B, K), 0 for what is not learned from
    decode(raw) -> keypoints_xy, scores           (B, K, 2) px, input frame; (B, K) in [0, 1]
    raw_of(target) -> raw                         what a head puts out that knows the target
    join(kind, stacked, weights) -> raw           what several heads say together, for the rules in `joins`
    raw_shape(num_keypoints)                      of one item's raw output
    resolution_px                                 the largest error of encode and decode, px of the input
    loss                                          the criterion that a recipe gets without naming one
and some: `schema_options(schema)`, options that come with the schema; `multi_instance = True` with
`decode_instances(raw)`, every person of a picture; their labels may have an axis of people, (B, P, K, ...).
"""

from __future__ import annotations

from typing import Any

from mmkp.codecs.gaussian_heatmap import GaussianHeatmapCodec
from mmkp.codecs.heatmap import HeatmapCodec
from mmkp.codecs.openpose import OpenposeCodec
from mmkp.codecs.regression import RegressionCodec
from mmkp.codecs.rle import RleCodec
from mmkp.codecs.simcc import SimccCodec
from mmkp.errors import InputError, choose
from mmkp.schema import KeypointSchema

CODECS: dict[str, Any] = {
    "heatmap": HeatmapCodec,
    "regression": RegressionCodec,
    "rle": RleCodec,
    "simcc": SimccCodec,
    "gaussian_heatmap": GaussianHeatmapCodec,
    "openpose": OpenposeCodec,
}


def make_codec(name: str, input_size_hw: tuple[int, int], schema: KeypointSchema | None = None, **options: Any) -> Any:
    """A codec by name; with a schema, what it says is among the options of codecs that ask for it.

    Raises:
        InputError: no such codec, an option that it does not have.
    """
    factory: Any = choose("codec.name", name, CODECS)
    if schema is not None and hasattr(factory, "schema_options") and "edges" not in options:
        options = {**factory.schema_options(schema), **options}
    try:
        return factory(input_size_hw=input_size_hw, **options)
    except TypeError as error:
        raise InputError(f"codec {name}", expected="options that it has", got=str(options)) from error
