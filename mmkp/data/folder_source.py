"""The records of a metadata file, one by one: a line that cannot be read costs itself."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmkp.data.folder_fields import Note
from mmkp.errors import InputError

METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
MAX_CELL_LINES = 100  # a quoted cell of more lines is a quote that was never closed


@dataclass
class Record:
    """One row as the file has it.

    Attributes:
        row: its line, from 1 as an editor counts (a Parquet file: its row, from 1).
        where: file and line, for messages.
        values: by field; None where the row cannot be read at all.
        notes: what was met while reading it.
    """

    row: int
    where: str
    values: dict[str, Any] | None
    notes: list[Note] = field(default_factory=list)


def read_records(file: Path, name: str) -> Iterator[Record]:
    """Every row of a JSON Lines, CSV or Parquet file.

    Args:
        file: one of METADATA_FILES.
        name: of the file in messages.

    Raises:
        InputError: the file cannot be opened, or a Parquet file is none.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    try:
        yield from readers[file.suffix](file, name)
    except OSError as error:
        raise InputError(f"dataset file {name}", expected="a readable file", got=str(error)) from error


def _read_lines(file: Path) -> list[tuple[str, list[Note]]]:
    """The file's lines; one that is not UTF-8 is read as Latin-1 and noted."""
    data = file.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # what PowerShell's `>` writes
        data = data.decode("utf-16", "replace").encode()
    lines: list[tuple[str, list[Note]]] = []
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        try:
            lines.append((line.decode().rstrip("\r"), []))
        except UnicodeDecodeError as error:
            note = Note("encoding", f"not UTF-8 at byte {error.start}; read as Latin-1")
            lines.append((line.decode("latin-1").rstrip("\r"), [note]))
    return lines


def _read_jsonl(file: Path, name: str) -> Iterator[Record]:
    lines = _read_lines(file)
    _check_lines([line for line, _ in lines], name)
    for number, (line, notes) in enumerate(lines, 1):
        if not line.strip():
            continue
        record = Record(number, f"{name} line {number}", None, notes)
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            notes.append(Note("bad json", f"{said}: {line.strip()[:60]}"))
        else:
            if isinstance(values, dict):
                record.values = values
            else:
                notes.append(Note("bad row", f"expected an object {{...}}, got {line.strip()[:60]}"))
        yield record


def _check_lines(lines: list[str], name: str) -> None:
    """Refuse a file that is one piece of JSON: every line of it would be a fault of its own."""
    first = next((line.strip() for line in lines if line.strip()), "")
    whole = first in ("{", "[", "[{")
    if first.startswith("[{") and not whole:
        try:
            whole = isinstance(json.loads("\n".join(lines)), list)
        except (ValueError, RecursionError):
            whole = False
    if whole:
        raise InputError(
            f"dataset file {name}", expected="JSON Lines, one object {...} on each line",
            got=f"JSON that begins with {first[:30]}",
            remedy="In Python: file.writelines(json.dumps(row) + '\\n' for row in rows).",
        )  # fmt: skip


def _check_header(header: list[str], name: str) -> None:
    if not {"file_name", "audio", "text"} & set(header):
        raise InputError(
            f"dataset file {name}", expected="a first line of names, with file_name, audio or text among them",
            got=", ".join(header[:6])[:80], remedy="Name the pictures' column file_name. A table with columns of "
            "coordinates is csv:PATH.",
        )  # fmt: skip
    twice = sorted({cell for cell in header if header.count(cell) > 1})
    if twice:
        raise InputError(f"dataset file {name}", expected="columns of different names", got=f"{', '.join(twice)} twice")


def _read_csv(file: Path, name: str) -> Iterator[Record]:
    lines = _read_lines(file)
    head = next((i for i, (line, _) in enumerate(lines) if line.strip()), None)
    if head is None:
        return
    delimiter = max(",;\t", key=lines[head][0].count)
    header = [cell.strip() for cell in _cells(lines[head][0], delimiter)]
    _check_header(header, name)
    position = head + 1
    while position < len(lines):
        cells, end = _csv_row(lines, position, len(header), delimiter)
        if len(cells) != 1 or cells[0].strip():
            notes = [note for _, found in lines[position:end] for note in found]
            record = Record(position + 1, f"{name} line {position + 1}", None, notes)
            if len(cells) == len(header):
                record.values = {k: None if not v.strip() else v for k, v in zip(header, cells, strict=True)}
            else:
                notes.append(Note("bad row", f"expected {len(header)} cells, got {len(cells)}; is a quote missing?"))
            yield record
        position = end


def _csv_row(lines: list[tuple[str, list[Note]]], start: int, width: int, delimiter: str) -> tuple[list[str], int]:
    """The cells of the row at `start`, [] where a quote stays open, and the line after it. Quotes may hold breaks."""
    text = lines[start][0]
    for end in range(start + 1, min(start + MAX_CELL_LINES, len(lines)) + 1):
        if text.count('"') % 2 == 0:
            cells = _cells(text, delimiter)
            if len(cells) == width or end == start + 1:
                return cells, end
            break
        if end < len(lines):
            text += "\n" + lines[end][0]
    return [], start + 1


def _cells(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter), [""])
    except csv.Error:  # a cell of more than 128 KiB, a carriage return in the middle of a line
        return []


def _read_parquet(file: Path, name: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Record(number, f"{name} row {number}", values)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if number == 0:
            raise InputError(f"dataset file {name}", expected="a Parquet file", got=str(error)) from error
        yield Record(number + 1, f"{name} row {number + 1}", None, [Note("bad row", f"and all after it: {error}")])
