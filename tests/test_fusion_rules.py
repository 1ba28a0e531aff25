"""The rules against values worked out by hand, at feature level and at model level."""

from __future__ import annotations

import math

import pytest
import torch

from mmkp.codecs import make_codec
from mmkp.errors import InputError
from mmkp.fusion import make_fusion
from mmkp.fusion.rules import FusionRule, inverse_log_softplus, log_softplus

MEMBERS = ("image", "text", "audio")
ALL = torch.ones(1, 3, dtype=torch.bool)


def parts(*values: float) -> dict[str, torch.Tensor]:
    return {m: torch.full((1, 1, 1, 1), v) for m, v in zip(MEMBERS, values, strict=True)}


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_average():
    assert FusionRule(MEMBERS, "average")(parts(1.0, 2.0, 6.0), ALL).item() == pytest.approx(3.0)


def test_average_renormalises_over_what_is_there():
    present = torch.tensor([[True, False, True]])
    assert FusionRule(MEMBERS, "average")(parts(1.0, math.nan, 6.0), present).item() == pytest.approx(3.5)


def test_fixed_weights():
    rule = FusionRule(MEMBERS, "weighted", weights={"image": 3.0, "text": 1.0, "audio": 0.0})
    assert rule(parts(1.0, 5.0, 100.0), ALL).item() == pytest.approx(2.0)
    assert not list(rule.parameters())


def test_learned_weights_start_equal_and_get_a_gradient():
    rule = FusionRule(MEMBERS, "weighted")
    rule(parts(1.0, 2.0, 6.0), ALL).sum().backward()
    # d/dlogit_m of sum w_m x_m is w_m (x_m - mean)
    torch.testing.assert_close(rule.logits.grad, torch.tensor([(1.0 - 3) / 3, (2.0 - 3) / 3, (6.0 - 3) / 3]))


def test_product_is_the_geometric_mean_of_the_softplus():
    joined = FusionRule(MEMBERS, "product")(parts(0.5, 1.0, 2.0), ALL).item()
    expected = (softplus(0.5) * softplus(1.0) * softplus(2.0)) ** (1 / 3)
    assert softplus(joined) == pytest.approx(expected, rel=1e-5)


def test_product_of_one_factor_is_that_factor():
    for value in (-50.0, -3.0, 0.0, 2.5, 80.0):
        present = torch.tensor([[False, True, False]])
        assert FusionRule(MEMBERS, "product")(parts(1.0, value, 7.0), present).item() == value


@pytest.mark.parametrize("value", [-80.0, -15.5, -12.0, -1.0, 0.0, 1.0, 10.0, 30.0, 500.0])
def test_log_softplus_has_its_inverse(value):
    x = torch.tensor(value)
    assert inverse_log_softplus(log_softplus(x)).item() == pytest.approx(value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("function", [log_softplus, inverse_log_softplus])
def test_their_gradients_are_those_of_finite_differences(function):
    values = [-40.0, -16.0, -14.0, -5.0, -1.0, -0.7, -0.6, -0.1, 0.1, 1.0, 3.0]
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x,), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("low", [-30.0, -3.0])
def test_both_are_exact_to_a_floats_precision(low):
    x = torch.linspace(low, low + 33, 5001)
    exact = torch.nn.functional.softplus(x.double(), threshold=1000).log()
    torch.testing.assert_close(log_softplus(x).double(), exact, rtol=3e-7, atol=3e-7)
    y = x.clamp_max(3.5)
    exact = torch.expm1(y.double().exp()).log()
    torch.testing.assert_close(inverse_log_softplus(y).double(), exact, rtol=5e-7, atol=5e-7)


@pytest.mark.parametrize("far", [-500.0, -90.0, 90.0, 2000.0])
def test_one_number_far_from_0_does_not_change_the_others(far):
    x = torch.tensor([-12.0, -0.5, 0.0, 2.0, 30.0, far])
    near = log_softplus(x[:5])
    torch.testing.assert_close(log_softplus(x)[:5], near, rtol=5e-7, atol=5e-7)
    assert log_softplus(x)[5].item() == pytest.approx(far if far < 0 else math.log(far), rel=1e-6)
    y = torch.tensor([-12.0, -0.5, 0.0, 2.0, far if far < 0 else math.log(far)])
    torch.testing.assert_close(inverse_log_softplus(y)[:4], inverse_log_softplus(y[:4]), rtol=5e-7, atol=5e-7)
    assert inverse_log_softplus(y)[4].item() == pytest.approx(far, rel=1e-6)


@pytest.mark.parametrize("function", [log_softplus, inverse_log_softplus])
def test_what_is_not_a_number_stays_so_and_an_empty_batch_empty(function):
    assert function(torch.tensor([0.5, math.nan])).isnan().tolist() == [False, True]
    assert function(torch.zeros(0, 3)).shape == (0, 3)


def logits(*weights: float) -> torch.Tensor:
    return torch.tensor(weights).log().view(1, 1, 1, -1)


@pytest.fixture
def codec():
    return make_codec("heatmap", (4, 12), stride=4)


def test_model_level_average_is_the_mixture(codec):
    raws = {"image": logits(0.6, 0.3, 0.1), "audio": logits(0.2, 0.2, 0.6)}
    joined = FusionRule(("image", "audio"), "average").join_outputs(raws, torch.ones(1, 2, dtype=torch.bool), codec)
    torch.testing.assert_close(codec.log_density(joined).exp().flatten(), torch.tensor([0.4, 0.25, 0.35]))


def test_model_level_product_is_the_normalised_product_of_experts(codec):
    raws = {"image": logits(0.6, 0.3, 0.1), "audio": logits(0.2, 0.2, 0.6)}
    joined = FusionRule(("image", "audio"), "product").join_outputs(raws, torch.ones(1, 2, dtype=torch.bool), codec)
    expected = torch.tensor([0.12, 0.06, 0.06])
    torch.testing.assert_close(codec.log_density(joined).exp().flatten(), expected / expected.sum())


@pytest.mark.parametrize("weights", [{"image": -1.0}, {"image": 0.0}, {"picture": 1.0}])
def test_bad_weights_are_refused(weights):
    with pytest.raises(InputError, match=r"fusion\.weights"):
        FusionRule(MEMBERS, "weighted", weights=weights)


@pytest.mark.parametrize(
    ("name", "level", "message"),
    [
        ("averag", "feature", "Did you mean 'average'"),
        ("gated", "model", "feature for the learned"),
        ("average", "late", "feature or model"),
    ],
)
def test_a_fusion_that_cannot_be_is_refused(name, level, message):
    with pytest.raises(InputError, match=message):
        make_fusion(name, MEMBERS, 16, level)


def test_an_option_that_a_fusion_lacks_is_refused():
    with pytest.raises(InputError, match="options that it has"):
        make_fusion("gated", MEMBERS, 16, "feature", gropus=4)
