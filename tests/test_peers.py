"""The parts of the peers' comparison that are pure functions: pictures handed over, and conventions corrected."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mmkp import geometry
from mmkp.data.sample import Sample

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks" / "peers"))

import convention
import jobs
from views import View, reduced, show

BENCHMARKS = Path(jobs.__file__).parent.parent


def sample() -> Sample:
    """A white dot of 4x4 px about (41.5, 29.5) on black, in a box."""
    image = np.zeros((70, 90, 3), np.uint8)
    image[28:32, 40:44] = 255
    points = np.full((68, 2), [41.5, 29.5], np.float32)
    return Sample("a", "a", points, np.full(68, 2, np.uint8), np.array([20.0, 10.0, 40.0, 40.0]), image)


@pytest.mark.parametrize(
    "view", [View(), View(0, 270), View(1.0, 120), View(1.5, 256), View(1.5, 20), View(1.2, 200, input_px=64)]
)
def test_points_found_in_a_view_come_back_to_the_image(view: View) -> None:
    shown = show([sample()], view)
    weight = shown.pictures[0][..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    seen = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    assert shown.back(seen[None, None])[0, 0] == pytest.approx([41.5, 29.5], abs=0.15)


@pytest.mark.parametrize("view", [View(), View(0, 270), View(1.5, 256), View(1.2, 200, input_px=64)])
def test_the_box_in_a_view_is_the_box_of_the_image(view: View) -> None:
    shown = show([sample()], view)
    x, y, width, height = shown.boxes_xywh[0]
    corners = shown.back(np.array([[[x, y], [x + width, y + height]]]))[0]
    assert corners == pytest.approx(np.array([[20.0, 10.0], [60.0, 50.0]]))


def test_a_reduced_sample_is_its_box_alone() -> None:
    small = reduced(sample(), 64)
    assert small.image is not None and small.image.shape == (64, 64, 3)
    # 40 px become 64: (41.5 - 20) * 1.6 - 0.5, (29.5 - 10) * 1.6 - 0.5
    assert small.keypoints_xy[0] == pytest.approx([33.9, 30.7], abs=1e-4)
    assert small.box_xywh == pytest.approx([-0.5, -0.5, 64, 64])


def faces(count: int, seed: int) -> np.ndarray:
    """Shapes of 68 points with the eyes apart, anywhere, at any roll."""
    rng = np.random.default_rng(seed)
    plane = rng.normal(0, 0.3, (1, 68, 2)) + rng.normal(0, 0.02, (count, 68, 2))
    plane = plane[..., 0] + 1j * plane[..., 1]
    plane[:, convention.RIGHT_CORNER], plane[:, convention.LEFT_CORNER] = -0.5, 0.5
    turned = plane * (30 * np.exp(1j * rng.uniform(-0.5, 0.5, (count, 1)))) + 100 + 80j
    return np.stack([turned.real, turned.imag], -1)


def test_a_convention_that_is_affine_is_undone_on_other_faces() -> None:
    told, others = faces(40, 0), faces(10, 1)
    maps = np.zeros((68, 3, 2)) + np.array([[1.1, 0.1], [-0.05, 0.95], [0.02, -0.03]])

    def labels(points: np.ndarray) -> np.ndarray:
        return convention.apply(maps, points)

    told[3] = np.nan  # a face that was missed
    assert convention.apply(convention.fit(told, labels(told)), others) == pytest.approx(labels(others), abs=1e-6)


def test_gross_errors_do_not_decide_the_convention() -> None:
    told = faces(40, 0)
    labels = told.copy()
    labels[5] += 100
    assert convention.apply(convention.fit(told, labels), told) == pytest.approx(told, abs=1e-6)


def test_a_miss_stays_a_miss() -> None:
    told = faces(40, 0)
    maps = convention.fit(told, told)
    told[0] = np.nan
    assert np.isnan(convention.apply(maps, told)[0]).all()


def test_a_job_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in ((3, 5), (4, 2))]
    boxes = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
    jobs.write_job(tmp_path / "job.npz", jobs.Job(pictures, boxes, np.array([True, False])))
    back = jobs.read_job(tmp_path / "job.npz")
    for written, read in zip(pictures, back.pictures, strict=True):
        np.testing.assert_array_equal(read, written)
    np.testing.assert_array_equal(back.boxes_xywh, boxes)
    np.testing.assert_array_equal(back.begins, [True, False])


def test_the_centre_of_the_top_left_pixel_is_the_origin_of_a_whole_view() -> None:
    shown = show([sample()], View(0, 270))  # three times as large: (0, 0) of the view is (-1/3, -1/3) of the image
    back = shown.back(np.zeros((1, 1, 2)))[0, 0]
    assert back == pytest.approx([-1 / 3, -1 / 3])
    assert geometry.transform(np.zeros((1, 2)), shown.affines[0])[0] == pytest.approx([1.0, 1.0])


def test_a_taught_face_is_the_median_of_the_views_and_a_disputed_one_is_left_out(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import teach_faces

    points = np.random.default_rng(0).uniform(20, 80, (4, 68, 2))
    points[:, 36], points[:, 45] = (30, 40), (70, 40)  # the outer corners: 40 px apart
    moves = iter([0.0, 1.0, -1.0, 0.4])

    class Views:
        def peer(self, name, data, view):
            move = next(moves)
            said = points + move
            said[1] += 30 * move  # a face on which the views do not agree
            said[2] = np.nan if move else said[2]  # found by one view only
            said[3] = np.nan if move == 0.4 else said[3]  # missed by one
            return said

    made = teach_faces.labels_of(Views(), None)
    np.testing.assert_allclose(made[0], points[0] + 0.2)  # between 0 and 0.4
    assert np.isnan(made[1:3]).all()
    np.testing.assert_allclose(made[3], points[3])
