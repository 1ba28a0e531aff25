"""Shards: Parquet files and WebDataset tars, read record by record with their pictures and sounds as files' bytes.

Nothing of a shard is held but the record at hand (Parquet: the row group at hand).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mmkp.data.folder_fields import Note
from mmkp.data.paths import PathFault, inside
from mmkp.data.splits import SPLITS, canonical
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema, load_schema, parse_schema

PATTERNS = {"parquet": "*.parquet", "webdataset": "*.tar"}
SCHEMA_KEY = b"mmkp_schema"  # in a Parquet file's metadata: the schema as JSON, or a built-in one's name
ROWS_AT_ONCE = 64
BROKEN = "broken shard"
IMAGE_SUFFIXES = {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "jp2", "ppm"}
AUDIO_SUFFIXES = {"wav", "flac", "ogg", "mp3", "opus", "aiff", "aif"}


@dataclass(frozen=True)
class Media:
    """A picture or a sound as a file's bytes."""

    name: str
    data: bytes


@dataclass
class ShardRecord:
    """One record of a shard.

    Attributes:
        values: by field of the custom format, without picture and sound; None where it cannot be read.
        split: as the record or its shard's name says.
    """

    where: str
    row: int
    values: dict[str, Any] | None
    image: Media | None = None
    audio: Media | None = None
    split: str | None = None
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True)
class Shards:
    """The files of a dataset, in order, and what its keypoints mean."""

    format: str
    root: Path
    files: tuple[Path, ...]
    schema: KeypointSchema

    @property
    def file_splits(self) -> set[str]:
        """The splits that files are named after."""
        return {name for file in self.files if (name := split_of_file(file)) is not None}


def find_shards(format: str, path: str | Path, schema: str | None = None) -> Shards:
    """The shards at a path, looked at but not read.

    Args:
        format: parquet or webdataset.
        path: a shard, or a folder that holds shards (at any depth).
        schema: a built-in schema's name or a YAML file; without, schema.yaml beside the shards or in the folder.

    Raises:
        InputError: no shards, no schema, or no keypoints in them.
    """
    from mmkp.data import card_of

    root = Path(path).expanduser()
    files = [root] if root.is_file() else sorted(root.rglob(PATTERNS[format])) if root.is_dir() else []
    if not files:
        raise InputError(
            f"dataset {format}:{path}", expected=f"a {PATTERNS[format]} file, or a folder that holds some",
            got="a folder without" if root.is_dir() else "none there", remedy=f"See {card_of(format)}.",
        )  # fmt: skip
    root = root.parent if root.is_file() else root
    usable = _check_first(format, files)
    return Shards(format, root, tuple(files), _schema(root, usable, schema))


def split_of_file(file: Path) -> str | None:
    """The split that a shard is named after: train-00000-of-00002.parquet, val/0001.tar."""
    for word in (file.name.split("-")[0].split("_")[0].split(".")[0], file.parent.name):
        name = canonical(word)
        if name in SPLITS[:3]:
            return name
    return None


def read_shard(format: str, file: Path, root: Path) -> Iterator[ShardRecord]:
    """The records of a shard; where it breaks off, a last one without values says so."""
    reader = _read_parquet if format == "parquet" else _read_tar
    split, name = split_of_file(file), file.name
    number = 0
    try:
        for number, record in enumerate(reader(file, root), 1):
            record.split = canonical(_text(record.values, "split")) or split
            record.row, record.where = number, f"{name} row {number}"
            yield record
    except BrokenShardError as error:
        yield ShardRecord(name, number + 1, None, notes=[Note(BROKEN, f"after {number} rows: {error}")])


class BrokenShardError(ValueError):
    """A shard that cannot be read on."""


def _text(values: dict[str, Any] | None, key: str) -> str | None:
    value = (values or {}).get(key)
    return value if isinstance(value, str) else None


# Parquet


def _read_parquet(file: Path, root: Path) -> Iterator[ShardRecord]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
                for values in batch.to_pylist():
                    yield packed_record(values, root)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BrokenShardError(str(error)) from error


def packed_record(values: dict[str, Any], root: Path | None) -> ShardRecord:
    """A record from the columns that `datasets` writes: `image` and `audio` hold {bytes, path}.

    Args:
        values: by column.
        root: where files that are only named lie; None refuses them.
    """
    record = ShardRecord("", 0, {k: v for k, v in values.items() if k not in ("image", "audio")})
    record.image = _media(values.get("image"), "image", root, record.notes)
    record.audio = _media(values.get("audio"), "audio", root, record.notes)
    return record


