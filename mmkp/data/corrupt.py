"""Conditions of an evaluation: a cover over the mouth placed from the eyes, and texts with other times.

Lengths in units of the outer-eye distance d are called `_d`; the *face frame* has its origin in the middle of the
eyes, u to the right and v down, turned with the eyes' roll, in units of d.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mmkp import geometry
from mmkp.data.corrupt_designs import CoverDesign, Line, draw_design
from mmkp.data.face import LEFT_EYE, RIGHT_EYE, eye_frame
from mmkp.data.sample import KeypointDataset, Sample
from mmkp.errors import InputError

NUM_FACE_KEYPOINTS = 68
SUBPIXEL_BITS = 4  # OpenCV draws at fixed point: 1/16 px


def cover(
    image: UInt8[np.ndarray, "H W 3"], keypoints_xy: Float[np.ndarray, "68 2"], rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, " 68"]]:
    """Lay an opaque cover over nose tip, mouth and chin, placed from the twelve eye points and nothing else.

    Args:
        image: RGB; not changed.
        keypoints_xy: px, frame of `image`. The eyes must be known; the other points may be NaN.
        rng: decides how the cover looks.

    Returns:
        The covered picture, and which keypoints lie under the cover (False where unknown or outside the picture).

    Raises:
        InputError: when the eyes are not known, or coincide.
    """
    if not can_cover(keypoints_xy):
        raise InputError(
            "cover", expected=f"({NUM_FACE_KEYPOINTS}, 2) keypoints with twelve known eye points, the eyes apart",
            got=f"shape {np.shape(keypoints_xy)}", remedy="Leave out faces whose eyes are not labelled.",
        )  # fmt: skip
    covered_image, alpha = paint(draw_design(rng), image, keypoints_xy)
    return covered_image, under(alpha, keypoints_xy)


def can_cover(keypoints_xy: np.ndarray) -> bool:
    """Whether these are face68 keypoints whose eyes say where a cover belongs."""
    if np.shape(keypoints_xy) != (NUM_FACE_KEYPOINTS, 2):
        return False
    eyes = keypoints_xy[RIGHT_EYE.start : LEFT_EYE.stop]
    return bool(np.isfinite(eyes).all()) and eye_frame(keypoints_xy)[1] > 0


def under(alpha: UInt8[np.ndarray, "H W"], keypoints_xy: Float[np.ndarray, "K 2"]) -> Bool[np.ndarray, " K"]:
    """Which points lie where `alpha` is at least half opaque; px of `alpha`'s frame."""
    height, width = alpha.shape
    points = np.asarray(keypoints_xy, dtype=np.float64)
    inside = ((points >= -0.5) & (points <= (width - 0.5, height - 0.5))).all(axis=1)  # False for a NaN
    hidden = np.zeros(len(points), dtype=bool)
    columns, rows = np.rint(points[inside]).astype(int).T.clip(0)
    hidden[inside] = alpha[rows.clip(max=height - 1), columns.clip(max=width - 1)] > 127
    return hidden


