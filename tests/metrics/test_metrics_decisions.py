"""Detection and visibility decisions, and calibration, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mmkp import metrics
from mmkp.errors import InputError


@pytest.fixture(params=["numpy", "torch"])
def given(request):
    return np.array if request.param == "numpy" else lambda v: torch.from_numpy(np.array(v))


def test_each_kind_of_decision_once(given):
    """right | misplaced | missed | false alarm | rightly quiet | NaN score | left out, at 0.5 and 0.1."""
    scores = given([[0.9, 0.5, 0.4, 0.8, 0.1, np.nan, 0.9]])
    errors = given([[0.1, 0.2, 0.0, np.nan, np.nan, 0.0, 9.0]])
    present = given([[True, True, True, False, False, True, True]])
    judged = given([[True] * 6 + [False]])
    counts = metrics.detection_counts(scores, errors, present, 0.5, 0.1, judged)
    assert [int(c[0]) for c in counts] == [1, 2, 3, 1, 4]
    wanted = {"accuracy": 2 / 6, "precision": 1 / 3, "recall": 1 / 4, "f1": 2 / 7}
    assert {name: float(getattr(counts, name)[0]) for name in wanted} == pytest.approx(wanted)
    assert metrics.pooled(counts) == pytest.approx(wanted)


def test_pooling_is_over_points_not_over_items(given):
    """Item 0: 1 of 1 right; item 1: 1 of 3."""
    present = given([[True, False, False], [True, True, True]])
    scores = given([[1.0, 0, 0], [1.0, 1, 1]])
    errors = given([[0.0, 0, 0], [0.0, 1, 1]])
    counts = metrics.detection_counts(scores, errors, present, 0.5, 0.5, present)
    np.testing.assert_allclose(np.asarray(counts.precision), [1, 1 / 3])
    assert metrics.pooled(counts)["precision"] == 0.5


def test_nothing_present_and_nothing_found(given):
    none = given([[False, False]])
    counts = metrics.detection_counts(given([[0.0, 0.0]]), given([[0.0, 0.0]]), none, 0.5, 0.1)
    assert np.isnan(np.asarray(counts.recall)).all()
    assert metrics.pooled(counts) == {"accuracy": 1.0, "precision": None, "recall": None, "f1": None}


def test_visibility_decisions(given):
    counts = metrics.visibility_counts(given([[True, True, False, False]]), given([[True, False, True, False]]))
    assert [int(c[0]) for c in counts] == [1, 1, 1, 1, 2]
    assert metrics.pooled(counts) == {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5}


def test_reliability_by_width(given):
    """Edges belong to the lower bin: .5 is in the first of two, 0 too."""
    table = metrics.reliability_table(given([0.0, 0.5, 0.6, 1.0]), given([False, True, True, True]), bins=2)
    assert [float(v) for v in table.count] == [2, 2]
    np.testing.assert_allclose(np.asarray(table.confidence), [0.25, 0.8])
    np.testing.assert_allclose(np.asarray(table.accuracy), [0.5, 1.0])


def test_calibration_error_by_hand(given):
    """Bins of a tenth: |.95 - .5| for two of four, |.25 - 0| and |.65 - 1| for one each."""
    confidence, correct = given([0.95, 0.95, 0.25, 0.65]), given([True, False, False, True])
    found = metrics.expected_calibration_error(confidence, correct, bins=10)
    assert found == pytest.approx((2 * 0.45 + 0.25 + 0.35) / 4)


def test_every_tenth_lies_in_its_own_bin(given):
    confidence = given([i / 10 for i in range(1, 11)])
    table = metrics.reliability_table(confidence, given([True] * 10), bins=10)
    assert [int(v) for v in table.count] == [1] * 10


def test_equal_mass_shares_the_points_and_keeps_equals_together(given):
    confidence = given([0.9, 0.91, 0.92, 0.93, 0.94, 0.95])
    counts = metrics.reliability_table(confidence, given([True] * 6), bins=3, equal_mass=True).count
    assert [int(v) for v in counts] == [2, 2, 2]
    one = metrics.reliability_table(given([0.5] * 6), given([True] * 6), bins=3, equal_mass=True)
    assert [int(v) for v in one.count] == [6, 0, 0]
    assert np.isnan(np.asarray(one.accuracy)[1:]).all()


def test_nothing_to_calibrate_is_none(given):
    empty, none = given(np.zeros(0)), given(np.zeros(0, bool))
    for equal_mass in (False, True):
        assert metrics.expected_calibration_error(empty, none, equal_mass=equal_mass) is None


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(InputError, match=r"numbers in \[0, 1\]"):
        metrics.expected_calibration_error(np.array([0.5, bad]), np.array([True, False]))


@settings(max_examples=50, deadline=None)
@drawn(npst.arrays(float, st.integers(1, 60), elements=st.floats(0, 1)), st.integers(1, 20), st.booleans())
def test_tables_hold_every_point_in_any_order(confidence, bins, equal_mass):
    correct = np.arange(len(confidence)) % 3 == 0
    table = metrics.reliability_table(confidence, correct, bins, equal_mass)
    back = metrics.reliability_table(confidence[::-1].copy(), correct[::-1].copy(), bins, equal_mass)
    assert table.count.sum() == len(confidence)
    np.testing.assert_array_equal(table.count, back.count)
    np.testing.assert_allclose(np.nansum(table.accuracy * table.count), correct.sum(), atol=1e-9)
    np.testing.assert_allclose(np.nansum(table.confidence * table.count), confidence.sum(), atol=1e-9)
