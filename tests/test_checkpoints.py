"""The checkpoints that the package carries: small, safe, documented, and as good as their cards say."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_recipe, train

import mmkp
from mmkp import InputError, card
from mmkp.evaluation.run import evaluate
from mmkp.hub import load, packaged, resolve

ROOT = Path(__file__).parents[1]
CHECKPOINTS = packaged()
GRID = Path(os.environ.get("MMKP_TEST_GRID", ROOT.parent / "shared" / "data" / "grid"))


@pytest.fixture(params=CHECKPOINTS, ids=str)
def folder(request) -> Path:
    return CHECKPOINTS[request.param]


def test_all_together_are_small():
    sizes = [f.stat().st_size for p in CHECKPOINTS.values() for f in p.iterdir()]
    assert max(sizes) <= 12e6
    assert sum(sizes) <= 60e6


def test_a_checkpoint_holds_no_code_and_no_pickle(folder):
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".safetensors", ".md"}


def test_a_card_states_what_a_user_must_know(folder):
    text = (folder / "README.md").read_text()
    for word in ("license:", "**Trained on**", "**Recipe**", "**Limits**", "n = ", "### covered", "mean_shape"):
        assert word in text, word
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["licence"] in text
    assert all(n in text for n in facts["figures"].split() if n.replace(".", "").isdigit())


def test_a_checkpoint_predicts_from_every_subset(folder):
    loaded = load(folder.name)
    assert next(loaded.model.parameters()).dtype == torch.float32
    processor, wave = loaded.processor, np.zeros(16_000, np.float32)
    given = {"images": np.zeros((90, 80, 3), np.uint8), "text": "bin bl|ue", "audio": wave}
    for subset in (["images"], ["text"], ["audio"], ["images", "text", "audio"]):
        inputs = processor(**{k: given[k] for k in subset}, sampling_rate=16_000)
        with torch.no_grad():
            outputs = loaded.model(**inputs)
        assert torch.isfinite(outputs.keypoints_xy).all()


def test_grid_talker_is_as_good_as_its_card_says(tmp_path):
    """Every fifteenth frame of the test clips, within the card's interval widened by half its width."""
    if not GRID.is_dir():
        pytest.skip("needs the GRID excerpt: set MMKP_TEST_GRID to a folder in the layout of data_cards/grid.md")
    summary = evaluate(
        load("grid-talker"),
        f"grid:{GRID}",
        "test",
        tmp_path,
        {"frame_step": 15},
        ["clear", "covered"],
        say=lambda _: None,
    )
    figures = json.loads((packaged()["grid-talker"] / "facts.json").read_text())["figures"].replace(",", "").split()
    for condition in ("clear", "covered"):
        low, high = (float(v.strip("[]")) for v in figures[figures.index(condition) + 3 :][:2])
        slack = (high - low) / 2
        found = summary["conditions"][condition]["image+text+audio"]["nme"]["groups"]["lips"]["mean"]
        assert low - slack < found < high + slack


def test_packaging_a_run(grid_root, tmp_path):
    run = train(tiny_recipe(grid_root), tmp_path / "run")
    with pytest.raises(InputError, match=r"summary\.json"):
        card.package(run, tmp_path / "out", "apache-2.0", "drawn faces", "all of them")
    evaluate(load(str(run)), f"grid:{grid_root}", "test", run, say=lambda _: None)
    out = card.package(run, tmp_path / "out", "apache-2.0", "drawn faces", "it is a test")
    summary = json.loads((run / "summary.json").read_text())
    lips = summary["conditions"]["covered"]["image"]["nme"]["groups"]["lips"]["mean"]
    assert f"{lips:.4f}" in (out / "README.md").read_text()
    whole, half = load(str(run)), load(str(out))
    inputs = whole.processor(text="bin bl|ue")
    with torch.no_grad():
        difference = whole.model(**inputs).keypoints_xy - half.model(**inputs).keypoints_xy
    assert difference.abs().max() < 0.1  # px; half precision keeps three digits


def test_a_name_that_is_no_model_gets_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'grid-talker'"):
        load("grid-taker")
    assert resolve("grid-talker").endswith("grid-talker")


def test_a_folder_with_pickled_weights_is_not_loaded(folder, tmp_path):
    other = tmp_path / "pickled"
    shutil.copytree(folder, other)
    torch.save(load(folder.name).model.state_dict(), other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights as model\.safetensors"):
        load(str(other))
    assert mmkp.MmkpForKeypointDetection
