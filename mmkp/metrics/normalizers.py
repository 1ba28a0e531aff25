"""The lengths that errors are divided by, by name. The figure's meaning hangs on it: name it beside every NME and PCK.

A length that cannot be had from an item (a point of it is not labelled) is NaN, and metrics leave the item out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mmkp.errors import InputError, choose
from mmkp.metrics.arrays import Array, as_double, namespace
from mmkp.schema import KeypointSchema

MPII_HEAD_BIAS = 0.6  # the MPII toolkit's SC_BIAS: the head box's diagonal is longer than the head
SHOULDER_HIP = (("left_shoulder", "right_hip"), ("l_shoulder", "r_hip"))
HEAD_NECK = (("head_top", "upper_neck"), ("head", "neck"), ("top_head", "neck"))


def normalizer_px(
    name: str,
    true_xy: Float[Array, "N K 2"],
    labelled: Bool[Array, "N K"],
    schema: KeypointSchema,
    box_xywh: Float[Array, "N 4"] | None = None,
    head_box_xywh: Float[Array, "N 4"] | None = None,
) -> Float[Array, " N"]:
    """The normalizer `name` of every item.

    Args:
        name: of `NORMALIZERS`: `unit` (1 px), `box_side` (square root of the box's area), `box_diagonal`,
            `head_box` (PCKh: 0.6 of the head box's diagonal), `head_segment` (head top to upper neck, whole),
            `torso` (left shoulder to right hip), `schema` (the distance of the two points that the schema names, such
            as face68's outer eye corners).
        true_xy: px.
        labelled: of the true points.
        schema: what the points are.
        box_xywh: px, for the normalizers of the box.
        head_box_xywh: px, for `head_box`.

    Returns:
        (N,) px; NaN where a point of the length is not labelled.

    Raises:
        InputError: an unknown name; the length needs a box or points that are not there.
    """
    measure: Any = choose("normalizer", name, NORMALIZERS)
    boxes = {"box_side": box_xywh, "box_diagonal": box_xywh, "head_box": head_box_xywh}
    if name in boxes and boxes[name] is None:
        need = "head_box_xywh" if name == "head_box" else "box_xywh"
        raise InputError(f"normalizer {name}", expected=need, got="none")
    return measure(true_xy, labelled, schema, boxes.get(name))


def head_box_length(head_box_xywh: Float[Array, "N 4"]) -> Float[Array, " N"]:
    """PCKh's unit: 0.6 of the head box's diagonal, px."""
    return MPII_HEAD_BIAS * _diagonal(head_box_xywh)


def torso_length(
    true_xy: Float[Array, "N K 2"], labelled: Bool[Array, "N K"], schema: KeypointSchema
) -> Float[Array, " N"]:
    """Distance of the schema's torso points, px."""
    return _segment(true_xy, labelled, torso_points(schema))


def torso_points(schema: KeypointSchema) -> tuple[int, int]:
    """The schema's group `torso` if it has two members, or else left shoulder and right hip by name.

    Raises:
        InputError: the schema has neither.
    """
    group = schema.groups.get("torso", ())
    if len(group) == 2:
        return group[0], group[1]
    return _named_pair(schema, SHOULDER_HIP, "torso")


def head_points(schema: KeypointSchema) -> tuple[int, int]:
    """Head top and upper neck, by name.

    Raises:
        InputError: the schema has no such points.
    """
    return _named_pair(schema, HEAD_NECK, "head segment")


def _named_pair(schema: KeypointSchema, pairs: tuple[tuple[str, str], ...], what: str) -> tuple[int, int]:
    index = {name.lower().replace(" ", "_").replace("-", "_"): i for i, name in enumerate(schema.keypoints)}
    for a, b in pairs:
        if a in index and b in index:
            return index[a], index[b]
    wanted = " or ".join(f"{a} and {b}" for a, b in pairs)
    raise InputError(f"{what} of schema {schema.name}", expected=f"keypoints named {wanted}", got="none of them")


def _schema_points(schema: KeypointSchema) -> tuple[int, int]:
    if schema.normalizer.kind != "distance":
        raise InputError(
            f"normalizer of schema {schema.name}", expected="a distance of two points", got=schema.normalizer.kind
        )
    return schema.normalizer.points[0], schema.normalizer.points[1]


def _segment(true_xy: Any, labelled: Any, pair: tuple[int, int]) -> Any:
    xp = namespace(true_xy, labelled)
    a, b = pair
    length = xp.sqrt(((as_double(true_xy[:, a]) - as_double(true_xy[:, b])) ** 2).sum(-1))
    return xp.where(labelled[:, a] & labelled[:, b], length, np.nan)


def _diagonal(box: Any) -> Any:
    return namespace(box).sqrt((as_double(box[:, 2:]) ** 2).sum(-1))


NORMALIZERS: dict[str, Callable[[Any, Any, KeypointSchema, Any], Any]] = {
    "unit": lambda xy, labelled, schema, box: as_double(labelled[:, 0]) * 0 + 1,
    "box_side": lambda xy, labelled, schema, box: namespace(box).sqrt(as_double(box[:, 2:]).clip(0).prod(-1)),
    "box_diagonal": lambda xy, labelled, schema, box: _diagonal(box),
    "head_box": lambda xy, labelled, schema, box: head_box_length(box),
    "head_segment": lambda xy, labelled, schema, box: _segment(xy, labelled, head_points(schema)),
    "torso": lambda xy, labelled, schema, box: torso_length(xy, labelled, schema),
    "schema": lambda xy, labelled, schema, box: _segment(xy, labelled, _schema_points(schema)),
}
