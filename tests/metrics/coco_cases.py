"""Random COCO ground truth and results, and pycocotools' figures for them."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np

NAMES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def random_case(
    rng: np.random.Generator, images: int, keypoints: int, per_image: tuple[float, float], kind: str = ""
) -> tuple[dict[str, Any], list[dict[str, Any]], np.ndarray]:
    """Ground truth, results, sigmas; images out of order, objects of all areas, crowds, people without a label.

    Args:
        per_image: objects and detections of an image on average.
        kind: what is special: `ties`, `nan`, `boxes`, `doubled` people (equally similar to what is found).
    """
    ids = [int(i) for i in rng.permutation(3 * images)[:images]]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in ids:
        people = [_person(rng, image, keypoints) for _ in range(rng.poisson(per_image[0]))]
        if kind == "doubled":
            people += copy.deepcopy(people)
        for person in people:
            annotations.append({**person, "id": len(annotations) + 1})
        results += [_found(rng, image, people, keypoints, kind) for _ in range(rng.poisson(per_image[1]))]
    names = [f"point_{k}" for k in range(keypoints)]
    truth = {
        "info": {}, "images": [{"id": i} for i in ids], "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    }  # fmt: skip
    return truth, results, rng.uniform(0.02, 0.1, keypoints)


def _person(rng: np.random.Generator, image: int, keypoints: int) -> dict[str, Any]:
    side, centre = np.exp(rng.uniform(np.log(15), np.log(300))), rng.uniform(0, 640, 2)
    visible = rng.integers(0, 3, keypoints) * (rng.random() > 0.15)
    xy = (centre + rng.uniform(-0.5, 0.5, (keypoints, 2)) * side) * (visible > 0)[:, None]
    return {
        "image_id": image, "category_id": 1, "area": float(side**2 * rng.uniform(0.3, 1)),
        "bbox": [*(centre - side / 2).tolist(), side, side], "iscrowd": int(rng.random() < 0.1),
        "num_keypoints": int((visible > 0).sum()), "keypoints": np.c_[xy, visible].ravel().tolist(),
    }  # fmt: skip


def _found(rng: np.random.Generator, image: int, people: list[Any], keypoints: int, kind: str) -> dict[str, Any]:
    if people and rng.random() < 0.8:
        person = people[rng.integers(len(people))]
        spread = person["bbox"][2] * rng.choice([0, 0.02, 0.06, 0.15])
        xy = np.reshape(person["keypoints"], (-1, 3))[:, :2] + rng.normal(size=(keypoints, 2)) * spread
    else:
        xy = rng.uniform(0, 640, 2) + rng.uniform(-0.5, 0.5, (keypoints, 2)) * rng.uniform(10, 300)
    score = round(rng.random(), 1) if kind == "ties" else rng.random()
    if kind == "nan" and rng.random() < 0.2:
        score = float("nan")
    made = {
        "image_id": image,
        "category_id": 1,
        "score": score,
        "keypoints": np.c_[xy, xy[:, 0] * 0 + 1].ravel().tolist(),
    }
    return made | ({"bbox": [0.0, 0.0, *rng.uniform(10, 200, 2).tolist()]} if kind == "boxes" else {})


def pycocotools_figures(truth: dict[str, Any], results: list[Any], sigmas: np.ndarray) -> dict[str, float]:
    """The ten figures, by name."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        gt, found = COCO(), COCO()
        gt.dataset = copy.deepcopy(truth)
        gt.createIndex()
        if results:
            found = gt.loadRes(copy.deepcopy(results))
        else:
            found.dataset = {**copy.deepcopy(truth), "annotations": []}
            found.createIndex()
        made = COCOeval(gt, found, "keypoints")
        made.params.kpt_oks_sigmas = sigmas
        made.evaluate()
        made.accumulate()
        made.summarize()
    return dict(zip(NAMES, map(float, made.stats), strict=True))
