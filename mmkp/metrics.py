"""Metrics of keypoints: pure functions on whole batches, a value per item (and keypoint); never averaged inside."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def normalized_errors(
    predicted_xy: Float[np.ndarray, "N K 2"],
    true_xy: Float[np.ndarray, "N K 2"],
    labelled: Bool[np.ndarray, "N K"],
    normalizer_px: Float[np.ndarray, N],
) -> Float[np.ndarray, "N K"]:
    """Distance of every keypoint over the item's normalizer.

    Args:
        predicted_xy: px, any frame; a miss is NaN and counts 1.0 of the normalizer.
        true_xy: px, the same frame.
        labelled: False leaves the point out.
        normalizer_px: px; an item whose normalizer is 0, negative or NaN is left out.

    Returns:
        (N, K); NaN for what is left out.
    """
    usable = np.isfinite(normalizer_px) & (normalizer_px > 0)
    length = np.where(usable, normalizer_px, 1.0)
    error = np.linalg.norm(predicted_xy.astype(np.float64) - true_xy, axis=-1) / length[:, None]
    error = np.where(np.isfinite(predicted_xy).all(-1), error, 1.0)
    return np.where(labelled & usable[:, None], error, np.nan)


def nme(errors: Float[np.ndarray, "N K"], points: np.ndarray | None = None) -> Float[np.ndarray, N]:
    """Normalized mean error of each item over its labelled points (of `points` only, if given); NaN where none is."""
    return _mean(errors if points is None else errors[:, points])


def pck(errors: Float[np.ndarray, "N K"], threshold: float, points: np.ndarray | None = None) -> Float[np.ndarray, N]:
    """Share of each item's labelled points within `threshold` of the normalizer; NaN where none is labelled."""
    errors = errors if points is None else errors[:, points]
    return _mean(np.where(np.isnan(errors), np.nan, (errors <= threshold).astype(float)))


def _mean(values: Float[np.ndarray, "N K"]) -> Float[np.ndarray, N]:
    known = ~np.isnan(values)
    count = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
