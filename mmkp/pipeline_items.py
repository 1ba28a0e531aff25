"""What a user hands to the pipeline -> items: one picture, text and sound that belong together, and the boxes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from mmkp.data.sample import MODALITIES, Sample
from mmkp.errors import InputError, choose, nearest
from mmkp.image_processing_mmkp import check_within
from mmkp.media import TIMEOUT_S, load_audio, load_image

BLANK_PX = 512  # the side of the frame that a text or a sound gets its keypoints in, where no box is given
KEYS = ("image", "text", "audio", "sampling_rate", "audio_time", "box")
LABELS = ("id", "group", "split", "keypoints", "info")  # the other columns of a dataset that mmkp has exported
BOX_FORMS = "x, y, width, height in px"


@dataclass(frozen=True)
class Item:
    """One input of the pipeline, read.

    Attributes:
        image: RGB.
        audio: samples, as `mmkp.media.load_audio` gives them.
        rate_hz: of `audio`.
        audio_time_s: the picture's moment in the sound; its middle when None.
        boxes_xywh: px, image frame, one per instance; None where none is given.
    """

    image: UInt8[np.ndarray, "H W 3"] | None = None
    text: str | None = None
    audio: np.ndarray | None = None
    rate_hz: int | None = None
    audio_time_s: float | None = None
    boxes_xywh: Float64[np.ndarray, "N 4"] | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the frame that the keypoints lie in, px."""
        return (BLANK_PX, BLANK_PX) if self.image is None else (self.image.shape[0], self.image.shape[1])


def read_item(given: Any, modalities: Sequence[str], box_format: str = "xywh", timeout_s: float = TIMEOUT_S) -> Item:
    """Read one input, leaving out what the model cannot use.

    Args:
        given: a picture in a form that `mmkp.media.load_image` takes, a `Sample`, or a mapping with some of `KEYS`.
        modalities: the model's.
        box_format: of boxes that are sequences, a name in `BOX_FORMATS`.
        timeout_s: for URLs.

    Raises:
        InputError: nothing that the model can use, an unknown key, or a part that cannot be read.
    """
    parts = _parts(given)
    there = [m for m in MODALITIES if parts.get(m) is not None]
    used = [m for m in there if m in modalities]
    if not used:
        raise InputError(
            "pipeline", expected=f"at least one of {', '.join(modalities)}",
            got=f"only {' and '.join(there)}, which the model cannot use" if there else "none",
        )  # fmt: skip
    image = load_image(parts["image"], timeout_s) if "image" in used else None
    audio, rate_hz = (
        load_audio(parts["audio"], parts.get("sampling_rate"), timeout_s) if "audio" in used else (None,) * 2
    )
    box, moment = parts.get("box"), parts.get("audio_time")
    if moment is not None and (isinstance(moment, bool) or not isinstance(moment, (int, float, np.number))):
        raise InputError("audio_time", expected="seconds", got=repr(moment))
    boxes = None if box is None else as_boxes(box, box_format, None if image is None else image.shape[:2])
    return Item(
        image, parts["text"] if "text" in used else None, audio, rate_hz,
        None if moment is None else float(moment), boxes,
    )  # fmt: skip


def _parts(given: Any) -> Mapping[str, Any]:
    """A mapping with some of `KEYS`."""
    if isinstance(given, Sample):
        return {
            "image": given.image, "text": given.text, "audio": given.audio, "sampling_rate": given.rate_hz,
            "audio_time": given.audio_time_s, "box": given.box_xywh,
        }  # fmt: skip
    if given is None:
        return {}
    if not isinstance(given, Mapping) or (given and set(given) <= {"bytes", "path"}):
        return {"image": given}
    if set(given) >= set(LABELS):
        given = {k: v for k, v in given.items() if k not in LABELS}
    for key in given:
        if key not in KEYS:
            raise InputError(
                "pipeline", expected=f"the keys {', '.join(KEYS)}", got=repr(key), remedy=nearest(str(key), KEYS)
            )
    return given


