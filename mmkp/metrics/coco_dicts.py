"""COCO's own JSON, as parsed, to the arrays that `coco_ap` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mmkp.errors import InputError
from mmkp.metrics.coco import Detections, GroundTruth

Row = Mapping[str, Any]


def read_coco(
    ground_truth: Mapping[str, Any], results: Sequence[Row], category_id: int | None = None
) -> tuple[GroundTruth, Detections]:
    """Ground truth and results of one category.

    Args:
        ground_truth: the annotation file's content: `images`, `annotations`, `categories`. As in pycocotools an
            object is ignored if it is a crowd or has `num_keypoints` 0; a field `ignore` is not looked at.
        results: the result file's content: `image_id`, `keypoints` (3 K numbers), `score`, and, if the first has one,
            `bbox`, whose area then sorts them into bins (else the keypoints' extent does).
        category_id: needed where the ground truth has objects of more than one.

    Raises:
        InputError: several categories, a missing key, keypoints of differing number, a result on an unknown image.
    """
    objects = list(ground_truth.get("annotations", []))
    kinds = {a.get("category_id") for a in objects}
    if category_id is None and len(kinds) > 1:
        raise InputError("read_coco", expected="category_id", got=f"objects of categories {sorted(kinds, key=str)}")
    if category_id is not None:
        objects = [a for a in objects if a.get("category_id") == category_id]
        results = [r for r in results if r.get("category_id", category_id) == category_id]
    known = {i["id"] for i in ground_truth.get("images", [])}
    strange = {r["image_id"] for r in results if "image_id" in r} - known
    if strange:
        raise InputError(
            "results", expected="image ids of the ground truth", got=f"{min(strange)} ({len(strange)} in all)"
        )
    points = _number_of_keypoints(ground_truth, objects, results, category_id)
    truth_points = _keypoints(objects, points, "annotation")
    truth = GroundTruth(
        image_ids=_column(objects, "image_id", "annotation", None),
        keypoints_xy=truth_points[..., :2],
        visible=truth_points[..., 2],
        area=_column(objects, "area", "annotation", float),
        box_xywh=_column(objects, "bbox", "annotation", float).reshape(-1, 4),
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in objects], bool),
        ignore=_column(objects, "num_keypoints", "annotation", float) == 0,
    )
    has_boxes = bool(results) and bool(results[0].get("bbox"))
    boxes = _column(results, "bbox", "result", float) if has_boxes else None
    found = Detections(
        image_ids=_column(results, "image_id", "result", None),
        keypoints_xy=_keypoints(results, points, "result")[..., :2],
        scores=_column(results, "score", "result", float),
        area=None if boxes is None else boxes[:, 2] * boxes[:, 3],
    )
    return truth, found


def _number_of_keypoints(truth: Mapping[str, Any], objects: Any, results: Any, category_id: int | None) -> int:
    for row in (*objects[:1], *results[:1]):
        if "keypoints" in row:
            return len(row["keypoints"]) // 3
    names = [len(c.get("keypoints", ())) for c in truth.get("categories", []) if category_id in (None, c["id"])]
    return max(names, default=0)


def _keypoints(rows: Sequence[Row], points: int, kind: str) -> np.ndarray:
    lengths = np.array([len(r.get("keypoints", ())) for r in rows], int)
    wrong = np.flatnonzero(lengths != 3 * points)
    if len(wrong):
        at = int(wrong[0])
        raise InputError(f"{kind} {at}", expected=f"keypoints of {3 * points} numbers", got=str(lengths[at]))
    numbers = chain.from_iterable(r["keypoints"] for r in rows)
    return np.fromiter(numbers, float, len(rows) * points * 3).reshape(len(rows), points, 3)


def _column(rows: Sequence[Row], key: str, kind: str, dtype: Any) -> np.ndarray:
    missing = [i for i, r in enumerate(rows) if key not in r]
    if missing:
        raise InputError(f"{kind} {missing[0]}", expected=f"the key {key!r}", got=f"{len(missing)} without it")
    values = [r[key] for r in rows]
    return np.array(values, dtype) if rows else np.zeros(0, dtype or int)
