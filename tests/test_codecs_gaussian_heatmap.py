"""The codec of regressed heat: points between the cells, every decode, scores, and what several heads say together."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from mmkp import geometry
from mmkp.codecs import dark, make_codec
from mmkp.codecs.gaussian_heatmap import log_above_floor
from mmkp.errors import InputError

CELLS = 40
BLURS = [{"blur_kernel": 1}, {}, {"blur_kernel": 11, "blur_sigma_grid": 0.8}, {"blur_kernel": 5}]


def codec_of(stride: int = 4, **options):
    return make_codec("gaussian_heatmap", (CELLS * stride, CELLS * stride), stride=stride, **options)


def points_all_over_a_cell(stride: int, steps: int = 40) -> torch.Tensor:
    """(1, steps^2, 2) px: as many points on either side of a cell's middle, so that a bias has nowhere to hide."""
    at = (19.5 + (torch.arange(steps) + 0.5) / steps) * stride + (stride - 1) / 2
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(1, -1, 2)


@pytest.mark.parametrize("blur", BLURS, ids=str)
@pytest.mark.parametrize("sigma_grid", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_dark_finds_the_point_between_the_cells(stride, sigma_grid, blur):
    codec = codec_of(stride, sigma_grid=sigma_grid, **blur)
    points = points_all_over_a_cell(stride)
    error = codec.decode(codec.encode(points).heatmap())[0] - points
    assert error.abs().max() < codec.resolution_px == 0.02
    assert error.mean(1).abs().max() < 1e-4


@pytest.mark.parametrize(("decode_by", "largest_cells"), [("argmax", 0.5), ("quarter", 0.25)])
@pytest.mark.parametrize("stride", [1, 4, 8])
def test_a_coarse_decode_keeps_within_what_it_declares_and_without_bias(stride, decode_by, largest_cells):
    codec = codec_of(stride, decode_by=decode_by)
    points = points_all_over_a_cell(stride)
    error = codec.decode(codec.encode(points).heatmap())[0] - points
    assert codec.resolution_px == largest_cells * stride
    assert 0.9 * codec.resolution_px < error.abs().max() <= codec.resolution_px
    assert error.mean(1).abs().max() < 1e-3


def test_quarter_leans_towards_the_hotter_neighbour():
    heat = torch.zeros(1, 1, CELLS, CELLS)
    heat[0, 0, 7, 5], heat[0, 0, 7, 6], heat[0, 0, 6, 5] = 0.8, 0.3, 0.1
    xy, scores = codec_of(decode_by="quarter").decode(heat)
    np.testing.assert_allclose(geometry.input_to_grid(xy, 4).numpy(), [[[5.25, 6.75]]], atol=1e-6)
    np.testing.assert_allclose(scores.numpy(), [[0.8]])


def test_the_target_is_a_gaussian_of_peak_1():
    target = codec_of(sigma_grid=2.0).encode(geometry.grid_to_input(torch.tensor([[[10.0, 20.0]]]), 4))
    heat = target.heatmap()[0, 0]
    assert heat[20, 10] == 1
    np.testing.assert_allclose(heat[20, 12].item(), np.exp(-0.5), rtol=1e-6)
    np.testing.assert_allclose(heat[17, 11].item(), np.exp(-(9 + 1) / 8), rtol=1e-6)


def test_unlabelled_nan_and_outside_points_have_no_weight():
    points = torch.tensor([[[10.0, 10.0], [float("nan"), 5.0], [-3.0, 5.0], [5.0, 160.0], [20.0, 20.0]]])
    target = codec_of().encode(points, torch.tensor([[True, True, True, True, False]]))
    assert target.weight.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]
    assert torch.isfinite(target.heatmap()).all()


def test_the_patch_is_blurred_as_scipy_blurs_the_whole_map(rng):
    """Also beside the border, where both mirror the map."""
    heat = rng.random((1, 6, 9, 8)).astype(np.float32)
    rows, columns = np.array([[1, 1, 4, 7, 7, 3]]), np.array([[1, 6, 4, 6, 1, 2]])
    patch = dark.blurred_patch(torch.from_numpy(heat), torch.from_numpy(rows), torch.from_numpy(columns), 11, 0.8)
    for k, (row, column) in enumerate(zip(rows[0], columns[0], strict=True)):
        whole = scipy.ndimage.gaussian_filter(heat[0, k], sigma=0.8, radius=5)
        around = whole[row - 1 : row + 2, column - 1 : column + 2]
        np.testing.assert_allclose(patch[0, k].numpy(), around, atol=1e-6)


def test_blur_keeps_a_spike_of_noise_from_bending_the_peak():
    """White noise moves the peak that is not blurred by more than twice as much."""
    made = torch.Generator().manual_seed(0)
    points = points_all_over_a_cell(4, steps=12)
    heat = codec_of().encode(points).heatmap()
    heat = heat + 0.03 * torch.randn(heat.shape, generator=made)
    errors = [(codec_of(**blur).decode(heat)[0] - points).abs().mean() for blur in ({"blur_kernel": 1}, {})]
    assert errors[0] > 2 * errors[1]


def test_a_flat_map_and_a_peak_in_the_corner_stay_on_the_grid():
    flat = torch.zeros(1, 2, CELLS, CELLS)
    flat[0, 1, 0, 0] = 1.0
    for decode_by in ("argmax", "quarter", "dark"):
        xy, scores = codec_of(decode_by=decode_by).decode(flat)
        assert ((xy > -4) & (xy < 8)).all()
        assert scores.tolist() == [[0.0, 1.0]]


