"""Scores of several people per picture: COCO's AP and AR by OKS, who was found, and how far off. Never sees a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mmkp import metrics
from mmkp.evaluation.score import MIN_GROUPS, GroupBootstrap
from mmkp.metrics.coco import MAX_DETECTIONS, RECALLS, THRESHOLDS
from mmkp.metrics.coco_match import match
from mmkp.metrics.grouping import rank_by_image
from mmkp.schema import KeypointSchema

if TYPE_CHECKING:
    from mmkp.evaluation.instances import Found, PeoplePredictions

AP_DRAWS = 1000  # of the bootstrap: AP is no mean over items, so that every draw is an AP of its own
FOUND_OKS = 0.5  # from which a person counts as found


def summarize_people(
    predictions: PeoplePredictions, schema: KeypointSchema, protocol: dict[str, Any]
) -> dict[str, Any]:
    """The summary of DESIGN's section 4, with AP as its primary metric.

    ap, ap50, ap75, ar: COCO's, over all areas. recall, precision: the share of true people that were found, and of
    those found that are true, per picture (OKS of at least 0.5). nme: error over the normalizer, per picture, where a
    person or keypoint that was not found counts 1.0; nme_matched: of the keypoints that were found.
    """
    draws = GroupBootstrap(predictions.groups)
    conditions: dict[str, Any] = {}
    for (condition, subset), found in predictions.found.items():
        entry = cell_scores(predictions, predictions.visible[condition], found, schema, draws)
        conditions.setdefault(condition, {})[subset] = entry
    full = {
        **protocol, "normalizer": schema.normalizer.name, "oks_found": FOUND_OKS, "bootstrap_draws": len(draws.draws),
        "bootstrap_draws_ap": AP_DRAWS, "bootstrap_over": "groups", "groups": int(draws.count),
        "people": len(predictions.true_image), "max_detections": MAX_DETECTIONS,
    }  # fmt: skip
    return {
        "n": len(predictions.ids), "protocol": full, "primary": "ap", "schema": schema.name, "conditions": conditions,
        "comparisons": {},
    }  # fmt: skip


def cell_scores(
    predictions: PeoplePredictions, visible: np.ndarray, found: Found, schema: KeypointSchema, draws: GroupBootstrap
) -> dict[str, Any]:
    """All metrics of one condition and subset."""
    truth, detections = coco_rows(predictions, visible, found)
    entry = average_precision(truth, detections, schema, draws)
    labelled = visible > 0
    partner = greedy_partners(truth, detections, schema)
    images = len(predictions.ids)
    people = np.bincount(predictions.true_image[labelled.any(1)], minlength=images)
    right = np.bincount(predictions.true_image[partner >= 0], minlength=images)
    claimed = np.bincount(found.image, minlength=images)
    entry["recall"] = {**draws.interval(_share(right, people)), "groups": {}}
    entry["precision"] = {**draws.interval(_share(right, claimed)), "groups": {}}
    length = schema.normalizer(predictions.true_xy, _extents(predictions.true_xy))
    found_xy = np.full(predictions.true_xy.shape, np.nan)
    found_xy[partner >= 0] = found.keypoints_xy[partner[partner >= 0]]
    errors = metrics.normalized_errors(
        np.nan_to_num(found_xy, nan=0.0), predictions.true_xy, labelled, np.asarray(length, float)
    )
    missed = ~np.isfinite(found_xy).all(-1)
    for name, values in (("nme", np.where(missed, 1.0, errors)), ("nme_matched", np.where(missed, np.nan, errors))):
        values = np.where(np.isnan(errors), np.nan, values)
        groups = {
            g: draws.interval(_mean_by_image(values[:, p], predictions.true_image, images))
            for g, p in schema.group_indices().items()
        }
        entry[name] = {**draws.interval(_mean_by_image(values, predictions.true_image, images)), "groups": groups}
    return entry


def coco_rows(
    predictions: PeoplePredictions, visible: np.ndarray, found: Found
) -> tuple[metrics.GroundTruth, metrics.Detections]:
    """Truth and detections as mmkp.metrics takes them."""
    truth = metrics.GroundTruth(
        image_ids=predictions.true_image, keypoints_xy=np.nan_to_num(predictions.true_xy), visible=visible,
        area=predictions.area, box_xywh=_extents(predictions.true_xy),
    )  # fmt: skip
    return truth, metrics.Detections(found.image, found.keypoints_xy, found.instance_scores)


def average_precision(
    truth: metrics.GroundTruth, found: metrics.Detections, schema: KeypointSchema, draws: GroupBootstrap
) -> dict[str, Any]:
    """AP, AP50, AP75 and AR with intervals over groups, in which a picture drawn twice counts twice."""
    people = int((~truth.ignore).sum())
    if not people:
        none: dict[str, Any] = {"mean": None, "ci95": None, "n": 0, "reason": "no labelled person", "groups": {}}
        return {name: dict(none) for name in ("ap", "ap50", "ap75", "ar")}
    table = metrics.coco_ap(truth, found, schema)
    drawn = drawn_precision(truth, found, schema, draws) if draws.count >= MIN_GROUPS else None
    entry: dict[str, Any] = {}
    for name in ("AP", "AP50", "AP75", "AR"):
        made: dict[str, Any] = {"mean": table[name], "ci95": None, "n": people, "groups": {}}
        if drawn is None:
            made["reason"] = f"{draws.count} groups; an interval needs at least {MIN_GROUPS}"
        else:
            made["ci95"] = [float(v) for v in np.nanpercentile(drawn[name], [2.5, 97.5])]
        entry[name.lower()] = made
    return entry


def drawn_precision(
    truth: metrics.GroundTruth, found: metrics.Detections, schema: KeypointSchema, draws: GroupBootstrap
) -> dict[str, Float[np.ndarray, " draws"]]:
    """AP, AP50, AP75 and AR of each draw. People are matched once: no picture's matches depend on another picture."""
    ranked = rank_by_image(found.image_ids, found.scores, MAX_DETECTIONS)
    hit, skipped = match(
        truth, found, metrics.schema_sigmas(schema), truth.ignore[None], truth.image_ids, found.image_ids[ranked],
        ranked, THRESHOLDS,
    )  # fmt: skip
    order = np.argsort(-found.scores[ranked], kind="stable")
    hit, skipped = hit[0][:, order], skipped[0][:, order]
    group = draws.index[found.image_ids[ranked][order]]
    objects = np.bincount(draws.index[truth.image_ids[~truth.ignore]], minlength=draws.count)
    rows = [weighted_precision(hit, skipped, w[group], float(w @ objects)) for w in draws.draws[:AP_DRAWS]]
    precision, recall = (np.stack(v) for v in zip(*rows, strict=True))
    half, three_quarters = (int(np.argmin(abs(THRESHOLDS - t))) for t in (0.5, 0.75))
    return {
        "AP": precision.mean(1), "AP50": precision[:, half], "AP75": precision[:, three_quarters], "AR": recall.mean(1)
    }  # fmt: skip


