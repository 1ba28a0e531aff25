"""Losses of coordinates, of SimCC and of RLE: values worked out by hand, gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from mmkp import losses
from mmkp.codecs import make_codec
from mmkp.criteria import make_criterion
from mmkp.criteria.rle import RealNvp
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema, load_schema

ONE = torch.ones(1, 1)
THREE = KeypointSchema(name="three", keypoints=("a", "b", "c"), sigmas=(0.025, 0.05, 0.1))
BARE = KeypointSchema(name="bare", keypoints=("a", "b", "c"))


def point(x: float, y: float = 0.0) -> torch.Tensor:
    return torch.tensor([[[x, y]]])


# (loss, options, error of x, error of y, value): the axes are summed
VALUES = [
    (losses.squared, {}, 3.0, -4.0, 25.0),
    (losses.absolute, {}, 3.0, -4.0, 7.0),
    (losses.smooth_l1, {}, 0.5, -4.0, 0.125 + 3.5),
    (losses.smooth_l1, {"beta": 2.0}, 1.0, -4.0, 0.25 + 3.0),
    (losses.wing, {}, 2.0, 0.0, 10 * math.log(2)),
    (losses.wing, {}, -15.0, 0.0, 15 - (10 - 10 * math.log(6))),
    (losses.wing, {"width": 5.0, "curvature": 0.5}, 2.0, 8.0, 5 * math.log(5) + 8 - (5 - 5 * math.log(11))),
    (losses.euclidean, {}, 3.0, -4.0, 4.99),
]


@pytest.mark.parametrize(("loss", "options", "x", "y", "value"), VALUES)
def test_values(loss, options, x, y, value):
    assert loss(point(x, y), point(0.0), ONE, **options).item() == pytest.approx(value, rel=1e-5)
    assert loss(point(5.0, 5.0), point(5.0 + x, 5.0 + y), ONE, **options).item() == pytest.approx(value, rel=1e-5)
    assert loss(point(7.0, 7.0), point(7.0, 7.0), ONE, **options).item() == pytest.approx(0, abs=1e-6)


def test_oks_value():
    """d = 5, k = 2 * 0.1, s^2 = 400: the exponent is 25 / (2 * 400 * 0.04)."""
    value = losses.oks(point(3.0, 4.0), point(0.0), ONE, sigmas=torch.tensor([0.1]), area=400.0).item()
    assert value == pytest.approx(1 - math.exp(-25 / 32), rel=1e-6)


def test_wing_is_continuous_and_pulls_harder_at_small_errors():
    at = torch.tensor([9.9999, 10.0001, 0.1, 1.0, 5.0, 20.0]).view(6, 1, 1) * torch.tensor([1.0, 0.0])
    at.requires_grad_()
    values = losses.wing(at, torch.zeros(6, 1, 2), torch.ones(6, 1))
    assert (values[1] - values[0]).item() == pytest.approx(0.0002 * 0.9, rel=0.2)  # slopes 10 / 12 and 1
    values.sum().backward()
    expected = torch.tensor([10 / 2.1, 10 / 3, 10 / 7, 1.0])  # w / (epsilon + |x|), then 1
    torch.testing.assert_close(at.grad[2:, 0, 0], expected)


def kinds() -> dict:
    sigmas = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    return {
        "squared": losses.squared,
        "absolute": losses.absolute,
        "smooth_l1": losses.smooth_l1,
        "wing": losses.wing,
        "euclidean": losses.euclidean,
        "oks": lambda *points: losses.oks(*points, sigmas=sigmas, area=50.0),
    }


@pytest.mark.parametrize("name", kinds())
def test_gradients_are_those_of_finite_differences(name):
    made = torch.Generator().manual_seed(0)
    xy, target = (torch.randn(2, 3, 2, generator=made, dtype=torch.float64) * 4 for _ in range(2))
    weight = torch.tensor([[1.0, 0.5, 2.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: kinds()[name](x, target, weight), (xy.requires_grad_(),))


@pytest.mark.parametrize("name", kinds())
def test_what_weighs_nothing_changes_nothing(name):
    xy = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    target, weight = torch.randn(2, 3, 2, dtype=torch.float64), torch.tensor([[1.0, 0, 3.0], [0, 0, 0]]).double()
    value = kinds()[name](xy, target, weight)
    moved = kinds()[name](xy + (weight == 0)[..., None] * 100, target, weight)
    torch.testing.assert_close(value, moved)
    assert value[1].item() == 0
    value.sum().backward()
    assert (xy.grad[weight == 0] == 0).all() and xy.grad[0, 0].abs().max() > 0


def test_the_mean_is_over_what_counts():
    xy = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]])
    value = losses.squared(xy, torch.zeros(1, 3, 2), torch.tensor([[1.0, 0.0, 3.0]]))
    assert value.item() == pytest.approx((1 * 1 + 3 * 9) / 4)


def test_divergence_of_simcc_by_hand():
    """Two bins per axis; columns (3/4, 1/4) against one half each, rows met exactly."""
    labels = torch.tensor([[[0.75, 0.25, 0.5, 0.5]]])
    value = losses.simcc_divergence(torch.full((1, 1, 4), 0.5).log(), labels, ONE).item()
    assert value == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)
    assert losses.simcc_divergence(labels.log(), labels, ONE).item() == pytest.approx(0, abs=1e-6)


def test_gradient_of_the_simcc_criterion_is_prediction_less_label():
    codec = make_codec("simcc", (8, 8), split_ratio=1, sigma_bins=1.0)
    target = codec.encode(torch.tensor([[[3.3, 4.1]]]))
    raw = torch.randn(1, 1, 16, requires_grad=True)
    make_criterion("simcc", "simcc", codec, load_schema("face68"))(raw, target, torch.ones(1)).sum().backward()
    torch.testing.assert_close(raw.grad, codec.log_density(raw).exp().detach() - target.both())


def test_densities_of_the_bases_by_hand():
    z = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    torch.testing.assert_close(losses.laplace_log_density(z), -torch.tensor([0.0, 3.0]) - 2 * math.log(2))
    torch.testing.assert_close(losses.gaussian_log_density(z), -torch.tensor([0.0, 2.5]) - math.log(2 * math.pi))


def test_residual_log_likelihood_by_hand():
    """-log of Laplace and standard normal densities of the error (0.3, -0.1), sigmas 0.1 and 0.2."""
    sigma, errors = torch.tensor([[[0.1, 0.2]]]), torch.tensor([[[0.3, -0.1]]])
    z = errors / sigma
    value = losses.residual_log_likelihood(sigma, losses.laplace_log_density(z), losses.gaussian_log_density(z), ONE)
    laplace = math.log(2 * 0.1) + 0.3 / 0.1 + math.log(2 * 0.2) + 0.1 / 0.2
    normal = math.log(2 * math.pi * 0.1 * 0.2) + 0.3**2 / 0.02 + 0.1**2 / 0.08
    assert value.item() == pytest.approx(laplace + normal, rel=1e-5)


def bent_flow(scale: float = 0.5) -> RealNvp:
    """A flow that is far from the identity."""
    torch.manual_seed(0)
    flow = RealNvp().double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter) * scale * parameter.shape[-1] ** -0.5)
    return flow


def test_the_flows_way_back_is_its_inverse():
    flow = bent_flow()
    z = torch.randn(200, 2, dtype=torch.float64)
    x = flow(z)
    assert (x - z).abs().max() > 0.5  # not the identity
    torch.testing.assert_close(flow.inverse(x)[0], z, atol=1e-9, rtol=1e-9)


def test_the_flows_determinant_is_that_of_its_jacobian():
    flow = bent_flow()
    x = torch.randn(5, 2, dtype=torch.float64)
    jacobians = [torch.autograd.functional.jacobian(lambda p: flow.inverse(p[None])[0][0], point) for point in x]
    expected = torch.stack([torch.linalg.slogdet(j)[1] for j in jacobians])
    torch.testing.assert_close(flow.inverse(x)[1], expected)
    assert expected.abs().max() > 0.1


def test_the_flows_density_integrates_to_1():
    flow = bent_flow()
    reach = flow(torch.randn(4000, 2, dtype=torch.float64)).abs().max().item() * 1.5
    line = torch.linspace(-reach, reach, 250, dtype=torch.float64)
    with torch.no_grad():
        density = flow.log_density(torch.cartesian_prod(line, line)).exp()
    assert (density.sum() * (line[1] - line[0]) ** 2).item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("base", ["laplace", "gaussian"])
def test_rle_learns_where_the_points_are_and_how_far_they_spread(base):
    """Labels at (0.1, -0.2) with a spread of 0.05 and 0.1: the mean is found, and the larger sigma on y."""
    torch.manual_seed(0)
    codec = make_codec("rle", (64, 64))
    criterion = make_criterion("rle", "rle", codec, BARE, base=base)
    xy = torch.tensor([0.1, -0.2]) + torch.randn(512, 1, 2) * torch.tensor([0.05, 0.1])
    target = codec.encode(make_codec("regression", (64, 64)).decode(xy)[0])
    raw = torch.zeros(1, 1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([raw, *criterion.parameters()], lr=0.03)
    losses_seen = []
    for _ in range(150):
        loss = criterion(raw.expand(512, 1, 4), target, torch.ones(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses_seen.append(loss.item())
    sigma = codec.sigma(raw.detach()).flatten()
    torch.testing.assert_close(raw.detach()[0, 0, :2], torch.tensor([0.1, -0.2]), atol=0.03, rtol=0)
    assert losses_seen[-1] < losses_seen[0] - 3
    assert 0.01 < sigma[0] < 0.15 and 1.4 < (sigma[1] / sigma[0]).item() < 2.8


@pytest.mark.parametrize(
    ("kind", "options", "value"),
    [
        ("l2", {}, 10.0**2 + 20.0**2),
        ("l1", {}, 10.0 + 20.0),
        ("smooth_l1", {}, 9.5 + 19.5),
        ("smooth_l1", {"beta": 4}, 8.0 + 18.0),
        ("wing", {}, (10 + 20) - 2 * (10 - 10 * math.log(6))),
        ("oks", {}, 1 - math.exp(-(10**2 + 20**2) / (2 * (100 * 50) * 0.05**2))),
    ],
)
def test_the_criterion_counts_in_hundredths_of_the_longer_side(kind, options, value):
    """Input 100 wide, 50 high: 10 px and 20 px are 10 and 20 hundredths, and the input's area is 5000."""
    codec = make_codec("regression", (50, 100))
    criterion = make_criterion("regression", "regression", codec, THREE, kind=kind, **options)
    target = codec.encode(torch.tensor([[[40.0, 10.0]]]).expand(1, 3, 2))
    said = codec.raw_of(codec.encode(torch.tensor([[[50.0, 30.0]]]).expand(1, 3, 2)))
    assert criterion(said, target, torch.tensor([1.0, 0.0, 0.0])).item() == pytest.approx(value, rel=1e-4)


