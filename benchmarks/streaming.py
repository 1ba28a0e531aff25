"""Does the memory stay flat while a long stream is read?

    python benchmarks/streaming.py [--rows 1000000] [--format parquet|webdataset]

Writes shards of tiny rows (a text, five keypoints, a box), streams one epoch of them in shuffled order, and prints the
resident memory and the speed on the way. Every row must come once. Takes a few minutes a million rows.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from mmkp.data.export_parquet import ROWS_PER_GROUP, features
from mmkp.data.shard_source import find_shards
from mmkp.data.stream import of_shards

ROWS_PER_SHARD = 50_000


def tiny_rows(first: int, count: int) -> Iterator[dict[str, Any]]:
    """Rows of text and keypoints alone."""
    points = np.random.default_rng(first).integers(0, 100, (count, 5, 2)).astype(float)
    for i, xy in enumerate(points.tolist(), first):
        yield {
            "id": f"{i:08d}", "group": f"{i // 10}", "split": None, "image": None, "audio": None, "audio_time": None,
            "text": f"row {i}", "keypoints": [[x, y, 2] for x, y in xy], "box": [0.0, 0.0, 100.0, 100.0], "info": None,
        }  # fmt: skip


def write(folder: Path, rows: int, format: str) -> None:
    """Shards of tiny rows, and their schema."""
    (folder / "schema.yaml").write_text("schema: face5\n")
    for shard, first in enumerate(range(0, rows, ROWS_PER_SHARD)):
        part = tiny_rows(first, min(ROWS_PER_SHARD, rows - first))
        write_parquet(folder / f"all-{shard:05d}.parquet", part) if format == "parquet" else write_tar(
            folder / f"all-{shard:06d}.tar", part
        )


def write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """One Parquet shard in the layout of `mmkp data export --to parquet`, with larger row groups for these rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = features().arrow_schema
    with pq.ParquetWriter(path, schema) as writer:
        writer.write_table(pa.Table.from_pylist(list(rows), schema), row_group_size=10 * ROWS_PER_GROUP)


def write_tar(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """One WebDataset shard: a .txt and a .json for each row."""
    with tarfile.open(path, "w") as tar:
        for row in rows:
            for suffix, data in (("txt", row["text"]), ("json", json.dumps(row))):
                entry = tarfile.TarInfo(f"{row['id']}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data.encode()))


def measure(folder: Path, rows: int, format: str) -> None:
    """Stream one epoch; print the memory at powers of ten, and at the end."""
    process = psutil.Process(os.getpid())
    stream = of_shards(find_shards(format, folder), "all")
    seen = np.zeros(rows, bool)
    marks = {10**k for k in range(4, 10)} | {rows}
    started = time.perf_counter()
    for number, record in enumerate(stream.epoch(0, 0), 1):
        index = int(record.row.id)
        assert not seen[index], f"row {index} came twice"
        seen[index] = True
        if number in marks:
            speed = number / (time.perf_counter() - started)
            print(f"{number:>10,} rows  {process.memory_info().rss / 2**20:7.0f} MiB  {speed:8,.0f} rows/s", flush=True)
    assert seen.all(), f"{(~seen).sum()} rows were lost"
    print("every row came once")


def main() -> None:
    """Write, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=["parquet", "webdataset"], default="parquet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.rows, options.format)
        measure(Path(folder), options.rows, options.format)


if __name__ == "__main__":
    main()
