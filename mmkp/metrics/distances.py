"""Metrics that come from the distance of each keypoint to the truth: NME, PCK and its kin, AUC, EPE."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mmkp.errors import InputError
from mmkp.metrics.arrays import Array, as_double, distances, known_mean, namespace, select
from mmkp.metrics.normalizers import head_box_length, torso_length
from mmkp.schema import KeypointSchema


def normalized_errors(
    predicted_xy: Float[Array, "N K 2"],
    true_xy: Float[Array, "N K 2"],
    labelled: Bool[Array, "N K"],
    normalizer_px: Float[Array, " N"],
) -> Float[Array, "N K"]:
    """Distance of every keypoint over the item's normalizer.

    Args:
        predicted_xy: px, any frame; a miss is NaN and counts 1.0 of the normalizer.
        true_xy: px, the same frame.
        labelled: False leaves the point out.
        normalizer_px: px; an item whose normalizer is 0, negative or NaN is left out.

    Returns:
        (N, K); NaN for what is left out.
    """
    xp = namespace(predicted_xy, true_xy, labelled, normalizer_px)
    usable = xp.isfinite(normalizer_px) & (normalizer_px > 0)
    length = xp.where(usable, normalizer_px, 1.0)
    error = distances(predicted_xy, true_xy) / length[:, None]
    error = xp.where(xp.isfinite(predicted_xy).all(-1), error, 1.0)
    return xp.where(labelled & usable[:, None], error, np.nan)


def nme(errors: Float[Array, "N K"], points: Any = None) -> Float[Array, " N"]:
    """Normalized mean error of each item over its labelled points (of `points` only, if given); NaN where none is."""
    return known_mean(select(errors, points))


def pck(errors: Float[Array, "N K"], threshold: float, points: Any = None) -> Float[Array, " N"]:
    """Share of each item's labelled points within `threshold` of the normalizer; NaN where none is labelled."""
    errors = select(errors, points)
    xp = namespace(errors)
    return known_mean(xp.where(xp.isnan(errors), np.nan, as_double(errors <= threshold)))


def auc(errors: Float[Array, "N K"], steps: int = 20, limit: float = 1.0, points: Any = None) -> Float[Array, " N"]:
    """Area under the curve of PCK over the threshold, as a share of 1.

    Args:
        errors: of `normalized_errors`.
        steps: the mean is taken over the thresholds limit * i / steps, i = 0 ... steps - 1.
        limit: where the thresholds end, in normalizers.
        points: of these keypoints only.

    Returns:
        (N,); NaN where none is labelled. A point counts below a threshold, not at it.

    Source:
        the convention of Simon et al., Hand Keypoint Detection in Single Images, CVPR 2017, as toolboxes compute it.
    """
    if steps < 1 or not limit > 0:
        raise InputError("auc", expected="at least one step and a limit above 0", got=f"steps {steps}, limit {limit}")
    errors = select(errors, points)
    xp = namespace(errors)
    below = sum(as_double(errors < limit * i / steps) for i in range(steps)) / steps
    return known_mean(xp.where(xp.isnan(errors), np.nan, below))


def epe(
    predicted_xy: Float[Array, "N K 2"], true_xy: Float[Array, "N K 2"], labelled: Bool[Array, "N K"]
) -> Float[Array, " N"]:
    """End-point error: mean distance over the labelled points, px.

    Returns:
        (N,) px; NaN where none is labelled.

    Raises:
        InputError: a labelled point has no finite prediction; px have no natural price of a miss.
    """
    xp = namespace(predicted_xy, true_xy, labelled)
    if (labelled & ~xp.isfinite(predicted_xy).all(-1)).any():
        raise InputError("epe", expected="a prediction for every labelled point", got="NaN", remedy="Use nme instead.")
    return known_mean(xp.where(labelled, distances(predicted_xy, true_xy), np.nan))


def pckh(
    predicted_xy: Float[Array, "N K 2"],
    true_xy: Float[Array, "N K 2"],
    labelled: Bool[Array, "N K"],
    head_box_xywh: Float[Array, "N 4"],
    threshold: float = 0.5,
    points: Any = None,
) -> Float[Array, " N"]:
    """PCKh: PCK in units of 0.6 of the head box's diagonal.

    MPII's tables leave out pelvis and thorax: give the other fourteen as `points`. Where there is no head box, take
    `normalizer_px("head_segment", ...)` and `pck`, and say so: it is a longer unit, and another figure.

    Source:
        Andriluka et al., 2D Human Pose Estimation, CVPR 2014; the factor 0.6 is the MPII toolkit's.
    """
    errors = normalized_errors(predicted_xy, true_xy, labelled, head_box_length(head_box_xywh))
    return pck(errors, threshold, points)


def torso_pck(
    predicted_xy: Float[Array, "N K 2"],
    true_xy: Float[Array, "N K 2"],
    labelled: Bool[Array, "N K"],
    schema: KeypointSchema,
    threshold: float = 0.2,
    points: Any = None,
) -> Float[Array, " N"]:
    """PCK in units of the torso: the true distance of left shoulder and right hip, or of the schema's torso points.

    Source:
        Sapp and Taskar, MODEC, CVPR 2013 (threshold 0.2).

    Raises:
        InputError: the schema names no torso points.
    """
    errors = normalized_errors(predicted_xy, true_xy, labelled, torso_length(true_xy, labelled, schema))
    return pck(errors, threshold, points)


def heatmap_pck(
    predicted: Float[Array, "N K h w"],
    true: Float[Array, "N K h w"],
    labelled: Bool[Array, "N K"],
    threshold: float = 0.5,
) -> Float[Array, "N K"]:
    """Whether the heatmaps' peaks agree: 1 or 0 of each channel, for a look at training.

    The peak is the largest cell. The distance is taken in units of a tenth of the map's width and height.

    Returns:
        (N, K); NaN where not labelled, or where the true map is empty (no cell above 0).

    Source:
        the accuracy of Newell et al., Stacked Hourglass Networks, ECCV 2016 (their training log).
    """
    xp = namespace(predicted, true, labelled)
    there = labelled & (true.reshape(*true.shape[:2], -1) > 0).any(-1)
    hit = as_double(distances(_peak_in_tenths(predicted), _peak_in_tenths(true)) <= threshold)
    return xp.where(there, hit, np.nan)


def _peak_in_tenths(maps: Float[Array, "N K h w"]) -> Float[Array, "N K 2"]:
    height, width = maps.shape[-2:]
    cell = maps.reshape(*maps.shape[:2], -1).argmax(-1)
    return namespace(maps).stack([as_double(cell % width) * 10 / width, as_double(cell // width) * 10 / height], -1)
