"""Shapes against the mean shape: what is swapped, what is far off, and what is neither."""

from __future__ import annotations

import numpy as np
import pytest
from broken import FACE5, FRONTAL, table_of

from mmkp.data.check.probe import Probes
from mmkp.data.check.run import judge, number_of
from mmkp.data.check.shapes import align, complex_points, fit_shapes, outliers, swapped
from mmkp.schema import load_schema

# A person who stands and faces the camera, coco17, px.
PERSON = np.array([
    [50, 10], [54, 7], [46, 7], [59, 9], [41, 9], [68, 30], [32, 30], [75, 55], [25, 55], [78, 80], [22, 80],
    [61, 85], [39, 85], [62, 120], [38, 120], [63, 155], [37, 155],
], dtype=np.float64)  # fmt: skip


def seen(shape: np.ndarray, count: int, noise: float, seed: int = 0) -> np.ndarray:
    """(N, K, 2): the shape turned, scaled and shifted at random, with noise in its own px."""
    rng = np.random.default_rng(seed)
    points = shape + rng.normal(0, noise, (count, *shape.shape))
    angle, scale = rng.uniform(-0.6, 0.6, count), rng.uniform(0.3, 3, count)
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], -2)
    return scale[:, None, None] * points @ turn.swapaxes(1, 2) + rng.uniform(0, 500, (count, 1, 2))


def kinds(points: np.ndarray, schema: str = "face5") -> dict[str, list[int]]:
    """Rows (from 0) of each kind of finding."""
    table = table_of(points, schema)
    made: dict[str, list[int]] = {}
    for finding in judge(table, [number_of(r, i) for i, r in enumerate(table.rows)], Probes()):
        made.setdefault(finding.kind, []).append(finding.row - 1)
    return made


def test_a_similarity_is_undone_exactly():
    mean = complex_points(table_of(FRONTAL[None]).rows)[0]
    points = mean[None] * (3 * np.exp(0.4j)) + (7 - 2j)
    points[0, 2] = np.nan
    aligned = align(points, mean)
    known = np.isfinite(points[0])
    np.testing.assert_allclose(aligned[0, known], mean[known], atol=1e-9)
    assert np.isnan(aligned[0, 2])


def test_a_far_point_does_not_drag_the_others_along():
    mean = complex_points(table_of(PERSON[None], "coco17").rows)[0]
    points = mean[None].copy()
    points[0, 4] += 500
    distance = np.abs(align(points, mean) - mean)[0]
    assert distance[4] == pytest.approx(500, rel=0.01)
    assert np.delete(distance, 4).max() < 1


@pytest.mark.parametrize(("shape", "schema", "noise"), [(FRONTAL, "face5", 1.5), (PERSON, "coco17", 3.0)])
def test_clean_shapes_have_no_findings(shape, schema, noise):
    assert kinds(seen(shape, 300, noise), schema) == {}


@pytest.mark.parametrize(("shape", "schema", "noise"), [(FRONTAL, "face5", 1.5), (PERSON, "coco17", 3.0)])
def test_rows_with_left_and_right_exchanged_are_named_and_no_others(shape, schema, noise):
    points = seen(shape, 100, noise)
    wrong = [3, 40, 77]
    points[wrong] = points[wrong][:, load_schema(schema).flip_index]
    assert kinds(points, schema) == {"left right swapped": wrong}


def test_one_swapped_pair_among_others_is_told_by_symmetric_distances():
    points = seen(PERSON, 100, 2.0)
    points[12, [5, 6]] = points[12, [6, 5]]  # the shoulders alone
    table = table_of(points, "coco17")
    numbers = range(1, 101)
    found = [f for f in judge(table, list(numbers), Probes()) if f.kind == "left right swapped"]
    assert [(f.row, f.message) for f in found] == [(13, "only some pairs: left_shoulder / right_shoulder")]


def test_many_swapped_rows_put_the_mean_itself_in_doubt():
    points = seen(FRONTAL, 100, 1.0)
    points[:30] = points[:30][:, FACE5.flip_index]
    table = table_of(points)
    found = [f for f in judge(table, list(range(1, 101)), Probes()) if f.kind == "left right swapped"]
    assert [f.row for f in found] == list(range(1, 31))
    assert all("30 of 100 rows" in f.message for f in found)


def test_outliers_are_named_with_their_furthest_point():
    points = seen(PERSON, 200, 2.0)
    points[9, 10] += 400
    table = table_of(points, "coco17")
    found = [f for f in judge(table, list(range(1, 201)), Probes()) if f.kind == "shape outlier"]
    assert [f.row for f in found] == [10]
    assert found[0].message.endswith("furthest: right_wrist")


def test_points_in_one_place_are_an_outlier_and_profiles_are_not_swapped():
    points = seen(FRONTAL, 100, 1.0)
    points[5] = points[5, 0]
    points[6] = FRONTAL * [0.05, 1.0]  # seen from the side: left and right nearly fall together
    made = kinds(points)
    assert 5 in made["shape outlier"]
    assert "left right swapped" not in made


def test_unlabelled_points_are_left_out_and_few_rows_judge_nothing():
    points = seen(FRONTAL, 60, 1.0)
    points[::3, 1] = np.nan
    points[7, :3] = np.nan
    assert kinds(points) == {}
    few = seen(FRONTAL, 10, 1.0)
    few[2] = few[2][FACE5.flip_index]
    assert kinds(few) == {}


def test_labels_at_any_size_or_place_are_fitted_alike():
    points = complex_points(table_of(seen(FRONTAL, 50, 1.0)).rows)
    one, other = (fit_shapes(p, FACE5.flip_index) for p in (points, points * 1000j + 5e4))
    np.testing.assert_allclose(one.residual, other.residual, rtol=1e-6)
    assert not outliers(one).any()
    assert not swapped(one).any()
