"""Boxes for rows without one: of the face that a model finds and that holds the row's keypoints.

A fine-tuned model has no finder of its own: in use another model finds the faces for it (`--find-with`), and then it
should have learned from such boxes too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmkp.data.rows import Row, RowDataset, RowTable
from mmkp.errors import InputError
from mmkp.finding import check_finder, find
from mmkp.hub import Loaded

HELD = 0.5  # the least share of a row's labelled keypoints that lies in the box of its face
Progress = Callable[[Sequence[Row]], Iterable[Row]]


@dataclass(frozen=True)
class Laid:
    """A table with boxes.

    Attributes:
        table: the rows, all of them.
        laid: rows that got a box.
        missed: a line for each row with a picture that got none, and why; the whole picture stays its box.
    """

    table: RowTable
    laid: int
    missed: tuple[str, ...]


def lay_boxes(table: RowTable, finder: Loaded, progress: Progress = lambda rows: rows) -> Laid:
    """Give each row that has a picture and no box that of a face which is found in it.

    Of several faces it is the one whose box holds most of the row's labelled keypoints, at least half of them; in a
    row without labels the best.

    Args:
        table: rows that have a box keep it.
        finder: a model that finds faces.
        progress: wraps the rows that are looked at.

    Raises:
        InputError: a model that finds no faces.
    """
    check_finder(finder.model, f"--find-with {finder.source}")
    boxes: dict[int, np.ndarray] = {}
    missed = []
    for row in progress([r for r in table.rows if r.box_xywh is None and r.image is not None]):
        try:
            found = find(finder.model, finder.processor, RowDataset.read_image(row))
        except InputError as error:
            missed.append(f"{row.where}: {error}")
            continue
        box = face_of(row, found.boxes_xywh)
        if box is None:
            said = "no face found" if not len(found) else f"{len(found)} found, none with half of the keypoints in it"
            missed.append(f"{row.where}: {said}: no box, so that the whole picture is taken")
        else:
            boxes[id(row)] = box
    rows = [r.replace(box_xywh=boxes[id(r)]) if id(r) in boxes else r for r in table.rows]
    made = RowTable(name=table.name, schema=table.schema, rows=rows, faults=table.faults, root=table.root)
    return Laid(made, len(boxes), tuple(missed))


def face_of(row: Row, boxes_xywh: np.ndarray) -> Any:
    """The box (4,) of the row's face among those found (N, 4), best first; None where none is."""
    points = row.keypoints_xy[row.visible > 0].astype(np.float64)
    if not len(boxes_xywh) or not len(points):
        return boxes_xywh[0] if len(boxes_xywh) else None
    low, high = boxes_xywh[:, None, :2], boxes_xywh[:, None, :2] + boxes_xywh[:, None, 2:]
    held = ((points >= low) & (points <= high)).all(-1).mean(1)
    return boxes_xywh[held.argmax()] if held.max() >= HELD else None
