"""What the modalities can know of the talker's mouth: complementary on purpose."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from mmkp.data.talker.ceilings import ceilings, in_box_frame, in_eye_frame
from mmkp.errors import InputError
from mmkp.geometry import augment_affine, transform

pytestmark = pytest.mark.skipif(
    find_spec("espeakng_loader") is None,
    reason="the extra 'talker' (espeakng-loader) is not installed",
)


@pytest.fixture(scope="module")
def found() -> dict:
    pytest.importorskip("sklearn")
    return ceilings(960, seed=1)


def test_together_they_know_more_than_each_alone(found: dict) -> None:
    """The gate itself is checked at full size by `mmkp ceilings`; a few clips teach less, so the bar is lower here."""
    error = {name: entry["lip_nme"] for name, entry in found.items() if name != "gate"}
    assert error["image+text+audio"] < 0.87 * min(error["image"], error["text"], error["audio"])
    assert error["image+text"] < error["image"]
    assert error["image+audio"] < error["image"]
    assert max(error["text"], error["audio"], error["image"]) < error["mean_shape"]


def test_every_subset_has_an_interval_around_its_mean(found: dict) -> None:
    assert len(found) == 9
    for name, entry in found.items():
        if name != "gate":
            low, high = entry["ci95"]
            assert low < entry["lip_nme"] < high
            assert entry["n"] == 480
    assert found["gate"]["best_single"] in ("image", "text", "audio")


def test_the_eye_frame_forgets_place_scale_and_roll(rng: np.random.Generator) -> None:
    points = rng.normal(size=(68, 2)) * 20 + 50
    moved = transform(points, augment_affine((100, 100), 17.0, 1.7, (4.0, -9.0)))
    np.testing.assert_allclose(in_eye_frame(moved), in_eye_frame(points), atol=1e-9)


def test_the_frame_of_the_box_keeps_the_roll(rng: np.random.Generator) -> None:
    points = rng.normal(size=(68, 2)) * 20 + 50
    moved = transform(points, augment_affine((100, 100), 0.0, 1.7, (4.0, -9.0)))
    np.testing.assert_allclose(in_box_frame(moved), in_box_frame(points), atol=1e-9)
    rolled = in_box_frame(transform(points, augment_affine((100, 100), 17.0, 1.0, (0.0, 0.0))))
    np.testing.assert_allclose(np.hypot(*rolled.T), np.hypot(*in_eye_frame(points).T), atol=1e-9)
    assert np.abs(rolled - in_box_frame(points)).max() > 0.1


def test_who_has_no_picture_is_judged_without_the_roll_too(found: dict) -> None:
    for name, entry in found.items():
        assert ("in_box" in entry) == (name in ("text", "audio", "text+audio", "mean_shape"))
        if "in_box" in entry:
            low, high = entry["in_box"]["ci95"]
            assert entry["lip_nme"] < low < entry["in_box"]["lip_nme"] < high
    assert found["text+audio"]["in_box"]["lip_nme"] < found["mean_shape"]["in_box"]["lip_nme"]


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match="at least"):
        ceilings(16)
