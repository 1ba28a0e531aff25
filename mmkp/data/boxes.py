"""Objects as keypoints: the corners and the middle of the boxes of any format. `boxes:coco:PATH`."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from mmkp.data.rows import Fault, Row, RowTable
from mmkp.errors import choose
from mmkp.schema import load_schema

# Of a box's width and height from its top left corner, by keypoint.
PLACES: dict[str, Any] = {
    "quad4": [[0, 0], [1, 0], [1, 1], [0, 1]],
    "box5": [[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]],
    "centre1": [[0.5, 0.5]],
}
KEEPS_UNLABELLED = ("coco", "wholebody", "crowdpose", "ap10k", "mpii")  # an object without labelled joints has a box


def read_boxes(spec: str, keypoints: str = "quad4", **options: Any) -> RowTable:
    """Another format's rows with a box, the box as keypoints and the whole picture as what is seen.

    Where a row has no text, its category (`dog`) tells which object is meant; a picture with several objects of one
    category cannot be answered by that alone.

    Args:
        spec: of the other dataset, `coco:PATH`; one made of rows.
        keypoints: `quad4` the corners, `centre1` the middle, `box5` both.
        options: of the other dataset.

    Raises:
        InputError: no such keypoints, or what the other dataset's reader raises.
    """
    from mmkp.data import open_table, split_spec

    places = np.asarray(choose("boxes keypoints", keypoints, PLACES), np.float64)
    name = split_spec(spec)[0]
    if name in KEEPS_UNLABELLED:
        options = {"unlabelled": "keep", **options}
    table = open_table(spec, **options)
    rows = [_with_corners(row, places) for row in table.rows if row.box_xywh is not None]
    left = len(table.rows) - len(rows)
    faults = [*table.faults]
    if left:
        faults.append(Fault("bad box", name, f"{left} of {len(table.rows)} rows have no box and are left out"))
    return RowTable(f"boxes:{table.name}", load_schema(keypoints), rows, faults, table.root)


def _with_corners(row: Row, places: Float[np.ndarray, "K 2"]) -> Row:
    assert row.box_xywh is not None
    box = np.asarray(row.box_xywh, np.float64)
    points = (box[:2] + places * box[2:]).astype(np.float32)
    text = row.text if row.text is not None else row.info.get("category")
    return row.replace(
        keypoints_xy=points, visible=np.full(len(points), 2, np.uint8), box_xywh=None, text=text,
        info={**row.info, "box_xywh": box.tolist()},
    )  # fmt: skip
