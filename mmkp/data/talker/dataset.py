"""The dataset `talker`: generated once, kept by `datasets`, read from there afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.data.sample import Sample
from mmkp.data.talker.clip import FRAMES_PER_CLIP
from mmkp.data.talker.generate import EXCERPT_S, SIZE, generate
from mmkp.data.talker.phrases import SPLITS
from mmkp.data.talker.speech import RATE_HZ, require_espeak
from mmkp.errors import InputError, nearest
from mmkp.schema import load_schema

VERSION = 2  # of the generator: raise it whenever a sample would change
LENGTHS = {"train": 6000, "validation": 480, "test": 960}
_ABANDONED_S = 24 * 3600.0  # a half-written folder as old as this belongs to no running process
_FEWEST_PER_WORKER = 256  # below this a second process costs more time than it saves


class TalkerDataset:
    """A parametric talking face with speech and text; a `KeypointDataset`.

    Args:
        split: train, validation or test: other persons, other sentences.
        size: side of the pictures, px.
        n: how many samples; 8 consecutive ones are frames of one clip.
        seed: another one gives other persons and sentences throughout.
        cache_dir: where the generated rows are kept; by default $MMKP_CACHE, else ~/.cache/mmkp.
        degrade: spoil a part of the samples; by default in train only.
        workers: processes that generate; by default at most two.

    Raises:
        InputError: an unknown split, a size or length that is no picture or no data, a cache that cannot be written.
        MissingExtraError: espeakng-loader is needed to generate and is not installed.
    """

    name = "talker"
    schema = load_schema("face68")

    def __init__(
        self, split: str = "train", size: int = SIZE, n: int | None = None, seed: int = 0,
        cache_dir: str | os.PathLike[str] | None = None, degrade: bool | None = None, workers: int | None = None,
    ) -> None:  # fmt: skip
        if split not in SPLITS:
            raise InputError("talker", expected="a split", got=repr(split), remedy=nearest(str(split), SPLITS))
        n = LENGTHS[split] if n is None else n
        if n < 1 or size < 16 or seed < 0:
            raise InputError(
                "talker", expected="n >= 1, size >= 16 px, seed >= 0", got=f"n={n}, size={size}, seed={seed}",
                remedy="Give other numbers.",
            )  # fmt: skip
        degrade = split == "train" if degrade is None else degrade
        self.split, self.size, self.seed, self.degrade = split, size, seed, degrade
        self.problems: list[str] = []
        parameters = {"version": VERSION, "split": split, "size": size, "n": n, "seed": seed, "degrade": degrade}
        self.fingerprint = hashlib.sha1(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]
        self.cache_path = cache_root(cache_dir) / "talker" / f"{split}-{size}px-{n}-{self.fingerprint}"
        self._rows = load_or_write(self.cache_path, parameters, workers, _rows, row_features())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"talker has {len(self)} samples, not one of index {index}")
        return sample_of(self._rows[index % len(self)])


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where mmkp keeps what can be made again: the argument, else $MMKP_CACHE, else ~/.cache/mmkp."""
    return Path(cache_dir or os.environ.get("MMKP_CACHE") or Path.home() / ".cache" / "mmkp").expanduser()


def load_or_write(path: Path, parameters: dict[str, Any], workers: int | None, rows: Any, features: Any) -> Any:
    """The rows; a folder of that name is whole, as it is renamed into place only after its last byte.

    Args:
        path: of the folder.
        parameters: `n` and whatever else `rows` wants.
        workers: processes that generate; None: at most two.
        rows: (clips, parameters) -> the rows of these clips.
        features: of a row.
    """
    from datasets import load_from_disk

    if not path.is_dir():
        require_espeak()
        try:
            _write(path, parameters, workers, rows, features)
        except OSError as error:
            raise InputError(
                f"talker's cache {path.parent}", expected="a folder that can be written, with room",
                got=str(error), remedy="Set MMKP_CACHE or pass cache_dir.",
            ) from error  # fmt: skip
    return load_from_disk(str(path))


def _write(path: Path, parameters: dict[str, Any], workers: int | None, rows: Any, features: Any) -> None:
    from datasets import Dataset

    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_abandoned(path.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        clips = list(range(-(-parameters["n"] // FRAMES_PER_CLIP)))
        most = min(2, os.cpu_count() or 1) if workers is None else workers
        processes = max(1, min(most, parameters["n"] // _FEWEST_PER_WORKER))
        made = Dataset.from_generator(
            rows, features=features, cache_dir=str(partial / "made"), num_proc=processes if processes > 1 else None,
            gen_kwargs={"clips": clips, "parameters": parameters}, fingerprint=path.name.rsplit("-", 1)[-1],
        )  # fmt: skip
        made.save_to_disk(str(partial / "whole"))
        with contextlib.suppress(FileExistsError):
            _move(partial / "whole", path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Rename a folder; another process that was faster has made the same rows, so its folder stays."""
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _clear_abandoned(folder: Path) -> None:
    for partial in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if partial.is_dir() and time.time() - partial.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(partial, ignore_errors=True)


def row_features() -> Any:
    """The types of a row."""
    from datasets import Features, List, Value

    return Features(
        {
            "id": Value("string"), "group": Value("string"), "keypoints_xy": List(Value("float32")),
            "visible": List(Value("uint8")), "box_xywh": List(Value("float64")), "image": Value("binary"),
            "audio": Value("binary"), "text": Value("string"), "text_controls": Value("string"),
            "info": Value("string"),
        }
    )  # fmt: skip


def _rows(clips: list[int], parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of some clips; `datasets` deals the list out to its processes."""
    p = parameters
    for clip in clips:
        for index in range(clip * FRAMES_PER_CLIP, min((clip + 1) * FRAMES_PER_CLIP, p["n"])):
            yield row_of(generate(p["seed"], index, p["size"], p["split"], p["degrade"]))


def row_of(sample: Sample) -> dict[str, Any]:
    """Plain bytes: nothing to decode, nothing lost but the sound's 17th bit."""
    return {
        "id": sample.id, "group": sample.group, "keypoints_xy": sample.keypoints_xy.ravel(),
        "visible": sample.visible, "box_xywh": sample.box_xywh,
        "image": None if sample.image is None else sample.image.tobytes(),
        "audio": None if sample.audio is None else np.round(sample.audio * 32767).astype("<i2").tobytes(),
        "text": sample.text, "text_controls": json.dumps(sample.text_controls), "info": json.dumps(sample.info),
    }  # fmt: skip


def sample_of(row: dict[str, Any]) -> Sample:
    """The sample that a row holds."""
    image, audio = row["image"], row["audio"]
    side = int(round((len(image) / 3) ** 0.5)) if image is not None else 0
    return Sample(
        id=row["id"], group=row["group"],
        keypoints_xy=np.array(row["keypoints_xy"], np.float32).reshape(-1, 2),
        visible=np.array(row["visible"], np.uint8), box_xywh=np.array(row["box_xywh"], np.float64),
        image=None if image is None else np.frombuffer(image, np.uint8).reshape(side, side, 3).copy(),
        audio=None if audio is None else np.frombuffer(audio, "<i2").astype(np.float32) / 32767,
        rate_hz=RATE_HZ, audio_time_s=EXCERPT_S / 2, text=row["text"],
        text_controls=json.loads(row["text_controls"]), info=json.loads(row["info"]),
    )  # fmt: skip
