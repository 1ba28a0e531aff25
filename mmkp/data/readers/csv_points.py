"""Keypoints in a CSV, a row a picture: image,x0,y0,x1,y1,... and the relatives of it that face sets come in.

Frame. YouTube Faces with keypoints says nothing of its pixel origin: the numbers are taken as they are, the centre of
the top-left pixel at (0, 0). Two other labellers find them about 1 px further right and down (data_cards/
youtube_faces.md); `first_pixel=1` takes that away.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from mmkp.data.face import BOX_SIDE, face_box
from mmkp.data.readers.lines import (
    UNLABELLED,
    Collector,
    Place,
    cell_numbers,
    check_option,
    flagged,
    read_lines,
    split_cells,
)
from mmkp.data.readers.naming import order_in_schema
from mmkp.data.readers.sources import Pictures, RowFault, annotation_files, split_of
from mmkp.data.rows import Row, RowTable
from mmkp.data.splits import canonical, hash_tenth
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema, load_schema, schema_names

UDACITY = ("training_frames_keypoints.csv", "test_frames_keypoints.csv")  # pictures in training/ and test/
PICTURE_COLUMNS = ("image", "file_name", "filename", "file", "path", "name", "")
GROUPS = ("person", "picture")
_COPY = re.compile(r"_(test|training)$")  # left from another copy of the set, no part of a name
_NUMBERED = re.compile(r"([xy])_?(\d{1,9})")
_NAMED = re.compile(r"(.+)[_. ]([xy])")


class _Columns(NamedTuple):
    """Which cells of a line hold what: the picture's name; x0, y0, x1, ... (2 K); how many cells; the first row."""

    picture: int
    points: Int[np.ndarray, TwoK]
    width: int
    first: int


def read_csv_points(
    path: str | Path, *, schema: str = "face68", images: str | Path | None = None, group: str = "person",
    unlabelled: str = "skip", first_pixel: float = 0.0,
) -> RowTable:  # fmt: skip
    """Keypoints of a CSV, or of a folder's train.csv and val.csv.

    Splits are by files' names. Where a folder has a training and a validation file but no test file, the latter is the
    test set; where it has no validation, the people of the training file whose name has a sha1 of 0 modulo 10 are it.
    The box of face68 is laid from the eyes alone, of other schemas it is the whole picture.

    Args:
        path: a CSV, or the folder of them. The columns are image,x0,y0,x1,y1,... in any order, or NAME_x,NAME_y with
            the schema's names, or, after the picture's name, numbers alone. An empty cell is an unlabelled point.
        schema: a built-in schema's name or a YAML file.
        images: the folder of the pictures; by default it is looked for.
        group: what no split divides: `person`, the name before the last `_`, or `picture`.
        unlabelled: `skip` leaves out rows without a labelled keypoint (the default), or `keep`.
        first_pixel: the coordinate that the source gives the centre of its first pixel, x and y alike: 0 (the
            default), 1 where pixels are counted from 1, 0.5 where the picture's corner is the origin.

    Raises:
        InputError: nothing that can be read, columns that are not the schema's, an option's value that is none.
    """
    if isinstance(first_pixel, bool) or not isinstance(first_pixel, (int, float)) or not abs(first_pixel) <= 1:
        raise InputError("option first_pixel", expected="a number from -1 to 1", got=repr(first_pixel))
    check_option("group", group, GROUPS)
    check_option("unlabelled", unlabelled, UNLABELLED)
    meaning, collector = load_schema(schema), Collector(unlabelled == "keep")
    copies: Counter[str] = Counter()
    root = Path(path).expanduser()
    for file in _files(root):
        own = file.parent / file.stem.partition("_")[0]
        folder = own if images is None and file.name in UDACITY and own.is_dir() else images
        split = split_named(file)
        pictures = Pictures(file, "csv", folder, split)
        _add_rows(collector, file, pictures, meaning, split, copies, first_pixel)
        root = pictures.root if images else root
    if group == "person":
        collector.divide_lone_group("person")
    else:
        collector.rows = [row.replace(group=row.info["picture"]) for row in collector.rows]
    if "validation" not in {row.split for row in collector.rows}:
        collector.rows = [_held_out(row) for row in collector.rows]
    root = root if root.is_dir() else root.parent
    return RowTable("csv", meaning, collector.rows, collector.faults, root)


def _files(path: Path) -> list[Path]:
    named = [path / name for name in UDACITY if (path / name).is_file()]
    return named or annotation_files(path, "csv", ("*.csv",))


def split_named(file: Path) -> str | None:
    """The split of a file: as its name says, but a validation file beside a training file and no test file is the test.

    Source: the protocol of the set's own course, whose second part is for testing.
    """
    split = canonical(split_of(file))
    beside = {canonical(split_of(other)) for other in file.absolute().parent.glob("*.csv")}
    return "test" if split == "validation" and "train" in beside and "test" not in beside else split