def _media(cell: Any, key: str, root: Path | None, notes: list[Note]) -> Media | None:
    if cell is None:
        return None
    if isinstance(cell, bytes):
        return Media(key, cell)
    name = cell.get("path") if isinstance(cell, dict) else cell
    data = cell.get("bytes") if isinstance(cell, dict) else None
    if isinstance(data, bytes):
        return Media(PurePosixPath(name or key).name, data)
    if not isinstance(name, str):
        notes.append(Note("bad row", f"{key} must hold bytes, or a file's name; the row has none"))
        return None
    try:
        if root is None:
            raise PathFault("missing file", f"{name!r} is not in the shard")
        path = inside(root, name)
        return Media(path.name, path.read_bytes())
    except (PathFault, OSError) as error:
        kind = error.kind if isinstance(error, PathFault) else "missing file"
        notes.append(Note(kind, f"{key}: {error}; the row has none"))
        return None


# WebDataset


def _read_tar(file: Path, root: Path) -> Iterator[ShardRecord]:
    """Members that share a name up to its first point are one record, as WebDataset has it."""
    key, parts = None, dict[str, bytes]()
    try:
        with tarfile.open(file, "r|*") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                path = PurePosixPath(member.name)
                stem, _, suffix = path.name.partition(".")
                if key is not None and (path.parent, stem) != key:
                    yield _tar_record(key[1], parts)
                    parts = {}
                source = tar.extractfile(member)
                data = source.read() if source is not None else b""
                if len(data) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
                key, parts[suffix.lower()] = (path.parent, stem), data
        if key is not None:
            yield _tar_record(key[1], parts)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise BrokenShardError(str(error)) from error


def _tar_record(key: str, parts: dict[str, bytes]) -> ShardRecord:
    record = ShardRecord("", 0, {"id": key})
    for suffix, data in parts.items():
        if suffix in IMAGE_SUFFIXES:
            record.image = Media(f"{key}.{suffix}", data)
        elif suffix in AUDIO_SUFFIXES:
            record.audio = Media(f"{key}.{suffix}", data)
        elif suffix == "txt":
            (record.values or {})["text"] = data.decode("utf-8", "replace")
    try:
        said = json.loads(parts.get("json", b"{}"))
        if not isinstance(said, dict):
            raise ValueError(f"expected an object, got {str(said)[:40]}")
        record.values = {**(record.values or {}), **said}
    except (ValueError, RecursionError) as error:
        record.values, record.notes = None, [Note("bad json", f"{key}.json: {error}")]
    return record


# What a look at the first records tells


def _check_first(format: str, files: list[Path]) -> Path:
    """The first file that can be opened; it must have keypoints."""
    faults = []
    for file in files:
        try:
            found = _columns(format, file)
        except BrokenShardError as error:
            faults.append(f"{file.name}: {error}")
            continue
        if "keypoints" not in found:
            where = "the column" if format == "parquet" else "a .json with"
            raise InputError(
                f"dataset {format}:{file}", expected=f"{where} keypoints", got=", ".join(sorted(found)) or "nothing",
                remedy="docs/custom_data.md names the fields; `mmkp data export --to parquet` writes them.",
            )  # fmt: skip
        return file
    raise InputError(
        f"dataset {format}:{files[0].parent}", expected="shards that can be read", got="; ".join(faults[:3])
    )


def _columns(format: str, file: Path) -> set[str]:
    if format == "webdataset":
        for record in _read_tar(file, file.parent):
            found = set(record.values or {}) | ({"image"} if record.image else set())
            return found | ({"audio"} if record.audio else set())
        return set()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return set(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise BrokenShardError(str(error)) from error


def _schema(root: Path, file: Path, named: str | None) -> KeypointSchema:
    from mmkp.data.folder import folder_schema

    if named:
        return load_schema(named)
    beside = [folder for folder in (root, file.parent, file.parent.parent) if (folder / "schema.yaml").is_file()]
    if not beside and file.suffix == ".parquet":
        import pyarrow.parquet as pq

        said = (pq.read_schema(file).metadata or {}).get(SCHEMA_KEY)
        if said is not None:
            return _stored_schema(said, file)
    return folder_schema(beside[0] if beside else root)


def _stored_schema(said: bytes, file: Path) -> KeypointSchema:
    try:
        data = json.loads(said)
    except ValueError as error:
        raise InputError(f"{file.name}: its metadata", expected="a schema as JSON", got=str(error)) from error
    return load_schema(data) if isinstance(data, str) else parse_schema(data, where=f"{file.name}: its metadata")
