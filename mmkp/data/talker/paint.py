"""Sub-pixel drawing on a picture at twice its size: polygons, lines, smooth curves through given points."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

OVERSAMPLE = 2  # drawn at twice the size and averaged: an edge keeps its place to about a quarter of a pixel
_SHIFT = 4  # OpenCV's fixed point: sixteenths of a pixel


class Canvas:
    """A square picture being painted. Points come in the image frame, px of the final size."""

    def __init__(self, pixels: UInt8[np.ndarray, "S S 3"]) -> None:
        self.pixels = np.ascontiguousarray(pixels)
        self.side = pixels.shape[0]

    def fill(self, points_xy: Float[np.ndarray, "n 2"], colour: np.ndarray, target: np.ndarray | None = None) -> None:
        """A filled polygon; `target` paints into another array of the canvas's size."""
        surface = self.pixels if target is None else target
        cv2.fillPoly(surface, [self._fixed(points_xy)], _plain(colour), cv2.LINE_AA, _SHIFT)

    def line(self, points_xy: np.ndarray, colour: np.ndarray, width_px: float, closed: bool = False) -> None:
        """A line of at least one drawn pixel, `width_px` in px of the final size."""
        thick = max(1, round(width_px * OVERSAMPLE))
        cv2.polylines(self.pixels, [self._fixed(points_xy)], closed, _plain(colour), thick, cv2.LINE_AA, _SHIFT)

    def hull(self, points_xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "m 2"]:
        """The convex hull, image frame."""
        return cv2.convexHull(points_xy.astype(np.float32))[:, 0]

    def mask(self, points_xy: Float[np.ndarray, "n 2"], blur_px: float = 0.0) -> Float[np.ndarray, "S S"]:
        """A polygon as a mask 0-1 of the canvas's size."""
        sharp = np.zeros((self.side, self.side), np.uint8)
        self.fill(points_xy, np.array([255]), sharp)
        width = 2 * round(blur_px * OVERSAMPLE) + 1
        soft = cv2.blur(cv2.blur(sharp, (width, width)), (width, width))
        return soft.astype(np.float32) / 255

    def blend(self, colour: np.ndarray, mask: Float[np.ndarray, "S S"]) -> None:
        """Mix a colour (3,), or a whole picture, in where the mask says."""
        base = self.pixels.astype(np.float32)
        self.pixels = (base + (np.asarray(colour, np.float32) - base) * mask[..., None]).astype(np.uint8)

    def inside(self, region_xy: Float[np.ndarray, "n 2"], paint: Callable[[Canvas], None]) -> None:
        """Let `paint(canvas)` draw, and keep of it only what falls into the region."""
        fixed = region_xy * OVERSAMPLE + (OVERSAMPLE - 1) / 2
        low = np.clip(np.floor(fixed.min(0)).astype(int) - 1, 0, self.side)
        high = np.clip(np.ceil(fixed.max(0)).astype(int) + 2, 0, self.side)
        if (high <= low).any():
            return
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        before = self.pixels.copy()
        mask = np.zeros(self.pixels.shape[:2], np.uint8)
        self.fill(region_xy, np.array([255]), mask)
        paint(self)
        share = mask[window][..., None].astype(np.float32) / 255
        painted, self.pixels = self.pixels[window], before
        mixed = before[window] + (painted.astype(np.float32) - before[window]) * share
        before[window] = (mixed + 0.5).astype(np.uint8)

    def finish(self, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """The picture at its final size."""
        return cv2.resize(self.pixels, (size, size), interpolation=cv2.INTER_AREA)

    def _fixed(self, points_xy: np.ndarray) -> np.ndarray:
        fine = (np.asarray(points_xy) * OVERSAMPLE + (OVERSAMPLE - 1) / 2) * (1 << _SHIFT)
        return (fine + 0.5).astype(np.int32)  # rounds to nearest but for points left of or above the picture


def curve(points: Float[np.ndarray, "n d"], closed: bool = False, steps: int = 5) -> Float[np.ndarray, "m d"]:
    """A smooth curve through the points (centripetal enough for faces: uniform Catmull-Rom)."""
    return _basis(len(points), closed, steps) @ points


@lru_cache(maxsize=64)
def _basis(count: int, closed: bool, steps: int) -> Float[np.ndarray, "m n"]:
    """Catmull-Rom as one matrix, so that a curve costs one product."""
    t = np.arange(steps) / steps
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], -1
    )
    pieces = count if closed else count - 1
    matrix = np.zeros((pieces * steps + (0 if closed else 1), count))
    for piece in range(pieces):
        around = np.arange(piece - 1, piece + 3)
        around = around % count if closed else np.clip(around, 0, count - 1)
        for column, index in enumerate(around):
            matrix[piece * steps : (piece + 1) * steps, index] += weights[:, column]
    if not closed:
        matrix[-1, -1] = 1.0
    return matrix


def _plain(colour: np.ndarray) -> tuple[float, ...]:
    return tuple(min(255.0, max(0.0, c)) for c in colour.tolist())
