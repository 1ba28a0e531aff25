"""One GRID clip decoded: pictures, labels, sound and words on one clock, and what was wrong with each of them."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from mmkp.data.av_io import read_sound, read_video
from mmkp.data.face import LEFT_EYE, OUTER_EYE_CORNERS, RIGHT_EYE
from mmkp.data.grid_files import ClipFiles, read_words
from mmkp.data.timing import evenly_spaced

RATE_HZ = 16_000
FRAME_S = 1 / 25  # GRID's frame period; used only where a file does not say
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


class ClipFault(Exception):
    """A clip that cannot be used; the message says why."""


def decode_clip(files: ClipFiles) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A clip as the header and the tensors of its cache file (see `grid_cache.Clip`).

    Raises:
        ClipFault, LookupError, ValueError, av.FFmpegError: a clip that cannot be used.
        OSError: a file that cannot be reached.
    """
    keypoints_xy, size_hw = _read_landmarks(files)
    jpegs, times, video_hw = _read_pictures(files.video)
    problems: list[str] = []
    if len(jpegs) != len(keypoints_xy):
        common = min(len(keypoints_xy), _before_a_gap(times))
        problems.append(f"{len(jpegs)} frames, {len(keypoints_xy)} of landmarks: the first {common} are used")
        jpegs, times, keypoints_xy = jpegs[:common], times[:common], keypoints_xy[:common]
    if tuple(size_hw) != video_hw:
        problems.append("landmarks made at {:g}x{:g} px are scaled to {}x{}".format(*size_hw, *video_hw))
        keypoints_xy = keypoints_xy * (np.array(video_hw[::-1]) / size_hw[::-1])
    # mediapipe's normalised coordinate times the size puts 0 at the picture's edge; here 0 is a pixel's centre.
    keypoints_xy = (keypoints_xy - 0.5).astype(np.float32)
    frames = _usable_frames(keypoints_xy, problems)
    times_s, start_s = _frame_times(times, problems)
    sound, sound_start_s = _read_sound(files.video, start_s, problems)
    duration_s = len(times_s) * FRAME_S if len(times_s) < 2 else float(times_s[-1] + np.median(np.diff(times_s)))
    timed, spelled, faults = read_words(files)
    words = evenly_spaced(spelled, duration_s) if timed is None else timed
    header = {
        "frames": frames,
        "words": [asdict(word) for word in words],
        "timed": timed is not None,
        "duration_s": duration_s,
        "sound_start_s": sound_start_s,
        "sound_s": len(sound) / RATE_HZ,
        "digest": files.digest(),
        "problems": problems + faults,
    }
    offsets = np.cumsum([0, *map(len, jpegs)], dtype=np.int64)
    tensors = {"jpeg": np.concatenate(jpegs), "offsets": offsets, "times_s": times_s}
    return header, {**tensors, "sound": sound, "keypoints_xy": np.ascontiguousarray(keypoints_xy)}


def _read_landmarks(files: ClipFiles) -> tuple[np.ndarray, np.ndarray]:
    """The labels as in the file, (T, 68, 2) float64 with NaN for what is not finite, and their size_hw (2,)."""
    if files.landmarks is None:
        raise ClipFault("no landmarks .npz" + " of its own" * ("landmarks" in files.shared))
    try:
        with np.load(files.landmarks, allow_pickle=False) as arrays:
            keypoints_xy = np.asarray(arrays["keypoints_xy"], dtype=np.float64)
            size_hw = np.asarray(arrays["size_hw"], dtype=np.float64)
    except OSError:
        raise
    except Exception as error:  # a damaged zip raises anything from zlib.error to NotImplementedError
        raise ClipFault(f"landmarks .npz cannot be read: {error}") from error
    if keypoints_xy.ndim != 3 or keypoints_xy.shape[1:] != (68, 2) or size_hw.shape != (2,) or not (size_hw > 0).all():
        got = f"{keypoints_xy.shape} with size_hw {size_hw.tolist()}"
        raise ClipFault(f"landmarks .npz: expected keypoints_xy (T, 68, 2) and size_hw (2,), got {got}")
    return np.where(np.isfinite(keypoints_xy).all(-1, keepdims=True), keypoints_xy, np.nan), size_hw


