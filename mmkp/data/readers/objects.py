"""Objects of a labelling tool's picture: named points that belong together, with their box and their text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64

from mmkp.data.readers.labels import extent_box
from mmkp.data.readers.lines import Collector, Place, flagged
from mmkp.data.readers.sources import RowFault
from mmkp.data.rows import Row
from mmkp.schema import KeypointSchema


@dataclass
class NamedPoint:
    """A point as a tool exports it: px in this package's frame."""

    name: str
    x: float
    y: float
    hidden: bool = False


@dataclass
class LabelledObject:
    """One object of a picture, before its names have places in a schema."""

    points: list[NamedPoint] = field(default_factory=list)
    box_xywh: Float64[np.ndarray, 4] | None = None
    text: str | None = None
    info: dict[str, Any] = field(default_factory=dict)


def share_out(points: list[NamedPoint], objects: list[LabelledObject]) -> None:
    """Give loose points to the smallest box that holds them; all of them to the one object, where there is one.

    Raises:
        RowFault: several boxes, and a point in none of them.
    """
    for point in points:
        holding = objects if len(objects) == 1 else [o for o in objects if _holds(o, point)]
        if not holding:
            raise RowFault("bad row", f"the point {point.name} lies in none of the {len(objects)} boxes")
        min(holding, key=_area).points.append(point)


def _area(item: LabelledObject) -> float:
    return np.inf if item.box_xywh is None else float(np.prod(item.box_xywh[2:]))


def _holds(item: LabelledObject, point: NamedPoint) -> bool:
    if item.box_xywh is None:
        return False
    x, y, width, height = item.box_xywh
    return bool(x <= point.x <= x + width and y <= point.y <= y + height)


def make_row(
    item: LabelledObject, place: Place, schema: KeypointSchema, order: dict[str, int], alone: bool, collector: Collector
) -> Row:
    """The object's row, without its picture.

    Args:
        order: the place of each name in the schema.
        alone: the picture's only object, whose box without a given one is the whole picture, not the points' extent.

    Raises:
        RowFault: a name twice.
    """
    points = np.full((schema.num_keypoints, 2), np.nan)
    hidden = np.zeros(schema.num_keypoints, dtype=bool)
    for point in item.points:
        k = order[point.name]
        if not np.isnan(points[k]).all():
            raise RowFault("keypoint count", f"{point.name} stands twice in one object; boxes tell objects apart")
        points[k], hidden[k] = (point.x, point.y), point.hidden
    kept, visible, lost = flagged(points, hidden)
    if lost:
        collector.note("not a number", place, f"{lost} keypoints lie nowhere and count as unlabelled")
    box = item.box_xywh
    if box is None and not alone:
        box = extent_box(kept[visible > 0].astype(np.float64))
    return Row(place.id, "", place.where, kept, visible, box, text=item.text, info=item.info)


def add_rows(
    collector: Collector, place: Place, objects: list[LabelledObject], schema: KeypointSchema, order: dict[str, int],
    picture: dict[str, Any],
) -> None:  # fmt: skip
    """Rows of a picture's objects.

    Args:
        place: of the picture.
        order: the place of each name in the schema.
        picture: the rows' fields that the picture gives: image, group, split.
    """

    def make(item: LabelledObject, place: Place) -> Row:
        return make_row(item, place, schema, order, len(objects) == 1, collector).replace(**picture)

    for i, item in enumerate(objects):
        key = place.id if len(objects) == 1 else f"{place.id}_{i}"
        collector.attempt(place._replace(id=key), partial(make, item))
