"""Another markup's points brought to this one's: what a peer means by a point is not what the labels mean by it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex, Float

RIGHT_CORNER, LEFT_CORNER, EYES = 36, 45, slice(36, 48)
GROSS = 0.25  # outer-eye distances: items with a larger mean error are not what the convention is read from


def to_face(points_xy: Float[np.ndarray, "N 68 2"]) -> tuple[Complex[np.ndarray, "N 68"], np.ndarray, np.ndarray]:
    """Points in a frame of their own eyes (middle of the eyes 0, right outer corner to left one 1), as x + iy.

    Returns:
        points, and the middle and the corners' distance as complex px: face * across + middle leads back.
    """
    plane = points_xy[..., 0] + 1j * points_xy[..., 1]
    across = plane[:, LEFT_CORNER] - plane[:, RIGHT_CORNER]
    middle = plane[:, EYES].mean(1)
    return _divided(plane - middle[:, None], across), middle, across


def _divided(plane: np.ndarray, across: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a miss is NaN and stays so
        return plane / across[:, None]


def shift(said_xy: Float[np.ndarray, "N 68 2"], true_xy: Float[np.ndarray, "N 68 2"]) -> Float[np.ndarray, " 2"]:
    """The one vector, px of the image frame, from a peer's points to the labels: two pixel origins differ by it."""
    return np.nanmedian(true_xy - said_xy, axis=(0, 1))


def fit(said_xy: Float[np.ndarray, "N 68 2"], true_xy: Float[np.ndarray, "N 68 2"]) -> Float[np.ndarray, "68 3 2"]:
    """For each point the affine map, in the frame of the peer's own eyes, that is nearest to the labels.

    Items that the peer missed, without a label, or that it got grossly wrong are left out.
    """
    told, middle, across = to_face(said_xy)
    plane = _divided(true_xy[..., 0] + 1j * true_xy[..., 1] - middle[:, None], across)
    usable = np.isfinite(told).all(1) & np.isfinite(plane).all(1)
    usable[usable] = np.abs(told - plane)[usable].mean(1) < GROSS
    told, plane = told[usable].T, plane[usable].T
    known = np.stack([told.real, told.imag, np.ones(told.shape)], -1)
    return np.linalg.pinv(known) @ np.stack([plane.real, plane.imag], -1)


def apply(maps: Float[np.ndarray, "68 3 2"], said_xy: Float[np.ndarray, "N 68 2"]) -> Float[np.ndarray, "N 68 2"]:
    """A peer's points with its convention corrected; px, the frame that they came in."""
    told, middle, across = to_face(said_xy)
    known = np.stack([told.real, told.imag, np.ones(told.shape)], -1)
    moved = np.einsum("nki,kio->nko", known, maps)
    plane = (moved[..., 0] + 1j * moved[..., 1]) * across[:, None] + middle[:, None]
    return np.stack([plane.real, plane.imag], -1)
