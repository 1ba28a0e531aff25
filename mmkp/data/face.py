"""Boxes of faces from the eyes alone, so that neither the crop nor the cover can know what the mouth does."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)
OUTER_EYE_CORNERS = (36, 45)
BOX_SIDE = 2.4  # in outer-eye distances: holds brows and chin of an upright face with a margin of about a tenth
BOX_DROP = 0.5  # the box's middle lies so many outer-eye distances below the middle of the eyes


def eye_frame(keypoints_xy: Float[np.ndarray, "68 2"]) -> tuple[np.ndarray, float, float]:
    """Where the eyes are, from the twelve eye points of a face68 shape and nothing else.

    Args:
        keypoints_xy: px, any frame.

    Returns:
        The middle of the two eyes (2,) px, the outer-eye distance in px, the roll in radians (positive: the eye on
        the picture's right is lower).
    """
    right, left = keypoints_xy[RIGHT_EYE].mean(0), keypoints_xy[LEFT_EYE].mean(0)
    corner_right, corner_left = keypoints_xy[OUTER_EYE_CORNERS[0]], keypoints_xy[OUTER_EYE_CORNERS[1]]
    across = corner_left - corner_right
    return (right + left) / 2, float(np.linalg.norm(across)), float(np.arctan2(across[1], across[0]))


def face_box(keypoints_xy: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, " 4"]:
    """The square box of a face, from its eyes. xywh px, in the frame of the keypoints."""
    middle, distance, _ = eye_frame(keypoints_xy)
    side = BOX_SIDE * distance
    return np.array([middle[0] - side / 2, middle[1] + BOX_DROP * distance - side / 2, side, side], dtype=np.float64)
