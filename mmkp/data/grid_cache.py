"""GRID clips decoded once: a safetensors file per clip, of which reading a frame touches only that frame's bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmkp.data.grid_decode import RATE_HZ, ClipFault, decode_clip
from mmkp.data.grid_files import ClipFiles
from mmkp.data.timing import Word
from mmkp.errors import InputError

VERSION = 2  # of what is in a cache file; raise it whenever a sample would change
OPEN_FILES = 256  # handles a process keeps; the whole corpus would pass the usual limit of 1024
BAR_FROM = 8  # clips: fewer are decoded before a bar could be read
READ_ERRORS = (OSError, SafetensorError, LookupError, ValueError, TypeError)


@dataclass(frozen=True)
class Clip:
    """What is kept in memory of a cached clip. Times are seconds after its first frame.

    Attributes:
        offsets: (T+1,) where each frame's JPEG begins and the last one ends, bytes.
        times_s: (T,) when each frame is shown.
        frames: the frames that have all eye points, and so a box.
        words: with their times; evenly spaced unless `timed`.
        sound_start_s: when the sound's first sample is heard; None without sound.
        sound_s: how long the sound lasts.
        digest: sha1 of the files it was made of.
        error: why the clip cannot be used, if so.
    """

    files: ClipFiles
    path: Path
    offsets: np.ndarray
    times_s: np.ndarray
    frames: tuple[int, ...] = ()
    words: tuple[Word, ...] = ()
    timed: bool = False
    duration_s: float = 0.0
    sound_start_s: float | None = None
    sound_s: float = 0.0
    digest: str = ""
    problems: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class FrameData:
    """One cached frame: RGB (H, W, 3), keypoints (68, 2) px, int16 sound of the span that was asked for."""

    image: np.ndarray
    keypoints_xy: np.ndarray
    sound: np.ndarray


def cache_folder(cache_dir: str | Path | None) -> Path:
    """The folder of GRID's cache, made if need be: the argument, else $MMKP_CACHE, else ~/.cache/mmkp; then grid/.

    Raises:
        InputError: it cannot be made or written to.
    """
    base = Path(cache_dir or os.environ.get("MMKP_CACHE") or "~/.cache/mmkp").expanduser()
    folder = base / "grid"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def cached_clips(sources: Sequence[ClipFiles], folder: Path) -> list[Clip]:
    """The clips in the order of `sources`, those decoded that are not in the cache yet or are damaged there.

    Raises:
        InputError: the cache cannot be written.
    """
    found: dict[str, Clip] = {}
    missing = []
    for files in sources:
        try:
            found[files.name] = load_clip(files, _cache_path(files, folder))
        except READ_ERRORS:
            missing.append(files)
    with _progress(len(missing)) as step, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for files, clip in zip(missing, pool.map(lambda files: build_clip(files, folder), missing), strict=True):
            found[files.name] = clip
            step()
    return [found[files.name] for files in sources]


def load_clip(files: ClipFiles, path: Path) -> Clip:
    """Read a cache file's header and small tables.

    Raises:
        READ_ERRORS: not there, half written, or not one of ours.
    """
    with safe_open(path, framework="np") as tensors:
        header = json.loads(tensors.metadata()["mmkp_grid"])
        offsets, times_s = tensors.get_tensor("offsets"), tensors.get_tensor("times_s")
        if offsets[-1] != tensors.get_slice("jpeg").get_shape()[0] or len(offsets) != len(times_s) + 1:
            raise ValueError(f"{path.name}: its tables do not fit together")
    header["words"] = tuple(Word(**word) for word in header["words"])
    header["frames"], header["problems"] = tuple(header["frames"]), tuple(header["problems"])
    return Clip(files=files, path=path, offsets=offsets, times_s=times_s, **header)


def build_clip(files: ClipFiles, folder: Path) -> Clip:
    """Decode a clip into the cache. A clip that cannot be used is remembered there with the reason.

    Raises:
        InputError: the cache cannot be written.
    """
    path = _cache_path(files, folder)
    offsets, times_s = np.zeros(1, np.int64), np.zeros(0)
    try:
        header, tensors = decode_clip(files)
    except OSError as error:  # a matter of this machine and hour (rights, a lost disk), so not remembered
        return Clip(files, path, offsets, times_s, error=f"cannot be read: {error.strerror or error}")
    except (ClipFault, LookupError, ValueError, av.FFmpegError) as fault:
        reason = fault.strerror if isinstance(fault, av.FFmpegError) else str(fault)
        header = {"error": reason, "frames": [], "words": [], "problems": []}
        tensors = {"offsets": offsets, "times_s": times_s, "jpeg": np.zeros(0, np.uint8)}
    try:
        _save(path, header, tensors)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error
        raise _unwritable(folder, error) from error
    _handle.cache_clear()
    return load_clip(files, path)


def read_frame(clip: Clip, frame: int, from_s: float, to_s: float) -> FrameData:
    """Read one frame and the sound between two moments (seconds after the sound's first sample).

    Raises:
        READ_ERRORS: the cache file is damaged or gone.
    """
    tensors = _handle(str(clip.path))
    jpeg = tensors.get_slice("jpeg")[int(clip.offsets[frame]) : int(clip.offsets[frame + 1])]
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{clip.path.name}: frame {frame} is no JPEG")
    keypoints_xy = tensors.get_slice("keypoints_xy")[frame]
    sound = tensors.get_slice("sound")
    length = sound.get_shape()[0]  # safetensors refuses a slice that ends beyond it
    start, end = (min(max(0, round(moment * RATE_HZ)), length) for moment in (from_s, to_s))
    heard = sound[start:end] if end > start else np.zeros(0, np.int16)
    return FrameData(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), keypoints_xy, heard)


def _cache_path(files: ClipFiles, folder: Path) -> Path:
    key = hashlib.sha1(f"{VERSION} {files.shared} {files.identity()}".encode()).hexdigest()[:16]
    return folder / f"{files.name.replace('/', '-')}-{key}.safetensors"


def _save(path: Path, header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Write to a name of its own and then rename, so that a reader sees a whole file or none."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    os.close(descriptor)
    try:
        save_file(tensors, temporary, metadata={"mmkp_grid": json.dumps(header)})
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


@lru_cache(maxsize=OPEN_FILES)
def _handle(path: str) -> Any:
    """An open cache file, one per process and path; a forked worker shares the map, a spawned one opens its own."""
    return safe_open(path, framework="np").__enter__()


def _unwritable(folder: Path, error: Exception) -> InputError:
    remedy = "Set MMKP_CACHE to a folder with room that you may write to"
    return InputError(f"cache {folder}", expected="a writable folder", got=str(error), remedy=remedy + ".")


@contextlib.contextmanager
def _progress(total: int) -> Any:
    """A bar on a terminal's stderr for work that takes a while; yields the function that moves it by one."""
    if total < BAR_FROM or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("GRID: decoding into the cache", total=total)
        yield lambda: bar.advance(task)
