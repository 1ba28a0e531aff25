"""The custom format: a folder with one table, `metadata.jsonl`, `.csv` or `.parquet`, one row a sample.

docs/custom_data.md describes it. It is what `datasets.load_dataset("imagefolder", data_dir=...)` understands.
Coordinates are px of the picture with the centre of its top-left pixel at (0, 0).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmkp.data.folder_fields import (
    BadField,
    Note,
    parse_box,
    parse_info,
    parse_keypoints,
    parse_number,
    parse_text,
)
from mmkp.data.folder_source import METADATA_FILES, Record, read_records
from mmkp.data.paths import PathFault, inside
from mmkp.data.rows import Fault, Row, RowTable
from mmkp.data.splits import SPLITS, canonical
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema, load_schema, parse_schema, schema_names

FIELDS = (
    "file_name", "frame", "audio", "audio_time", "audio_start", "audio_end", "text", "keypoints", "box", "group",
    "split", "id", "info",
)  # fmt: skip
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv"}


def read_folder(path: str | Path, schema: str | None = None) -> RowTable:
    """The rows of a folder in the custom format.

    Args:
        path: the folder, or its metadata file.
        schema: a built-in schema's name or a YAML file; the folder's own `schema.yaml` without.

    Returns:
        A table of the usable rows. A row is unusable when its line cannot be read, its keypoints do not fit the
        schema, a name leads out of the folder, or neither picture, text nor sound remains.

    Raises:
        InputError: no folder, no metadata in it, no schema, or a Parquet file that cannot be opened.
    """
    root, tables = _find(Path(path).expanduser())
    meaning = load_schema(schema) if schema else folder_schema(root)
    state = _Reading(root, meaning)
    for folder, file in tables:
        split = None if folder == root else folder.name
        for record in read_records(file, name=str(file.relative_to(root))):
            state.add(record, folder, split)
    return RowTable(name="folder", schema=meaning, rows=state.rows, faults=state.faults, root=root)


def _find(path: Path) -> tuple[Path, list[tuple[Path, Path]]]:
    """The dataset's folder, and its metadata files with the folders that their names are relative to."""
    from mmkp.data import card_of

    if path.is_file() and path.name in METADATA_FILES:
        return path.parent, [(path.parent, path)]
    if not path.is_dir():
        raise InputError(
            f"dataset folder:{path}", expected=f"a folder with {METADATA_FILES[0]}",
            got="another file" if path.is_file() else "none there", remedy=f"See {card_of('folder')}.",
        )  # fmt: skip
    parts = (
        [path] if _metadata(path) else [d for d in sorted(path.iterdir()) if d.is_dir() and canonical(d.name) in SPLITS]
    )
    found = [(folder, file) for folder in parts if (file := _metadata(folder)) is not None]
    if not found:
        raise InputError(
            f"dataset folder:{path}", expected=f"one of {', '.join(METADATA_FILES)} in it", got="none of them",
            remedy="docs/custom_data.md shows the format.",
        )  # fmt: skip
    return path, found


def _metadata(folder: Path) -> Path | None:
    present = [folder / name for name in METADATA_FILES if (folder / name).is_file()]
    if len(present) > 1:
        raise InputError(
            f"dataset folder:{folder}", expected="one table", got=" and ".join(p.name for p in present),
            remedy="Take away all but one: which is right cannot be known.",
        )  # fmt: skip
    return present[0] if present else None


def folder_schema(root: Path) -> KeypointSchema:
    """What `schema.yaml` says: a whole schema, or `schema: NAME` of a built-in one.

    Raises:
        InputError: no such file, or it is no schema.
    """
    try:
        file = inside(root, "schema.yaml")
    except PathFault as fault:
        raise InputError(
            f"dataset folder:{root}", expected="schema.yaml in it, or the option schema", got=str(fault),
            remedy=f"Write `schema: NAME` into schema.yaml; built in are {', '.join(schema_names())}.",
        ) from fault  # fmt: skip
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"schema {file}", expected="a readable YAML file", got=str(error)) from error
    name = data.get("schema") if isinstance(data, dict) and set(data) == {"schema"} else data
    if isinstance(name, str):
        if name not in schema_names():
            raise InputError(
                f"schema {file}", expected=f"one of {', '.join(schema_names())}, or a schema", got=repr(name)
            )
        return load_schema(name)
    return parse_schema(data, where=str(file))