def test_scores_are_the_peak_within_0_and_1():
    heat = torch.stack([torch.full((CELLS, CELLS), v) for v in (-0.5, 0.0, 0.4, 1.7)])[None]
    np.testing.assert_allclose(codec_of().decode(heat)[1].numpy(), [[0.0, 0.0, 0.4, 1.0]])


@pytest.mark.parametrize("kind", ["average", "weighted", "product"])
def test_one_head_alone_is_left_exactly_as_it_is(kind):
    codec = codec_of()
    stacked = torch.randn(2, 3, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    joined = codec.join(kind, stacked.unbind(1), torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    assert torch.equal(joined[0], stacked[0, 1])
    assert torch.equal(joined[1], stacked[1, 2])


@pytest.mark.parametrize("kind", ["average", "product"])
def test_heads_that_agree_stay_sure_and_heads_that_do_not_lose(kind):
    codec = codec_of()
    one, other = (codec.encode(torch.tensor([[[x, 81.3]]])).heatmap() for x in (60.2, 100.6))
    half = torch.full((1, 2), 0.5)
    xy, score = codec.decode(codec.join(kind, [one, one], half))
    np.testing.assert_allclose(xy.numpy(), [[[60.2, 81.3]]], atol=0.05)
    np.testing.assert_allclose(score.numpy(), codec.decode(one)[1].numpy(), atol=0.01)
    assert codec.decode(codec.join(kind, [one, other], half))[1] < 0.6


def test_product_lies_between_two_that_overlap_and_the_surer_head_draws_it():
    codec = codec_of(blur_kernel=1)
    wide = codec_of(sigma_grid=4.0, blur_kernel=1)
    sharp = codec.encode(torch.tensor([[[75.0, 81.0]]])).heatmap()
    broad = wide.encode(torch.tensor([[[90.0, 81.0]]])).heatmap()
    xy, _ = codec.decode(codec.join("product", [sharp, broad], torch.full((1, 2), 0.5)))
    # precisions 1/4 and 1/16: the product of the Gaussians peaks a fifth of the way
    np.testing.assert_allclose(xy[0, 0].numpy(), [78.0, 81.0], atol=0.1)


def test_what_an_absent_head_holds_does_not_matter():
    codec = codec_of()
    stacked = torch.randn(1, 3, 2, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[0.5, 0.0, 0.5]])
    for kind in codec.joins:
        expected = codec.join(kind, stacked.unbind(1), weights)
        spoilt = stacked.clone().requires_grad_()
        with torch.no_grad():
            spoilt[:, 1] = float("nan")
        joined = codec.join(kind, spoilt.unbind(1), weights)
        assert torch.equal(joined, expected)
        joined.square().sum().backward()
        assert torch.isfinite(spoilt.grad[:, [0, 2]]).all()
        assert spoilt.grad[:, 0].abs().min() > 0  # below the floor too, or a new head could not learn


def test_the_floor_bends_the_heat_only_where_there_is_none():
    heat = torch.tensor([[[-1e4, -1.0, 0.0, 0.1, 1.0]]])
    # heat h + sqrt(h^2 + 4 * 0.001^2), halved
    expected = [[[1e-10, 9.99999e-7, 1e-3, 0.10000999900, 1.000001]]]
    np.testing.assert_allclose(log_above_floor(heat).exp().numpy(), expected, rtol=1e-5)


def test_the_declared_distribution_sums_to_one_and_comes_back_with_peak_1():
    codec = codec_of()
    heat = 0.3 * codec.encode(torch.tensor([[[60.0, 81.0]]])).heatmap()
    log_density = codec.log_density(heat)
    np.testing.assert_allclose(log_density.exp().sum().item(), 1, rtol=1e-5)
    back = codec.from_log_density(log_density)
    np.testing.assert_allclose(back.max().item(), 1)
    np.testing.assert_allclose(codec.decode(back)[0].numpy(), codec.decode(heat)[0].numpy(), atol=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"decode_by": "soft_argmax"}, {"sigma_grid": 0.0}, {"blur_kernel": 4}, {"blur_kernel": 0},
        {"blur_sigma_grid": 0.0}, {"sigma": 2.0},
    ],
    ids=str,
)  # fmt: skip
def test_a_codec_that_cannot_be_is_refused(options):
    with pytest.raises(InputError, match="expected"):
        codec_of(**options)


def test_a_stride_that_cuts_a_cell_is_refused():
    with pytest.raises(InputError, match="a divisor of the input's sides, got 3"):
        make_codec("gaussian_heatmap", (64, 64), stride=3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_costs_no_precision(dtype):
    codec = codec_of()
    points = points_all_over_a_cell(4, steps=8)
    with torch.autocast("cpu", dtype=dtype):
        heat = codec.encode(points).heatmap()
        decoded, _ = codec.decode(heat)
        joined, _ = codec.decode(codec.join("product", [heat, heat], torch.full((1, 2), 0.5)))
    assert (decoded - points).abs().max() < codec.resolution_px
    assert (joined - points).abs().max() < 0.05


@pytest.mark.parametrize("count", [1, 500])
def test_one_keypoint_and_five_hundred(count):
    codec = codec_of()
    points = torch.from_numpy(np.random.default_rng(0).uniform(40, 120, (2, count, 2))).float()
    decoded, scores = codec.decode(codec.encode(points).heatmap())
    assert (decoded - points).abs().max() < codec.resolution_px
    assert scores.shape == (2, count)
