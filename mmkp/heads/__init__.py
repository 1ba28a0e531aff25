"""Heads: features on the grid -> raw output, which a codec reads.

A head that refines its answer in stages returns a tuple, the last of which is the answer; all of them are learned from.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mmkp.errors import InputError, choose
from mmkp.heads.deconv import DeconvHead
from mmkp.heads.heatmap import HeatmapHead
from mmkp.heads.hourglass import HourglassHead
from mmkp.heads.openpose import OpenposeHead
from mmkp.heads.regression import RegressionHead
from mmkp.heads.simcc import SimccHead

HEADS: dict[str, Any] = {
    "heatmap": HeatmapHead,
    "deconv": DeconvHead,
    "hourglass": HourglassHead,
    "regression": RegressionHead,
    "simcc": SimccHead,
    "openpose": OpenposeHead,
}


def head_upsample(name: str, **options: Any) -> int:
    """How many times finer than the image grid the head's output lies; 1 for most.

    Raises:
        InputError: no such head.
    """
    factory: Any = choose("head.name", name, HEADS)
    return factory.upsample(**options) if hasattr(factory, "upsample") else 1


def make_head(
    name: str, channels: int, num_keypoints: int, codec_name: str, codec: Any, grid_hw: tuple[int, int], **options: Any
) -> nn.Module:
    """A head by name.

    Args:
        name: of the head.
        channels: D of the fused grid.
        num_keypoints: K.
        codec_name, codec: that reads the output.
        grid_hw: cells of the fused grid.
        options: the head's own.

    Raises:
        InputError: no such head, a codec that it does not fit, an option that it does not have.
    """
    factory: Any = choose("head.name", name, HEADS)
    if codec_name not in factory.codecs:
        fitting = [n for n, h in HEADS.items() if codec_name in h.codecs]
        raise InputError(
            f"head {name}", expected=f"a codec among {', '.join(factory.codecs)}", got=repr(codec_name),
            remedy=f"For {codec_name} choose the head {' or '.join(fitting)}." if fitting else "",
        )  # fmt: skip
    try:
        return factory(channels, num_keypoints, codec=codec, grid_hw=grid_hw, **options)
    except TypeError as error:
        raise InputError(f"head {name}", expected="options that it has", got=str(options)) from error
