"""What can be wrong with one row: its keypoints, box, text and sound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmkp.configuration_mmkp import MmkpTextConfig
from mmkp.data.check.findings import Finding, found
from mmkp.data.check.probe import Heard, Picture, Probes
from mmkp.data.rows import Row
from mmkp.data.timing import CURSOR, WINDOW_S
from mmkp.errors import InputError

SLACK_PX = 0.5  # a point on the picture's very edge, in any of the usual pixel conventions
SMALLEST_PX = 4.0  # of a shape or a box: nothing in it can be told apart
HELD = 0.5  # of the labelled keypoints, within the row's box
INSIDE = 0.4  # of a box's area, within the picture
SILENT_RMS = 1e-3  # -60 dB of full scale: the noise of a quiet room is louder
CLIPPED_SHARE = 0.005  # of the samples at full scale; a loud clean recording touches it once in a while
TEXT_BYTES = MmkpTextConfig().max_bytes - 1  # the last is the tokenizer's end of the text
BEYOND_S = 1.0  # the furthest that the picture's moment may lie beside the sound, as the feature extractor has it


def labelled(row: Row) -> np.ndarray:
    """(K,) which keypoints carry a label."""
    return np.asarray(row.visible) > 0


def outside(row: Row, size_hw: tuple[int, int]) -> np.ndarray:
    """(K,) which labelled keypoints lie outside the picture."""
    xy = np.asarray(row.keypoints_xy, dtype=np.float64)
    height, width = size_hw
    with np.errstate(invalid="ignore"):
        beside = (xy < -0.5 - SLACK_PX) | (xy > np.array([width, height]) - 0.5 + SLACK_PX)
        beside |= (xy == -1).all(-1, keepdims=True)  # often written for a point that is missing
    return beside.any(-1) & labelled(row) & np.isfinite(xy).all(-1)


def judge_row(row: Row, number: int, names: tuple[str, ...], probes: Probes) -> Iterator[Finding]:
    """All findings about a row by itself.

    Args:
        number: the row's number in the source.
        names: of the schema's keypoints.
        probes: what was decoded.
    """
    picture, sound = probes.picture(row), probes.sound(row)
    if isinstance(picture, InputError):
        yield found("undecodable image", row, number, str(picture))
    if isinstance(sound, InputError):
        yield found("undecodable audio", row, number, str(sound))
    size_hw = picture.size_hw if isinstance(picture, Picture) else None
    for kind, message in (*_keypoints(row, names, size_hw), *_box(row, size_hw), *_heard(sound)):
        yield found(kind, row, number, message)
    if row.text is not None and not row.text.strip():
        yield found("empty text", row, number, f"expected words, got {row.text!r}")
    elif row.text is not None:
        yield from (found("long text", row, number, message) for message in _too_long(row.text))


def _keypoints(row: Row, names: tuple[str, ...], size_hw: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    shape = np.shape(row.keypoints_xy)
    if shape != (len(names), 2) or np.shape(row.visible) != (len(names),):
        yield "keypoint count", f"expected {len(names)} points, got {shape[0] if shape else 0}"
        return
    broken = labelled(row) & ~np.isfinite(row.keypoints_xy).all(-1)
    if broken.any():
        yield "not a number", f"labelled, but without finite coordinates: {_listed(broken, names)}"
    if not labelled(row).any():
        yield "no keypoints", "none is labelled"
    if size_hw is None:
        return
    extent = _extent(row)
    if extent is not None and extent < SMALLEST_PX <= min(size_hw) / 8:
        size = f"{size_hw[1]} x {size_hw[0]} px"
        yield (
            "small shape",
            f"all keypoints within {extent:.3g} px of a picture of {size}: shares of its sides, not px?",
        )
    beside = outside(row, size_hw)
    if beside.any():
        first, count = int(np.flatnonzero(beside)[0]), int(beside.sum())
        x, y = row.keypoints_xy[first]
        more = f", and {count - 1} more points" if count > 1 else ""
        size = f"{size_hw[1]} x {size_hw[0]} px"
        yield "outside image", f"{names[first]} at ({x:.6g}, {y:.6g}) in a picture of {size}{more}"


def _box(row: Row, size_hw: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    if row.box_xywh is None:
        return
    box = np.asarray(row.box_xywh, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[2:] > 0).all():
        yield "bad box", f"expected x, y, width, height with a size above 0, got {box.tolist()}"
    elif size_hw and ((box[:2] > [size_hw[1], size_hw[0]]).any() or (box[:2] + box[2:] < -0.5).any()):
        yield "bad box", f"{box.tolist()} lies beside the picture of {size_hw[1]} x {size_hw[0]} px"
    else:
        yield from _odd_box(row, box, size_hw)


def _odd_box(row: Row, box: np.ndarray, size_hw: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    """A box that can be used, and from which little can be learned."""
    points = np.asarray(row.keypoints_xy, np.float64)[labelled(row)]
    points = points[np.isfinite(points).all(-1)]
    within = ((points >= box[:2] - SLACK_PX) & (points <= box[:2] + box[2:] + SLACK_PX)).all(-1)
    if box[2:].min() < SMALLEST_PX:
        yield "odd box", f"{box.tolist()} is {box[2]:.3g} x {box[3]:.3g} px"
    elif len(points) and within.mean() < HELD:
        yield "odd box", f"{box.tolist()} holds {within.sum()} of {len(points)} keypoints (x, y, width, height?)"
    elif size_hw:
        low, high = np.maximum(box[:2], -0.5), np.minimum(box[:2] + box[2:], np.array(size_hw[::-1]) - 0.5)
        share = float(np.prod(np.maximum(high - low, 0)) / np.prod(box[2:]))
        if share < INSIDE:
            size = f"{size_hw[1]} x {size_hw[0]} px"
            yield "odd box", f"{share:.0%} of {box.tolist()} lie in the picture of {size} (x, y, width, height?)"


def _extent(row: Row) -> float | None:
    """The longer side of what the labelled keypoints span, px; None of fewer than two."""
    points = np.asarray(row.keypoints_xy, np.float64)[labelled(row)]
    points = points[np.isfinite(points).all(-1)]
    return None if len(points) < 2 else float((points.max(0) - points.min(0)).max())


def _heard(sound: Heard | InputError | None) -> Iterator[tuple[str, str]]:
    if not isinstance(sound, Heard):
        return
    length_s, time_s = sound.duration_s, sound.time_s
    if time_s is not None and not -BEYOND_S <= time_s <= length_s + BEYOND_S:
        yield "audio time", f"expected a moment of the sound, {length_s:.2f} s long, got {time_s:.6g} s"
    if length_s < WINDOW_S - 1e-3:
        yield "short audio", f"expected at least {WINDOW_S} s, got {length_s:.3f} s"
    if sound.rms < SILENT_RMS:
        yield "silent audio", f"{20 * np.log10(max(sound.rms, 1e-9)):.0f} dB of full scale"
    elif sound.clipped > CLIPPED_SHARE:
        yield "clipped audio", f"{sound.clipped:.1%} of the samples are at full scale"


def _too_long(text: str) -> Iterator[str]:
    length = len(text.encode(errors="replace"))
    if length > TEXT_BYTES:
        part = f"those around {CURSOR}" if CURSOR in text else f"the first, as no {CURSOR} says where the moment is"
        yield f"{length} bytes; an encoder of bytes reads {TEXT_BYTES} by default: {part}"


def _listed(which: np.ndarray, names: tuple[str, ...], most: int = 3) -> str:
    chosen = [names[i] for i in np.flatnonzero(which)]
    return ", ".join(chosen[:most]) + (f" and {len(chosen) - most} more" if len(chosen) > most else "")
