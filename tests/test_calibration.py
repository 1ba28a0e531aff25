"""Confidence: the fit finds what made the data, and a model uses and keeps what was fitted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmkp import calibration
from mmkp.errors import InputError
from mmkp.evaluation import calibrate as fitting
from mmkp.metrics import expected_calibration_error


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (2.5, 0.7), (0.4, -1.0)])
def test_the_fit_finds_the_temperature_and_bias_that_made_the_data(temperature, bias, rng):
    scores = rng.uniform(0.02, 0.98, 200_000)
    chance = calibration.temper(torch.tensor(scores), temperature, bias).numpy()
    found = calibration.fit(scores, rng.random(len(scores)) < chance)
    assert found["temperature"] == pytest.approx(temperature, rel=0.03)
    assert found["bias"] == pytest.approx(bias, abs=0.03)
    assert found["nll"] <= found["nll_before"] + 1e-9


def test_calibration_lowers_the_calibration_error(rng):
    scores = rng.uniform(0.3, 0.7, 20_000)
    right = rng.random(len(scores)) < calibration.temper(torch.tensor(scores), 0.3, 1.5).numpy()
    found = calibration.fit(scores[:10_000], right[:10_000])
    after = calibration.temper(torch.tensor(scores[10_000:]), found["temperature"], found["bias"]).numpy()
    before = expected_calibration_error(scores[10_000:], right[10_000:])
    assert before > 0.2
    assert expected_calibration_error(after.astype(float), right[10_000:]) < 0.03


def test_temperature_one_changes_nothing():
    scores = torch.tensor([0.0, 0.3, 1.0])
    assert calibration.temper(scores, 1.0) is scores


def test_temper_by_hand():
    # logit(0.8) = log 4; halved: log 2; the sigmoid of log 2 is 2 / 3
    assert calibration.temper(torch.tensor([0.8]), 2.0).item() == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.parametrize("right", [True, False])
def test_a_set_that_is_all_right_or_all_wrong_gives_finite_numbers(right, rng):
    found = calibration.fit(rng.uniform(0.1, 0.9, 100), np.full(100, right))
    assert np.isfinite([found["temperature"], found["bias"], found["nll"]]).all()
    tempered = calibration.temper(torch.tensor([0.5]), found["temperature"], found["bias"]).item()
    assert (tempered > 0.9) == right


def test_scores_that_say_the_opposite_are_left_alone(rng):
    scores = rng.uniform(0, 1, 1000)
    found = calibration.fit(scores, scores < 0.5)
    assert (found["temperature"], found["bias"]) == (1.0, 0.0)


@pytest.mark.parametrize("wrong", [1, 2, 1000, 1998, 1999])
def test_too_few_of_a_kind_leave_the_scores_as_they_are(wrong, rng, monkeypatch):
    """Of 2,000 keypoints two must be wrong, and two right."""
    right, scores = np.arange(2000) >= wrong, rng.uniform(0.1, 0.9, 2000)
    made = SimpleNamespace(keypoints_xy={("clear", "image"): None})
    monkeypatch.setattr(fitting, "predict_dataset", lambda *_, **__: made)
    monkeypatch.setattr(fitting, "judged", lambda *_: (scores, right, None))
    monkeypatch.setattr(fitting, "conditions_of", lambda _: ["clear"])
    monkeypatch.setattr(fitting, "digest_of", lambda *_: "")
    config, schema = SimpleNamespace(), SimpleNamespace(normalizer=SimpleNamespace(name="outer_eye_distance"))
    loaded = SimpleNamespace(model=SimpleNamespace(config=config, finds_people=False, schema=schema), processor=None)
    if wrong in (1, 1999):
        with pytest.raises(InputError, match=rf"one in a thousand of each, got {wrong} of 2000 wrong"):
            fitting.calibrate(loaded, range(10))
        assert config.calibration is None
    else:
        assert fitting.calibrate(loaded, range(10))["n"] == config.calibration["n"] == 2000
