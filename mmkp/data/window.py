"""The stretch of a recording that belongs to a picture."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from mmkp.data.timing import WINDOW_S
from mmkp.errors import InputError


def window_range(num_samples: int, rate_hz: int, time_s: float | None, window_s: float = WINDOW_S) -> tuple[int, int]:
    """First and one past the last sample of the window centred on `time_s`; they may lie outside 0..`num_samples`.

    Sample i is heard at i / `rate_hz`. A `time_s` of None means the middle of the recording.

    Raises:
        InputError: for a rate or window that is not above 0, or a time that is no number.
    """
    if not (rate_hz > 0 and window_s > 0):
        raise InputError("audio window", expected="a rate and a length above 0", got=f"{rate_hz} Hz, {window_s} s")
    if time_s is not None and not np.isfinite(time_s):
        raise InputError("audio window", expected="a finite time in seconds or None", got=repr(time_s))
    length = round(window_s * rate_hz)
    centre = num_samples // 2 if time_s is None else round(time_s * rate_hz)
    start = centre - length // 2
    return start, start + length


def window(
    audio: Float32[np.ndarray, " T"], rate_hz: int, time_s: float | None, window_s: float = WINDOW_S
) -> tuple[Float32[np.ndarray, " N"], tuple[int, int]]:
    """Cut the window centred on `time_s`, zeros where the recording has ended or not begun.

    Args:
        audio: mono, in [-1, 1].
        rate_hz: its sampling rate.
        time_s: seconds from the first sample; the middle of the recording when None.
        window_s: seconds.

    Returns:
        The window, round(window_s * rate_hz) samples, and the half-open range (first, end) of its real samples;
        (0, 0) when the window misses the recording.
    """
    start, stop = window_range(len(audio), rate_hz, time_s, window_s)
    cut = np.zeros(stop - start, dtype=np.float32)
    from_sample, to_sample = max(start, 0), min(stop, len(audio))
    if from_sample >= to_sample:
        return cut, (0, 0)
    first, end = from_sample - start, to_sample - start
    cut[first:end] = audio[from_sample:to_sample]
    return cut, (first, end)
