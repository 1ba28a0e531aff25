"""SimCC between the bins, at the border, and against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mmkp.codecs import make_codec
from mmkp.errors import InputError

SIDE = 64


@pytest.mark.parametrize("decode_by", ["argmax", "soft_argmax"])
@pytest.mark.parametrize("split_ratio", [1, 2, 3])
def test_points_between_the_bins_come_back(split_ratio, decode_by):
    codec = make_codec("simcc", (SIDE, 2 * SIDE), split_ratio=split_ratio, sigma_bins=3.0, decode_by=decode_by)
    margin = 4 * 3.0 / split_ratio + 1
    points = margin + torch.rand(1, 400, 2, generator=torch.Generator().manual_seed(0)) * (
        torch.tensor([2 * SIDE - 1.0, SIDE - 1.0]) - 2 * margin
    )
    decoded, scores = codec.decode(codec.raw_of(codec.encode(points)))
    error = decoded - points
    assert error.abs().max() < codec.resolution_px
    assert error.mean(1).abs().max() < 0.002
    assert scores.min() > 0.95 and scores.max() <= 1


def test_bin_0_lies_a_quarter_px_left_of_pixel_0_at_two_bins_per_px():
    codec = make_codec("simcc", (SIDE, SIDE), sigma_bins=1.0)
    raw = torch.full((1, 1, 4 * SIDE), -50.0)
    raw[..., 0], raw[..., 2 * SIDE + 3] = 50.0, 50.0  # x: bin 0; y: bin 3
    raw[..., 1] = 0.0
    soft = make_codec("simcc", (SIDE, SIDE), sigma_bins=1.0, decode_by="soft_argmax")
    torch.testing.assert_close(soft.decode(raw)[0], torch.tensor([[[-0.25, 1.25]]]))
    assert codec.decode(raw)[0][0, 0, 1].item() == pytest.approx(1.25)


def test_argmax_is_exact_where_soft_argmax_is_pulled_to_the_middle():
    point = torch.tensor([[[1.3, 62.9]]])
    codecs = {d: make_codec("simcc", (SIDE, SIDE), decode_by=d) for d in ("argmax", "soft_argmax")}
    errors = {d: (c.decode(c.raw_of(c.encode(point)))[0] - point).abs().max() for d, c in codecs.items()}
    assert errors["argmax"] < 0.02 < 1 < errors["soft_argmax"]


def test_labels_are_smoothed_by_the_sigma():
    """Two bins off the middle of the Gaussian: exp(-2^2 / (2 * 2^2)) of its peak."""
    target = make_codec("simcc", (SIDE, SIDE), split_ratio=1, sigma_bins=2.0).encode(torch.tensor([[[30.0, 20.0]]]))
    assert (target.column[0, 0, 32] / target.column[0, 0, 30]).item() == pytest.approx(math.exp(-0.5), rel=1e-5)
    assert target.row[0, 0].argmax().item() == 20
    torch.testing.assert_close(target.both().sum(-1), torch.tensor([[2.0]]))


def test_both_axes_are_distributions_whatever_the_input():
    codec = make_codec("simcc", (SIDE, 2 * SIDE))
    density = codec.log_density(torch.randn(2, 3, *codec.raw_shape(1)[1:]) * 20).exp()
    columns, rows = density.split(codec.bins_xy, -1)
    assert columns.shape[-1] == 4 * SIDE and rows.shape[-1] == 2 * SIDE
    torch.testing.assert_close(columns.sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 3))


def test_joins_are_the_mixture_and_the_product_of_experts():
    codec = make_codec("simcc", (1, 3), split_ratio=1)
    one, two = (torch.tensor([*p, 1.0]).log().view(1, 1, 4) for p in ([0.6, 0.3, 0.1], [0.2, 0.2, 0.6]))
    members, equal = [one, two], torch.full((1, 2), 0.5)
    mixture = codec.log_density(codec.join("average", members, equal)).exp()
    torch.testing.assert_close(mixture.flatten(), torch.tensor([0.4, 0.25, 0.35, 1.0]))
    product = codec.log_density(codec.join("product", members, equal)).exp()
    torch.testing.assert_close(product.flatten(), torch.tensor([0.5, 0.25, 0.25, 1.0]))


def test_score_falls_as_the_distribution_spreads():
    codec = make_codec("simcc", (SIDE, SIDE))
    scores = []
    for sigma in (6.0, 12.0, 24.0, 1000.0):
        wide = make_codec("simcc", (SIDE, SIDE), sigma_bins=sigma)
        scores.append(codec.decode(wide.raw_of(wide.encode(torch.tensor([[[31.5, 31.5]]]))))[1].item())
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1, abs=1e-3)
    assert scores[-1] == pytest.approx((25 / 128 / 0.9628) ** 2, rel=0.02)  # 25 of 128 bins; erf(12.5 / (6 sqrt 2))


@pytest.mark.parametrize(
    "options", [{"decode_by": "dark"}, {"sigma_bins": 0.0}, {"sigma_bins": float("nan")}, {"split_ratio": 0}]
)
def test_a_codec_that_cannot_be_is_refused(options):
    with pytest.raises(InputError, match=f"codec.{next(iter(options))}"):
        make_codec("simcc", (SIDE, SIDE), **options)
