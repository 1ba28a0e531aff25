"""OKS and its suppression: values by hand, refusals by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmkp import metrics
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema

PAIR = KeypointSchema(name="pair", keypoints=("a", "b"), sigmas=(0.05, 0.1))


@pytest.fixture(params=["numpy", "torch"])
def given(request):
    return np.array if request.param == "numpy" else lambda v: torch.from_numpy(np.array(v))


def test_oks_by_hand(given):
    """Area 100, sigmas .05 and .1: d = 1 gives exp(-1 / (2 * 100 * .01)) and exp(-1 / (2 * 100 * .04))."""
    predicted = given([[(1.0, 0), (0, 1)], [(1, 0), (9, 9)], [(np.nan, np.nan), (0, 0)], [(0, 0), (0, 0)]])
    true = given(np.zeros((4, 2, 2)))
    labelled = given([[True, True], [True, False], [True, True], [False, False]])
    found = metrics.oks(predicted, true, labelled, given([100.0] * 4), PAIR)
    a, b = math.exp(-0.5), math.exp(-0.125)
    np.testing.assert_allclose(np.asarray(found), [(a + b) / 2, a, 0.5, np.nan], rtol=1e-12)


def test_oks_of_a_perfect_match_on_no_area_and_of_no_known_area(given):
    same = given(np.zeros((3, 2, 2)))
    found = metrics.oks(same, same, given(np.ones((3, 2), bool)), given([0.0, -1.0, np.nan]), PAIR)
    np.testing.assert_array_equal(np.asarray(found), [1, np.nan, np.nan])


def test_oks_without_sigmas_is_refused_by_the_schemas_name():
    """Seventeen points are not enough to be COCO's."""
    points, body = np.zeros((1, 17, 2)), KeypointSchema(name="mouse", keypoints=tuple("abcdefghijklmnopq"))
    with pytest.raises(InputError, match="OKS with schema mouse: expected sigmas"):
        metrics.oks(points, points, np.ones((1, 17), bool), np.ones(1), body)
    with pytest.raises(InputError, match="OKS: expected sigmas"):
        metrics.oks(points, points, np.ones((1, 17), bool), np.ones(1), None)


@pytest.mark.parametrize(
    ("sigmas", "says"), [((0.1,), "expected 2, one per keypoint"), ((0.1, 0.0), "lengths above 0")]
)
def test_bad_sigmas_are_refused(sigmas, says):
    with pytest.raises(InputError, match=says):
        metrics.oks(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), np.ones((1, 2), bool), np.ones(1), sigmas)


@pytest.mark.parametrize("points", [1, 500])
def test_one_and_five_hundred_points(points):
    xy = np.zeros((2, points, 2))
    found = metrics.oks(xy + [1, 0], xy, np.ones((2, points), bool), np.array([100.0, 400]), [0.05] * points)
    np.testing.assert_allclose(found, [math.exp(-1 / 2), math.exp(-1 / 8)])


def at(*x):
    return np.array([[(v, 0.0), (v, 9.0)] for v in x])


def test_suppression_is_greedy_from_the_best():
    """0 and 1 px apart overlap, 0 and 2 px do not: the middle one falls to the best, and so takes none with it."""
    xy, area = at(2.0, 1.0, 0.0), np.full(3, 100.0)
    assert metrics.oks_nms(xy, np.array([0.1, 0.5, 0.9]), area, PAIR, 0.7).tolist() == [2, 0]
    assert metrics.oks_nms(xy, np.array([0.1, 0.9, 0.5]), area, PAIR, 0.7).tolist() == [1]
    assert metrics.oks_nms(xy, np.array([0.1, 0.9, 0.5]), area, PAIR, 0.99).tolist() == [1, 2, 0]


def test_suppression_keeps_to_its_image_and_to_input_order():
    xy, area = at(0.0, 0.0, 0.0, 50.0), np.full(4, 100.0)
    images = np.array(["b", "a", "b", "b"])
    assert metrics.oks_nms(xy, np.full(4, 0.5), area, PAIR, 0.9, images).tolist() == [1, 0, 3]


def test_suppression_knows_no_overlap_of_points_that_were_not_found():
    xy = at(0.0, 0.0)
    xy[:, 1] = np.nan
    kept = metrics.oks_nms(xy, np.array([0.9, 0.8]), np.full(2, 100.0), PAIR, 0.6)
    assert kept.tolist() == [0, 1]
    assert metrics.oks_nms(xy, np.array([0.9, 0.8]), np.full(2, 100.0), PAIR, 0.4).tolist() == [0]
    assert metrics.oks_nms(xy[:0], np.zeros(0), np.zeros(0), PAIR).tolist() == []


def test_suppression_of_many_images_is_that_of_each(rng):
    images = rng.integers(0, 20, 150)
    xy, scores = rng.uniform(0, 6, (150, 1, 2)) + rng.normal(size=(150, 2, 2)) * 0.3, rng.random(150)
    area = rng.uniform(50, 200, 150)
    together = metrics.oks_nms(xy, scores, area, PAIR, 0.5, images)
    apart = []
    for image in range(20):
        rows = np.flatnonzero(images == image)
        apart += rows[metrics.oks_nms(xy[rows], scores[rows], area[rows], PAIR, 0.5)].tolist()
    assert together.tolist() == apart
    assert 20 < len(apart) < 140
