"""Light on the head: normals of a simple relief, computed in the face's plane and warped onto the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from mmkp.data.talker.mouth import MouthState
from mmkp.data.talker.paint import OVERSAMPLE
from mmkp.data.talker.view import View
from mmkp.geometry import compose, invert, transform

_STEP_MM = 4.0
_U, _V = np.arange(-112.0, 113.0, _STEP_MM), np.arange(-140.0, 181.0, _STEP_MM)
# The relief: centre x, y, z, half widths in x and y, height; mm. By eye, after a face's usual relief.
_RELIEF = np.array(
    [
        [0, 14, 16, 5.5, 20, 9], [0, 38, 26, 8, 8, 8], [-12, 43, 14, 5, 5, 4], [12, 43, 14, 5, 5, 4],
        [-31, 0, -4, 15, 9, -7], [31, 0, -4, 15, 9, -7], [-30, -22, 5, 20, 6, 3.5], [30, -22, 5, 20, 6, 3.5],
        [-44, 26, -8, 15, 13, 6], [44, 26, -8, 15, 13, 6], [0, 68, 10, 24, 15, 5],
    ], dtype=float,
)  # fmt: skip
# Where little light comes: centre x, y, z, half widths, share of the light lost.
_HOLLOWS = np.array(
    [[-24, -7, 0, 13, 6, 0.22], [24, -7, 0, 13, 6, 0.22], [0, 53, 17, 13, 3.5, 0.28], [-20, 6, -2, 5, 8, 0.16],
     [20, 6, -2, 5, 8, 0.16]], dtype=float,
)  # fmt: skip


@dataclass(frozen=True)
class Light:
    """A lamp (direction towards it, camera frame, unit length) and light from all around. Colour RGB, about 1."""

    direction: np.ndarray
    ambient: float
    colour: np.ndarray
    exposure: float


def light_map(
    view: View, anchors_mm: np.ndarray, state: MouthState, light: Light, size: int
) -> Float[np.ndarray, "S S"]:
    """How bright a matt surface is at each drawn pixel of the head, about 0.3 to 1.25.

    Args:
        anchors_mm: (n, 3) points of the face that span its plane, head frame.
        size: side of the final picture, px.
    """
    plane = view.affine_at(anchors_mm)
    to_plane = invert(plane)

    def spots(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        centre = transform(view.project(table[:, :3]), to_plane)
        away_u, away_v = _U - centre[:, :1], _V - centre[:, 1:]
        return (
            away_u,
            away_v,
            np.exp(-0.5 * (away_u / table[:, 3:4]) ** 2),
            np.exp(-0.5 * (away_v / table[:, 4:5]) ** 2),
        )

    jaw, smile = state.jaw_mm, max(0.0, state.smile)
    chin = [[0, 101 + jaw, -2, 13, 9, 5], [0, 87 + 0.85 * jaw, 6, 13, 4.5, -3.2]]
    apples = [[-35, 34 - 4 * smile, 2, 12, 11, 5 * smile], [35, 34 - 4 * smile, 2, 12, 11, 5 * smile]]
    relief = np.concatenate([_RELIEF, chin, apples])
    away_u, away_v, in_u, in_v = spots(relief)
    height = relief[:, 5:6]
    slope_u = (in_v * height).T @ (-away_u / relief[:, 3:4] ** 2 * in_u)
    slope_v = (-away_v / relief[:, 4:5] ** 2 * in_v * height).T @ in_u
    x, y = _U[None] / 84.0, (_V[:, None] - 5.0) / 135.0
    radius = np.sqrt(x**2 + y**2)
    shrink = np.minimum(1.0, 0.93 / np.maximum(radius, 1e-6))
    x, y = x * shrink, y * shrink
    depth = np.sqrt(1 - x**2 - y**2)
    normal = np.stack([x / depth - slope_u, y / depth - slope_v, np.ones_like(depth)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    toward = light.direction @ view.rotation  # camera frame -> head frame
    lambert = np.clip(normal @ toward, 0, None)
    folds = [[-31, 62, 4, 3.5, 12, 0.22 * smile], [31, 62, 4, 3.5, 12, 0.22 * smile]]
    hollows = np.concatenate([_HOLLOWS, folds])
    _, _, in_u, in_v = spots(hollows)
    dark = 1 - (in_v * hollows[:, 5:6]).T @ in_u
    shine = 0.16 * np.clip(normal @ _halfway(toward), 0, None) ** 24
    bright = ((light.ambient + (1 - light.ambient) * lambert * 1.12) * np.clip(dark, 0.3, 1) + shine).astype(np.float32)
    grid = np.array([[_STEP_MM, 0, _U[0]], [0, _STEP_MM, _V[0]]])
    to_canvas = np.array([[OVERSAMPLE, 0, (OVERSAMPLE - 1) / 2], [0, OVERSAMPLE, (OVERSAMPLE - 1) / 2]], dtype=float)
    affine = compose(to_canvas, compose(plane, grid))
    side = size * OVERSAMPLE
    return cv2.warpAffine(bright, affine, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _halfway(toward: np.ndarray) -> np.ndarray:
    """The direction between the lamp and the viewer, whose side is +z."""
    half = toward + np.array([0.0, 0.0, 1.0])
    return half / np.linalg.norm(half)
