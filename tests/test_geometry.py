"""Frames and affines: exact by hand, inverse by property, and true to pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkp import geometry

coordinate = st.floats(-500, 500)


@pytest.mark.parametrize(
    ("stride", "pixel", "cell"), [(1, 7.0, 7.0), (2, 0.5, 0.0), (4, 1.5, 0.0), (4, 5.5, 1.0), (8, 0.0, -0.4375)]
)
def test_a_cell_lies_in_the_middle_of_its_pixels(stride, pixel, cell):
    assert geometry.input_to_grid(np.array([pixel]), stride)[0] == cell
    assert geometry.grid_to_input(np.array([cell]), stride)[0] == pixel


def test_the_whole_picture_fills_an_input_of_its_size_exactly():
    affine = geometry.crop_affine(geometry.whole_image_box((48, 64)), (48, 64))
    np.testing.assert_allclose(affine, geometry.identity(), atol=1e-12)


def test_edges_meet_edges_when_a_picture_is_halved():
    affine = geometry.crop_affine(geometry.whole_image_box((64, 64)), (32, 32))
    corners = np.array([[-0.5, -0.5], [63.5, 63.5], [31.5, 31.5]])
    np.testing.assert_allclose(geometry.transform(corners, affine), [[-0.5, -0.5], [31.5, 31.5], [15.5, 15.5]])


def test_the_aspect_is_kept_and_the_shorter_side_padded():
    affine = geometry.crop_affine(np.array([10.0, 20, 40, 20]), (80, 80))
    np.testing.assert_allclose(affine[:, :2], 2 * np.eye(2))
    np.testing.assert_allclose(geometry.transform(np.array([[30.0, 30.0]]), affine), [[39.5, 39.5]])


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, -1), (0, 0, float("nan"), 5), (float("inf"), 0, 1, 1)])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(ValueError, match="above 0"):
        geometry.crop_affine(np.array(box, dtype=float), (8, 8))


@settings(deadline=None)
@given(st.floats(-180, 180), st.floats(0.2, 5), coordinate, coordinate, st.integers(0, 10_000))
def test_an_affine_and_its_inverse_are_nothing(angle, scale, dx, dy, seed):
    affine = geometry.augment_affine((90, 120), angle, scale, (dx, dy))
    points = np.random.default_rng(seed).uniform(-200, 200, (5, 2))
    back = geometry.transform(geometry.transform(points, affine), geometry.invert(affine))
    np.testing.assert_allclose(back, points, atol=1e-8)
    one_step = geometry.transform(points, geometry.compose(geometry.invert(affine), affine))
    np.testing.assert_allclose(one_step, points, atol=1e-8)


def test_a_turn_is_clockwise_on_the_screen_about_the_middle():
    affine = geometry.augment_affine((101, 101), rotation_deg=90.0)
    np.testing.assert_allclose(
        geometry.transform(np.array([[100.0, 50.0], [50, 50]]), affine), [[50, 100], [50, 50]], atol=1e-9
    )


def test_numpy_and_torch_agree_in_batches():
    rng = np.random.default_rng(0)
    affine = np.stack([geometry.augment_affine((50, 50), a, s) for a, s in rng.uniform(0.5, 3, (4, 2))])
    points = rng.uniform(0, 50, (4, 7, 2))
    for function in (geometry.transform, geometry.input_to_image):
        expected = function(points, affine)
        found = function(torch.from_numpy(points), torch.from_numpy(affine))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_an_affine_without_inverse_is_refused():
    with pytest.raises(ValueError, match="determinant 0"):
        geometry.invert(np.zeros((2, 3)))


@pytest.mark.parametrize("side", [256, 128, 64, 32, 16])
def test_a_blob_lands_where_the_affine_says(side):
    """Warped to any size, shrunk up to sixteenfold, the middle of a blob moves with its point to a few hundredths."""
    y, x = np.mgrid[:256, :256]
    at = np.array([140.3, 97.6])
    blob = 250 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 20.0**2))
    image = np.repeat(blob[..., None], 3, -1).astype(np.uint8)
    affine = geometry.crop_affine(geometry.whole_image_box((256, 256)), (side, side))
    warped = geometry.warp(image, affine, (side, side))[..., 0].astype(float)
    rows, columns = np.mgrid[:side, :side]
    centre = np.array([(warped * columns).sum(), (warped * rows).sum()]) / warped.sum()
    np.testing.assert_allclose(centre, geometry.transform(at[None], affine)[0], atol=0.06)


def test_shrinking_averages_instead_of_skipping():
    """A fine chessboard becomes grey; picking single pixels would leave black or white."""
    image = np.repeat(((np.indices((256, 256)).sum(0) % 2) * 255).astype(np.uint8)[..., None], 3, -1)
    affine = geometry.crop_affine(geometry.whole_image_box((256, 256)), (32, 32))
    assert np.abs(geometry.warp(image, affine, (32, 32)).astype(int) - 127).max() <= 2
