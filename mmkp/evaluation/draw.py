"""Keypoints drawn on pictures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mmkp import geometry
from mmkp.schema import KeypointSchema

PREDICTED, TRUE = (255, 140, 0), (60, 220, 90)  # orange, green: told apart also by most colour-blind readers
# Of several people; the first is the colour of one alone. Source: Okabe and Ito's palette, less black.
PEOPLE = (PREDICTED, (86, 180, 233), (240, 228, 66), (204, 121, 167), (0, 158, 115), (213, 94, 0), (0, 114, 178))
DOTS_IN_PICTURE, DOTS_IN_SHAPE = 220, 60  # radii that fit into the picture's shorter side, and across the keypoints
BITS = 4  # OpenCV's fixed-point fraction: a sixteenth of a pixel


def person_colour(number: int) -> tuple[int, int, int]:
    """RGB of a picture's person, counted from 0."""
    return PEOPLE[number % len(PEOPLE)]


def draw_keypoints(
    image: UInt8[np.ndarray, "H W 3"],
    keypoints_xy: Float[np.ndarray, "K 2"],
    schema: KeypointSchema,
    colour: tuple[int, int, int] = PREDICTED,
    scores: np.ndarray | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy with points and edges, between the pixels where they lie; a low score is drawn paler.

    Args:
        image: RGB.
        keypoints_xy: px, image frame; NaN is left out.
        scores: (K,) in [0, 1].
    """
    canvas = image.copy()
    known = np.isfinite(keypoints_xy).all(-1)
    reach = float(np.ptp(keypoints_xy[known], axis=0).max()) if known.sum() > 1 else np.inf
    size = max(1, round(min(min(image.shape[:2]) / DOTS_IN_PICTURE, reach / DOTS_IN_SHAPE)))
    points = np.rint(np.clip(np.nan_to_num(keypoints_xy), -1e4, 1e5) * (1 << BITS)).astype(np.int32)
    lines = [points[[a, b]] for a, b in schema.edges if known[a] and known[b]]
    cv2.polylines(canvas, lines, False, colour, max(1, size // 2), cv2.LINE_AA, BITS)
    alpha = np.ones(len(points)) if scores is None else 0.35 + 0.65 * np.clip(scores, 0, 1)
    for point, strength in zip(points[known], alpha[known], strict=True):
        shade = tuple(int(strength * c + (1 - strength) * 255) for c in colour)
        cv2.circle(canvas, tuple(int(v) for v in point), size << BITS, shade, -1, cv2.LINE_AA, BITS)
    return canvas


def crop_to_box(
    image: UInt8[np.ndarray, "H W 3"], box_xywh: np.ndarray, side: int, *points: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The square around a box at `side` px, and points carried along."""
    affine = geometry.crop_affine(geometry.square_box(box_xywh), (side, side))
    return geometry.warp(image, affine, (side, side)), [geometry.transform(p.astype(float), affine) for p in points]


def sheet(tiles: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Tiles of one size side by side, white between."""
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    made = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        made[top : top + height, left : left + width] = tile
    return made


def caption(tile: np.ndarray, text: str, band: int = 14) -> np.ndarray:
    """A tile with a line of small text below."""
    made = np.full((tile.shape[0] + band, tile.shape[1], 3), 255, np.uint8)
    made[: tile.shape[0]] = tile
    cv2.putText(made, text, (2, made.shape[0] - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.32, (40, 40, 40), 1, cv2.LINE_AA)
    return made
