"""COCO's greedy matching of detections to objects, for all images, area ranges and thresholds at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from mmkp.metrics.grouping import PairTable, chunks

if TYPE_CHECKING:
    from mmkp.metrics.coco import Detections, GroundTruth


def match(
    truth: GroundTruth,
    found: Detections,
    sigmas: Float[np.ndarray, " K"],
    ignored: Bool[np.ndarray, "A G"],
    truth_image: Int[np.ndarray, " G"],
    ranked_image: Int[np.ndarray, " R"],
    ranked: Int[np.ndarray, " R"],
    thresholds: Float[np.ndarray, " T"],
) -> tuple[Bool[np.ndarray, "A T R"], Bool[np.ndarray, "A T R"]]:
    """Give each detection, best first, the most similar object that is free.

    An object that counts goes before any ignored one; a crowd stays free.

    Args:
        ranked: detections, image by image, best first; their images in `ranked_image`.
        ignored: objects that do not count, by area range.

    Returns:
        hit, (A, T, R) whether it took one; skipped, whether that one is ignored.
    """
    hit = np.zeros((len(ignored), len(thresholds), len(ranked)), bool)
    skipped = np.zeros_like(hit)
    for table in PairTable.batches(ranked_image, truth_image):
        rows, columns, at = table.pairs()
        similarity = np.full(table.shape, -1.0)
        similarity[at] = pair_oks(truth, found.keypoints_xy, sigmas, ranked[rows], columns)
        regular = ~ignored[:, table.columns].swapaxes(0, 1)
        _match_table(similarity, regular, truth.crowd[table.columns], thresholds, table, hit, skipped)
    return hit, skipped


def _match_table(
    similarity: Float[np.ndarray, "I D G"],
    regular: Bool[np.ndarray, "I A G"],
    crowd: Bool[np.ndarray, "I G"],
    thresholds: Float[np.ndarray, " T"],
    table: PairTable,
    hit: Bool[np.ndarray, "A T R"],
    skipped: Bool[np.ndarray, "A T R"],
) -> None:
    """Write the matches of one table's images into `hit` and `skipped`."""
    images, detections, objects = similarity.shape
    # A whole number per object stands for "counts, then more similar, then later"; a sum of floats could round.
    preference = np.argsort(np.argsort(similarity, axis=-1, kind="stable"), axis=-1).astype(np.int16)
    bonus = (regular * np.int16(objects)).astype(np.int16)
    free = np.ones((images, regular.shape[1], len(thresholds), objects), bool)
    for rank in range(detections):
        n = int(table.row_there[:, rank].sum())  # images with more detections come first
        near = similarity[:n, rank, None, :] >= np.minimum(thresholds, 1 - 1e-10)[:, None]
        wish = preference[:n, rank, None, :] + bonus[:n]
        open_ = free[:n] & near[:, None]
        key = np.where(open_, wish[:, :, None], np.int16(-1))
        best = key.argmax(-1)
        took = np.take_along_axis(key, best[..., None], -1)[..., 0] >= 0
        image, area, level = np.nonzero(took)
        chosen = best[image, area, level]
        free[image, area, level, chosen] = crowd[image, chosen]
        detection = table.rows[image, rank]
        hit[area, level, detection] = True
        skipped[area, level, detection] = ~regular[image, area, chosen]


def pair_oks(
    truth: GroundTruth,
    found_xy: Float[np.ndarray, "D K 2"],
    sigmas: Float[np.ndarray, " K"],
    found_at: Int[np.ndarray, " P"],
    truth_at: Int[np.ndarray, " P"],
) -> Float[np.ndarray, " P"]:
    """OKS of pairs, in pycocotools' order of operations, so that the last bit agrees too.

    Pairs with equally many labelled points are summed together: a sum with zeros between would round differently.
    """
    labelled = truth.visible > 0
    counts = labelled.sum(-1)
    spread = (sigmas * 2) ** 2
    true_xy = _planes(np.where(labelled[..., None], truth.keypoints_xy, 0.0))
    found_xy = _planes(np.where(np.isfinite(found_xy).all(-1, keepdims=True), found_xy, np.inf))
    size = truth.area[:, None] + np.spacing(1)
    result = np.empty(len(found_at))
    for count in np.unique(counts[truth_at]):
        alike = np.flatnonzero(counts[truth_at] == count)
        for part in chunks(alike, len(sigmas)):
            one, other = found_at[part], truth_at[part]
            offset = found_xy[:, one]
            offset = offset - true_xy[:, other] if count else _beyond(offset, truth.box_xywh[other])
            offset *= offset
            error = offset[0] + offset[1]
            error /= spread
            error /= size[other]
            error *= -0.5
            if count:
                error = error[labelled[other]].reshape(-1, count)
            result[part] = np.exp(error, out=error).sum(-1) / error.shape[1]
    return result


def _planes(xy: Float[np.ndarray, "N K 2"]) -> Float[np.ndarray, "2 N K"]:
    return np.ascontiguousarray(np.moveaxis(xy, -1, 0))


def _beyond(xy: Float[np.ndarray, "2 P K"], box_xywh: Float[np.ndarray, "P 4"]) -> Float[np.ndarray, "2 P K"]:
    """How far points lie outside of the box that is three times as wide and high, per axis."""
    start, side = box_xywh.T[:2, :, None], box_xywh.T[2:, :, None]
    return np.maximum(0, (start - side) - xy) + np.maximum(0, xy - (start + side * 2))
