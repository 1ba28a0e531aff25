"""The fields of one row of the custom format, as people write them: lists, flat lists, numbers in quotes."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from mmkp.schema import KeypointSchema

MAX_PX = 1e6  # beyond any picture; a larger number is a slip, and would lose its decimals in float32


class Note(NamedTuple):
    """A fault whose row is not known yet."""

    kind: str
    message: str


class BadField(ValueError):
    """A field that makes the row unusable."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.note = Note(kind, message)


def parse_keypoints(
    value: Any, schema: KeypointSchema, notes: list[Note]
) -> tuple[Float32[np.ndarray, "K 2"], UInt8[np.ndarray, " K"]]:
    """Keypoints from [[x, y, v] ...], [[x, y] ...] or the same numbers flat, also as text; null is unlabelled.

    Args:
        value: as the row has it.
        schema: K.
        notes: gets what is questionable.

    Returns:
        (K, 2) px, NaN where unlabelled, and (K,) COCO's flags.

    Raises:
        BadField: not K keypoints, or a word among them.
    """
    count = schema.num_keypoints
    if _missing(value):
        notes.append(Note("no keypoints", "the row is unlabelled"))
        return np.full((count, 2), np.nan, np.float32), np.zeros(count, np.uint8)
    value = _without_truths(_from_text(value), notes)
    numbers, is_null = _numbers(value, count, schema.name)
    xy = numbers[:, :2]
    flag = numbers[:, 2] if numbers.shape[1] == 3 else np.where(is_null, 0.0, 2.0)
    flag = np.where(is_null, 0.0, flag)
    strange = (flag != 0) & (flag != 1) & (flag != 2)
    if strange.any():
        first = flag[strange][0]
        notes.append(Note("bad flag", f"a keypoint's flag must be 0, 1 or 2, not {first:g}; above 0 counts as 2"))
        flag = np.where(strange, np.where(flag > 0, 2.0, 0.0), flag)
    bad = (flag > 0) & ~(np.abs(xy) <= MAX_PX).all(1)
    if bad.any():
        names = ", ".join(schema.keypoints[i] for i in np.flatnonzero(bad)[:3])
        notes.append(Note("not a number", f"{int(bad.sum())} keypoints ({names}) have no finite place: unlabelled"))
        flag = np.where(bad, 0.0, flag)
    visible = flag.astype(np.uint8)
    points_xy = np.where(visible[:, None] > 0, xy, np.nan).astype(np.float32)
    return points_xy, visible


def _without_truths(value: Any, notes: list[Note]) -> Any:
    """Flags that are true or false as numbers: as such they would be 1, hidden, and 0, unlabelled."""

    def is_truth(point: Any) -> bool:
        return isinstance(point, (list, tuple)) and len(point) == 3 and isinstance(point[2], bool)

    if not isinstance(value, (list, tuple)) or not any(is_truth(p) for p in value):
        return value
    notes.append(
        Note("bad flag", "a keypoint's flag must be 0, 1 or 2; true counts as 2 (visible), false as 1 (hidden)")
    )
    return [[p[0], p[1], 2 if p[2] else 1] if is_truth(p) else p for p in value]


def _numbers(value: Any, count: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(K, 2 or 3) float64 and (K,) whether the point is null."""
    expected = f"{count} keypoints of {name}: {count} x [x, y, v], {count} x [x, y], {3 * count} or {2 * count} numbers"
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise BadField("not a number", f"expected {expected}, got {str(value)[:40]!r}")
    nested = [p for p in value if isinstance(p, (list, tuple, np.ndarray))]
    if nested:
        width = len(nested[0])
        value = [[None] * width if p is None else p for p in value]
    try:
        numbers = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        ragged = "inhomogeneous" in str(error) or "sequence" in str(error)
        raise BadField("keypoint count" if ragged else "not a number", f"expected {expected}, got {error}") from error
    fits = numbers.shape in ((count, 2), (count, 3)) if nested else numbers.shape in ((2 * count,), (3 * count,))
    if not fits:
        got = " x ".join(map(str, numbers.shape)) + " numbers"
        raise BadField("keypoint count", f"expected {expected}, got {got}")
    is_null = np.zeros(numbers.shape, bool)
    if np.isnan(numbers).any():  # null is meant, NaN is a slip
        is_null = np.array([cell is None for cell in np.array(value, dtype=object).flat])
    return numbers.reshape(count, -1), np.any(is_null.reshape(count, -1)[:, :2], axis=1)


def parse_box(value: Any, notes: list[Note]) -> np.ndarray | None:
    """[x, y, width, height] in px; None, noted, where it is no box."""
    if _missing(value):
        return None
    try:
        box = np.array(_from_text(value), dtype=object).astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        box = np.zeros(0)
    if box.shape != (4,) or not (np.abs(box) <= MAX_PX).all() or (box[2:] <= 0).any():
        got = str(value)[:60]
        message = f"expected [x, y, width, height] with sizes above 0, got {got}; the whole picture is taken"
        notes.append(Note("bad box", message))
        return None
    return box


def parse_number(value: Any, key: str, notes: list[Note]) -> float | None:
    """A finite number, also as text; None, noted, where it is none."""
    if _missing(value):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < 1e12:
        notes.append(Note("not a number", f"{key} must be a number, not {str(value)[:40]!r}; it is left out"))
        return None
    return number


def parse_text(value: Any, notes: list[Note]) -> str | None:
    """What is said; None for null, and noted for a text that holds nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, (str, int, float)):
        notes.append(Note("bad row", f"text must be a sentence, not {type(value).__name__}; the row has no text"))
        return None
    text = str(value)
    clean = text.encode("utf-8", "replace").decode()
    if clean != text:
        notes.append(Note("encoding", "half a character (a lone surrogate) in the text; replaced by ?"))
    if not clean.strip():
        notes.append(Note("empty text", "the row has no text; null says so without a fault"))
        return None
    return clean


def parse_info(values: dict[str, Any], known: Collection[str], notes: list[Note]) -> dict[str, Any]:
    """The field `info` (an object, or one as text) and every field that the format does not know."""
    info = _from_text(values.get("info"))
    if info is not None and not isinstance(info, dict):
        notes.append(Note("bad row", f"info must be an object, not {str(info)[:40]!r}; it is left out"))
        info = None
    others = {str(k): v for k, v in values.items() if k not in known and not _missing(v)}
    return {**(info or {}), **others}


def _missing(value: Any) -> bool:
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def _from_text(value: Any) -> Any:
    """JSON in a cell as what it says, numbers between commas or blanks as a list; anything else as it is."""
    if not isinstance(value, str) or not value.strip():
        return None if isinstance(value, str) else value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        words = value.replace(",", " ").replace(";", " ").split()
        return words if len(words) > 1 else value
