"""DeepLabCut: labels of a project's frames, or its predictions for a video, as CSV or HDF5.

Layout: config.yaml and labeled-data/VIDEO/CollectedData_SCORER.csv with the frames beside it. Header lines scorer,
(individuals,) bodyparts, coords; then a line a frame: its name, in one cell or in three, and x, y (, likelihood) of
each body part; an empty cell is an unlabelled point. Source: DeepLabCut's example project
Reaching-Mackenzie-2018-08-30 and its user guide; `visible` as a third column: Lightning Pose's label files.

Frame. Labels are set on pictures shown by matplotlib and napari, both with the centre of the first pixel at (0, 0):
the numbers are taken as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jaxtyping import Int

from mmkp.data import card_of
from mmkp.data.paths import PathFault
from mmkp.data.readers.deeplabcut_h5 import read_h5
from mmkp.data.readers.labels import extent_box
from mmkp.data.readers.lines import UNLABELLED, Collector, Place, cell_numbers, check_option, flagged, read_lines
from mmkp.data.readers.lines import split_cells as cells_of
from mmkp.data.readers.naming import chosen_schema
from mmkp.data.readers.sources import Pictures, RowFault
from mmkp.data.rows import Row, RowTable
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema

COORDS = ("x", "y", "likelihood", "visible")
PATTERNS = ("CollectedData*.csv", "*/CollectedData*.csv", "labeled-data/*/CollectedData*.csv")
SINGLE = "single"  # the "individual" that parts of the scene, not of an animal, belong to
CUTOFF = 0.6  # DeepLabCut's own default of pcutoff


@dataclass
class _Table:
    """One file's header: which cells are what.

    Attributes:
        index: cells of a line that name the frame.
        columns: (individuals, body parts, 4) cell of x, y, likelihood and visible; -1 where there is none.
        rows: with their numbers; None for a line that is not UTF-8.
    """

    index: int
    width: int
    scorer: str
    individuals: list[str]
    parts: list[str]
    columns: Int[np.ndarray, "I K 4"]
    rows: list[tuple[int, Any]]


@dataclass
class _Reading:
    """What is known while one file is read."""

    file: Path
    table: _Table
    order: Int[np.ndarray, K]
    schema: KeypointSchema
    pictures: Pictures
    video: Path | None
    cutoff: float


class _Spot(NamedTuple):
    """A frame's picture, its video, and its number where the picture is a frame of a video file."""

    image: Path
    group: str
    frame: int | None = None


def read_deeplabcut(
    path: str | Path, *, schema: str | None = None, images: str | Path | None = None, video: str | Path | None = None,
    config: str | Path | None = None, cutoff: float | None = None, unlabelled: str = "skip",
) -> RowTable:  # fmt: skip
    """A row for each animal of each frame. Frames of one video are one group, where there are several videos.

    The schema is made of the body parts, with the skeleton of config.yaml as edges and flip pairs by the words left
    and right. The box is the whole picture, or 1.2 times the points' extent where a frame has several animals.

    Args:
        path: the project's folder, labeled-data, a video's folder in it, or one .csv or .h5.
        schema: a schema whose names are the body parts; by default one is made.
        images: the folder that the frames' names are relative to; by default it is looked for.
        video: the video whose frames the rows number, for a file of predictions; looked for beside it.
        config: config.yaml; by default it is looked for.
        cutoff: likelihood below which a point counts as unlabelled; the config's `pcutoff`, else 0.6.
        unlabelled: `skip` leaves out rows without a labelled keypoint (the default), or `keep`.

    Raises:
        InputError: nothing that can be read, files with different body parts, an option's value that is none.
        MissingExtraError: an .h5 without h5py.
    """
    check_option("unlabelled", unlabelled, UNLABELLED)
    root, collector = Path(path).expanduser(), Collector(unlabelled == "keep")
    settings = _settings(root, config, collector)
    pcutoff = settings.get("pcutoff") if cutoff is None else cutoff
    least = float(pcutoff) if isinstance(pcutoff, int | float) else CUTOFF
    tables = {file: _table(file) for file in _files(root, settings)}
    parts = list(dict.fromkeys(part for table in tables.values() for part in table.parts))
    edges = _pairs(settings.get("skeleton"))
    meaning, order = chosen_schema(
        schema, str(settings.get("Task") or "deeplabcut"), parts, edges, f"data deeplabcut:{root}"
    )
    for file, table in tables.items():
        folder = file.absolute().parent
        project = folder.parents[1] if folder.parent.name == "labeled-data" else folder
        pictures = Pictures(file, "deeplabcut", images or project)
        film = Path(video).expanduser() if video else _video(file, table)
        places = np.array([order[part] for part in table.parts])
        _add_rows(collector, _Reading(file, table, places, meaning, pictures, film, least))
    collector.divide_lone_group("video")
    return RowTable("deeplabcut", meaning, collector.rows, collector.faults, root if root.is_dir() else root.parent)


