"""From a shard's record to a row, without a memory of the records before it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.data.folder_fields import BadField, Note, parse_box, parse_info, parse_keypoints, parse_number, parse_text
from mmkp.data.rows import Row
from mmkp.data.shard_source import ShardRecord
from mmkp.data.splits import canonical, hashed_split
from mmkp.schema import KeypointSchema

FIELDS = (
    "id",
    "group",
    "split",
    "audio_time",
    "audio_start",
    "audio_end",
    "text",
    "keypoints",
    "visible",
    "box",
    "info",
)


def row_of(
    record: ShardRecord, schema: KeypointSchema, image: Path | None, audio: Path | None, notes: list[Note]
) -> Row | None:
    """The row of a record, its files where the caller put them; None, with a note that says why.

    Args:
        record: as read.
        schema: of the keypoints.
        image, audio: where its picture and its sound are.
        notes: gets what is questionable.
    """
    values = record.values
    if values is None:
        return None
    text = parse_text(values.get("text"), notes)
    if image is None and audio is None and text is None:
        notes.append(Note("bad row", "neither a picture nor text nor sound is left"))
        return None
    try:
        points_xy, visible = parse_keypoints(_with_flags(values), schema, notes)
    except BadField as bad:
        notes.append(bad.note)
        return None
    name = _word(values.get("id")) or record.where
    times = [parse_number(values.get(key), key, notes) for key in ("audio_time", "audio_start", "audio_end")]
    time_s, start_s, end_s = times if audio else (None, None, None)
    return Row(
        id=name, group=_word(values.get("group")) or name, where=record.where, keypoints_xy=points_xy, visible=visible,
        box_xywh=parse_box(values.get("box"), notes), image=image, audio=audio, audio_time_s=time_s,
        audio_start_s=start_s, audio_end_s=end_s, text=text, split=record.split,
        info=parse_info(values, FIELDS, notes),
    )  # fmt: skip


def _with_flags(values: dict[str, Any]) -> Any:
    """The keypoints; a column of flags of their own is put beside them."""
    points, flags = values.get("keypoints"), values.get("visible")
    if points is None or flags is None:
        return points
    try:
        joined = [[*xy[:2], flag] for xy, flag in zip(points, flags, strict=True)]
    except (TypeError, ValueError) as error:
        raise BadField("keypoint count", f"keypoints and visible do not fit together: {error}") from error
    return joined


def _word(value: Any) -> str:
    return str(value).strip() if isinstance(value, (str, int, np.integer)) and not isinstance(value, bool) else ""


def split_of_row(row: Row, known: Collection[str]) -> str:
    """The split of a row that is met alone: as `mmkp.data.splits.assign_splits` for the whole table.

    Args:
        row: one of many.
        known: the splits that the data names anywhere.
    """
    name, hashed = canonical(row.split), hashed_split(row.group)
    return hashed if name is None or (name == "train" and hashed not in known) else name


def index_of(row: Row) -> int:
    """A number that is the row's own wherever it stands: what its augmentation is drawn from."""
    return int.from_bytes(hashlib.sha1(row.id.encode()).digest()[:7], "big")