@dataclass
class _Reading:
    """What has been read so far: rows, faults, and what tells one row from another."""

    root: Path
    schema: KeypointSchema
    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    def add(self, record: Record, folder: Path, split: str | None) -> None:
        """Take one record: a row, or faults that say why there is none."""
        notes: list[Note] = list(record.notes)
        row = None
        if record.values is not None:
            self._report_unknown(record)
            try:
                row = self._row(record, record.values, folder, split, notes)
            except BadField as bad:
                notes.append(bad.note)
        name = row.id if row else _plain(record.values, "id")
        self.faults += [Fault(n.kind, record.where, n.message, record.row, name) for n in notes]
        if row is not None:
            self.ids.add(row.id)
            self.rows.append(row)

    def _row(self, record: Record, values: dict[str, Any], folder: Path, split: str | None, notes: list[Note]) -> Row:
        image, frame = _image(values, folder, notes)
        audio = _file(values, "audio", folder, notes)
        time_s, start_s, end_s = _times(values, notes)
        text = parse_text(values.get("text"), notes)
        if image is None and audio is None and text is None:
            named = {"file_name", "audio", "text"} & set(values)
            given = ", ".join(map(str, values))[:80] or "nothing"
            raise BadField(
                "bad row", "neither a picture nor text nor sound is left" if named
                else f"expected file_name, audio or text, got only {given}",
            )  # fmt: skip
        points_xy, visible = parse_keypoints(values.get("keypoints"), self.schema, notes)
        file_name = _plain(values, "file_name") or _plain(values, "audio")
        return Row(
            id=self._id(record, values, file_name, frame, notes), where=record.where,
            group=_plain(values, "group") or file_name or _plain(values, "id") or record.where,
            keypoints_xy=points_xy, visible=visible, box_xywh=parse_box(values.get("box"), notes), image=image,
            frame=frame, audio=audio, audio_time_s=time_s if audio else None, audio_start_s=start_s if audio else None,
            audio_end_s=end_s if audio else None, text=text, split=_split(values, notes) or split,
            info=parse_info(values, FIELDS, notes),
        )  # fmt: skip

    def _id(self, record: Record, values: dict[str, Any], file_name: str, frame: int | None, notes: list[Note]) -> str:
        given = _plain(values, "id")
        name = given or (f"{file_name}#{frame}" if frame is not None else file_name) or record.where
        if name not in self.ids:
            return name
        renamed = f"{name}@{record.row}"
        while renamed in self.ids:
            renamed += "'"
        if given:
            notes.append(Note("duplicate id", f"the id {given!r} was there before; this row is called {renamed!r}"))
        return renamed

    def _report_unknown(self, record: Record) -> None:
        for name in record.values or ():
            if name not in FIELDS and name not in self.unknown:
                self.unknown.add(name)
                near = difflib.get_close_matches(str(name), FIELDS, n=1, cutoff=0.6)
                hint = f"; did you mean {near[0]!r}?" if near else "; kept as info"
                self.faults.append(Fault("unknown field", record.where, f"{name!r} is no field of the format{hint}"))


def _image(values: dict[str, Any], folder: Path, notes: list[Note]) -> tuple[Path | None, int | None]:
    image = _file(values, "file_name", folder, notes)
    number = parse_number(values.get("frame"), "frame", notes)
    is_video = image is not None and image.suffix.lower() in VIDEO_SUFFIXES
    if number is not None and (number < 0 or number != int(number)):
        notes.append(Note("bad row", f"frame must be a whole number from 0 on, not {number:g}; the row has no picture"))
        return None, None
    if is_video and number is None:
        notes.append(Note("bad row", f"the video {values['file_name']!r} needs a frame; the row has no picture"))
        return None, None
    return image, int(number) if number is not None and image is not None else None


def _file(values: dict[str, Any], key: str, folder: Path, notes: list[Note]) -> Path | None:
    """The file that a field names; a missing one is noted, one outside the folder spoils the row."""
    name = values.get(key)
    if name is None or name == "":
        return None
    if not isinstance(name, str):
        notes.append(Note("bad row", f"{key} must be a file name, not {type(name).__name__}"))
        return None
    try:
        return inside(folder, name)
    except PathFault as fault:
        if fault.kind == "path escape":
            raise BadField(fault.kind, f"{key}: {fault}") from fault
        notes.append(Note(fault.kind, f"{key}: {fault}"))
        return None


def _times(values: dict[str, Any], notes: list[Note]) -> tuple[float | None, float | None, float | None]:
    """Moment, start and end in seconds into the sound's file; those that make no sense are noted and left out."""
    time_s, start_s, end_s = (
        parse_number(values.get(key), key, notes) for key in ("audio_time", "audio_start", "audio_end")
    )
    if (start_s or 0) < 0 or (end_s is not None and end_s <= (start_s or 0)):
        notes.append(Note("bad row", f"audio from {start_s} s to {end_s} s is no stretch of time; all of it is taken"))
        start_s = end_s = None
    late = time_s is not None and end_s is not None and time_s > end_s
    if time_s is not None and (time_s < (start_s or 0) or late):
        notes.append(Note("bad row", f"audio_time {time_s:g} s lies outside the row's sound; its middle is taken"))
        time_s = None
    return time_s, start_s, end_s


def _split(values: dict[str, Any], notes: list[Note]) -> str | None:
    name = canonical(_plain(values, "split") or None)
    if name is not None and name not in SPLITS[:3]:
        notes.append(Note("bad row", f"split {name!r} is none of train, validation, test; only `all` takes the row"))
    return name


def _plain(values: dict[str, Any] | None, key: str) -> str:
    """A field as text, numbers too; empty where it is missing or no plain value."""
    value = (values or {}).get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int, float, np.generic)):
        return ""
    return str(value).encode("utf-8", "replace").decode().strip()