def person_of(name: str) -> str:
    """The person of PERSON_NN.jpg and PERSON_NN_test.jpg: the name before the last `_`, or all of it without one."""
    return _COPY.sub("", Path(name).stem).rpartition("_")[0] or _COPY.sub("", Path(name).stem)


def _held_out(row: Row) -> Row:
    return row.replace(split="validation") if row.split == "train" and hash_tenth(row.group) == 0 else row


def _add_rows(
    collector: Collector, file: Path, pictures: Pictures, schema: KeypointSchema, split: str | None,
    copies: Counter[str], first_pixel: float,
) -> None:  # fmt: skip
    lines = read_lines(file, "csv")
    columns = _columns(file, lines[0][1], schema)

    def make(place: Place) -> Row:
        cells = split_cells(lines[place.number - 1][1])
        if len(cells) != columns.width:
            raise RowFault("keypoint count", f"expected {columns.width} columns as in the first line, got {len(cells)}")
        name = cells[columns.picture]
        points, visible, lost = flagged(cell_numbers([cells[i] for i in columns.points]).reshape(-1, 2))
        points = points - np.float32(first_pixel)
        image, within = pictures.find(name)
        if lost:
            collector.note("not a number", place, f"{lost} keypoints lie nowhere and count as unlabelled")
        stem = Path(name).stem
        copies[stem] += 1
        key = stem if copies[stem] == 1 else f"{stem}_{copies[stem]}"
        box = _box(collector, place._replace(id=key), points, schema)
        row = Row(key, person_of(name), place.where, points, visible, box, image, split=split)
        return row.replace(info={"picture": within})

    for number, line in lines[columns.first :]:
        if line is None or line.strip():
            collector.attempt(Place(f"{file.name} line {number}", number, ""), make)


def _box(
    collector: Collector, place: Place, points: Float32[np.ndarray, "K 2"], schema: KeypointSchema
) -> np.ndarray | None:
    if schema.name != "face68":
        return None
    box = face_box(points.astype(np.float64))
    if np.isfinite(box).all() and box[2] >= BOX_SIDE:  # outer eye corners at least a pixel apart
        return box
    if np.isfinite(points).any():
        collector.note("bad box", place, "the eyes that it is laid from are not labelled: the whole picture is used")
    return None


def _columns(file: Path, header: str | None, schema: KeypointSchema) -> _Columns:
    """The columns that the first line names; a first line of numbers is a row already.

    Raises:
        InputError: not as many keypoints as the schema has, or other names.
    """
    where, count = f"data csv:{file}", schema.num_keypoints
    try:
        cells = [cell.lower() for cell in split_cells(header)]
    except RowFault as fault:
        raise InputError(where, expected="a first line of column names", got=str(fault)) from fault
    told = {i: (found[1] + "_", int(found[2])) for i, c in enumerate(cells) if (found := _NUMBERED.fullmatch(c))}
    if told:
        start = min(number for _, number in told.values())
        places = {(number - start) * 2 + (axis == "y_"): i for i, (axis, number) in told.items()}
    elif any(_NAMED.fullmatch(cell) for cell in cells):
        by_name = {i: found for i, c in enumerate(cells) if (found := _NAMED.fullmatch(c))}
        order = order_in_schema(schema, [found[1] for found in by_name.values()], where)
        places = {order[found[1]] * 2 + (found[2] == "y"): i for i, found in by_name.items()}
    else:
        places = {i - 1: i for i, cell in enumerate(cells) if i and _is_number(cell)}
    if sorted(places) != list(range(2 * count)):
        fitting = [name for name in schema_names() if 2 * load_schema(name).num_keypoints == len(places)]
        raise InputError(
            where, expected=f"columns x0,y0,... of the {count} keypoints of {schema.name} after the picture's name",
            got=f"{len(places) / 2:g} keypoints in the first line",
            remedy=f"schema=NAME says which they are{': ' + ', '.join(fitting) if fitting else ''}.",
        )  # fmt: skip
    others = [i for i in range(len(cells)) if i not in places.values()]
    picture = next((i for name in PICTURE_COLUMNS for i in others if cells[i] == name), others[0] if others else -1)
    if picture < 0:
        raise InputError(where, expected="a column with the picture's name", got="only coordinates")
    numbers = [cells[places[k]] for k in range(2 * count)]
    headless = all(map(_is_number, numbers)) and numbers != [str(k) for k in range(2 * count)]
    return _Columns(picture, np.array([places[k] for k in range(2 * count)]), len(cells), 0 if headless else 1)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == ""
    return True
