"""The heatmap codec on points between the cells: a fault of half a pixel cannot hide at these tolerances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkp import losses
from mmkp.codecs import make_codec
from mmkp.errors import InputError

SIDE = 128


def random_points(stride: int, sigma: float, count: int = 400) -> torch.Tensor:
    """Points at least 4 sigma from the border, where the codec promises its resolution."""
    margin = 4 * sigma * stride + stride
    points = np.random.default_rng(0).uniform(margin, SIDE - 1 - margin, (1, count, 2))
    return torch.from_numpy(points).float()


@pytest.mark.parametrize("decode_by", ["soft_argmax", "dark"])
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_decode_of_encode_is_the_point(stride, decode_by):
    codec = make_codec("heatmap", (SIDE, SIDE), stride=stride, decode_by=decode_by)
    points = random_points(stride, codec.sigma_grid)
    decoded, scores = codec.decode(codec.encode(points).heatmap().clamp_min(1e-30).log())
    error = decoded - points
    assert error.mean(dim=1).abs().max() < 0.02  # bias, px of the input
    assert error.abs().max() < codec.resolution_px
    assert scores.min() > 0.95


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_whole_way_puts_the_middle_of_the_input_at_the_middle(stride):
    codec = make_codec("heatmap", (SIDE, SIDE), stride=stride)
    uniform = torch.zeros(1, 1, SIDE // stride, SIDE // stride)
    decoded, _ = codec.decode(uniform)
    np.testing.assert_allclose(decoded.numpy(), np.full((1, 1, 2), (SIDE - 1) / 2), atol=1e-4)


def test_dark_is_exact_where_soft_argmax_is_pulled_to_the_middle():
    """Beside the border a Gaussian is cut off: its mean moves inwards, its peak does not."""
    point = torch.tensor([[[3.7, 61.2]]])
    maps = {d: make_codec("heatmap", (SIDE, SIDE), stride=4, decode_by=d) for d in ("soft_argmax", "dark")}
    errors = {d: (c.decode(c.encode(point).heatmap().log())[0] - point).abs().max() for d, c in maps.items()}
    assert errors["dark"] < 0.02 < 1 < errors["soft_argmax"]


def test_unlabelled_nan_and_outside_points_have_no_weight():
    codec = make_codec("heatmap", (SIDE, SIDE))
    points = torch.tensor([[[10.0, 10.0], [float("nan"), 5.0], [-3.0, 5.0], [5.0, 128.0], [20.0, 20.0]]])
    target = codec.encode(points, torch.tensor([[True, True, True, True, False]]))
    assert target.weight.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]
    assert torch.isfinite(target.heatmap()).all()
    torch.testing.assert_close(target.heatmap().sum((-1, -2)), torch.ones(1, 5))


def test_score_falls_as_the_heatmap_spreads():
    scores = []
    for sigma in (1.25, 2.5, 5.0, 20.0):
        wide = make_codec("heatmap", (SIDE, SIDE), sigma_grid=sigma)
        maps = wide.encode(torch.tensor([[[63.5, 63.5]]])).heatmap().log()
        scores.append(make_codec("heatmap", (SIDE, SIDE)).decode(maps)[1].item())
    assert scores == sorted(scores, reverse=True)
    assert 0.97 < scores[0] <= 1
    assert scores[-1] < 0.1


@pytest.mark.parametrize("options", [{"decode_by": "argmax"}, {"sigma_grid": 0.0}, {"stride": 3}])
def test_a_codec_that_cannot_be_is_refused(options):
    with pytest.raises(InputError, match="expected"):
        make_codec("heatmap", (SIDE, SIDE), **options)


def test_unknown_codec_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'heatmap'"):
        make_codec("heatmpa", (SIDE, SIDE))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_costs_no_precision(dtype):
    """Mixed precision is for the network: decode and losses stay exact within it."""
    codec = make_codec("heatmap", (112, 112), stride=4)
    points = random_points(4, codec.sigma_grid)[:, :50].clamp(24, 88)
    target = codec.encode(points)
    raw = target.heatmap().clamp_min(1e-30).log()
    with torch.autocast("cpu", dtype=dtype):
        decoded, _ = codec.decode(raw)
        log_density = codec.log_density(raw)
        divergence = losses.heatmap_cross_entropy(log_density, target, target.weight)
        distance = losses.euclidean(codec.expected_xy_grid(log_density), target.xy_grid, target.weight)
    assert (decoded - points).abs().max() < 0.02
    assert divergence.abs().max() < 1e-4
    assert distance.abs().max() < 1e-4
