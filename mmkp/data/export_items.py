"""What exporters share: the samples of any dataset with their files, encoding without loss, and a folder made whole."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from mmkp.data.rows import Row, RowDataset, RowTable
from mmkp.data.sample import KeypointDataset, Sample
from mmkp.data.splits import assign_splits
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema

Progress = Callable[[int, int], None]
MAX_FLAC_HZ = 655_350  # the format's field for the rate ends there
# Suffixes that soundfile decodes; sound in other files (videos) is decoded before it is packed into Parquet.
SOUND_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus"}


@dataclass
class Exported:
    """What an exporter made.

    Attributes:
        folder: where it lies.
        rows: how many samples were written.
        problems: what could not be read or has no place in the format, one line each.
    """

    folder: Path
    rows: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Item:
    """A row as it is exported; its files as they are where there are any, else decoded when asked for.

    Attributes:
        row: its labels and texts. `image` and `audio` are files that can be copied (None where the modality is absent
            or only exists decoded).
        sample: the decoded sample of a dataset that has no files.
    """

    row: Row
    sample: Sample | None = None

    @property
    def present(self) -> tuple[bool, bool, bool]:
        """Which of image, text and audio are there."""
        if self.sample is not None:
            return self.sample.present
        return (self.row.image is not None, self.row.text is not None, self.row.audio is not None)

    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        """The picture, RGB.

        Raises:
            InputError: it cannot be decoded.
        """
        if self.sample is not None:
            assert self.sample.image is not None
            return self.sample.image
        return RowDataset.read_image(self.row)

    def audio(self) -> tuple[Float32[np.ndarray, " T"], int, float | None]:
        """The row's part of the sound, its rate in Hz and the picture's moment within it, s.

        Raises:
            InputError: it cannot be decoded.
        """
        if self.sample is not None:
            assert self.sample.audio is not None
            return self.sample.audio, self.sample.rate_hz, self.sample.audio_time_s
        return RowDataset.read_audio(self.row)


def items_of(dataset: RowTable | KeypointDataset, split: str | None = None) -> tuple[int, Iterator[Item]]:
    """How many samples, and they themselves one by one.

    Args:
        dataset: a table, or a dataset.
        split: the name that every row gets; without it a table's rows keep theirs, and a RowDataset's get the one that
            they were taken by.
    """
    if isinstance(dataset, RowTable):
        return len(dataset.rows), (Item(_named(row, split)) for row in dataset.rows)
    if isinstance(dataset, RowDataset):
        table = dataset.table
        found = assign_splits([r.group for r in table.rows], [r.split for r in table.rows])
        splits = {row.id: name for row, name in zip(table.rows, found, strict=True)}
        return len(dataset.rows), (Item(_named(row, split or splits[row.id])) for row in dataset.rows)
    return len(dataset), (_of_sample(dataset[i], split) for i in range(len(dataset)))


def _named(row: Row, split: str | None) -> Row:
    return row if split is None else row.replace(split=split)


def _of_sample(sample: Sample, split: str | None) -> Item:
    row = Row(
        id=sample.id, group=sample.group, where=sample.id, keypoints_xy=sample.keypoints_xy, visible=sample.visible,
        box_xywh=sample.box_xywh, audio_time_s=sample.audio_time_s, text=sample.text, split=split, info=sample.info,
    )  # fmt: skip
    return Item(row, sample)


def encode_png(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A picture as PNG, without loss."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def encode_audio(samples: Float32[np.ndarray, " T"], rate_hz: int) -> tuple[bytes, str]:
    """A sound without loss, and the suffix of its format: FLAC where 16 bits hold it, else WAV of 32-bit floats."""
    import soundfile

    scaled = samples.astype(np.float64) * 32768
    whole = np.rint(scaled)
    fits = np.array_equal(scaled, whole) and (len(whole) == 0 or (whole.min() >= -32768 and whole.max() <= 32767))
    buffer = io.BytesIO()
    if fits and rate_hz <= MAX_FLAC_HZ:
        soundfile.write(buffer, whole.astype(np.int16), rate_hz, format="FLAC", subtype="PCM_16")
        return buffer.getvalue(), ".flac"
    soundfile.write(buffer, samples, rate_hz, format="WAV", subtype="FLOAT")
    return buffer.getvalue(), ".wav"


def keypoint_triples(row: Row) -> list[list[float]] | None:
    """[[x, y, v] ...] with the shortest digits that give the same float32; [0, 0, 0] where unlabelled, None if all."""
    if not (row.visible > 0).any():
        return None
    points = [[float(str(x)), float(str(y))] for x, y in row.keypoints_xy]
    return [[*xy, int(v)] if v else [0.0, 0.0, 0] for xy, v in zip(points, row.visible, strict=True)]


def box_list(row: Row) -> list[float] | None:
    """[x, y, width, height], or None."""
    return None if row.box_xywh is None else [float(value) for value in row.box_xywh]


def info_text(info: dict[str, Any]) -> str | None:
    """`info` as JSON text, so that rows that know different things still share one column."""
    return json.dumps(info, default=_plain, ensure_ascii=False) if info else None


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


@contextmanager
def new_folder(out: str | Path, root: Path | None = None) -> Iterator[Path]:
    """A folder to write to, which takes the name `out` when all is written; nothing is left when that fails.

    Args:
        out: does not exist, or is empty.
        root: of the dataset that is read, which `out` may not lie in.

    Raises:
        InputError: `out` holds something, is a file, lies in the dataset, or cannot be made.
    """
    out = Path(out).expanduser()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(
            f"export to {out}", expected="a new or empty folder", got="a file" if out.is_file() else "one with content"
        )
    named = root is not None and root != Path(".")
    if named and out.resolve().is_relative_to(Path(root or "").resolve()):
        raise InputError(f"export to {out}", expected="a folder outside the dataset", got=f"one in {root}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"export to {out}", expected="a folder that can be made", got=str(error)) from error
    try:
        yield made
        if out.is_dir():
            out.rmdir()
        os.chmod(made, 0o755)
        os.replace(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_schema(schema: KeypointSchema, folder: Path) -> None:
    """`schema.yaml`: the name of a built-in schema, else the whole."""
    import yaml

    from mmkp.schema import load_schema, schema_names

    builtin = schema.name in schema_names() and load_schema(schema.name) == schema
    data: dict[str, Any] = {"schema": schema.name} if builtin else schema.model_dump(mode="json")
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    (folder / "schema.yaml").write_text(text, encoding="utf-8")


def attempt(made: Exported, item: Item, kind: str, read: Callable[[Item], Any]) -> Any:
    """`read(item)`, or None with a problem noted: a file that cannot be read costs itself."""
    try:
        return read(item)
    except (InputError, OSError) as error:
        made.problems.append(f"{item.row.where}: {kind} left out: {error}")
        return None


def report_progress(progress: Progress | None, done: int, total: int) -> None:
    """Call it where there is one."""
    if progress is not None:
        progress(done, total)


def root_of(dataset: RowTable | KeypointDataset) -> Path | None:
    """The folder that a dataset of rows is read from."""
    table = dataset.table if isinstance(dataset, RowDataset) else dataset
    return table.root if isinstance(table, RowTable) else None


def drop_empty_columns(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows without the keys that no row has a value for."""
    used = {key for row in rows for key, value in row.items() if value is not None}
    return [{key: value for key, value in row.items() if key in used} for row in rows]
