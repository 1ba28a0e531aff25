"""Any dataset as sharded Parquet with `datasets` features; pictures and sounds lie in the rows as files' bytes."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from mmkp.data.export_items import (
    SOUND_SUFFIXES,
    Exported,
    Item,
    Progress,
    attempt,
    box_list,
    encode_audio,
    encode_png,
    info_text,
    items_of,
    keypoint_triples,
    new_folder,
    report_progress,
    root_of,
    write_schema,
)
from mmkp.data.rows import RowTable
from mmkp.data.sample import KeypointDataset
from mmkp.data.splits import SPLITS, canonical

ROWS_PER_GROUP = 100  # a row group is the least that a reader holds in memory: `datasets` writes pictures by 100 too


def features() -> Any:
    """The columns, as `datasets.Features`. Sound is not decoded by `datasets`, which would need torchcodec."""
    from datasets import Audio, Features, Image, List, Value

    return Features(
        {
            "id": Value("string"), "group": Value("string"), "split": Value("string"), "image": Image(),
            "audio": Audio(decode=False), "audio_time": Value("float64"), "text": Value("string"),
            "keypoints": List(List(Value("float32"))), "box": List(Value("float64")), "info": Value("string"),
        }
    )  # fmt: skip


def export_parquet(
    dataset: RowTable | KeypointDataset, out: str | Path, split: str | None = None, rows_per_shard: int = 1000,
    progress: Progress | None = None,
) -> Exported:  # fmt: skip
    """Write `data/SPLIT-00000-of-0000N.parquet` and schema.yaml: what `datasets.load_dataset(out)` opens.

    Pictures and sounds are their files' bytes; frames of videos become PNG, parts of longer sounds FLAC or WAV of their
    own, so that a row needs nothing beside itself. Memory holds one row group (100 rows) of each split.

    Args:
        dataset: a table of rows (all of them are written), or a dataset.
        out: a new or empty folder outside the dataset's.
        split: the split that every row is put in. Rows without one stand in the train files.
        rows_per_shard: at most this many in a file.
        progress: called with rows done and rows in all.

    Raises:
        InputError: `out` is not such a folder.
    """
    made = Exported(Path(out))
    total, items = items_of(dataset, split)
    with new_folder(out, root_of(dataset)) as folder:
        writer = _Shards(folder / "data", max(rows_per_shard, 1))
        for number, item in enumerate(items, 1):
            record = record_of(item, made)
            if record is not None:
                writer.add(split_of(item), record)
                made.rows += 1
            report_progress(progress, number, total)
        writer.close()
        write_schema(dataset.schema, folder)
    return made


def split_of(item: Item) -> str:
    """The split that a row is written to: its own, train where it names none that is known."""
    named = canonical(item.row.split)
    return named if named in SPLITS[:3] else "train"


def record_of(item: Item, made: Exported) -> dict[str, Any] | None:
    """A row of `features()`; None, with a line in `made.problems`, where nothing of the item is left."""
    row = item.row
    has_image, has_text, has_audio = item.present
    image = attempt(made, item, "image", _image) if has_image else None
    audio, time_s = (attempt(made, item, "audio", _audio) if has_audio else None) or (None, None)
    if image is None and audio is None and not has_text:
        made.problems.append(f"{row.where}: row left out: no picture, text or sound is left")
        return None
    return {
        "id": row.id, "group": row.group, "split": row.split, "image": image, "audio": audio, "audio_time": time_s,
        "text": row.text, "keypoints": keypoint_triples(row), "box": box_list(row), "info": info_text(row.info),
    }  # fmt: skip


def _image(item: Item) -> dict[str, Any]:
    source = item.row.image
    if source is not None and item.row.frame is None:
        return {"bytes": source.read_bytes(), "path": source.name}
    return {"bytes": encode_png(item.image()), "path": f"{_stem(item)}.png"}


def _audio(item: Item) -> tuple[dict[str, Any], float | None]:
    row = item.row
    whole = row.audio_start_s is None and row.audio_end_s is None
    if row.audio is not None and whole and row.audio.suffix.lower() in SOUND_SUFFIXES:
        return {"bytes": row.audio.read_bytes(), "path": row.audio.name}, row.audio_time_s
    samples, rate_hz, time_s = item.audio()
    data, suffix = encode_audio(samples, rate_hz)
    return {"bytes": data, "path": f"{_stem(item)}{suffix}"}, time_s


def _stem(item: Item) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in item.row.id)


class _Shards:
    """Parquet files that are filled one after the other, and named when their number is known."""

    def __init__(self, folder: Path, rows_per_shard: int) -> None:
        self.folder, self.rows_per_shard = folder, rows_per_shard
        self.features = features()
        self.waiting: dict[str, list[dict[str, Any]]] = {}
        self.writers: dict[str, Any] = {}
        self.rows: Counter[str] = Counter()
        folder.mkdir()

    def add(self, split: str, record: dict[str, Any]) -> None:
        """Take a row; write when a row group or a shard is full."""
        waiting = self.waiting.setdefault(split, [])
        waiting.append(record)
        self.rows[split] += 1
        full = self.rows[split] % self.rows_per_shard == 0
        if full or len(waiting) == ROWS_PER_GROUP:
            self._flush(split)
        if full:
            self.writers.pop(split).close()

    def close(self) -> None:
        """Write what waits, and give the files their names."""
        for split in self.waiting:
            self._flush(split)
        for writer in self.writers.values():
            writer.close()
        for split, rows in self.rows.items():
            count = math.ceil(rows / self.rows_per_shard)
            for shard in range(count):
                name = f"{split}-{shard:05d}-of-{count:05d}.parquet"
                self._path(split, shard).rename(self.folder / name)

    def _flush(self, split: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        records, self.waiting[split] = self.waiting[split], []
        if not records:
            return
        if split not in self.writers:
            path = self._path(split, (self.rows[split] - 1) // self.rows_per_shard)
            self.writers[split] = pq.ParquetWriter(path, self.features.arrow_schema)
        self.writers[split].write_table(pa.Table.from_pylist(records, self.features.arrow_schema))

    def _path(self, split: str, shard: int) -> Path:
        return self.folder / f"{split}-{shard:05d}.part"
