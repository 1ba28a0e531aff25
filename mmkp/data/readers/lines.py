"""What readers of text annotations share: lines that cost only themselves, rows that are tried one by one."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from mmkp.data.paths import PathFault
from mmkp.data.readers.labels import on_a_picture
from mmkp.data.readers.sources import RowFault
from mmkp.data.rows import Fault, Row
from mmkp.errors import InputError

UNLABELLED = ("skip", "keep")


class Place(NamedTuple):
    """Where a row stands: for messages, its number from 1, and its id."""

    where: str
    number: int
    id: str


@dataclass
class Collector:
    """Rows that could be made, and the faults of the others.

    Attributes:
        keep_unlabelled: rows without a labelled keypoint are kept too.
    """

    keep_unlabelled: bool = False
    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)

    def attempt(self, place: Place, make: Callable[[Place], Row]) -> None:
        """Make a row and keep it, or note why it cannot be used."""
        try:
            row = make(place)
        except (RowFault, PathFault) as fault:
            self.note(fault.kind, place, str(fault))
            return
        if row.id in self._ids:
            self.note("duplicate id", place, f"a row before is {row.id!r} too; this one is left out")
        elif not row.visible.any() and not self.keep_unlabelled:
            self.note("no keypoints", place, "none is labelled: left out; unlabelled=keep takes such rows")
        else:
            self._ids.add(row.id)
            self.rows.append(row)

    def note(self, kind: str, place: Place, message: str) -> None:
        """A fault of one row."""
        self.faults.append(Fault(kind, place.where, message, place.number, place.id))

    def divide_lone_group(self, what: str) -> None:
        """Where all rows are of one group, which no split could divide, every picture becomes its own."""
        if len({row.group for row in self.rows}) != 1 or len({row.image for row in self.rows}) < 2:
            return
        self.rows = [row.replace(group=f"{row.group}/{row.image and row.image.name} {row.frame}") for row in self.rows]
        message = f"all rows are of one {what}: split by picture instead, so that near copies may stand in two splits"
        self.faults.append(Fault("one group", self.rows[0].where, message))


def check_option(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse an option's value that is none.

    Raises:
        InputError: `value` is none of `choices`.
    """
    if value not in choices:
        raise InputError(f"option {name}", expected=" or ".join(choices), got=repr(value))


def read_lines(file: Path, name: str) -> list[tuple[int, str | None]]:
    """The file's lines with their numbers from 1; None for one that is not UTF-8. A byte-order mark is no part of it.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise InputError(f"data {name}:{file}", expected="a readable file", got=str(error)) from error
    return [(number, _decoded(line.rstrip(b"\r"))) for number, line in enumerate(data.split(b"\n"), 1)]


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return None


def split_cells(line: str | None) -> list[str]:
    """The cells of one line of a CSV. A quote that is never closed costs its line, not the file.

    Raises:
        RowFault: `encoding`, or `bad row` for what cannot be a line of CSV.
    """
    if line is None:
        raise RowFault("encoding", "the line is not UTF-8")
    try:
        return [cell.strip() for cell in next(csv.reader([line]), [])]
    except csv.Error as error:
        raise RowFault("bad row", f"expected a line of CSV: {error}") from error


def cell_numbers(cells: Sequence[str]) -> Float64[np.ndarray, N]:
    """Cells as numbers, an empty one as NaN.

    Raises:
        RowFault: `not a number`, with the first that is none.
    """
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
    except ValueError as error:
        raise RowFault("not a number", f"expected only numbers: {str(error)[:80]}") from error


def flagged(
    points: Float64[np.ndarray, "K 2"], hidden: Bool[np.ndarray, K] | None = None
) -> tuple[Float32[np.ndarray, "K 2"], UInt8[np.ndarray, K], int]:
    """Points with COCO's flags, NaN where unlabelled, and how many were given but lie on no picture.

    Args:
        points: px; NaN where unlabelled.
        hidden: labelled but not seen.
    """
    usable = on_a_picture(points)
    seen = np.full(len(points), 2) if hidden is None else np.where(hidden, 1, 2)
    lost = int((~usable & ~np.isnan(points).any(-1)).sum())
    kept = np.where(usable[:, None], points, np.nan).astype(np.float32)
    return kept, np.where(usable, seen, 0).astype(np.uint8), lost
