"""Numbers of an annotation as keypoints and boxes, for every reader of COCO's family and of MPII."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from mmkp.data.readers.sources import RowFault

_FARTHEST_PX = 1e6  # no picture is that large; float32 still tells its pixels apart


def numbers(value: Any, what: str) -> Float64[np.ndarray, N]:
    """A flat array of whatever nesting; text, nothing and truth values are not taken for numbers.

    Raises:
        RowFault: `not a number`.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise RowFault("not a number", f"expected only numbers in {what}, got {str(value)[:40]}")
    return array.astype(np.float64).reshape(-1)


def scalars(values: list[Any], what: str) -> Float64[np.ndarray, N]:
    """One number for each value.

    Raises:
        RowFault: `not a number`, a list in a number's place too.
    """
    found = numbers(values, what)
    if len(found) != len(values) or any(np.ndim(v) for v in values):
        raise RowFault("not a number", f"expected {len(values)} number(s) in {what}, got {str(values)[:40]}")
    return found


def on_a_picture(points_xy: Float64[np.ndarray, "N 2"]) -> Bool[np.ndarray, N]:
    """Which points have coordinates that some picture could have."""
    return (np.abs(points_xy) < _FARTHEST_PX).all(-1)  # NaN is not below


def triples(flat: Float64[np.ndarray, N], labelled_only: bool) -> tuple[np.ndarray, UInt8[np.ndarray, K]]:
    """Points (K, 2) and flags of x, y, v one after the other.

    Args:
        flat: 3 K numbers.
        labelled_only: v above 0 means labelled and nothing more, which counts as visible; otherwise v is COCO's flag,
            a fraction of it counting as hidden.
    """
    table = flat.reshape(-1, 3)
    given = table[:, 2]
    flag = np.ceil(np.minimum(np.where(given > 0, given, 0), 2))  # NaN is not above
    return table[:, :2], (np.where(flag > 0, 2, 0) if labelled_only else flag).astype(np.uint8)


def centre_box(
    centre: Any, scale: Any, origin: float = 0.0, margin: float = 1.0, lower: float = 0.0
) -> Float64[np.ndarray, 4] | None:
    """The square that a `center` and a `scale` of 200 px mean, xywh; None where they are none.

    Source: MPII's description of objpos and scale ("w.r.t. 200 px height"), kept by the pose community's JSON.

    Args:
        centre: x, y.
        scale: side of the square in units of 200 px.
        origin: what the source calls the first pixel's index.
        margin: by which the square is enlarged.
        lower: how far below the centre its middle lies, px times scale.
    """
    try:
        size = scalars([scale], "scale")[0]
        middle, side = numbers(centre, "center") - origin, margin * 200 * size
    except RowFault:
        return None
    if len(middle) != 2 or not on_a_picture(middle[None])[0] or not 0 < side < _FARTHEST_PX:
        return None
    return np.array([middle[0] - side / 2, middle[1] + lower * size - side / 2, side, side])


def extent_box(labelled_xy: Float64[np.ndarray, "N 2"], margin: float = 1.2) -> Float64[np.ndarray, 4] | None:
    """The box about points, `margin` times their extent, xywh; None where they span none.

    Source: the margin is that of the pose community's conversions of face sets.
    """
    if not len(labelled_xy):
        return None
    low, size = labelled_xy.min(0), np.ptp(labelled_xy, axis=0)
    if min(size) <= 0:
        return None
    return np.array([*(low - (margin - 1) / 2 * size), *(margin * size)])


def usable_box(value: Any) -> Float64[np.ndarray, 4] | None:
    """x, y, width and height as given; None unless they are four numbers that make a box."""
    try:
        box = numbers(value, "bbox")
    except RowFault:
        return None
    return box if len(box) == 4 and on_a_picture(box.reshape(2, 2)).all() and min(box[2:]) > 0 else None
