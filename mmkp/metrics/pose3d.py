"""Errors of keypoints in space: MPJPE as it stands, after the best scale, and after the best similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mmkp.errors import InputError
from mmkp.metrics.arrays import Array, as_double, distances, known_mean, namespace


def mpjpe(
    predicted_xyz: Float[Array, "N K 3"],
    true_xyz: Float[Array, "N K 3"],
    labelled: Bool[Array, "N K"],
    root: int | None = None,
) -> Float[Array, " N"]:
    """Mean per-joint position error over the labelled joints, in the unit of the input.

    Args:
        predicted_xyz: finite wherever labelled: a length has no natural price of a miss.
        true_xyz: the same unit and frame.
        labelled: False leaves the joint out.
        root: the joint that both are moved to first (Human3.6M's protocol 1: the pelvis); None: as they stand.

    Returns:
        (N,); NaN where no joint, or not the root, is labelled.

    Raises:
        InputError: a labelled joint without a finite prediction or truth.

    Source:
        Ionescu et al., Human3.6M, PAMI 2014.
    """
    predicted, true, labelled = _rooted(predicted_xyz, true_xyz, labelled, root)
    return _error(predicted, true, labelled)


def n_mpjpe(
    predicted_xyz: Float[Array, "N K 3"],
    true_xyz: Float[Array, "N K 3"],
    labelled: Bool[Array, "N K"],
    root: int | None = None,
) -> Float[Array, " N"]:
    """MPJPE after the scale that fits each item best, about the origin (so give `root`, or rooted joints).

    Arguments, returns and errors as in `mpjpe`.

    Source:
        Rhodin et al., Unsupervised Geometry-Aware Representation for 3D Human Pose Estimation, ECCV 2018.
    """
    predicted, true, labelled = _rooted(predicted_xyz, true_xyz, labelled, root)
    xp = namespace(predicted)
    energy = (predicted**2).sum((-1, -2))
    scale = (predicted * true).sum((-1, -2)) / xp.where(energy > 0, energy, 1.0)
    return _error(predicted * scale[:, None, None], true, labelled)


def p_mpjpe(
    predicted_xyz: Float[Array, "N K 3"], true_xyz: Float[Array, "N K 3"], labelled: Bool[Array, "N K"]
) -> Float[Array, " N"]:
    """MPJPE after the similarity (rotation, scale, shift) that fits each item best. As in `mpjpe` otherwise."""
    predicted, true, labelled = _rooted(predicted_xyz, true_xyz, labelled, None)
    return _error(procrustes(predicted, true, labelled), true, labelled)


def procrustes(
    predicted_xyz: Float[Array, "N K 3"], true_xyz: Float[Array, "N K 3"], labelled: Bool[Array, "N K"]
) -> Float[Array, "N K 3"]:
    """The predictions moved onto the truth by each item's best rotation (never a reflection), scale and shift.

    Predictions that all fall on one point are moved to the truth's centre.

    Source:
        Umeyama, Least-Squares Estimation of Transformation Parameters, PAMI 1991, eq. 40-42.
    """
    xp = namespace(predicted_xyz, true_xyz, labelled)
    count = as_double(labelled.sum(-1).clip(1))[:, None, None]
    known, goal = (xp.where(labelled[..., None], as_double(p), 0.0) for p in (predicted_xyz, true_xyz))
    centre, true_centre = (p.sum(1)[:, None] / count for p in (known, goal))
    source, target = (xp.where(labelled[..., None], p, 0.0) for p in (known - centre, goal - true_centre))
    u, strength, vt = xp.linalg.svd(target.swapaxes(-1, -2) @ source)
    mirrored = xp.linalg.det(u @ vt) < 0
    sign = xp.where(mirrored, -1.0, as_double(mirrored | True))
    u, strength = (
        xp.concatenate([m[..., :2], m[..., 2:] * s], -1)
        for m, s in ((u, sign[:, None, None]), (strength, sign[:, None]))
    )
    energy = (source**2).sum((-1, -2))
    scale = strength.sum(-1) / xp.where(energy > 0, energy, 1.0)
    return scale[:, None, None] * (predicted_xyz - centre) @ (u @ vt).swapaxes(-1, -2) + true_centre


def _rooted(predicted: Any, true: Any, labelled: Any, root: int | None) -> tuple[Any, Any, Any]:
    """Both in float64, 0 where not labelled, moved to the root."""
    xp = namespace(predicted, true, labelled)
    known = xp.isfinite(predicted).all(-1) & xp.isfinite(true).all(-1)
    if (labelled & ~known).any():
        item = int(np.flatnonzero(np.asarray((labelled & ~known).any(-1).tolist()))[0])
        raise InputError(f"item {item}", expected="finite joints wherever labelled", got="NaN or infinite ones")
    predicted, true = (xp.where(labelled[..., None], as_double(p), 0.0) for p in (predicted, true))
    if root is None:
        return predicted, true, labelled
    labelled = labelled & labelled[:, root, None]
    moved = (xp.where(labelled[..., None], p - p[:, root, None], 0.0) for p in (predicted, true))
    return *moved, labelled


def _error(predicted: Any, true: Any, labelled: Any) -> Any:
    return known_mean(namespace(predicted).where(labelled, distances(predicted, true), np.nan))
