"""One frame of a video file by its index, exact, and quick when frames are asked for in order."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path
from threading import Lock

import av
import numpy as np
from jaxtyping import UInt8

from mmkp.data.io import MAX_PIXELS
from mmkp.errors import InputError

MAX_OPEN = 4  # videos held open; each costs a decoder's buffers (about ten frames)
# Formats whose index leads to a keyframe exactly. MPEG streams have none: there a seek lands where frames lack what
# they are predicted from, and the decoder hands out another picture under the right time.
INDEXED = {"mov", "mp4", "matroska", "webm"}
_open: OrderedDict[tuple[str, int, int], _Video] = OrderedDict()
_inherited: list[_Video] = []
_lock = Lock()


def read_frame(path: str | Path, index: int) -> UInt8[np.ndarray, "H W 3"]:
    """The frame `index` of the first video stream, counted from 0 in the order that frames are shown.

    The next frame of a video that was read from last costs one decoded frame, any other at most those since the last
    keyframe. Files without an index of keyframes (MPEG, AVI) are decoded from the start to go back.

    Args:
        path: a video file.
        index: from 0.

    Returns:
        RGB.

    Raises:
        InputError: no such file, no video, a broken one, or fewer frames.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"video {path}", expected="a file", got="a folder" if path.is_dir() else "none there")
    status = path.stat()
    key = (str(path.resolve()), status.st_mtime_ns, status.st_size)
    with _lock:
        try:
            video = _open[key] if key in _open else _Video(path)
            frame = video.read(index)
        except (av.FFmpegError, OSError, ValueError) as error:
            _drop(key)
            if isinstance(error, InputError):
                raise
            raise InputError(f"video {path.name}", expected="a video", got=str(error)) from error
        _open[key] = video
        _open.move_to_end(key)
        while len(_open) > MAX_OPEN:
            _drop(next(iter(_open)))
    return frame


def close_videos() -> None:
    """Close every video that is held open."""
    with _lock:
        for key in list(_open):
            _drop(key)


def _drop(key: tuple[str, int, int]) -> None:
    video = _open.pop(key, None)
    if video is not None:
        video.container.close()


def _after_fork() -> None:
    """A forked process opens its own decoders, and never closes its parent's: their threads did not come along."""
    global _lock
    _inherited.extend(_open.values())
    _open.clear()
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Video:
    """An open video: its frames' times, and a decoder that stands before frame `position`."""

    def __init__(self, path: Path) -> None:
        self.name, self.path = path.name, str(path)
        self.container = av.open(self.path)
        if not self.container.streams.video:
            self.container.close()
            raise InputError(f"video {self.name}", expected="a video", got="a file without a video stream")
        size = self.container.streams.video[0].codec_context
        if size.width * size.height > MAX_PIXELS:
            self.container.close()
            raise InputError(
                f"video {self.name}", expected=f"at most {MAX_PIXELS // 10**6} megapixels",
                got=f"{size.width} x {size.height} pixels",
            )  # fmt: skip
        self.times, self.keys = self._read_times()
        self.last: tuple[int, np.ndarray] | None = None
        self.position = 0
        self._rewind()

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        if self.last is not None and self.last[0] == index:
            return self.last[1].copy()
        if index < 0:
            raise InputError(f"video {self.name}", expected="a frame from 0 on", got=str(index))
        if self.times and index < len(self.times):
            key = bisect_right(self.keys, index) - 1
            behind_key = key >= 0 and self.position < self.keys[key]
            if (index < self.position or behind_key) and self._seek(index):
                return self._keep(index)
        if index < self.position:
            self._rewind()
        while self.position <= index:
            self._advance(index)
        return self._keep(index)

    def _keep(self, index: int) -> np.ndarray:
        frame = self.frame.to_ndarray(format="rgb24")
        self.last = (index, frame)
        return frame.copy()

    def _advance(self, wanted: int) -> None:
        frame = next(self.frames, None)
        if frame is None:
            found, self.last = self.position, None
            self._rewind()
            raise InputError(f"video {self.name}", expected=f"frame {wanted}", got=f"{found} frames, from 0")
        self.frame, self.position = frame, self.position + 1

    def _seek(self, index: int) -> bool:
        """Stand after the frame `index` by its time; False, rewound, where the file does not lead there exactly."""
        target = self.times[index]
        try:
            self.container.seek(target, stream=self.container.streams.video[0], backward=True)
            self.frames = self.container.decode(self.container.streams.video[0])
            for number, frame in enumerate(self.frames):
                if frame.pts is None or frame.pts > target or (number == 0 and not frame.key_frame):
                    break
                if frame.pts == target:
                    self.frame, self.position = frame, index + 1
                    return True
        except av.FFmpegError:
            pass
        self.times = []
        self._rewind()
        return False

    def _rewind(self) -> None:
        self.container.close()
        self.container = av.open(self.path)
        self.frames = self.container.decode(self.container.streams.video[0])
        self.position = 0

    def _read_times(self) -> tuple[list[int], list[int]]:
        """The frames' times in the order shown and the indices of the keyframes; empty where they lead nowhere."""
        if not INDEXED & set(self.container.format.name.split(",")):
            return [], []
        times, keyed = [], []
        for packet in self.container.demux(self.container.streams.video[0]):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None:
                return [], []
            times.append(packet.pts)
            if packet.is_keyframe:
                keyed.append(packet.pts)
        times.sort()
        if len(set(times)) != len(times):
            return [], []
        place = {time: i for i, time in enumerate(times)}
        return times, sorted(place[time] for time in keyed)