def test_oks_counts_with_each_keypoints_own_sigma():
    codec = make_codec("regression", (64, 64))
    criterion = make_criterion("regression", "regression", codec, THREE, kind="oks")
    target = codec.encode(torch.full((1, 3, 2), 20.0))
    said = codec.raw_of(codec.encode(torch.full((1, 3, 2), 23.0)))
    expected = [1 - math.exp(-18 / (2 * 64 * 64 * (2 * s) ** 2)) for s in (0.025, 0.05, 0.1)]
    each = [criterion(said, target, w).item() for w in torch.eye(3)]
    assert each == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "oks"}, "sigmas, which bare lacks"),
        ({"kind": "wnig"}, "Did you mean 'wing'"),
        ({"kind": "wing", "beta": 1.0}, "width and curvature"),
        ({"kind": "wing", "width": 0}, "above 0"),
        ({"kind": "l1", "width": 3}, "no option but the kind"),
    ],
)
def test_a_criterion_that_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_criterion("regression", "regression", make_codec("regression", (64, 64)), BARE, **options)


def test_integral_regression_is_the_heatmap_criterion_without_its_divergence():
    """Two cells of one half each, 4 cells apart: the mean lies 2 cells from the label, which costs about 2."""
    codec = make_codec("heatmap", (32, 32), stride=4)
    criterion = make_criterion("heatmap", "heatmap", codec, BARE, kind="none")
    raw = torch.full((1, 1, 8, 8), -100.0)
    raw[..., 3, 1] = raw[..., 3, 5] = 0.0
    raw.requires_grad_()
    target = codec.encode(torch.tensor([[[21.5, 13.5]]]))  # cell (5, 3)
    value = criterion(raw, target, torch.ones(1))
    assert value.item() == pytest.approx(math.sqrt(4 + 1e-4) - 0.01, rel=1e-5)
    value.sum().backward()
    # of the softmax: p_i (x_i - mean), times the slope -1 towards the label
    assert raw.grad[0, 0, 3, 1].item() == pytest.approx(0.5 * 2, rel=1e-3)
    assert raw.grad[0, 0, 3, 5].item() == pytest.approx(-0.5 * 2, rel=1e-3)
