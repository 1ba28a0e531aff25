"""Any dataset as a folder in the custom format. `EXPORTERS` names the other formats."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmkp.data.export_items import (
    Exported,
    Item,
    Progress,
    attempt,
    box_list,
    drop_empty_columns,
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

EXPORTERS: dict[str, str] = {
    "folder": "mmkp.data.export:export_folder",
    "coco": "mmkp.data.export_coco:export_coco",
    "parquet": "mmkp.data.export_parquet:export_parquet",
    "webdataset": "mmkp.data.shard_write:write_webdataset",
}


def export_folder(
    dataset: RowTable | KeypointDataset, out: str | Path, split: str | None = None, progress: Progress | None = None
) -> Exported:
    """Write a dataset as a folder with metadata.jsonl, schema.yaml, images/ and audio/.

    Files are copied as they are, once however many rows use them; frames of a video become PNG, sounds that exist only
    decoded FLAC or WAV: nothing is lost. `read_folder` gives the same keypoints, flags, texts, groups and splits back.
    Pictures are numbered, because words such as "train" in their names would make imagefolder guess splits.

    Args:
        dataset: a table of rows (all of them are written), or a dataset.
        out: a new or empty folder outside the dataset's.
        split: the split that every row is put in; without, rows keep theirs.
        progress: called with rows done and rows in all.

    Raises:
        InputError: `out` is not such a folder.
    """
    made = Exported(Path(out))
    total, items = items_of(dataset, split)
    with new_folder(out, root_of(dataset)) as folder:
        files = _Files(folder, made)
        rows = []
        for number, item in enumerate(items, 1):
            row = _metadata(item, files, number)
            if row is not None:
                rows.append(row)
            report_progress(progress, number, total)
        with open(folder / "metadata.jsonl", "w", encoding="utf-8", errors="replace", newline="\n") as table:
            table.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in drop_empty_columns(rows))
        write_schema(dataset.schema, folder)
        made.rows = len(rows)
    return made


@dataclass
class _Files:
    """The files written so far, by what they were made from."""

    folder: Path
    made: Exported
    names: dict[Any, str] = field(default_factory=dict)

    def image(self, item: Item, number: int) -> str | None:
        """The picture's name in the new folder."""
        source, frame = item.row.image, item.row.frame
        if item.sample is None and frame is None and source is not None:
            return self._copy(item, source, f"images/{number:06d}{source.suffix.lower()}", "image")
        key = (source, frame)
        if source is None or key not in self.names:
            picture = attempt(self.made, item, "image", Item.image)
            if picture is None:
                return None
            self.names[key] = self._write(f"images/{number:06d}.png", encode_png(picture))
        return self.names[key]

    def audio(self, item: Item, number: int) -> str | None:
        """The sound's name in the new folder."""
        source = item.row.audio
        if item.sample is None and source is not None:
            return self._copy(item, source, f"audio/{number:06d}{source.suffix.lower()}", "audio")
        sound = attempt(self.made, item, "audio", Item.audio)
        if sound is None:
            return None
        data, suffix = encode_audio(sound[0], sound[1])
        return self._write(f"audio/{number:06d}{suffix}", data)

    def _copy(self, item: Item, source: Path, name: str, kind: str) -> str | None:
        if (kind, source) not in self.names:
            target = self.folder / name
            target.parent.mkdir(exist_ok=True)
            if attempt(self.made, item, kind, lambda _: shutil.copyfile(source, target)) is None:
                return None
            self.names[kind, source] = name
        return self.names[kind, source]

    def _write(self, name: str, data: bytes) -> str:
        target = self.folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        return name


def _metadata(item: Item, files: _Files, number: int) -> dict[str, Any] | None:
    """One line of metadata.jsonl; None where nothing of the row is left."""
    row = item.row
    has_image, has_text, has_audio = item.present
    image = files.image(item, number) if has_image else None
    audio = files.audio(item, number) if has_audio else None
    if image is None and audio is None and not has_text:
        files.made.problems.append(f"{row.where}: row left out: no picture, text or sound is left")
        return None
    return {
        "file_name": image, "audio": audio, "audio_time": row.audio_time_s if audio else None,
        "audio_start": row.audio_start_s if audio else None, "audio_end": row.audio_end_s if audio else None,
        "text": row.text, "keypoints": keypoint_triples(row), "box": box_list(row), "group": row.group,
        "split": row.split, "id": row.id, "info": info_text(row.info),
    }  # fmt: skip
