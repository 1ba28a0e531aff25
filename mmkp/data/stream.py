"""Datasets too large to unpack: shards read in passing, in shuffled order, every row once an epoch over all processes.

The order is a pure function of (seed, epoch) and the number of processes. One thread of each process reads records,
undecoded; loading workers get them as they are and decode, so that their number changes nothing. A run continues by
reading on from the place in the epoch where its checkpoint stood.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from mmkp.data.folder_fields import Note
from mmkp.data.rows import Row, RowDataset, assemble
from mmkp.data.sample import Sample
from mmkp.data.shard_rows import index_of, row_of, split_of_row
from mmkp.data.shard_source import Media, ShardRecord, Shards, find_shards, packed_record, read_shard
from mmkp.data.splits import check_split
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema

BUFFER = 1000  # rows among which order is drawn; at 100 KB a row they take 100 MB
MAX_PROBLEMS = 100  # lines that are kept; more of them say nothing new
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamRecord:
    """A row with its picture and sound as files' bytes; `row.image` and `row.audio` are only names."""

    row: Row
    image: Media | None
    audio: Media | None
    first_time: bool = True

    def sample(self, problems: list[str]) -> Sample:
        """Decode. What cannot be decoded counts as absent; `problems` gets a line for it."""
        image = _decoded(self.row, "image", self.image, problems)
        return assemble(self.row, image, _decoded(self.row, "audio", self.audio, problems))


def _decoded(row: Row, kind: str, media: Media | None, problems: list[str]) -> Any:
    """The picture or the sound; through a file, which every decoder takes, and a video's needs."""
    if media is None:
        return None
    with TemporaryDirectory(prefix="mmkp-") as folder:
        path = Path(folder, re.sub(r"[^\w.-]|^\.+", "_", media.name)[-80:] or kind)
        path.write_bytes(media.data)
        try:
            return (RowDataset.read_image if kind == "image" else RowDataset.read_audio)(row.replace(**{kind: path}))
        except InputError as error:
            problems.append(f"{row.where}: {error}; counts as absent")
            return None


