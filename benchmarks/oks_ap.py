"""COCO keypoint AP: the same figures as pycocotools and faster-coco-eval, and how long each takes.

    pip install pycocotools==2.0.11 faster-coco-eval==1.8.0
    python benchmarks/oks_ap.py [--images 5000] [--keypoints 17] [--repeats 3] [--seed 0]

People and detections are drawn at random: 3 of each per image on average, with crowds, people without a label, misses,
duplicates, and scores rounded so that some are equal. Each evaluator starts from the same parsed JSON and gives its ten
figures ("whole"); "evaluation" leaves out the reading: pycocotools and faster-coco-eval from their indexed objects,
mmkp from its arrays. Times are medians; the repeats of the three take turns. Takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mmkp import metrics

FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
Case = tuple[dict[str, Any], list[dict[str, Any]], np.ndarray]


def draw_case(images: int, keypoints: int, seed: int) -> Case:
    """Ground truth, results and sigmas; as many of each kind as in the description above."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(images), rng.poisson(3, images))
    side = np.exp(rng.uniform(np.log(20), np.log(300), len(people)))
    centre = rng.uniform(0, 640, (len(people), 1, 2))
    xy = centre + rng.uniform(-0.5, 0.5, (len(people), keypoints, 2)) * side[:, None, None]
    visible = rng.integers(0, 3, (len(people), keypoints)) * (rng.random((len(people), 1)) < 0.9)
    crowd = rng.random(len(people)) < 0.02
    annotations = [
        {
            "id": i + 1, "image_id": int(people[i]) + 1, "category_id": 1, "iscrowd": int(crowd[i]),
            "num_keypoints": int((visible[i] > 0).sum()), "area": float(0.5 * side[i] ** 2),
            "bbox": [*(centre[i, 0] - side[i] / 2).tolist(), float(side[i]), float(side[i])],
            "keypoints": _triples(xy[i], visible[i]),
        }
        for i in range(len(people))
    ]  # fmt: skip
    at = rng.choice(len(people), 3 * images)  # some people twice, some never
    spread = rng.choice([0.01, 0.03, 0.06, 0.3], len(at))[:, None, None] * side[at, None, None]
    found = xy[at] + rng.normal(size=xy[at].shape) * spread
    scores = np.round(np.clip(1 - spread[:, 0, 0] / side[at] * 2 + rng.normal(0, 0.2, len(at)), 0, 1), 3)
    results = [
        {
            "image_id": int(people[a]) + 1, "category_id": 1, "score": float(scores[i]),
            "keypoints": _triples(found[i], np.ones(keypoints)),
        }
        for i, a in enumerate(at)
    ]  # fmt: skip
    truth = {
        "info": {}, "images": [{"id": i + 1, "width": 640, "height": 640} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": [str(k) for k in range(keypoints)]}],
    }  # fmt: skip
    return truth, results, rng.uniform(0.025, 0.1, keypoints)


def _triples(xy: np.ndarray, third: np.ndarray) -> list[float]:
    return np.concatenate([xy, third[:, None]], 1).ravel().tolist()


def with_mmkp(truth: dict[str, Any], results: list[Any], sigmas: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Figures, seconds of the whole, seconds of the evaluation."""
    started = time.perf_counter()
    arrays = metrics.read_coco(truth, results)
    read = time.perf_counter()
    figures = metrics.coco_ap(*arrays, sigmas)
    ended = time.perf_counter()
    return np.array([figures[name] for name in FIGURES]), ended - started, ended - read


def with_api(coco: Any, evaluator: Any) -> Callable[..., tuple[np.ndarray, float, float]]:
    """The same for an evaluator with pycocotools' interface."""

    def run(truth: dict[str, Any], results: list[Any], sigmas: np.ndarray) -> tuple[np.ndarray, float, float]:
        started = time.perf_counter()
        gt = coco()
        gt.dataset = truth
        gt.createIndex()
        found = gt.loadRes(results)
        read = time.perf_counter()
        made = evaluator(gt, found, "keypoints")
        made.params.kpt_oks_sigmas = sigmas
        made.evaluate()
        made.accumulate()
        made.summarize()
        ended = time.perf_counter()
        return np.array(made.stats[:10], float), ended - started, ended - read

    return run


def peers() -> dict[str, Callable[..., tuple[np.ndarray, float, float]]]:
    """The evaluators that are installed."""
    found: dict[str, Any] = {}
    with contextlib.suppress(ImportError):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        found["pycocotools"] = with_api(COCO, COCOeval)
    with contextlib.suppress(ImportError):
        import faster_coco_eval

        found["faster-coco-eval"] = with_api(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster)
    return found


def measure(run: Callable[..., Any], case: Case) -> tuple[np.ndarray, float, float]:
    """One run on a fresh copy of the case (the peers write into theirs), silenced."""
    own = copy.deepcopy(case)
    with contextlib.redirect_stdout(io.StringIO()):
        return run(*own)


def main() -> None:
    """Draw, run all in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--keypoints", type=int, default=17)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    case = draw_case(options.images, options.keypoints, options.seed)
    runs = {"mmkp": with_mmkp, **peers()}
    if len(runs) < 3:
        print("not all peers are installed: pip install pycocotools==2.0.11 faster-coco-eval==1.8.0", file=sys.stderr)
    taken: dict[str, list[Any]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            taken[name].append(measure(run, case))
    print(
        f"{options.images} images, {len(case[1])} detections, {len(case[0]['annotations'])} people, "
        f"K = {options.keypoints}"
    )
    print(f"{'':18} {'whole':>8} {'ratio':>7} {'evaluation':>11} {'ratio':>7} {'AP':>10}  largest of ten differences")
    own = np.median([t[1:] for t in taken["mmkp"]], axis=0)
    for name, made in taken.items():
        whole, part = np.median([t[1:] for t in made], axis=0)
        apart = abs(made[0][0] - taken["mmkp"][0][0]).max()
        print(
            f"{name:18} {whole:>6.2f} s {whole / own[0]:>6.1f}x {part:>9.2f} s {part / own[1]:>6.1f}x "
            f"{made[0][0][0]:>10.7f}  {apart:.1e}"
        )


if __name__ == "__main__":
    main()