def _read_pictures(video: Path) -> tuple[list[np.ndarray], list[float | None], tuple[int, int]]:
    """Every frame as a JPEG, its time on the file's clock, and the pictures' size_hw."""
    jpegs: list[np.ndarray] = []
    times: list[float | None] = []
    size_hw: tuple[int, int] | None = None
    for time_s, image in read_video(video):
        height, width = image.shape[:2]
        if size_hw not in (None, (height, width)):
            raise ClipFault(f"the picture's size changes at frame {len(jpegs)}")
        size_hw = (height, width)
        jpegs.append(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), JPEG)[1].ravel())
        times.append(time_s)
    if size_hw is None:
        raise ClipFault("no frame can be decoded")
    return jpegs, times, size_hw


def _before_a_gap(times: list[float | None]) -> int:
    """How many frames come before the first that is missing in between: behind it, labels are another frame's."""
    for number, (before, after) in enumerate(pairwise(times), start=1):
        if before is not None and after is not None and after - before > 1.5 * FRAME_S:
            return number
    return len(times)


def _usable_frames(keypoints_xy: np.ndarray, problems: list[str]) -> list[int]:
    """The frames with a box; the others, and points that are missing in these, are reported."""
    known = np.isfinite(keypoints_xy).all(-1)
    right, left = OUTER_EYE_CORNERS
    apart = np.linalg.norm(keypoints_xy[:, left] - keypoints_xy[:, right], axis=-1) > 0
    eyes = known[:, RIGHT_EYE].all(1) & known[:, LEFT_EYE].all(1) & apart
    if not eyes.all():
        problems.append(f"frames {_numbers(~eyes)}: an eye point is missing, so there is no box: skipped")
    if (partial := eyes & ~known.all(1)).any():
        problems.append(f"frames {_numbers(partial)}: {int((~known[partial]).sum())} points are missing: masked")
    if not eyes.any():
        raise ClipFault("no frame has all its eye points")
    return [int(i) for i in np.flatnonzero(eyes)]


def _numbers(mask: np.ndarray) -> str:
    found = [str(i) for i in np.flatnonzero(mask)]
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def _frame_times(times: list[float | None], problems: list[str]) -> tuple[np.ndarray, float]:
    """Seconds after the first frame (T,), and the first frame's time on the file's clock."""
    known = np.array([np.nan if t is None else t for t in times])
    if np.isfinite(known).all() and (np.diff(known) > 0).all():
        # To the microsecond: a frame that falls on a word's boundary must not be moved off it by the last bit.
        return np.round(known - known[0], 6), float(known[0])
    problems.append("the video's time stamps are missing or out of order: 25 frames per second are assumed")
    return np.arange(len(times)) * FRAME_S, float(known[0]) if np.isfinite(known[0]) else 0.0


def _read_sound(video: Path, start_s: float, problems: list[str]) -> tuple[np.ndarray, float | None]:
    """The clip's sound and when it starts after the first frame; None, reported, where there is none."""
    # In the corpus, streams and container all start at 0 (read by PyAV in 244 of 244 clips), so that picture and
    # sound share a clock as they stand. It is still read from each file: a copy that was cut or muxed anew differs.
    try:
        sound = read_sound(video, RATE_HZ)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        problems.append(f"its sound cannot be decoded ({reason}): no audio")
        return np.zeros(0, np.int16), None
    if sound is None:
        problems.append("no sound in it: no audio")
        return np.zeros(0, np.int16), None
    if sound.cut:
        problems.append(f"its sound has a gap after {len(sound.samples) / RATE_HZ:.2f} s: what follows is left out")
    return sound.samples, sound.start_s - start_s