class Stream:
    """A split of a dataset as records in passing.

    Args:
        name: of the format.
        records: `datasets.IterableDataset` of records, by field; see `of_shards` and mmkp.data.hub_dataset.
        schema: of the keypoints.
        split: train, validation, test or all.
        known: the splits that the data names anywhere; a row without a name gets one by its group's hash.
        file_split: the split that rows are in which name none themselves.
        buffer: rows among which order is drawn.
    """

    def __init__(
        self, name: str, records: Any, schema: KeypointSchema, split: str, known: Iterable[str] = (),
        file_split: str | None = None, buffer: int = BUFFER,
    ) -> None:  # fmt: skip
        if buffer < 1:
            raise InputError("data.options.buffer", expected="1 row or more", got=str(buffer))
        self.name, self.records, self.schema, self.buffer = name, records, schema, buffer
        self.split, self.known, self.file_split = check_split(split, name), set(known), file_split
        self.problems: list[str] = []

    def epoch(self, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Iterator[StreamRecord]:
        """This process's rows of an epoch: over all processes, each row of the split once.

        Raises:
            InputError: the split has no usable rows for this process.
        """
        from datasets.distributed import split_dataset_by_node

        drawn = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
        ordered = self.records.shuffle(seed=drawn, buffer_size=self.buffer)
        found = False
        for values in split_dataset_by_node(ordered, rank, world):
            record = self._record(values, epoch == 0)
            if record is not None:
                found = True
                yield record
        if not found:
            first = f"; first fault: {self.problems[0]}" if self.problems else ""
            raise InputError(
                f"data {self.name}", expected=f"rows in the split {self.split} for process {rank + 1} of {world}",
                got=f"none{first}", remedy="`mmkp data check` lists what is wrong.",
            )  # fmt: skip

    def _record(self, values: Any, report: bool) -> StreamRecord | None:
        packed = values.get("record") if isinstance(values.get("record"), ShardRecord) else None
        record = packed or packed_record(values, None)
        if packed is None:
            record.split, record.where = values.get("split") or self.file_split, str(values.get("id") or "a row")
        notes = list[Note](record.notes)
        names = [Path(m.name) if m is not None else None for m in (record.image, record.audio)]
        row = row_of(record, self.schema, names[0], names[1], notes)
        wanted = row is not None and (self.split == "all" or split_of_row(row, self.known) == self.split)
        if report and (wanted or row is None):
            self.report(f"{record.where}: {note.kind}: {note.message}" for note in notes)
        return StreamRecord(row, record.image, record.audio, report) if row is not None and wanted else None

    def report(self, lines: Iterable[str]) -> None:
        """Say what was met on stderr, in the first epoch alone and so once; the first lines are kept in `problems`."""
        for line in lines:
            if len(self.problems) < MAX_PROBLEMS:
                self.problems.append(line)
                log.warning(line)
            elif len(self.problems) == MAX_PROBLEMS:
                self.problems.append("more problems of the stream are not listed")
                log.warning(self.problems[-1])

    def decode(self, record: StreamRecord) -> Sample:
        """A record's sample; what cannot be decoded counts as absent."""
        problems: list[str] = []
        sample = record.sample(problems)
        if record.first_time:
            self.report(problems)
        return sample

    def head(self, count: int) -> HeldSamples:
        """Up to `count` rows of the split in an order of their own, held undecoded: an ordinary dataset.

        Raises:
            InputError: the split has no usable rows.
        """
        return HeldSamples(self, list(islice(self.epoch(0, 0), count)))

    @cached_property
    def fingerprint(self) -> str:
        """Of the first rows: a stream is not read through to name it."""
        return self.head(MAX_PROBLEMS).fingerprint


class HeldSamples:
    """Rows of a stream, in memory as files' bytes, decoded when they are asked for: a KeypointDataset."""

    def __init__(self, stream: Stream, records: Sequence[StreamRecord]) -> None:
        self.records, self.rows = records, [record.row for record in records]
        self.name, self.schema = stream.name, stream.schema
        self.problems: Sequence[str] = list(stream.problems)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        problems: list[str] = []
        sample = self.records[index].sample(problems)
        self.problems = list(dict.fromkeys([*self.problems, *problems]))
        return sample

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever a row would."""
        made = hashlib.sha1(repr(self.schema).encode())
        for record in self.records:
            row = record.row
            plain = (row.id, row.group, row.text, row.audio_time_s, row.audio_start_s, row.audio_end_s, row.box_xywh)
            made.update(repr(plain).encode() + row.keypoints_xy.tobytes() + row.visible.tobytes())
            for media in (record.image, record.audio):
                made.update(b"" if media is None else media.data)
        return made.hexdigest()[:16]


def parquet_stream(path: str | Path, split: str, schema: str | None = None, buffer: int = BUFFER) -> Stream:
    """A split of Parquet shards in passing; see mmkp.data.shards.read_parquet."""
    return of_shards(find_shards("parquet", path, schema), split, buffer)


def webdataset_stream(path: str | Path, split: str, schema: str | None = None, buffer: int = BUFFER) -> Stream:
    """A split of WebDataset tars in passing; see mmkp.data.shards.read_webdataset."""
    return of_shards(find_shards("webdataset", path, schema), split, buffer)


def of_shards(shards: Shards, split: str, buffer: int = BUFFER) -> Stream:
    """A stream of the split of Parquet or WebDataset shards."""
    from datasets import IterableDataset

    arguments = {"files": [str(f) for f in shards.files], "format": shards.format, "root": str(shards.root)}
    records = IterableDataset.from_generator(_records, gen_kwargs=arguments)
    return Stream(shards.format, records, shards.schema, split, _known(shards), buffer=buffer)


def _records(files: list[str], format: str, root: str) -> Iterator[dict[str, Any]]:
    for file in files:
        for record in read_shard(format, Path(file), Path(root)):
            yield {"record": record}


def _known(shards: Shards) -> set[str]:
    """The splits that files are named after or that a column of Parquet files holds."""
    known = set(shards.file_splits)
    if shards.format == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file in shards.files:
            try:
                with pq.ParquetFile(file) as table:
                    if "split" in table.schema_arrow.names:
                        for batch in table.iter_batches(columns=["split"], batch_size=1 << 16):
                            known |= {str(name) for name in batch.column(0).unique().to_pylist() if name}
            except (pa.ArrowException, OSError):
                continue  # reported when its rows are read
    return known


Key = tuple[int, int]
Place = tuple[int, int]  # epoch, rows of it that this process has taken


class StreamBatches(Sampler):
    """The batches of a stream, for a DataLoader whose dataset is `StreamItems`; see mmkp.data.collate.StepSampler.

    A batch may straddle two epochs. The key's index is the row's own, so that its augmentation is a function of
    (seed, epoch, row), whatever the number of processes and workers.

    Args:
        stream: the split to train on.
        batch_size: rows per process and step.
        batches: how many there are in all.
        seed: of the order.
        first: the number of the first batch.
        start: where it begins.
        rank, world: this process and how many there are.
    """

    def __init__(
        self, stream: Stream, batch_size: int, batches: int, seed: int, first: int = 0, start: Place = (0, 0),
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self.stream, self.batch_size, self.batches, self.seed = stream, batch_size, batches, seed
        self.first, self.start, self.rank, self.world = first, start, rank, world
        self._ends: dict[int, Place] = {first: start}

    def __len__(self) -> int:
        return self.batches - self.first

    def __iter__(self) -> Iterator[list[tuple[Key, StreamRecord]]]:
        rows = self._rows()
        for number in range(self.first, self.batches):
            batch = []
            for place, record in islice(rows, self.batch_size):
                batch.append(((place[0], index_of(record.row)), record))
            self._ends[number + 1] = place
            yield batch

    def _rows(self) -> Iterator[tuple[Place, StreamRecord]]:
        epoch, taken = self.start
        while True:
            rows = self.stream.epoch(self.seed, epoch, self.rank, self.world)
            for number, record in enumerate(islice(rows, taken, None), taken + 1):
                yield (epoch, number), record
            epoch, taken = epoch + 1, 0

    def place_after(self, batches: int) -> Place:
        """Where the stream stands when `batches` batches are done; what lies before is forgotten."""
        for number in [n for n in list(self._ends) if n < batches]:  # another thread may be adding
            del self._ends[number]
        return self._ends[batches]


class StreamItems(Dataset):
    """Decodes what `StreamBatches` hands out: the counterpart of KeyedDataset."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __getitem__(self, item: tuple[Key, StreamRecord]) -> tuple[Key, Sample]:
        key, record = item
        return key, self.stream.decode(record)

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned worker needs: no open files."""
        plain = Stream.__new__(Stream)
        plain.__dict__ |= {**self.stream.__dict__, "records": None}
        return {"stream": plain}