def as_boxes(box: Any, box_format: str = "xywh", size_hw: tuple[int, ...] | None = None) -> Float64[np.ndarray, "N 4"]:
    """One or several boxes as xywh px.

    Args:
        box: four numbers, (N, 4) of them, or mappings with x, y, width, height (as the pipeline returns) or xmin, ymin,
            xmax, ymax (as object detectors of transformers do).
        box_format: of numbers.
        size_hw: of the picture, which every box must meet; not checked when None.

    Raises:
        InputError: not a box, one without an area, or one outside the picture.
    """
    rows = [box] if isinstance(box, Mapping) else box
    if isinstance(rows, (list, tuple)) and any(isinstance(row, Mapping) for row in rows):
        boxes = np.concatenate([_from_mapping(row) for row in rows])
    else:
        to_xywh: Any = choose("box_format", box_format, BOX_FORMATS)
        boxes = to_xywh(_numbers(rows).reshape(-1, 4))
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > 0).all()):
        raise InputError("box", expected=f"{BOX_FORMS}, with an area", got=str(boxes.tolist()))
    if size_hw is not None:
        check_within(boxes, (size_hw[0], size_hw[1]))
    return boxes


def _numbers(box: Any) -> np.ndarray:
    try:
        values = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape not in {(4,), (len(values) if values.ndim else 0, 4)}:
        raise InputError("box", expected=f"{BOX_FORMS}, or several of them", got=repr(box)[:80])
    return values


def _from_mapping(box: Any) -> Float64[np.ndarray, "1 4"]:
    keys = set(box) if isinstance(box, Mapping) else set()
    if keys == {"x", "y", "width", "height"}:
        return _numbers([box[k] for k in ("x", "y", "width", "height")])[None]
    if keys == {"xmin", "ymin", "xmax", "ymax"}:
        return _from_corners(_numbers([box[k] for k in ("xmin", "ymin", "xmax", "ymax")])[None])
    raise InputError("box", expected="the keys x, y, width, height", got=repr(box)[:80])


def _from_corners(boxes: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


BOX_FORMATS = {"xywh": lambda boxes: boxes, "xyxy": _from_corners}


def from_columns(columns: Mapping[str, Any]) -> Any:
    """Keywords, each one value or a list of them -> one input, or a list of inputs.

    A list in `image`, `text` or `audio` makes a batch. In a batch `box` and `audio_time` are lists too, and
    `sampling_rate` may be one for all.

    Raises:
        InputError: lists of different lengths, or a single value where there must be a list.
    """
    given = {k: list(v) if k in ("image", "text") and isinstance(v, tuple) else v for k, v in columns.items()}
    given = {k: v for k, v in given.items() if v is not None}
    if isinstance(given.get("image"), Mapping):
        raise InputError("pipeline", expected="a mapping or keywords", got="both")
    lengths = {k: len(v) for k, v in given.items() if k in MODALITIES and isinstance(v, list)}
    if not lengths:
        return given
    count = next(iter(lengths.values()))
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, values in given.items():
        if key == "sampling_rate" and np.ndim(values) == 0:
            values = [values] * count
        is_list = isinstance(values, (list, tuple, np.ndarray)) and not (key in MODALITIES and key not in lengths)
        if not is_list or len(values) != count:
            raise InputError(
                key, expected=f"a list of {count}, one for each of {next(iter(lengths))}",
                got=f"{len(values)}" if is_list else f"one {type(values).__name__}",
            )  # fmt: skip
        for row, value in zip(rows, values, strict=True):
            row[key] = value
    return rows


def is_single(given: Any) -> bool:
    """Whether an argument is one input rather than many."""
    whole = (str, bytes, Mapping, Image.Image, Sample)
    return given is None or isinstance(given, whole) or hasattr(given, "ndim") or hasattr(given, "read")