def paint(
    design: CoverDesign, image: UInt8[np.ndarray, "H W 3"], keypoints_xy: Float[np.ndarray, "68 2"]
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Draw a design on a copy of a picture.

    Args:
        design: what to draw.
        image: RGB.
        keypoints_xy: px, frame of `image`; only the eyes are looked at.

    Returns:
        The picture and the cover's opacity, 255 = opaque.
    """
    face_to_image = _face_to_image(keypoints_xy)
    image, alpha = image.copy(), np.zeros(image.shape[:2], dtype=np.uint8)
    _strokes(image, design.attachments, face_to_image)
    _strokes(alpha, design.attachments, face_to_image, colour=255)
    outline = geometry.transform(design.outline_d, face_to_image)
    low = np.floor(outline.min(0)).astype(int) - 2  # 2 px: the half pixel that anti-aliasing adds, with room
    x0, y0 = low.clip(0)
    x1, y1 = np.minimum(np.ceil(outline.max(0)).astype(int) + 3, (image.shape[1], image.shape[0]))
    if x1 <= x0 or y1 <= y0:
        return image, alpha
    to_region = face_to_image - [[0, 0, x0], [0, 0, y0]]
    layer = _stretch(design, to_region, (int(y1 - y0), int(x1 - x0)))
    _strokes(layer, design.details, to_region)
    body = np.zeros(layer.shape[:2], dtype=np.uint8)
    cv2.fillPoly(body, [_fixed_point(outline - (x0, y0))], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    weight = cv2.merge([body, body, body])
    region = image[y0:y1, x0:x1]
    outside = cv2.multiply(region, cv2.bitwise_not(weight), scale=1 / 255)
    region[...] = cv2.add(cv2.multiply(layer, weight, scale=1 / 255), outside)
    np.maximum(alpha[y0:y1, x0:x1], body, out=alpha[y0:y1, x0:x1])
    return image, alpha


def _face_to_image(keypoints_xy: np.ndarray) -> Float[np.ndarray, "2 3"]:
    """Face frame, units of d -> px."""
    middle, distance, roll = eye_frame(np.asarray(keypoints_xy, dtype=np.float64))
    cos, sin = distance * np.cos(roll), distance * np.sin(roll)
    return np.array([[cos, -sin, middle[0]], [sin, cos, middle[1]]])


def _fixed_point(points_xy: np.ndarray) -> np.ndarray:
    """Px -> OpenCV's fixed-point px; far outside any picture is far enough."""
    return np.rint((points_xy * (1 << SUBPIXEL_BITS)).clip(-1e6, 1e6)).astype(np.int32)


def _strokes(
    canvas: np.ndarray, lines: tuple[Line, ...], face_to_canvas: np.ndarray, colour: int | None = None
) -> None:
    """Draw lines on `canvas`, each at least 1 px wide, in their own colour or in `colour`."""
    if not lines:
        return
    distance_px = math.hypot(face_to_canvas[0, 0], face_to_canvas[1, 0])
    points = _fixed_point(geometry.transform(np.concatenate([line.points_d for line in lines]), face_to_canvas))
    first = 0
    for line in lines:
        part = points[first : first + len(line.points_d)]
        width = max(1, round(line.width_d * distance_px))
        shade = line.colour if colour is None else colour
        cv2.polylines(canvas, [part], False, shade, width, cv2.LINE_AA, SUBPIXEL_BITS)
        first += len(part)


def _stretch(design: CoverDesign, face_to_region: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The tile stretched over the body's extent, and on beyond it. (h, w, 3) uint8."""
    rows, columns = design.tile.shape[:2]
    step_u, step_v = 2 * design.half_width_d / columns, (design.bottom_d - design.top_d) / rows
    tile_to_face = np.array(
        [[step_u, 0, step_u / 2 - design.half_width_d], [0, step_v, step_v / 2 + design.top_d]]
    )  # fmt: skip
    return cv2.warpAffine(
        design.tile, geometry.compose(face_to_region, tile_to_face), (size_hw[1], size_hw[0]),
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def cover_seed(clip_id: str) -> int:
    """The seed of a clip's cover: the first eight bytes of the sha1 of its name."""
    return int.from_bytes(hashlib.sha1(clip_id.encode()).digest()[:8], "big")


def covered(sample: Sample) -> Sample:
    """The evaluation condition `covered`: one cover per clip (group); what it hides is no longer visible.

    A sample without image is returned as it is.

    Raises:
        InputError: when the sample has an image, but no face68 keypoints with known eyes.
    """
    if sample.image is None:
        return sample
    rng = np.random.default_rng(cover_seed(sample.group))
    image, hidden = cover(sample.image, sample.keypoints_xy, rng)
    visible = np.where(hidden & (sample.visible == 2), 1, sample.visible).astype(sample.visible.dtype)
    return sample.replace(image=image, visible=visible)


def _clear(sample: Sample) -> Sample | None:
    return sample


def _covered(sample: Sample) -> Sample | None:
    return covered(sample) if sample.image is not None and can_cover(sample.keypoints_xy) else None


def _even_times(sample: Sample) -> Sample | None:
    control = sample.text_controls.get("even_times")
    return None if sample.text is None or control is None else sample.replace(text=control)


def _covered_even_times(sample: Sample) -> Sample | None:
    changed = _even_times(sample)
    return None if changed is None else _covered(changed)


# Each gives the sample under its condition, or None where the condition does not apply to it.
CONDITIONS: dict[str, Callable[[Sample], Sample | None]] = {
    "clear": _clear,
    "covered": _covered,
    "even_times": _even_times,
    "covered+even_times": _covered_even_times,
}


def conditions_of(dataset: KeypointDataset, most: int = 64) -> list[str]:
    """The names of the conditions that apply to at least one of up to `most` items, evenly spread over a dataset."""
    count = len(dataset)
    looked = {round(i) for i in np.linspace(0, count - 1, min(count, most))}
    applies = {name for i in looked for name in conditions_for(dataset[i])}
    return [name for name in CONDITIONS if name in applies]


def conditions_for(sample: Sample) -> list[str]:
    """The names of the conditions that apply to a sample."""
    return [name for name, condition in CONDITIONS.items() if condition(sample) is not None]