def _files(root: Path, settings: dict[str, Any]) -> list[Path]:
    if root.is_file():
        return [root]
    for pattern in PATTERNS if root.is_dir() else ():
        found = sorted(file for file in root.glob(pattern) if file.is_file())
        own = [file for file in found if file.stem == f"CollectedData_{settings.get('scorer')}"]
        if found:
            return own or found
    raise InputError(
        f"data deeplabcut:{root}", expected="labeled-data/*/CollectedData_*.csv", got="none there",
        remedy=f"Name a .csv or .h5 (see {card_of('deeplabcut')}).",
    )  # fmt: skip


def _settings(root: Path, config: str | Path | None, collector: Collector) -> dict[str, Any]:
    """What config.yaml says; nothing where there is none, and a fault where it cannot be read."""
    near = [folder / "config.yaml" for folder in (root, *list(root.absolute().parents)[:3])]
    file = Path(config).expanduser() if config else next((f for f in near if f.is_file()), None)
    if file is None:
        return {}
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        if config:
            raise InputError(f"option config {file}", expected="a readable YAML file", got=str(error)) from error
        collector.note("bad row", Place(file.name, 0, ""), f"cannot be read, so there is no skeleton: {error}")
        return {}
    return settings if isinstance(settings, dict) else {}


def _pairs(skeleton: Any) -> list[tuple[str, str]]:
    listed = skeleton if isinstance(skeleton, list) else []
    return [(str(pair[0]), str(pair[1])) for pair in listed if isinstance(pair, list) and len(pair) == 2]


def _table(file: Path) -> _Table:
    """The header of a file, and its rows yet to be read.

    Raises:
        InputError: no header of DeepLabCut's.
    """
    if file.suffix.lower() in (".h5", ".hdf5"):
        head, rows = read_h5(file)
        numbered: list[tuple[int, Any]] = list(enumerate(rows, 1))
    else:
        lines = read_lines(file, "deeplabcut")
        head, numbered = _head(lines[:4]), [(n, line) for n, line in lines if line is None or line.strip()]
        numbered = numbered[len(head) :]
    levels = {line[0].lower(): line for line in head if line}
    coords = [cell.lower() for cell in levels.get("coords", [])]
    index = next((i for i, cell in enumerate(coords) if cell in COORDS), 0)
    parts, width = levels.get("bodyparts", []), len(coords)
    animals = levels.get("individuals", [""] * width)
    if not index or len(parts) != width or len(animals) != width or {*coords[index:]} - {*COORDS}:
        raise InputError(
            f"data deeplabcut:{file}", expected="the lines scorer, (individuals,) bodyparts, coords",
            got=(", ".join(levels) or "none of them")[:60],
        )  # fmt: skip
    names = list(dict.fromkeys(animals[index:]))
    several = [name for name in names if name != SINGLE] or names  # parts of the scene are no animal's
    used = [i for i in range(index, width) if animals[i] in several]
    listed = list(dict.fromkeys(parts[i] for i in used))
    columns = np.full((len(several), len(listed), len(COORDS)), -1)
    for i in used:
        columns[several.index(animals[i]), listed.index(parts[i]), COORDS.index(coords[i])] = i
    scorer = next(iter(levels.get("scorer", [])[index:]), "")
    return _Table(index, width, scorer, several, listed, columns, numbered)


