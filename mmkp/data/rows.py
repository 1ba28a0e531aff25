"""Rows: what a reader understood of a dataset, nothing decoded yet; and the dataset that decodes them one by one.

A reader of any format is a function `path -> RowTable`: rows that are usable, faults that name the others. Checking,
cleaning, converting and training all start from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from mmkp import geometry
from mmkp.data.cache import RowCache
from mmkp.data.io import read_audio, read_image
from mmkp.data.sample import Sample
from mmkp.data.splits import assign_splits, check_split
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema


@dataclass(frozen=True)
class Row:
    """One sample, still as files and numbers.

    Attributes:
        id: unique within the table.
        group: what a split may not divide (clip, person, picture).
        where: its place in the source, for messages: `metadata.jsonl line 3`, `annotation 17`.
        keypoints_xy: (K, 2) px, image frame, the centre of the top-left pixel at (0, 0); NaN where unlabelled.
        visible: (K,) COCO's flag: 0 unlabelled, 1 labelled but hidden, 2 labelled and visible.
        box_xywh: (4,) px, image frame; None means the whole picture.
        image: the picture's file, or a video's; None: the row has no picture.
        frame: index of the frame within the video `image`; None for a picture.
        audio: the sound's file (a video's sound too); None: the row has no sound.
        audio_time_s: the picture's moment, seconds into the file.
        audio_start_s, audio_end_s: the part of the file that belongs to the row; its whole length without.
        text: what is said or described; None: the row has no text.
        split: as the source names it; None where it does not.
        info: whatever else the source says (COCO's area and iscrowd, a category); never seen by a model.
    """

    id: str
    group: str
    where: str
    keypoints_xy: Float32[np.ndarray, "K 2"]
    visible: UInt8[np.ndarray, " K"]
    box_xywh: np.ndarray | None = None
    image: Path | None = None
    frame: int | None = None
    audio: Path | None = None
    audio_time_s: float | None = None
    audio_start_s: float | None = None
    audio_end_s: float | None = None
    text: str | None = None
    split: str | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Row:
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Fault:
    """Something wrong with one row, or with the whole (`row` 0).

    Attributes:
        kind: a short name of the kind of fault, the same for all its cases: `missing file`, `keypoint count`.
        where: the row's place in the source.
        message: what was expected and what came.
        row: the row's number in the source, from 1 as an editor counts lines; 0 for the whole.
        id: the row's id where it has one.
    """

    kind: str
    where: str
    message: str
    row: int = 0
    id: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.message}"


@dataclass(frozen=True)
class RowTable:
    """What a reader made of a source.

    Attributes:
        name: of the format, `coco`, `folder`.
        schema: of the keypoints.
        rows: the usable ones, in the source's order.
        faults: what is wrong with the others, or questionable with these.
        root: the folder that files are looked for in, and that no name may leave.
    """

    name: str
    schema: KeypointSchema
    rows: Sequence[Row]
    faults: Sequence[Fault] = ()
    root: Path = Path(".")


Reader = Callable[..., RowTable]
Heard = tuple[Float32[np.ndarray, " T"], int, float | None]  # samples, rate in Hz, the picture's moment, s


def assemble(row: Row, image: UInt8[np.ndarray, "H W 3"] | None, heard: Heard | None) -> Sample:
    """A row's sample from what was decoded of it.

    A row of which nothing is left carries no labels, nor does one without picture and box: nobody knows where in what
    its keypoints lie.
    """
    audio, rate_hz, time_s = heard if heard is not None else (None, 16_000, None)
    nothing = image is None and audio is None and row.text is None
    placeless = image is None and row.box_xywh is None
    box = row.box_xywh
    if box is None:
        box = geometry.whole_image_box((1, 1) if image is None else (image.shape[0], image.shape[1]))
    return Sample(
        id=row.id, group=row.group, keypoints_xy=row.keypoints_xy,
        visible=np.zeros_like(row.visible) if nothing or placeless else row.visible,
        box_xywh=np.asarray(box, dtype=np.float64), image=image, audio=audio, rate_hz=rate_hz,
        audio_time_s=time_s, text=row.text, info=row.info,
    )  # fmt: skip


class RowDataset:
    """A table as samples, decoded when they are asked for.

    A modality whose file cannot be decoded counts as absent and stands in `problems` from then on: a bad file costs
    itself, not the run. A row of which nothing is left carries no labels, so that nothing is learned from it.

    Args:
        table: what a reader made.
        split: train, validation, test or all (see mmkp.data.splits).
        cache_mb: memory in which what was decoded is kept, MiB; see mmkp.data.cache. 0 decodes anew each time.

    Raises:
        InputError: no such split, or no rows in it.
    """

    def __init__(self, table: RowTable, split: str = "train", cache_mb: int = 0) -> None:
        self.table, self.name, self.schema = table, table.name, table.schema
        wanted = check_split(split, table.name)
        splits = assign_splits([r.group for r in table.rows], [r.split for r in table.rows])
        self.rows = [r for r, s in zip(table.rows, splits, strict=True) if wanted in ("all", s)]
        if not self.rows:
            found = ", ".join(f"{s} ({splits.count(s)})" for s in dict.fromkeys(splits)) or "no usable rows"
            first = f"; first fault: {table.faults[0]}" if table.faults else ""
            raise InputError(
                f"data {table.name}:{table.root}", expected=f"rows in the split {wanted}", got=found + first,
                remedy="Give the rows a `split`, or more groups (`mmkp data check` shows both), or ask for all.",
            )  # fmt: skip
        self.problems: Sequence[str] = [str(fault) for fault in table.faults]
        self._failed: set[tuple[str, str]] = set()
        self._cache = RowCache(self.rows, cache_mb) if cache_mb > 0 else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        image = self._attempt(row, "image", self._image)
        return assemble(row, image, self._attempt(row, "audio", self._audio))

    def _image(self, row: Row) -> UInt8[np.ndarray, "H W 3"]:
        return self.read_image(row) if self._cache is None else self._cache.image(row, self.read_image)

    def _audio(self, row: Row) -> Heard:
        return self.read_audio(row) if self._cache is None else self._cache.audio(row, self.read_audio)

    def _attempt(self, row: Row, kind: str, read: Callable[[Row], Any]) -> Any:
        if getattr(row, kind) is None or (row.id, kind) in self._failed:
            return None
        try:
            return read(row)
        except InputError as error:
            self._failed.add((row.id, kind))
            self.problems = [*self.problems, f"{row.where}: {error}; counts as absent"]
            return None

    @staticmethod
    def read_image(row: Row) -> UInt8[np.ndarray, "H W 3"]:
        """The row's picture, or its frame of a video.

        Raises:
            InputError: it cannot be decoded.
        """
        assert row.image is not None
        if row.frame is None:
            return read_image(row.image)
        from mmkp.data.video import read_frame

        return read_frame(row.image, row.frame)

    @staticmethod
    def read_audio(row: Row) -> Heard:
        """The row's sound, its rate in Hz and the picture's moment within it, s.

        Raises:
            InputError: it cannot be decoded, or the row's part of it is empty.
        """
        assert row.audio is not None
        samples, rate_hz = read_audio(row.audio)
        start_s, end_s = row.audio_start_s or 0.0, row.audio_end_s
        first, last = round(start_s * rate_hz), len(samples) if end_s is None else round(end_s * rate_hz)
        part = samples[max(first, 0) : last]
        if not len(part):
            raise InputError(
                f"audio {row.audio.name}", expected=f"sound from {start_s} s to {end_s} s",
                got=f"{len(samples) / rate_hz:.3f} s in all",
            )  # fmt: skip
        return part, rate_hz, None if row.audio_time_s is None else row.audio_time_s - start_s

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever a row or one of its files would."""
        made = hashlib.sha1(repr(self.schema).encode())
        for row in self.rows:
            plain = (row.id, row.group, row.text, row.frame, row.audio_time_s, row.audio_start_s, row.audio_end_s)
            made.update(repr(plain).encode() + row.keypoints_xy.tobytes() + row.visible.tobytes())
            made.update(b"" if row.box_xywh is None else np.asarray(row.box_xywh, np.float64).tobytes())
            for path in (row.image, row.audio):
                if path is not None and path.is_file():
                    status = path.stat()
                    made.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
        return made.hexdigest()[:16]
