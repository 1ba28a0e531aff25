"""Robustness of an error over severities: values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkp.errors import InputError
from mmkp.evaluation.score import GroupBootstrap
from mmkp.metrics import robustness as rb

CURVE = np.array([1.0, 2.0, 4.0])  # clear, then two severities: trapezoids 1.5 and 3, mean 2.25
BASE = np.array([0.5, 2.5, 5.5])  # trapezoids 1.5 and 4, mean 2.75
curves = st.lists(st.floats(0.01, 10), min_size=6, max_size=6).map(np.array)


def test_area_by_hand() -> None:
    assert rb.severity_area(CURVE) == 2.25
    assert np.array_equal(rb.severity_area(np.stack([CURVE, BASE])), [2.25, 2.75])
    assert rb.severity_area(np.full((2, 6), 0.3)) == pytest.approx([0.3, 0.3])
    assert np.isnan(rb.severity_area(np.array([1.0, np.nan, 2.0])))


def test_area_of_uneven_severities_by_hand() -> None:
    """0, 1 and 5: the trapezoids 1.5 and 3 count 1/5 and 4/5."""
    assert rb.severity_area(CURVE, [0, 1, 5]) == pytest.approx(0.2 * 1.5 + 0.8 * 3)
    assert rb.severity_area(CURVE, [0, 2, 4]) == pytest.approx(rb.severity_area(CURVE))
    assert rb.severity_area(torch.tensor(CURVE), [0, 1, 5]).item() == pytest.approx(2.7)
    assert rb.relative_robustness(CURVE, BASE, [0, 1, 5]) == pytest.approx(0.2 * 1.5 + 0.8 * 4 - 2.7)
    assert rb.effective_robustness(CURVE, BASE, [0, 1, 5]) == pytest.approx(0.2 * 2 + 0.8 * 4.5 - 2.7)
    for at in ([0, 1], [0, 5, 1]):
        with pytest.raises(InputError, match="3 severities in rising order"):
            rb.severity_area(CURVE, at)


def test_relative_robustness_by_hand() -> None:
    assert rb.relative_robustness(CURVE) == -2.25
    assert rb.relative_robustness(CURVE, BASE) == 0.5


def test_effective_robustness_by_hand() -> None:
    # beta = base + (1 - 0.5) = (1, 3, 6): trapezoids 2 and 4.5, area 3.25; the model's own is 2.25
    assert rb.effective_robustness(CURVE, BASE) == 1.0
    assert rb.effective_robustness(BASE, CURVE) == -1.0


@given(curves, st.floats(-0.005, 3))
@settings(max_examples=40, deadline=None)
def test_a_shifted_baseline_is_worth_nothing(curve: np.ndarray, shift: float) -> None:
    """Better on clear data and by as much under corruption: relative robustness sees it, effective does not."""
    assert rb.effective_robustness(curve + shift, curve) == pytest.approx(0, abs=1e-9)
    assert rb.relative_robustness(curve + shift, curve) == pytest.approx(-shift, abs=1e-9)


def test_trend_by_hand() -> None:
    """Baselines with corrupted = 2 * clear ^ 1.5 lie on their own trend; a model at half of it gains that half."""
    clear = np.array([1.0, 4.0, 9.0])
    trend = 2 * clear**1.5  # 2, 16, 54
    gained = rb.effective_robustness_by_trend(np.array([4.0, 9.0]), np.array([8.0, 54.0]), clear, trend)
    assert gained == pytest.approx([8.0, 0.0])
    with pytest.raises(InputError, match="differ on clear"):
        rb.effective_robustness_by_trend(clear, trend, np.ones(3), trend)
    with pytest.raises(InputError, match="above 0"):
        rb.effective_robustness_by_trend(clear, trend, np.zeros(3), trend)


def test_corruption_error_by_hand() -> None:
    assert rb.corruption_error(CURVE, BASE) == 6 / 8
    assert rb.corruption_error(CURVE, BASE, relative=True) == (1 + 3) / (2 + 5)
    both = np.stack([CURVE, BASE])
    assert rb.mean_corruption_error(both, np.stack([BASE, BASE])) == (0.75 + 1) / 2
    flat = np.array([[1.0, 1.0, 1.0], [0.5, 2.5, 5.5]])  # a baseline that does not rise has no relative error
    assert np.isnan(rb.corruption_error(both, flat, relative=True)[0])
    assert rb.mean_corruption_error(both, flat, relative=True) == 1.0
    assert rb.mean_corruption_error(both[:1], flat[:1], relative=True) is None


def test_tensors_give_what_arrays_give() -> None:
    both, base = np.stack([CURVE, BASE]), np.stack([BASE, CURVE])
    for function in (rb.relative_robustness, rb.effective_robustness, rb.corruption_error):
        found = function(torch.tensor(both), torch.tensor(base))
        assert isinstance(found, torch.Tensor)
        assert np.allclose(found.numpy(), function(both, base))
    found = rb.effective_robustness_by_trend(*(torch.tensor(v) for v in (CURVE, BASE, CURVE, BASE)))
    assert np.allclose(found.numpy(), rb.effective_robustness_by_trend(CURVE, BASE, CURVE, BASE))


def test_bad_curves_are_refused() -> None:
    with pytest.raises(InputError, match="clear data and at one severity"):
        rb.severity_area(np.ones((3, 1)))
    for function in (rb.relative_robustness, rb.effective_robustness, rb.corruption_error):
        with pytest.raises(InputError, match="one shape"):
            function(np.ones((2, 6)), np.ones((2, 5)))


def test_conflict_ratio_by_hand() -> None:
    """Each item 5 % worse: the ratio is 1.05 in every draw, so the interval has no width."""
    groups = np.repeat([f"g{i}" for i in range(8)], 3)
    alone = np.random.default_rng(0).uniform(1, 3, len(groups))
    found = rb.conflict_ratio(1.05 * alone, alone, GroupBootstrap(groups))
    assert found["ratio"] == pytest.approx(1.05)
    assert found["ci95"] == pytest.approx([1.05, 1.05])
    assert found["within"] is True and found["worse"] and found["limit"] == 1.10
    assert rb.conflict_ratio(1.2 * alone, alone, GroupBootstrap(groups))["within"] is False


def test_conflict_interval_is_over_groups_and_paired() -> None:
    """Two items of three are unharmed, in whole groups: the draws range from no harm to all harmed."""
    groups = np.array(list("aabbccddee" + "ff"))
    alone = np.ones(12)
    lying = np.where(np.isin(groups, ["a", "b"]), 1.3, 1.0)
    found = rb.conflict_ratio(lying, alone, GroupBootstrap(groups))
    assert found["ratio"] == pytest.approx(1.1)
    # of 6 draws with 1/3 each, the 97.5th percentile is 4 harmed groups (P[> 4] = 0.018): 1 + 0.3 * 4 / 6
    assert found["ci95"] == pytest.approx([1.0, 1.2])
    assert found["within"] is False


def test_conflict_under_five_groups_has_a_reason_and_no_verdict() -> None:
    found = rb.conflict_ratio(np.ones(8), np.ones(8), GroupBootstrap(np.repeat(list("abcd"), 2)))
    assert found["ratio"] == 1.0 and found["ci95"] is None and found["within"] is None
    assert "4 groups" in found["reason"]
    with pytest.raises(InputError, match="same items"):
        rb.conflict_ratio(np.ones(8), np.ones(7), GroupBootstrap(np.repeat(list("abcd"), 2)))
