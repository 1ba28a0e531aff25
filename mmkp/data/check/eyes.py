"""What two eyes tell of a whole dataset: names that follow the viewer's left and right, and x and y exchanged.

Single rows are compared with the others (mmkp.data.check.shapes). Where all are wrong alike, only what an eye is tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mmkp.data.check.shapes import MIN_ROWS, complex_points
from mmkp.data.rows import Row
from mmkp.schema import KeypointSchema

OWN = "left and right are the subject's own: the right eye of a person who looks at you is at the left"
MOST = 0.8  # of the rows; people seen from behind show no eyes, and few stand on their heads


def judge_eyes(rows: Sequence[Row], schema: KeypointSchema) -> Iterator[tuple[str, str]]:
    """Kinds of findings about the whole, with their messages; rows have the schema's number of points."""
    sides = [_eye(schema, side) for side in ("right", "left")]
    if not all(sides) or len(rows) < MIN_ROWS:
        return
    points = complex_points(rows)
    right, left = (_mean(points[:, members]) for members in sides)
    across = (left - right)[np.isfinite(left - right)]
    if len(across) < MIN_ROWS:
        return
    upright = np.mean(np.abs(across.imag) > np.abs(across.real))
    turned = np.mean(across.real < 0)
    if upright > MOST:
        yield "x and y exchanged", f"in {upright:.0%} of {len(across)} rows one eye lies above the other"
    elif turned > MOST:
        yield (
            "sides exchanged",
            f"in {turned:.0%} of {len(across)} rows the right eye lies right of the left one; {OWN}",
        )


def _eye(schema: KeypointSchema, side: str) -> list[int]:
    """The points of one eye, by their names: `right_eye`, `right_eye_3`, `right_eye_inner`, `right_pupil`."""
    names = (f"{side}_eye", f"{side}_pupil")
    return [i for i, name in enumerate(schema.keypoints)
            if name in names or (name.startswith(f"{side}_eye_") and "brow" not in name)]  # fmt: skip


def _mean(points: np.ndarray) -> np.ndarray:
    """(N,) the mean of each row's known points; NaN where none is."""
    known = np.isfinite(points)
    total = np.where(known, points, 0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)
