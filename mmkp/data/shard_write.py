"""Any dataset as sharded WebDataset tars. Parquet shards are written by mmkp.data.export_parquet."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from mmkp.data.export_items import Exported, Progress, items_of, new_folder, report_progress, root_of, write_schema
from mmkp.data.export_parquet import record_of, split_of
from mmkp.data.rows import RowTable
from mmkp.data.sample import KeypointDataset
from mmkp.data.shard_source import AUDIO_SUFFIXES, IMAGE_SUFFIXES


def write_webdataset(
    dataset: RowTable | KeypointDataset, out: str | Path, split: str | None = None, rows_per_shard: int = 1000,
    progress: Progress | None = None,
) -> Exported:  # fmt: skip
    """Write SPLIT-000000.tar, SPLIT-000001.tar ... and schema.yaml; `read_webdataset` gives the same rows back.

    For each row, under one key: its picture and its sound as their files' bytes, .txt, and .json with keypoints, box,
    group, split, id, audio_time and info. Memory holds one row.

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
    written: Counter[str] = Counter()
    with new_folder(out, root_of(dataset)) as folder, ExitStack() as open_tars:
        tars: dict[str, tarfile.TarFile] = {}
        for number, item in enumerate(items, 1):
            record = record_of(item, made)
            if record is not None:
                name = split_of(item)
                if written[name] % rows_per_shard == 0:
                    if name in tars:
                        tars[name].close()
                    path = folder / f"{name}-{written[name] // rows_per_shard:06d}.tar"
                    tars[name] = open_tars.enter_context(tarfile.open(path, "w"))
                _add(tars[name], f"{written[name]:09d}", record)
                written[name] += 1
            report_progress(progress, number, total)
        write_schema(dataset.schema, folder)
        made.rows = sum(written.values())
    return made


def _add(tar: tarfile.TarFile, key: str, record: dict[str, Any]) -> None:
    members: dict[str, bytes] = {}
    for kind, suffixes, usual in (("image", IMAGE_SUFFIXES, "png"), ("audio", AUDIO_SUFFIXES, "wav")):
        media = record.pop(kind)
        if media is not None:  # decoders look at the content: an unusual suffix gives way to one that a reader knows
            suffix = PurePosixPath(media["path"]).suffix.lower()[1:]
            members[suffix if suffix in suffixes else usual] = media["bytes"]
    text = record.pop("text")
    if text is not None:
        members["txt"] = text.encode("utf-8", "replace")
    members["json"] = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")
    for suffix, data in members.items():
        entry = tarfile.TarInfo(f"{key}.{suffix}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
