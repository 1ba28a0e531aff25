"""Scores: intervals over groups, paired comparisons, and the summary's form."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmkp.errors import InputError
from mmkp.evaluation.predict import all_subsets, effective_condition, needed
from mmkp.evaluation.predictions import Predictions
from mmkp.evaluation.run import untold
from mmkp.evaluation.score import GroupBootstrap, summarize
from mmkp.schema import Normalizer, load_schema


def test_an_interval_is_over_groups_not_items():
    """Ten groups of a hundred equal items carry the interval of ten values, not of a thousand."""
    values = np.random.default_rng(0).normal(size=10)
    groups = np.repeat([f"g{i}" for i in range(10)], 100)
    found = GroupBootstrap(groups).interval(np.repeat(values, 100))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["n"] == 1000
    half = (found["ci95"][1] - found["ci95"][0]) / 2
    assert half == pytest.approx(1.96 * values.std() / np.sqrt(10), rel=0.1)


def test_groups_of_unequal_size_weigh_by_their_items():
    groups = np.array(["a"] * 90 + list("bcdef") * 2)
    values = np.where(groups == "a", 1.0, 0.0)
    found = GroupBootstrap(groups).interval(values)
    assert found["mean"] == pytest.approx(0.9)
    assert found["ci95"][0] == 0.0  # a draw without the large group


def test_fewer_than_five_groups_have_no_interval_but_a_reason():
    found = GroupBootstrap(np.array(list("abcd") * 5)).interval(np.arange(20.0))
    assert found["ci95"] is None
    assert "at least 5" in found["reason"]
    assert found["mean"] == 9.5


def test_nan_is_left_out_and_nothing_at_all_is_null():
    draws = GroupBootstrap(np.array(list("abcdef")))
    half = draws.interval(np.array([1, 2, 3, np.nan, np.nan, np.nan]))
    assert half["mean"] == 2.0
    assert half["ci95"] is None  # six groups, of which three know anything
    assert "3 groups" in half["reason"]
    assert draws.compare(np.array([1, 2, 3, np.nan, np.nan, np.nan]), np.full(6, 9.0))["p"] is None
    assert draws.interval(np.full(6, np.nan)) == {"mean": None, "ci95": None, "n": 0, "reason": "no labelled point"}


def test_nothing_is_compared_with_an_error_of_nought():
    found = GroupBootstrap(np.array(list("abcdef"))).compare(np.full(6, 0.1), np.zeros(6))
    assert found == {"ratio": None, "ci95": None, "p": None, "reason": "nothing to be better than: an error of 0"}


def test_a_paired_comparison_sees_a_small_gain_that_intervals_hide():
    rng = np.random.default_rng(1)
    base = rng.uniform(1, 3, 30)
    better = base * 0.97 + rng.normal(0, 0.005, 30)
    draws = GroupBootstrap(np.array([f"g{i}" for i in range(30)]))
    assert draws.interval(better)["ci95"][1] > draws.interval(base)["mean"]
    found = draws.compare(better, base)
    assert found["better"]
    assert found["ratio"] == pytest.approx(better.mean() / base.mean())
    assert not draws.compare(base, base)["better"]
    worse = draws.compare(base * 1.2, base)
    assert not worse["better"]
    assert not worse["not_worse"]


@pytest.mark.parametrize(
    ("condition", "subset", "expected"),
    [
        ("covered", "audio", "clear"),
        ("covered", "image+text", "covered"),
        ("covered+even_times", "text+audio", "even_times"),
        ("covered+even_times", "image+audio", "covered"),
        ("clear", "image", "clear"),
    ],
)
def test_a_condition_changes_only_who_can_notice(condition, subset, expected):
    assert effective_condition(condition, subset) == expected


def test_subsets():
    assert all_subsets(("image", "text", "audio")) == [
        "image",
        "text",
        "audio",
        "image+text",
        "image+audio",
        "text+audio",
        "image+text+audio",
    ]


@pytest.fixture
def predictions():
    schema, rng = load_schema("face68"), np.random.default_rng(0)
    true = rng.uniform(0, 100, (12, 68, 2))
    made = Predictions(
        ids=np.array([f"i{i}" for i in range(12)]),
        groups=np.array([f"g{i // 2}" for i in range(12)]),
        true_xy=true,
        boxes=np.tile([0.0, 0, 100, 100], (12, 1)),
        mean_shape_xy=true + 3,
        meta={"key": "k"},
    )
    made.visible["clear"] = np.full((12, 68), 2)
    for subset, off in (("image", 2.0), ("audio", 4.0), ("image+audio", 1.0)):
        made.keypoints_xy["clear", subset] = true + [off, 0]
        made.scores["clear", subset] = np.ones((12, 68))
    return schema, made


def test_the_summary_has_the_stated_form_and_values(predictions):
    schema, made = predictions
    summary = json.loads(json.dumps(summarize(made, schema, {"split": "test"})))
    assert summary["n"] == 12
    assert summary["primary"] == "nme"
    entry = summary["conditions"]["clear"]["image"]
    length = np.linalg.norm(made.true_xy[:, 36] - made.true_xy[:, 45], axis=-1)
    assert entry["nme"]["mean"] == pytest.approx((2 / length).mean())
    assert set(entry["nme"]["groups"]) == {"jaw", "brows", "nose", "eyes", "lips"}
    assert entry["pck"] == entry["pck@0.1"]
    assert set(summary["conditions"]["clear"]) == {"image", "audio", "image+audio", "mean_shape"}
    compared = summary["comparisons"]["clear"]
    lips = compared["image+audio / image"]["lips"]
    assert lips["p"] == 1 / 64  # all of 6 groups gain: one of the 64 ways that their signs can fall
    assert not lips["better"] and lips["ratio"] < 1
    assert compared["image+audio / image"]["all"]["ratio"] == pytest.approx(0.5)
    assert not compared["audio / image"]["all"]["not_worse"]


@pytest.mark.parametrize("condition", ["even_times", "covered+even_times", "even_times+covered"])
def test_a_control_of_the_words_is_held_against_the_picture_that_knows_none(predictions, condition):
    """The picture alone is stored without the control: it cannot notice it."""
    schema, made = predictions
    base = "covered" if "covered" in condition else "clear"
    made.visible |= {base: made.visible["clear"], condition: made.visible["clear"]}
    made.keypoints_xy[base, "image"] = made.true_xy + [2.0, 0]
    made.keypoints_xy[condition, "image+text"] = made.true_xy + [3.0, 0]
    made.scores[base, "image"] = made.scores[condition, "image+text"] = np.ones((12, 68))
    compared = summarize(made, schema, {"split": "test"})["comparisons"][condition]
    assert compared["image+text / image"]["all"]["ratio"] == pytest.approx(1.5)


def test_predictions_survive_a_round_trip(predictions, tmp_path):
    _, made = predictions
    made.save(tmp_path)
    again = Predictions.load(tmp_path)
    assert again.meta == made.meta
    assert again.ids.tolist() == made.ids.tolist()
    assert again.keypoints_xy.keys() == made.keypoints_xy.keys()
    np.testing.assert_allclose(again.keypoints_xy["clear", "audio"], made.keypoints_xy["clear", "audio"], atol=1e-5)


def test_a_pickle_named_as_predictions_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "predictions.npz", ids=np.array([object()], dtype=object))
    with pytest.raises(InputError, match=r"predictions\.npz"):
        Predictions.load(tmp_path)


def test_a_cut_file_of_predictions_is_refused(predictions, tmp_path):
    _, made = predictions
    path = made.save(tmp_path)
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"predictions\.npz"):
            Predictions.load(tmp_path)
    np.savez(path, something=np.zeros(3))
    with pytest.raises(InputError, match=r"predictions\.npz"):
        Predictions.load(tmp_path)


def test_every_cell_that_was_asked_for_is_predicted():
    subsets = all_subsets(("image", "text", "audio"))
    assert needed(["covered"], subsets) == ["clear", "covered"]  # sound and words alone are those of the clear item
    assert needed(["clear"], subsets) == ["clear"]
    assert needed(["covered"], ["audio"]) == ["clear"]
    assert needed(["covered+even_times"], ["image+text"]) == ["covered+even_times"]


def test_a_normalizer_that_no_item_has_is_refused():
    schema = load_schema("face68")
    points = np.random.default_rng(0).uniform(0, 90, (6, 68, 2))
    points[:, 36] = np.nan
    made = Predictions(np.arange(6).astype(str), np.array(list("abcdef")), points, np.zeros((6, 4)), points)
    made.visible["clear"], made.keypoints_xy["clear", "image"] = np.full((6, 68), 2), points
    with pytest.raises(InputError, match="got none of 6. Label right_eye_0 and left_eye_3"):
        summarize(made, schema, {})


def test_a_box_without_area_is_said_so():
    points = np.random.default_rng(0).uniform(0, 90, (6, 5, 2))
    made = Predictions(np.arange(6).astype(str), np.array(list("abcdef")), points, np.zeros((6, 4)), points)
    made.visible["clear"], made.keypoints_xy["clear", "image"] = np.full((6, 5), 2), points
    schema = load_schema("face5").model_copy(update={"normalizer": Normalizer(name="side", kind="box_side")})
    with pytest.raises(InputError, match="got none of 6. Give the rows a box that has an area"):
        summarize(made, schema, {})


def test_subsets_that_no_item_can_tell_of_have_no_figures():
    schema = load_schema("face5")
    points = np.random.default_rng(0).uniform(0, 90, (6, 5, 2))
    made = Predictions(np.arange(6).astype(str), np.array(list("abcdef")), points, np.full((6, 4), 50.0), points)
    made.visible["clear"] = np.full((6, 5), 2)
    for subset in all_subsets(("image", "text", "audio")):
        made.keypoints_xy["clear", subset], made.scores["clear", subset] = points + 1, np.ones((6, 5))
    lacking = ["audio"]
    reasons = untold(("image", "text", "audio"), lacking)
    assert list(reasons) == ["audio", "image+audio", "text+audio", "image+text+audio"]
    assert set(reasons.values()) == {"no item has audio"}
    summary = summarize(made.without(lacking), schema, {}, reasons)
    rows = summary["conditions"]["clear"]
    assert set(rows) == {*all_subsets(("image", "text", "audio")), "mean_shape"}
    assert rows["image+text"]["nme"]["mean"] > 0
    assert rows["image+audio"]["nme"] | {"groups": {}} == {
        "mean": None, "ci95": None, "n": 0, "reason": "no item has audio", "groups": {}
    }  # fmt: skip
    assert list(summary["comparisons"]["clear"]) == ["text / image", "image+text / image"]
    assert len(made.keypoints_xy) == 7  # what was predicted stays as it is