def _head(lines: Sequence[tuple[int, str | None]]) -> list[list[str]]:
    """The first lines, up to the one that starts with `coords`."""
    try:
        cells = [cells_of(line) for _, line in lines]
    except RowFault:
        return []
    before = list(takewhile(lambda line: not line or line[0].lower() != "coords", cells))
    return cells[: len(before) + 1]


def _video(file: Path, table: _Table) -> Path | None:
    """The video beside a file of predictions, whose name is the video's and the scorer's."""
    stem = file.stem.partition(table.scorer)[0] if table.scorer else ""
    suffixes = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".webm")
    return next((f for s in suffixes if stem and (f := file.with_name(stem + s)).is_file()), None)


def _add_rows(collector: Collector, reading: _Reading) -> None:
    table = reading.table
    for number, line in table.rows:
        animals = range(len(table.individuals))
        where = f"{reading.file.name} line {number}"
        try:
            cells = line if isinstance(line, list) else cells_of(line)
            if len(cells) != table.width:
                raise RowFault("keypoint count", f"expected {table.width} cells as in the header, got {len(cells)}")
            name = "/".join(cell for cell in cells[: table.index] if cell)
            spot = _spot(reading, name)
        except (RowFault, PathFault) as fault:
            collector.note(fault.kind, Place(where, number, ""), str(fault))
            continue
        present = [i for i in animals if any(cells[c] for c in table.columns[i, :, :2].ravel() if c >= 0)]
        for i in animals if len(animals) == 1 else present:
            animal = table.individuals[i]
            key = f"{reading.file.stem}/{name}" if spot.frame is not None else name
            place = Place(f"{where} {animal}".strip(), number, f"{key} {animal}".strip())
            collector.attempt(place, partial(_row, collector, reading, cells, i, spot, len(present) > 1))


def _row(
    collector: Collector, reading: _Reading, cells: list[str], animal: int, spot: _Spot, several: bool, place: Place
) -> Row:
    """An animal's row. Raises RowFault for cells that are no numbers."""
    points, visible, lost = _points(reading, cells, animal)
    if lost:
        collector.note("not a number", place, f"{lost} keypoints lie nowhere and count as unlabelled")
    box = extent_box(points[visible > 0].astype(np.float64)) if several else None
    return Row(place.id, spot.group, place.where, points, visible, box, spot.image, spot.frame)


def _spot(reading: _Reading, name: str) -> _Spot:
    """Where a frame is, by the name or the number that its line starts with.

    Raises:
        PathFault: no such picture or video, or a name that leads out.
        RowFault: no name.
    """
    if name.isdecimal() and len(name) < 10:
        if reading.video is None or not reading.video.is_file():
            raise PathFault("missing file", f"{name} is a frame's number, and no video is beside; video=FILE names it")
        return _Spot(reading.video, reading.video.name, int(name))
    try:
        image, group = reading.pictures.find(name)
    except PathFault as fault:
        beside = name.replace("\\", "/").rpartition("/")[2]
        if fault.kind == "path escape" or not beside or not (reading.file.parent / beside).is_file():
            raise
        image, _ = Pictures(reading.file, "deeplabcut", reading.file.parent).find(beside)
        return _Spot(image, reading.file.parent.name)
    return _Spot(image, Path(group).parent.name or reading.file.parent.name)


def _points(reading: _Reading, cells: list[str], animal: int) -> tuple[np.ndarray, np.ndarray, int]:
    """An animal's points in the schema's order, their flags, and how many lie nowhere.

    Raises:
        RowFault: `not a number`.
    """
    columns = reading.table.columns[animal]
    given = cell_numbers([cells[c] if c >= 0 else "" for c in columns.ravel()]).reshape(columns.shape)
    xy, likelihood, visible = given[:, :2], given[:, 2], given[:, 3]
    xy[(likelihood < reading.cutoff) | (visible == 0)] = np.nan
    points = np.full((reading.schema.num_keypoints, 2), np.nan)
    hidden = np.zeros(len(points), dtype=bool)
    points[reading.order], hidden[reading.order] = xy, visible == 1
    return flagged(points, hidden)
