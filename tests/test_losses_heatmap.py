"""Losses of regressed heat, on values and gradients worked out by hand, and their criterion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmkp import losses
from mmkp.codecs import make_codec
from mmkp.criteria import make_criterion
from mmkp.errors import InputError
from mmkp.schema import load_schema

SCHEMA = load_schema("face68")


def cells(*values: float) -> torch.Tensor:
    """One item, one keypoint, a row of cells."""
    return torch.tensor(values).view(1, 1, 1, -1)


ONE = torch.ones(1, 1)


def test_adaptive_wing_has_its_published_value():
    value = losses.adaptive_wing(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.ones(2, 3))
    np.testing.assert_allclose(value.numpy(), [8.495945, 8.495945], atol=1e-6)


def test_adaptive_wing_by_hand():
    """On the target (power 1.1) a difference of 0.2, off it (power 2.1) of 0.2 and, on the line, of 0.9."""
    near_on = 14 * math.log1p(0.2**1.1)
    near_off = 14 * math.log1p(0.2**2.1)
    slope = 14 / (1 + 0.5**2.1) * 2.1 * 0.5**1.1
    far_off = slope * 0.9 - (0.5 * slope - 14 * math.log1p(0.5**2.1))
    value = losses.adaptive_wing(cells(0.8, 0.2, 0.9, 0.0), cells(1.0, 0.0, 0.0, 0.0), ONE)
    np.testing.assert_allclose(value.item(), (near_on + near_off + far_off) / 4, rtol=1e-6)


def test_adaptive_wing_gradient_by_hand():
    heat = cells(0.8, 0.2, 0.9, 0.0).requires_grad_()
    losses.adaptive_wing(heat, cells(1.0, 0.0, 0.0, 0.0), ONE).backward()
    on = -14 * 1.1 * 0.2**0.1 / (1 + 0.2**1.1)
    off = 14 * 2.1 * 0.2**1.1 / (1 + 0.2**2.1)
    line = 14 / (1 + 0.5**2.1) * 2.1 * 0.5**1.1
    np.testing.assert_allclose(heat.grad.flatten().numpy(), np.array([on, off, line, 0.0]) / 4, rtol=1e-5)


def test_adaptive_wing_is_smooth_where_the_line_begins():
    target = cells(0.3)
    values, slopes = [], []
    for step in (-1e-4, 1e-4):
        heat = cells(0.8 + step).requires_grad_()
        value = losses.adaptive_wing(heat, target, ONE)
        value.backward()
        values.append(value.item())
        slopes.append(heat.grad.item())
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-3)
    np.testing.assert_allclose(values[1] - values[0], 2e-4 * slopes[0], rtol=0.02)


def test_mse_by_hand():
    heat = cells(0.5, 0.0, -1.0, 0.0).requires_grad_()
    value = losses.heat_mse(heat, cells(1.0, 0.0, 0.0, 0.0), ONE)
    value.backward()
    np.testing.assert_allclose(value.item(), (0.25 + 1) / 4)
    np.testing.assert_allclose(heat.grad.flatten().numpy(), [2 * -0.5 / 4, 0, 2 * -1 / 4, 0])


def test_the_foreground_is_what_lies_within_a_cell_of_heat_above_a_fifth():
    target = cells(0.1, 0.19, 0.2, 0.5, 0.1, 0.0, 0.0)
    assert losses.foreground_weight(target, 10.0).flatten().tolist() == [1, 11, 11, 11, 11, 1, 1]
    heat = cells(1.1, 0.19, 0.2, 1.5, 0.1, 0.0, 0.0).requires_grad_()
    value = losses.heat_mse(heat, target, ONE, foreground=10.0)
    value.backward()
    np.testing.assert_allclose(value.item(), (1 + 11) / 7, rtol=1e-6)
    np.testing.assert_allclose(heat.grad.flatten().numpy(), np.array([2, 0, 0, 22, 0, 0, 0]) / 7, atol=1e-6)


def setting(kind: str, **options):
    codec = make_codec("gaussian_heatmap", (64, 64))
    made = make_criterion("heatmap_regression", "gaussian_heatmap", codec, SCHEMA, kind=kind, **options)
    xy = torch.tensor([[[20.0, 30.0], [41.0, 9.5]]]).repeat(3, 1, 1)
    target = codec.encode(xy, torch.tensor([[True, True], [True, False], [False, False]]))
    return made, target


KINDS = ["mse", "weighted_mse", "adaptive_wing"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_item_by_itself_and_only_what_is_labelled(kind):
    criterion, target = setting(kind)
    raw = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = criterion(raw, target, torch.ones(2))
    assert value[:2].min() > 0
    assert value[2] == 0
    alone = criterion(raw[:1], type(target)(*(part[:1] for part in target)), torch.tensor([1.0, 0.0]))
    other = criterion(raw[:1], type(target)(*(part[:1] for part in target)), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(value[:1], (alone + other) / 2)
    value.sum().backward()
    assert torch.isfinite(raw.grad).all()
    assert (raw.grad[1, 1] == 0).all()
    assert (raw.grad[2] == 0).all()
    assert raw.grad[1, 0].abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_itself_costs_nothing_and_pulls_nowhere(kind):
    criterion, target = setting(kind)
    raw = target.heatmap().clone().requires_grad_()
    value = criterion(raw, target, torch.ones(2))
    value.sum().backward()
    assert value.tolist() == [0.0, 0.0, 0.0]
    assert (raw.grad == 0).all()


def test_kinds_differ_as_they_say():
    raw = torch.zeros(3, 2, 16, 16)
    values = {}
    for kind in KINDS:
        criterion, target = setting(kind)
        values[kind] = criterion(raw, target, torch.ones(2))[0]
    same, target = setting("mse", foreground=10.0)
    assert same(raw, target, torch.ones(2))[0] == values["weighted_mse"]
    assert values["weighted_mse"] > 5 * values["mse"]  # most of the squares lie on the target


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_finite_in_half_precision(kind, dtype):
    criterion, target = setting(kind)
    with torch.autocast("cpu", dtype=dtype):
        value = criterion(torch.full((3, 2, 16, 16), 300.0, dtype=dtype), target, torch.ones(2))
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()


@pytest.mark.parametrize("options", [{"kind": "wing"}, {"foreground": -1.0}, {"coordinate": 1.0}], ids=str)
def test_a_criterion_that_cannot_be_is_refused(options):
    codec = make_codec("gaussian_heatmap", (64, 64))
    with pytest.raises(InputError, match="expected"):
        make_criterion("heatmap_regression", "gaussian_heatmap", codec, SCHEMA, **options)


def test_distributions_are_not_heat():
    with pytest.raises(InputError, match="gaussian_heatmap"):
        make_criterion("heatmap_regression", "heatmap", make_codec("heatmap", (64, 64)), SCHEMA)
