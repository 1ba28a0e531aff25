"""Conditions by name: corruptions of a chosen strength beside those of the protocol, for any checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_model import save_tiny

from mmkp.data import open_dataset
from mmkp.data.conditions import Conditions, changed_modalities
from mmkp.data.corrupt import CONDITIONS
from mmkp.data.corruptions import corrupt, donor_pool
from mmkp.errors import InputError
from mmkp.evaluation.predict import effective_condition, needed
from mmkp.schema import load_schema


def test_what_a_subset_can_notice():
    assert effective_condition("covered+audio_noise:3", "image") == "covered"
    assert effective_condition("covered+audio_noise:3", "audio") == "audio_noise:3"
    assert effective_condition("covered+audio_noise:3", "text") == "clear"
    assert effective_condition("conflict_speech:5", "image+text") == "conflict_speech:5"
    assert changed_modalities("occlude_hands:2") == ("image",)  # of a schema with hands
    assert needed(["covered+typos:1"], ["image", "image+text"]) == ["covered", "covered+typos:1"]


def test_a_corruption_by_name_is_the_corruption(grid_root):
    dataset = open_dataset(f"grid:{grid_root}", "test")
    named, sample = Conditions(dataset), dataset[3]
    assert named["covered"] is CONDITIONS["covered"]
    lying = corrupt(sample, "conflict_audio", 5, donor_pool(dataset))
    assert np.array_equal(named["conflict_audio:5"](sample).audio, lying.audio)
    both = named["covered+missing_audio:5"](sample)
    assert both.audio is None
    assert np.array_equal(both.image, CONDITIONS["covered"](sample).image)
    assert named["covered+missing_audio:5"](sample.replace(image=None)) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("coverd", "Did you mean 'covered'"),
        ("audio_noise", "Say how strong: audio_noise:3"),
        ("covered+audio_nois:3", "Did you mean 'audio_noise'"),
        ("blur:6", "a severity from 1 to 5, got '6'"),
        ("blur:", "a severity from 1 to 5"),
        ("rotation:1", "mmkp study"),
        ("", "a condition"),
    ],
)
def test_a_condition_that_does_not_exist_is_named(mmkp, grid_root, tmp_path, name, words):
    model = save_tiny(tmp_path / "model", keypoint_schema=load_schema("face68").model_dump(mode="json"))
    code, _, said = mmkp("evaluate", "-m", model, "-d", f"grid:{grid_root}", "-o", tmp_path, "--condition", name)
    assert code == 2
    assert words in said


def test_an_evaluation_under_corruptions(mmkp, grid_root, tmp_path):
    model = save_tiny(tmp_path / "model", keypoint_schema=load_schema("face68").model_dump(mode="json"))
    names = ["clear", "covered", "conflict_audio:5", "missing_audio:5", "covered+audio_noise:5"]
    asked = [word for name in names for word in ("--condition", name)]
    code, _, said = mmkp("evaluate", "-m", model, "-d", f"grid:{grid_root}", "-o", tmp_path / "out", *asked)
    assert code == 0, said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    error = {(c, s): e["nme"]["mean"] for c, rows in summary["conditions"].items() for s, e in rows.items()}
    assert error["missing_audio:5", "image+audio"] == error["clear", "image"]
    assert error["missing_audio:5", "audio"] == pytest.approx(error["clear", "mean_shape"], rel=1e-6)
    assert error["conflict_audio:5", "image+text"] == error["clear", "image+text"]
    assert error["conflict_audio:5", "image+text+audio"] != error["clear", "image+text+audio"]
    assert error["covered+audio_noise:5", "image"] == error["covered", "image"] != error["clear", "image"]
    assert error["covered+audio_noise:5", "audio"] != error["clear", "audio"]
    lie = summary["comparisons"]["conflict_audio:5"]["image+text+audio / image"]["lips"]
    assert lie["ratio"] > 0
    assert "## conflict_audio:5" in (tmp_path / "out" / "report.md").read_text()


def test_a_corruption_that_no_item_can_have_is_refused(grid_root):
    dataset = open_dataset(f"grid:{grid_root}", "test")
    with pytest.raises(InputError, match="condition"):
        Conditions(dataset)["occlude_hands:2"]
