"""The only file that knows half pixels: crops, affines, flips, and the way grid <-> input <-> image.

Frames. *image*: px of the picture as it was read. *input*: px of the network's input. *grid*: cells of a feature map
of some stride. In each of them the centre of the top-left pixel (cell) is (0, 0), so a picture of width W covers
x from -0.5 to W - 0.5. Points are (x, y). An affine is (..., 2, 3) and maps points as ``A[:, :2] @ p + A[:, 2]``.

Functions take numpy arrays or torch tensors, and return what they were given.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import cv2
import numpy as np
from jaxtyping import Float

Array = TypeVar("Array", bound=Any)


def input_to_grid(points_xy: Array, stride: int) -> Array:
    """Input frame, px -> grid frame, cells: cell i covers the input pixels i*stride ... i*stride + stride - 1."""
    return (points_xy - (stride - 1) / 2) / stride


def grid_to_input(points_xy: Array, stride: int) -> Array:
    """Grid frame, cells -> input frame, px; the inverse of `input_to_grid`."""
    return points_xy * stride + (stride - 1) / 2


def transform(points_xy: Array, affine: Array) -> Array:
    """Map points by affines.

    Args:
        points_xy: (..., K, 2) in the affine's source frame.
        affine: (..., 2, 3) with the same leading dimensions, or (2, 3).

    Returns:
        (..., K, 2) in the affine's target frame.
    """
    linear, shift = affine[..., :2], affine[..., 2]
    return points_xy @ linear.swapaxes(-1, -2) + shift[..., None, :]


def input_to_image(points_xy: Array, image_to_input: Array) -> Array:
    """Input frame -> image frame, given the affine that made the input of the image. Shapes as in `transform`."""
    return transform(points_xy, invert(image_to_input))


def compose(outer: Array, inner: Array) -> Array:
    """The affine that applies `inner` first and `outer` then. (..., 2, 3) each."""
    linear = outer[..., :2] @ inner[..., :2]
    shift = (outer[..., :2] @ inner[..., 2:])[..., 0] + outer[..., 2]
    return _join(linear, shift)


def invert(affine: Array) -> Array:
    """The inverse affine. (..., 2, 3).

    Raises:
        ValueError: when one of them has no inverse (a box without area).
    """
    a, b, c, d = affine[..., 0, 0], affine[..., 0, 1], affine[..., 1, 0], affine[..., 1, 1]
    determinant = a * d - b * c
    size = abs(a * d) + abs(b * c)
    if not bool((abs(determinant) > 1e-12 * size).all()):
        raise ValueError("an affine without inverse: its linear part has determinant 0")
    namespace = _namespace(affine)
    rows = [namespace.stack([d, -b], -1), namespace.stack([-c, a], -1)]
    linear = namespace.stack(rows, -2) / determinant[..., None, None]
    shift = -(linear @ affine[..., 2:])[..., 0]
    return _join(linear, shift)


def identity() -> Float[np.ndarray, "2 3"]:
    """The affine that changes nothing."""
    return np.eye(2, 3, dtype=np.float64)


def flip_affine(width: int) -> Float[np.ndarray, "2 3"]:
    """Mirror left and right within a frame of `width` px."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def augment_affine(
    size_hw: tuple[int, int], rotation_deg: float = 0.0, scale: float = 1.0, shift_xy: tuple[float, float] = (0, 0)
) -> Float[np.ndarray, "2 3"]:
    """Turn and scale about the middle of a frame, then shift.

    Args:
        size_hw: the frame's height and width, px.
        rotation_deg: degrees, clockwise on the screen (y points down).
        scale: above 1 enlarges.
        shift_xy: px.
    """
    height, width = size_hw
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    angle = math.radians(rotation_deg)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.column_stack([linear, centre + np.asarray(shift_xy) - linear @ centre])


def whole_image_box(size_hw: tuple[int, int]) -> Float[np.ndarray, " 4"]:
    """The box, xywh px, that holds a whole picture of the given height and width."""
    return np.array([-0.5, -0.5, size_hw[1], size_hw[0]], dtype=np.float64)


def square_box(box_xywh: Float[np.ndarray, " 4"]) -> Float[np.ndarray, " 4"]:
    """The smallest square about the middle of a box that holds it. xywh px."""
    x, y, width, height = np.asarray(box_xywh, dtype=np.float64)
    side = max(width, height)
    return np.array([x + (width - side) / 2, y + (height - side) / 2, side, side])


def crop_affine(box_xywh: Float[np.ndarray, " 4"], size_hw: tuple[int, int]) -> Float[np.ndarray, "2 3"]:
    """Image frame -> input frame: the box fills the input, its aspect kept, the shorter side padded.

    Args:
        box_xywh: px, image frame; it covers x to x + w, where pixel 0 covers -0.5 to 0.5.
        size_hw: height and width of the input, px.

    Raises:
        ValueError: for a box without area or with a NaN.
    """
    x, y, width, height = (float(v) for v in box_xywh)
    if not (width > 0 and height > 0 and all(map(math.isfinite, (x, y, width, height)))):
        raise ValueError(f"a box needs finite numbers and a width and height above 0, not {list(box_xywh)}")
    scale = min(size_hw[1] / width, size_hw[0] / height)
    centre_x, centre_y = x + width / 2, y + height / 2
    return np.array(
        [[scale, 0, (size_hw[1] - 1) / 2 - scale * centre_x], [0, scale, (size_hw[0] - 1) / 2 - scale * centre_y]]
    )


def warp(image: np.ndarray, affine: Float[np.ndarray, "2 3"], size_hw: tuple[int, int], border: int = 0) -> np.ndarray:
    """Resample a picture into another frame, bilinear, area-averaged first where it shrinks more than twofold.

    Args:
        image: (H, W, 3) uint8.
        affine: image frame -> target frame.
        size_hw: height and width of the target, px.
        border: the value outside the picture.

    Returns:
        (h, w, 3) uint8.
    """
    shrink = math.sqrt(abs(float(np.linalg.det(affine[:, :2]))))
    if shrink < 0.5:
        factor = max(2, round(0.75 / max(shrink, 1e-6)))
        height, width = max(1, image.shape[0] // factor), max(1, image.shape[1] // factor)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        to_small = _resize_affine(image.shape[:2], (height, width))
        image, affine = small, compose(affine, invert(to_small))
    target = (size_hw[1], size_hw[0])
    return cv2.warpAffine(
        image, affine.astype(np.float64), target, flags=cv2.INTER_LINEAR, borderValue=(border, border, border)
    )


def _resize_affine(source_hw: tuple[int, ...], target_hw: tuple[int, int]) -> Float[np.ndarray, "2 3"]:
    """Image frame -> the frame of the same picture resized: edges meet edges, so half a pixel moves."""
    scale_y, scale_x = target_hw[0] / source_hw[0], target_hw[1] / source_hw[1]
    return np.array([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2]])


def _namespace(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def _join(linear: Any, shift: Any) -> Any:
    if isinstance(linear, np.ndarray):
        return np.concatenate([linear, shift[..., None]], axis=-1)
    import torch

    return torch.cat([linear, shift[..., None]], dim=-1)
