"""Video and sound out of one media file, on one clock, with PyAV (its wheels carry FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from jaxtyping import Int16, UInt8

MAX_GAP_S = 0.02  # less than one mp2 frame of 1152 samples at 44.1 kHz (0.026 s), far more than a time stamp's rounding


@dataclass(frozen=True)
class Sound:
    """A file's sound, mono.

    Attributes:
        samples: (T,) 16 bit.
        rate_hz: sampling rate.
        start_s: when sample 0 is heard, on the file's own clock (the one that `read_video` gives times of).
        cut: packets are missing in the middle, and what follows was left out: it would be heard too early.
    """

    samples: Int16[np.ndarray, " T"]
    rate_hz: int
    start_s: float
    cut: bool


def read_video(path: Path) -> Iterator[tuple[float | None, UInt8[np.ndarray, "H W 3"]]]:
    """The frames of the first video stream in the order they are shown.

    Yields:
        The presentation time in seconds on the file's clock (None where the file does not say), and RGB.

    Raises:
        av.FFmpegError, OSError: not a readable media file.
        LookupError: no video stream.
    """
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise LookupError("no video stream")
        for frame in container.decode(container.streams.video[0]):
            yield frame.time, frame.to_ndarray(format="rgb24")


def read_sound(path: Path, rate_hz: int) -> Sound | None:
    """The first sound stream, mixed to mono and resampled; None where there is none.

    Raises:
        av.FFmpegError, OSError: not a readable media file.
    """
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
    chunks: list[np.ndarray] = []
    start_s = end_s = None
    cut = False
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        for frame in container.decode(container.streams.audio[0]):
            if frame.time is not None:
                if end_s is not None and frame.time - end_s > MAX_GAP_S:
                    cut = True
                    break
                start_s = frame.time if start_s is None else start_s
                end_s = frame.time + frame.samples / frame.sample_rate
            chunks += [out.to_ndarray()[0] for out in resampler.resample(frame)]
        if chunks:
            chunks += [out.to_ndarray()[0] for out in resampler.resample(None)]
    return Sound(np.concatenate(chunks), rate_hz, start_s or 0.0, cut) if chunks else None
