"""Every picture and sound of a table decoded once, in threads, and boiled down to what the judges need."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmkp.data.io import MAX_PIXELS, read_audio, read_image
from mmkp.data.rows import Row, RowDataset
from mmkp.errors import InputError

THUMB = 16  # px: the side of the grey thumbnail that two pictures are compared by
UPRIGHT_SWAPS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
ORIENTATION = 0x0112
FULL_SCALE = 32_766 / 32_768  # the last step but one of 16 bit: what a clipped recording sticks to
Progress = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Picture:
    """What is kept of a decoded picture: its size, upright, the digest of its file, a grey thumbnail."""

    size_hw: tuple[int, int]
    digest: str
    thumb: UInt8[np.ndarray, "16 16"]


@dataclass(frozen=True)
class Heard:
    """What is kept of a row's part of a sound.

    Attributes:
        duration_s: seconds.
        rms: root mean square, 1 is full scale.
        clipped: share of samples at full scale.
        time_s: the picture's moment within the part, None where the row names none.
    """

    duration_s: float
    rms: float
    clipped: float
    time_s: float | None


@dataclass(frozen=True)
class Probes:
    """Facts by file; an InputError where a file could not be decoded."""

    pictures: dict[Hashable, Picture | InputError] = field(default_factory=dict)
    sounds: dict[Hashable, Heard | InputError] = field(default_factory=dict)

    def picture(self, row: Row) -> Picture | InputError | None:
        """Of a row; None where it has no picture."""
        return None if row.image is None else self.pictures.get(image_key(row))

    def sound(self, row: Row) -> Heard | InputError | None:
        """Of a row; None where it has no sound."""
        return None if row.audio is None else self.sounds.get(audio_key(row))


def image_key(row: Row) -> Hashable:
    """Rows with the same key show the same picture."""
    return row.image, row.frame


def audio_key(row: Row) -> Hashable:
    """Rows with the same key hear the same sound at the same moment."""
    return row.audio, row.audio_start_s, row.audio_end_s, row.audio_time_s


def probe(rows: Sequence[Row], workers: int | None = None, progress: Progress = lambda jobs: jobs) -> Probes:
    """Decode what the rows name, each file once.

    Args:
        rows: of a table.
        workers: threads; the machine's cores without. Decoders work outside Python's lock.
        progress: wraps the list of jobs, to show how far it is.
    """
    jobs: dict[Hashable, list[Row]] = {}
    for row in rows:
        if row.image is not None:
            jobs.setdefault(("image", image_key(row)), [row])
        if row.audio is not None:
            jobs.setdefault(("audio", row.audio), []).append(row)
    made = Probes()
    with warnings.catch_warnings():  # here, not in the threads, which share the filters
        warnings.simplefilter("ignore")
        for (kind, _), facts in _in_threads(progress(list(jobs.items())), workers or os.cpu_count() or 1):
            (made.pictures if kind == "image" else made.sounds).update(facts)
    return made


def _in_threads(jobs: Iterable[tuple], workers: int) -> Iterator[tuple[Any, dict[Hashable, Any]]]:
    """Keys of jobs with their facts, in order, a bounded number under way."""
    source = iter(jobs)
    waiting: deque[tuple[Any, Future]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            for key, rows in islice(source, workers * 8 - len(waiting)):
                waiting.append((key, pool.submit(_picture if key[0] == "image" else _heard, rows)))
            if not waiting:
                return
            key, future = waiting.popleft()
            yield key, future.result()


def _attempt(read: Callable[..., Any], *arguments: Any) -> Any:
    """What `read` makes, or the reason why not: a decoder may fail on a broken file in any way."""
    try:
        return read(*arguments)
    except InputError as error:
        return error
    except Exception as error:
        return InputError("decoding", got=f"{type(error).__name__}: {error}")


def _picture(rows: Sequence[Row]) -> dict[Hashable, Picture | InputError]:
    (row,) = rows
    if row.frame is not None:
        return {image_key(row): _attempt(lambda: picture_of(RowDataset.read_image(row)))}
    return {image_key(row): _attempt(probe_image, row.image)}


def _heard(rows: Sequence[Row]) -> dict[Hashable, Heard | InputError]:
    whole = _attempt(read_audio, rows[0].audio)
    if isinstance(whole, InputError):
        return {audio_key(row): whole for row in rows}
    return {audio_key(row): _attempt(_part, row, *whole) for row in rows}


def _part(row: Row, samples: np.ndarray, rate_hz: int) -> Heard:
    """As RowDataset.read_audio cuts it, from a file that is decoded once for all its rows."""
    start_s, end_s = row.audio_start_s or 0.0, row.audio_end_s
    last = len(samples) if end_s is None else round(end_s * rate_hz)
    part = samples[max(round(start_s * rate_hz), 0) : max(last, 0)]
    if not len(part):
        length_s = len(samples) / rate_hz
        raise InputError("its part", expected=f"sound from {start_s} s to {end_s} s", got=f"{length_s:.3f} s in all")
    return heard_of(part, rate_hz, None if row.audio_time_s is None else row.audio_time_s - start_s)


def probe_image(path: Path) -> Picture:
    """A picture's facts, decoded at reduced size where the format allows it: all of the file is read all the same.

    Raises:
        InputError: it cannot be decoded, or has more than 100 megapixels.
    """
    if not path.is_file():  # a pipe or a device too, which opening would wait for
        raise InputError(f"image {path}", expected="a file", got="none there")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha1").hexdigest()
        file.seek(0)
        try:
            with Image.open(file) as image:
                width, height = image.size
                if image.format == "JPEG" and width * height <= MAX_PIXELS:
                    if image.getexif().get(ORIENTATION) in UPRIGHT_SWAPS:
                        width, height = height, width
                    image.draft("L", (THUMB * 2, THUMB * 2))
                    return Picture((height, width), digest, _thumb(np.asarray(image.convert("L"))))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            pass  # read_image says what is wrong, in the words that training would
    pixels = read_image(path)
    return Picture(pixels.shape[:2], digest, _thumb(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)))


def picture_of(image: UInt8[np.ndarray, "H W 3"]) -> Picture:
    """The facts of a picture that is decoded already."""
    digest = hashlib.sha1(image.tobytes()).hexdigest()
    return Picture((image.shape[0], image.shape[1]), digest, _thumb(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)))


def _thumb(grey: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "16 16"]:
    return cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA)


def heard_of(samples: np.ndarray, rate_hz: int, time_s: float | None) -> Heard:
    """The facts of a sound that is decoded already."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return Heard(len(samples) / rate_hz, rms, float((np.abs(samples) >= FULL_SCALE).mean()), time_s)
