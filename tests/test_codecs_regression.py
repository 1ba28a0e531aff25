"""Coordinates about the middle, alone and with their spread, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mmkp.codecs import make_codec
from mmkp.codecs.rle import SIGMA_MIN

BOTH = torch.full((1, 2), 0.5)


def rle_raw(x: float, sigma: float) -> torch.Tensor:
    """(1, 1, 4): the same mean and sigma on both axes."""
    codec = make_codec("rle", (64, 64))
    return codec.from_mean_sigma(torch.full((1, 1, 2), x), torch.full((1, 1, 2), sigma))


@pytest.mark.parametrize("name", ["regression", "rle"])
def test_the_unit_is_the_longer_side_from_the_middle(name):
    codec = make_codec(name, (50, 100))
    points = torch.tensor([[[49.5, 24.5], [99.49, 24.5], [49.5, -0.49], [24.5, 34.5]]])
    expected = torch.tensor([[[0.0, 0.0], [0.4999, 0.0], [0.0, -0.2499], [-0.25, 0.1]]])
    target = codec.encode(points)
    torch.testing.assert_close(target.xy, expected, atol=1e-6, rtol=0)
    assert target.weight.tolist() == [[1, 1, 1, 1]]


def test_plain_coordinates_are_always_sure():
    points, scores = make_codec("regression", (64, 64)).decode(torch.zeros(2, 3, 2))
    assert (scores == 1).all()
    assert (points == 31.5).all()


@pytest.mark.parametrize(("sigma", "score"), [(0.01, 0.99), (0.5, 0.5), (0.9, 0.1)])
def test_score_is_what_sigma_leaves(sigma, score):
    decoded, scores = make_codec("rle", (64, 64)).decode(rle_raw(0.25, sigma))
    assert scores.item() == pytest.approx(score, abs=1e-5)
    assert decoded.flatten().tolist() == [47.5, 47.5]


@pytest.mark.parametrize("logit", [-1e4, -20.0, 0.0, 20.0, 1e4])
def test_sigma_and_score_keep_their_limits(logit):
    codec = make_codec("rle", (64, 64))
    raw = torch.full((1, 1, 4), logit)
    assert codec.sigma(raw).min() >= SIGMA_MIN and codec.sigma(raw).max() <= 1 + 1e-6
    assert 0 <= codec.decode(raw)[1].item() <= 1


def test_product_of_gaussians_weighs_by_precision():
    """Sigmas 0.1 and 0.2: precisions 100 and 25, mean (100 * 0.0 + 25 * 0.1) / 125, variance 1 / 125."""
    codec = make_codec("rle", (64, 64))
    joined = codec.join("product", [rle_raw(0.0, 0.1), rle_raw(0.1, 0.2)], BOTH)
    torch.testing.assert_close(joined[..., :2], torch.full((1, 1, 2), 0.02))
    torch.testing.assert_close(codec.sigma(joined), torch.full((1, 1, 2), math.sqrt(1 / 125)))


def test_average_of_gaussians_has_the_mixtures_moments():
    """Sigmas 0.1 and 0.2, means 0 and 0.1: variance (0.01 + 0.04) / 2 within and 0.05^2 between."""
    codec = make_codec("rle", (64, 64))
    joined = codec.join("average", [rle_raw(0.0, 0.1), rle_raw(0.1, 0.2)], BOTH)
    torch.testing.assert_close(joined[..., :2], torch.full((1, 1, 2), 0.05))
    torch.testing.assert_close(codec.sigma(joined), torch.full((1, 1, 2), math.sqrt(0.0275)))


def test_coordinates_join_as_their_weighted_mean():
    stacked = torch.tensor([0.1, 0.5]).view(1, 2, 1, 1).expand(1, 2, 3, 2)
    joined = make_codec("regression", (64, 64)).join("weighted", stacked.unbind(1), torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(joined, torch.full((1, 3, 2), 0.2))
