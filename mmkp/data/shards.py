"""Parquet and WebDataset shards as a table: pictures and sounds are unpacked into the cache once, as files.

From there on checking, cleaning, converting and training treat them as any other dataset's. What is too large to lie
on the disk twice is streamed instead: mmkp.data.stream.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmkp.data.folder_fields import Note
from mmkp.data.rows import Fault, Row, RowTable
from mmkp.data.shard_rows import row_of
from mmkp.data.shard_source import Media, ShardRecord, find_shards, read_shard
from mmkp.errors import InputError

VERSION = 1  # of what is unpacked; raise it whenever a row would change
RECORDS = "records.jsonl"


def read_parquet(path: str | Path, schema: str | None = None) -> RowTable:
    """The rows of Parquet shards, as `mmkp data export --to parquet` and `datasets` write them.

    Columns: image and audio as {bytes, path}, text, keypoints ([[x, y, v] ...], or [[x, y] ...] with a column visible),
    box, group, split, id, audio_time, info. Px with the centre of the top-left pixel at (0, 0).

    Args:
        path: a .parquet file, or a folder that holds some.
        schema: a built-in schema's name or a YAML file; without, schema.yaml beside the shards.

    Raises:
        InputError: no shards, no schema, or no column of keypoints.
    """
    return _read("parquet", path, schema)


def read_webdataset(path: str | Path, schema: str | None = None) -> RowTable:
    """The rows of WebDataset tars: for each key .jpg or .png, .wav or .flac, .txt, and .json with the other fields.

    Args:
        path: a .tar file, or a folder that holds some.
        schema: a built-in schema's name or a YAML file; without, schema.yaml beside the shards.

    Raises:
        InputError: no shards, no schema, or no keypoints in the .json files.
    """
    return _read("webdataset", path, schema)


def _read(format: str, path: str | Path, schema: str | None) -> RowTable:
    shards = find_shards(format, path, schema)
    rows: list[Row] = []
    faults: list[Fault] = []
    ids: set[str] = set()
    for file in shards.files:
        folder = _unpacked(format, file, shards.root)
        for record, image, audio in _stored(folder):
            notes = list(record.notes)
            row = row_of(record, shards.schema, image, audio, notes)
            if row is not None:
                row = _with_own_id(row, ids, notes)
                rows.append(row)
            faults += [Fault(n.kind, record.where, n.message, record.row, row.id if row else "") for n in notes]
    return RowTable(name=format, schema=shards.schema, rows=rows, faults=faults, root=shards.root)


def _with_own_id(row: Row, ids: set[str], notes: list[Note]) -> Row:
    name = row.id
    if name in ids:
        name = f"{row.id}@{row.where}"
        notes.append(Note("duplicate id", f"the id {row.id!r} was there before; this row is called {name!r}"))
    ids.add(name)
    return row.replace(id=name)


def _unpacked(format: str, file: Path, root: Path) -> Path:
    """The folder of the cache that holds a shard's files; made where the shard is new or has changed.

    Raises:
        InputError: the cache cannot be written.
    """
    status = file.stat()
    key = f"{VERSION} {file.resolve()} {status.st_size} {status.st_mtime_ns}"
    base = Path(os.environ.get("MMKP_CACHE") or "~/.cache/mmkp").expanduser() / "shards"
    folder = base / f"{file.stem}-{hashlib.sha1(key.encode()).hexdigest()[:16]}"
    if (folder / RECORDS).is_file():
        return folder
    try:
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=base) as part:
            _unpack(read_shard(format, file, root), Path(part))
            made = Path(part)
            try:
                os.replace(made, folder)
                made.mkdir()  # for TemporaryDirectory to remove
            except OSError:
                if not (folder / RECORDS).is_file():  # or another process was quicker
                    raise
    except OSError as error:
        raise InputError(
            f"cache {base}", expected="a folder that can be written", got=str(error),
            remedy="Set MMKP_CACHE to a folder with room, or stream the shards (data.options.streaming=true).",
        ) from error  # fmt: skip
    folder.chmod(0o755)
    return folder


def _unpack(records: Iterator[ShardRecord], folder: Path) -> None:
    with open(folder / RECORDS, "w", encoding="utf-8", errors="replace") as out:
        for record in records:
            plain = {
                "where": record.where, "row": record.row, "values": record.values, "split": record.split,
                "notes": record.notes, "image": _put(record.image, folder), "audio": _put(record.audio, folder),
            }  # fmt: skip
            out.write(json.dumps(plain, default=str, ensure_ascii=False) + "\n")


def _put(media: Media | None, folder: Path) -> str | None:
    """The file's name, which its content decides: what several rows share is kept once."""
    if media is None:
        return None
    suffix = Path(media.name).suffix.lower()
    name = hashlib.sha1(media.data).hexdigest()[:20] + (suffix if suffix[1:].isalnum() else "")
    if not (folder / name).exists():
        (folder / name).write_bytes(media.data)
    return name


def _stored(folder: Path) -> Iterator[tuple[ShardRecord, Path | None, Path | None]]:
    with open(folder / RECORDS, encoding="utf-8") as lines:
        for line in lines:
            plain: dict[str, Any] = json.loads(line)
            notes = [Note(*note) for note in plain["notes"]]
            record = ShardRecord(plain["where"], plain["row"], plain["values"], split=plain["split"], notes=notes)
            files = (None if plain[key] is None else folder / plain[key] for key in ("image", "audio"))
            image, audio = files
            yield record, image, audio
