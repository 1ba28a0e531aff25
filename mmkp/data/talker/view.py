"""How the head is held and seen: pose, perspective, and the picture's frame. Pixel centres at whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from mmkp.data.face import face_box

DISTANCE_MM = 900.0  # of the camera: a video call, so that near parts look a little larger
PIVOT_MM = np.array([0.0, 30.0, -85.0])  # a head turns about the top of its neck, not about its eyes


@dataclass(frozen=True)
class View:
    """Pose in degrees, and where the head stands in the picture.

    Positive yaw turns the face to the picture's right, positive pitch downwards, positive roll clockwise.
    """

    yaw: float
    pitch: float
    roll: float
    scale: float = 1.0
    shift_xy: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """Head frame -> camera frame (x right, y down, z towards the camera)."""
        yaw, pitch, roll = np.radians([self.yaw, self.pitch, self.roll])
        about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
        about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        return about_z @ about_x @ about_y

    def project(self, points_mm: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 2"]:
        """Head frame, mm -> image frame, px."""
        camera = (points_mm - PIVOT_MM) @ self.rotation.T + PIVOT_MM
        return camera[..., :2] * (self.scale * DISTANCE_MM / (DISTANCE_MM - camera[..., 2:])) + self.shift_xy

    def affine_at(self, points_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "2 3"]:
        """The affine, (x, y) mm of the head frame -> px, that fits the projection of a few points best."""
        plane = np.column_stack([points_mm[:, :2], np.ones(len(points_mm))])
        return np.linalg.lstsq(plane, self.project(points_mm), rcond=None)[0].T


def place(view: View, points_mm: Float[np.ndarray, "68 3"], size: int, share: float, jitter: np.ndarray) -> View:
    """The same pose with the face's box at `share` of a square picture's side.

    Args:
        size: side of the picture, px.
        share: of the side, 0 to 1.
        jitter: (2,) in -1 to 1: how far the box is pushed of the way it can go.
    """
    x, y, side, _ = face_box(view.project(points_mm))
    scale = share * size / side
    corner = np.array([x, y]) * scale
    free = (size - share * size) / 2
    target = free - 0.5 + jitter * free
    return View(view.yaw, view.pitch, view.roll, scale, tuple(target - corner))
