"""COCO AP against pycocotools, the published case, and cases small enough to do by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from coco_cases import NAMES, pycocotools_figures, random_case

from mmkp import metrics
from mmkp.errors import InputError

OFFICIAL = Path(__file__).parents[3] / "shared" / "data" / "official_formats" / "coco" / "test_coco.json"
COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
SIGMAS = np.array([0.05, 0.05])
ONE = pytest.approx(1.0, abs=1e-12)  # precision is n / (n + 2e-16) here as in pycocotools


def figures(truth, results, sigmas, **options):
    return metrics.coco_ap(*metrics.read_coco(truth, results), sigmas, **options)


@pytest.mark.filterwarnings("ignore:.*NaN scores")
@pytest.mark.parametrize("kind", ["", "ties", "nan", "boxes", "doubled"])
@pytest.mark.parametrize("keypoints", [1, 2, 17, 133])
@pytest.mark.parametrize("per_image", [(3, 4), (0.5, 1), (0, 2), (2, 0), (9, 30)], ids=str)
def test_equal_to_pycocotools(kind, keypoints, per_image):
    """Also with empty images, no objects, no detections, and more than 20 detections in an image."""
    pytest.importorskip("pycocotools", reason="pip install 'mmkp[test]'")
    rng = np.random.default_rng([keypoints, int(10 * sum(per_image))])
    case = random_case(rng, 6, keypoints, per_image, kind)
    assert figures(*case) == pytest.approx(pycocotools_figures(*case), abs=1e-9)


def test_equal_to_pycocotools_over_many_images(rng):
    pytest.importorskip("pycocotools", reason="pip install 'mmkp[test]'")
    case = random_case(rng, 250, 5, (3, 3))
    found = figures(*case)
    assert found == pytest.approx(pycocotools_figures(*case), abs=1e-9)
    assert 0.05 < found["AP"] < 0.95


@pytest.fixture(scope="module")
def official():
    if not OFFICIAL.is_file():
        pytest.skip(f"needs {OFFICIAL.name}, COCO's own sample, which is not part of this repository")
    return json.loads(OFFICIAL.read_text())


def changed(official, score):
    """x * .98, y * 1.02, v * .8; scored by (box score .98, v)."""
    results = []
    for annotation in official["annotations"]:
        points = np.reshape(annotation["keypoints"], (-1, 3)) * [0.98, 1.02, 0.8]
        made = {"image_id": annotation["image_id"], "category_id": 1, "keypoints": points.ravel().tolist()}
        results.append({**made, "score": score(0.98, points[:, 2])})
    return results


def box_times_mean(box, v):
    """Without the last bits, which would order people whose points are all visible by their number of points."""
    return round(float(box * v[v > 0.2].mean()), 9) if (v > 0.2).any() else 0.0


def test_the_published_case_in_nms_order(official):
    """Equal scores in the published run stand in reversed order: its suppression sorts ascending and turns round."""
    backwards = changed(official, box_times_mean)[::-1]
    xy = np.array([np.reshape(r["keypoints"], (-1, 3))[:, :2] for r in backwards])
    scores = np.array([r["score"] for r in backwards])
    image_ids = np.array([r["image_id"] for r in backwards])
    kept = metrics.oks_nms(xy, scores, np.prod(np.ptp(xy, axis=1), axis=-1), COCO_SIGMAS, 0.9, image_ids)
    assert len(kept) == 14
    found = figures(official, [backwards[i] for i in kept], COCO_SIGMAS)
    assert found["AP"] == pytest.approx(0.5287458745874587, abs=1e-12)
    wanted = [0.5287459, 0.9042904, 0.5009901, 0.4247525, 0.6219554, 0.5833333, 0.9166667, 0.5833333, 0.44, 0.6857143]
    assert found == pytest.approx(dict(zip(NAMES, wanted, strict=True)), abs=1e-7)


def test_the_published_case_in_file_order(official):
    """The order of equal scores alone is worth .0016."""
    assert figures(official, changed(official, box_times_mean), COCO_SIGMAS)["AP"] == pytest.approx(0.52719, abs=1e-5)


def test_the_published_case_with_another_score(official):
    """As float64 computes it: three pairs of equal scores, in two images each, are parted by their last bit."""
    found = figures(official, changed(official, lambda box, v: float(box + v.mean() + v.max())), COCO_SIGMAS)
    wanted = {"AP": 0.5004950495, "AP50": 0.8836634, "AP75": 0.4679868}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-7)
    assert found["AP"] == pytest.approx(0.5004950495, abs=1e-10)


def test_the_ground_truth_as_prediction(official):
    people = [{**a, "score": 1.0} for a in official["annotations"] if a["num_keypoints"]]
    assert len(people) == 12
    assert figures(official, people, COCO_SIGMAS) == pytest.approx(dict.fromkeys(NAMES, 1.0), abs=1e-12)


def person(image, x, side=100.0, visible=2, **more):
    """Two points at (x, 0) and (x, 10)."""
    keypoints = [x, 0.0, visible, x, 10.0, visible]
    base = {"image_id": image, "category_id": 1, "keypoints": keypoints, "num_keypoints": 2 * (visible > 0)}
    return {**base, "area": side**2, "bbox": [x - side / 2, -side / 2, side, side], "iscrowd": 0, **more}


def detection(image, x, score):
    return {"image_id": image, "category_id": 1, "keypoints": [x, 0.0, 1, x, 10.0, 1], "score": score}


def scene(*people):
    category = {"id": 1, "name": "rod", "keypoints": ["a", "b"]}
    return {"images": [{"id": 1}, {"id": 2}], "annotations": list(people), "categories": [category]}


def test_half_found_with_a_false_alarm_on_top_by_hand():
    """Ranked: wrong, right; one of two people found. Precision 1/2 up to recall 1/2, that is at 51 of 101 recalls."""
    found = figures(scene(person(1, 0), person(1, 900)), [detection(2, 5, 0.9), detection(1, 0, 0.8)], SIGMAS)
    assert found["AP"] == pytest.approx(51 / 101 / 2)
    assert found["AR"] == 0.5


def test_bins_without_an_object_are_minus_one_and_never_nan():
    found = figures(scene(person(1, 0, side=100.0)), [detection(1, 0, 0.9)], SIGMAS)
    assert found == pytest.approx({**dict.fromkeys(NAMES, 1.0), "APM": -1.0, "ARM": -1.0}, abs=1e-12)
    assert figures(scene(), [detection(1, 0, 0.9)], SIGMAS) == dict.fromkeys(NAMES, -1.0)
    assert figures(scene(), [], SIGMAS) == dict.fromkeys(NAMES, -1.0)
    assert figures(scene(person(1, 0)), [], SIGMAS)["AP"] == 0.0


def test_who_is_ignored_counts_neither_way():
    """Detections of an unlabelled person and, twice, of a crowd, all above the right one: no false alarms."""
    truth = scene(person(1, 0), person(1, 900, visible=0), person(2, 0, iscrowd=1))
    results = [detection(1, 900, 0.9), detection(2, 0, 0.8), detection(2, 0, 0.7), detection(1, 0, 0.1)]
    assert figures(truth, results, SIGMAS)["AP"] == ONE
    alone = scene(person(1, 0), person(2, 0, num_keypoints=0))
    assert figures(alone, results[1:], SIGMAS)["AP"] == pytest.approx(0.5)  # the second taker of no crowd is wrong


def test_only_the_best_of_an_image_count():
    truth = scene(person(1, 0))
    results = [*(detection(1, 900, 0.9) for _ in range(20)), detection(1, 0, 0.1)]
    assert figures(truth, results, SIGMAS)["AR"] == 0.0
    assert figures(truth, results, SIGMAS, max_detections=21)["AP"] == pytest.approx(1 / 21)


def test_equal_scores_rank_by_image_and_then_by_row():
    wrong, right = detection(2, 900, 0.5), detection(1, 0, 0.5)
    assert figures(scene(person(1, 0)), [wrong, right], SIGMAS)["AP"] == ONE
    assert figures(scene(person(2, 0)), [wrong, detection(2, 0, 0.5)], SIGMAS)["AP"] == pytest.approx(0.5)


def test_a_nan_score_counts_below_every_number_and_warns():
    with pytest.warns(UserWarning, match="1 NaN scores"):
        found = figures(scene(person(1, 0)), [detection(1, 900, float("nan")), detection(1, 0, -1e9)], SIGMAS)
    assert found["AP"] == ONE


def test_a_nan_keypoint_is_a_miss_of_that_point():
    """One of two points: OKS .5 exactly, which is a hit at the first of ten thresholds alone."""
    results = [{**detection(1, 0, 1.0), "keypoints": [0.0, 0.0, 1, float("nan"), float("nan"), 1]}]
    found = figures(scene(person(1, 0)), results, SIGMAS)
    assert (found["AP50"], found["AP75"], found["AR"]) == (ONE, 0.0, pytest.approx(0.1))


def test_an_object_with_the_id_0_is_one_like_any_other():
    assert figures(scene(person(1, 0, id=0)), [detection(1, 0, 1.0)], SIGMAS)["AP"] == ONE


def test_arrays_tensors_and_words_as_ids_give_the_same(rng):
    truth, found = metrics.read_coco(*(case := random_case(rng, 8, 3, (3, 4)))[:2])
    wanted = metrics.coco_ap(truth, found, case[2])
    tensors = metrics.coco_ap(
        metrics.GroundTruth(**{k: torch.from_numpy(v) for k, v in vars(truth).items()}),
        metrics.Detections(**{k: torch.from_numpy(v) for k, v in vars(found).items()}),
        torch.from_numpy(case[2]),
    )
    assert tensors == wanted
    words = [{**vars(t), "image_ids": np.char.zfill(t.image_ids.astype(str), 3)} for t in (truth, found)]
    assert metrics.coco_ap(metrics.GroundTruth(**words[0]), metrics.Detections(**words[1]), case[2]) == wanted
    with pytest.raises(InputError, match="numbers and words"):
        metrics.coco_ap(truth, metrics.Detections(**words[1]), case[2])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"visible": np.ones((2, 3))}, r"keypoints_xy: expected \(rows, K, 2\)"),
        ({"area": np.ones(3)}, "equally many rows"),
        ({"area": np.array([1, -1.0])}, "GroundTruth.area: expected numbers of at least 0, got row 1"),
        ({"keypoints_xy": np.full((2, 2, 2), np.nan)}, "GroundTruth.keypoints_xy: expected numbers where labelled"),
        ({"box_xywh": np.zeros((2, 3))}, r"GroundTruth.box_xywh: expected \(rows, 4\)"),
    ],
)
def test_bad_ground_truth_is_refused(change, says):
    good = {
        "image_ids": [1, 1], "keypoints_xy": np.zeros((2, 2, 2)), "visible": np.ones((2, 2)), "area": np.ones(2),
        "box_xywh": np.zeros((2, 4)),
    }  # fmt: skip
    assert metrics.GroundTruth(**good).ignore.tolist() == [False, False]
    with pytest.raises(InputError, match=says):
        metrics.GroundTruth(**{**good, **change})


@pytest.mark.parametrize(
    ("truth", "results", "says"),
    [
        (scene(person(1, 0)), [detection(7, 0, 1.0)], "expected image ids of the ground truth, got 7"),
        (scene(person(1, 0), person(1, 0, category_id=2)), [], r"categories \[1, 2\]"),
        (scene(person(1, 0)), [detection(1, 0, 1.0), {**detection(1, 0, 1.0), "keypoints": [0.0]}], "result 1"),
        (scene(person(1, 0)), [{"image_id": 1, "keypoints": [0.0] * 6}], "expected the key 'score'"),
        (scene({k: v for k, v in person(1, 0).items() if k != "area"}), [], "annotation 0: expected the key 'area'"),
    ],
)
def test_bad_files_are_refused(truth, results, says):
    with pytest.raises(InputError, match=says):
        metrics.read_coco(truth, results)


def test_one_category_of_several():
    truth = scene(person(1, 0), person(1, 900, category_id=2))
    one = metrics.coco_ap(*metrics.read_coco(truth, [detection(1, 0, 1.0)], category_id=1), SIGMAS)
    assert one["AP"] == ONE


def test_another_k_in_the_detections_is_refused():
    truth, _ = metrics.read_coco(scene(person(1, 0)), [])
    found = metrics.Detections([1], np.zeros((1, 3, 2)), [1.0])
    with pytest.raises(InputError, match="expected K = 2"):
        metrics.coco_ap(truth, found, SIGMAS)
