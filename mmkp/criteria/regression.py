"""The criterion of plain coordinates: squares, absolute values, or what lies between and beyond."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmkp import losses
from mmkp.codecs.regression import CoordinateTarget, RegressionCodec
from mmkp.errors import InputError, choose
from mmkp.schema import KeypointSchema

PER_UNIT = 100  # lengths count in hundredths of the input's longer side, whatever its px
KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {  # the measure, and the lengths that a recipe may set
    "l1": (losses.absolute, ()),
    "l2": (losses.squared, ()),
    "smooth_l1": (losses.smooth_l1, ("beta",)),
    "wing": (losses.wing, ("width", "curvature")),
    "oks": (losses.oks, ()),
}


class RegressionCriterion(nn.Module):
    """Distance of the coordinates, in hundredths of the input's longer side.

    Args:
        codec: that made the targets.
        schema: its sigmas are what `oks` measures by.
        kind: `l1`, `l2` (the squared distance), `smooth_l1`, `wing`, or `oks`, for which the object is taken to fill
            the input: s^2 is the input's area.
        lengths: `beta` of smooth_l1; `width` and `curvature` of wing; hundredths of the input's longer side. Not
            given: what mmkp.losses says.

    Raises:
        InputError: no such kind, a length that it does not have or not above 0, `oks` with a schema without sigmas.
    """

    codecs = ("regression",)
    sigmas: Tensor

    def __init__(self, codec: RegressionCodec, schema: KeypointSchema, kind: str = "smooth_l1", **lengths: Any) -> None:
        super().__init__()
        found: Any = choose("loss.kind", kind, KINDS)
        self.measure, own = found
        wrong = {k: v for k, v in lengths.items() if k not in own or not isinstance(v, int | float) or not v > 0}
        if wrong:
            expected = f"lengths above 0 for {' and '.join(own)}" if own else "no option but the kind"
            raise InputError(f"loss regression of kind {kind}", expected=expected, got=str(wrong))
        if kind == "oks" and schema.sigmas is None:
            raise InputError(
                "loss.kind", expected=f"oks only with a schema that has sigmas, which {schema.name} lacks", got="'oks'",
                remedy=f"Choose another kind, or add sigmas to the schema {schema.name}.",
            )  # fmt: skip
        height, width = codec.input_size_hw
        self.lengths = {name: float(value) for name, value in lengths.items()}
        if kind == "oks":
            self.lengths["area"] = height * width * (PER_UNIT / codec.unit_px) ** 2
        self.register_buffer("sigmas", torch.tensor(schema.sigmas or ()), persistent=False)
        self.by_sigmas = kind == "oks"

    def forward(
        self, raw: Float[Tensor, "B K 2"], target: CoordinateTarget, point_weight: Float[Tensor, " K"]
    ) -> Float[Tensor, " B"]:
        """The loss of every item; `point_weight` says how much each keypoint counts."""
        points = raw.float() * PER_UNIT, target.xy * PER_UNIT, target.weight * point_weight
        return self.measure(*points, **self.lengths, **({"sigmas": self.sigmas} if self.by_sigmas else {}))
