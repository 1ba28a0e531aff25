"""Fusions: the three rules, and the learned ones. Each takes the lifted grids and gives one grid."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from mmkp.errors import InputError, choose
from mmkp.fusion.bottleneck import BottleneckFusion
from mmkp.fusion.concat import ConcatFusion
from mmkp.fusion.conv_gru import ConvGruFusion
from mmkp.fusion.cross_attention import CrossAttentionFusion
from mmkp.fusion.film import FilmFusion
from mmkp.fusion.gated import GatedFusion
from mmkp.fusion.low_rank import LowRankFusion
from mmkp.fusion.rnn import RnnFusion
from mmkp.fusion.rules import FusionRule

FUSIONS: dict[str, Any] = {
    "average": partial(FusionRule, kind="average"),
    "weighted": partial(FusionRule, kind="weighted"),
    "product": partial(FusionRule, kind="product"),
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "film": FilmFusion,
    "cross_attention": CrossAttentionFusion,
    "bottleneck": BottleneckFusion,
    "rnn": RnnFusion,
    "conv_gru": ConvGruFusion,
    "low_rank": LowRankFusion,
}
LEVELS = ("feature", "model")


def make_fusion(name: str, members: tuple[str, ...], channels: int, level: str, **options: Any) -> nn.Module:
    """A fusion by name, for the given members.

    Raises:
        InputError: no such fusion or level, a learned fusion at model level, an option that it does not have.
    """
    factory: Any = choose("fusion.name", name, FUSIONS)
    if level not in LEVELS:
        raise InputError("fusion.level", expected=" or ".join(LEVELS), got=repr(level))
    is_rule = name in FusionRule.KINDS
    if level == "model" and not is_rule:
        raise InputError(
            "fusion.level", expected=f"feature for the learned fusion {name!r}", got="model",
            remedy=f"At model level choose one of: {', '.join(FusionRule.KINDS)}.",
        )  # fmt: skip
    try:
        return factory(members, **options) if is_rule else factory(members, channels, **options)
    except TypeError as error:
        raise InputError(f"fusion {name}", expected="options that it has", got=str(options)) from error