def weighted_precision(
    hit: Bool[np.ndarray, "T D"], skipped: Bool[np.ndarray, "T D"], weight: Float[np.ndarray, " D"], objects: float
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    """COCO's average precision and recall at each threshold, where a detection counts as often as its weight says.

    Args:
        hit, skipped: by detections in falling order of score.
        weight: of each detection.
        objects: to be found, by weight; NaN comes back for none.
    """
    if objects <= 0 or not hit.shape[1]:
        blank = np.full(len(hit), np.nan if objects <= 0 else 0.0)
        return blank, blank
    right = np.cumsum((hit & ~skipped) * weight, axis=1)
    wrong = np.cumsum((~hit & ~skipped) * weight, axis=1)
    recall = right / objects
    precision = np.maximum.accumulate((right / np.maximum(right + wrong, 1e-12))[:, ::-1], axis=1)[:, ::-1]
    place = np.stack([np.searchsorted(row, RECALLS - 1e-12) for row in recall])
    reached = place < hit.shape[1]
    values = np.where(reached, np.take_along_axis(precision, np.minimum(place, hit.shape[1] - 1), 1), 0.0)
    return values.mean(1), recall[:, -1]


def greedy_partners(
    truth: metrics.GroundTruth, found: metrics.Detections, schema: KeypointSchema
) -> Int[np.ndarray, " G"]:
    """For each true person the detection that is theirs, -1 for none: the surest detections choose first."""
    row, column = np.nonzero(found.image_ids[:, None] == truth.image_ids[None, ~truth.ignore])
    column = np.flatnonzero(~truth.ignore)[column]
    partner = np.full(len(truth.area), -1)
    if not len(row):
        return partner
    similarity = metrics.oks(
        found.keypoints_xy[row], truth.keypoints_xy[column], truth.visible[column] > 0, truth.area[column], schema
    )
    order = np.lexsort((-similarity, row, -found.scores[row]))
    taken = np.zeros(len(found.scores), bool)
    for at in order[similarity[order] >= FOUND_OKS]:
        if not taken[row[at]] and partner[column[at]] < 0:
            taken[row[at]], partner[column[at]] = True, row[at]
    return partner


def _share(part: np.ndarray, whole: np.ndarray) -> Float[np.ndarray, " N"]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean_by_image(values: Float[np.ndarray, "G k"], image: np.ndarray, count: int) -> Float[np.ndarray, " N"]:
    known = ~np.isnan(values)
    total = np.bincount(image, np.where(known, values, 0).sum(1), minlength=count)
    return _share(total, np.bincount(image, known.sum(1), minlength=count))


def _extents(xy: Float[np.ndarray, "G K 2"]) -> Float[np.ndarray, "G 4"]:
    known = np.isfinite(xy).all(-1, keepdims=True)
    low = np.where(known, xy, np.inf).min(1, initial=np.inf)
    high = np.where(known, xy, -np.inf).max(1, initial=-np.inf)
    there = known.any(1)
    return np.concatenate([np.where(there, low, 0.0), np.where(there, high - low, 0.0)], -1)
