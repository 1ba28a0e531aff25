"""Every shipped recipe is parsed, and trained at toy size: four steps, saved, resumed, evaluated."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from mmkp import load_recipe
from mmkp.classic import is_classic
from mmkp.evaluation.run import evaluate
from mmkp.hub import load
from mmkp.recipe import parse_recipe
from mmkp.training import run

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if not is_classic(path))
HEADER = ("Command:", "Cost:", "Result:")


@pytest.fixture(params=RECIPES, ids=lambda p: p.stem)
def path(request) -> Path:
    return request.param


def test_there_are_recipes():
    assert {"grid_talker", "quickstart"} <= {p.stem for p in RECIPES}


def test_a_recipe_is_complete_and_of_readable_size(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe
    assert len(path.read_text().splitlines()) <= 75


def test_a_recipe_says_what_it_costs_and_gives(path):
    """A purpose, a command that names the file, the cost, and a result with its interval."""
    header = [line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(header[0]) > 20
    for word in HEADER:
        assert any(line.startswith(word) for line in header), word
    text = "\n".join(header)
    assert path.name in text
    assert "not yet measured" in text or re.search(r"\[0\.\d+, 0\.\d+\]", text), "an interval, or that there is none"


def toy(path: Path, grid_root: Path) -> dict:
    """The recipe at 64 px, tiny width, four steps; its data, made small."""
    plain = load_recipe(path).model_dump(mode="json")
    name = plain["data"]["dataset"].partition(":")[0]
    if name in (
        "coco",
        "mpii",
        "folder",
        "csv",
    ):  # the readers have tests of their own; here it is the model that is tried
        plain["data"]["dataset"] = name = "talker"
    elif name == "people":
        plain["data"]["dataset"] = name = "crowd"
    if name in ("talker", "crowd", "mix") and importlib.util.find_spec("espeakng_loader") is None:
        pytest.skip("needs the extra `talker` (pip install 'mmkp[talker]')")
    if name == "grid":
        plain["data"]["dataset"] = f"grid:{grid_root}"
    elif name == "mix":
        drawn = {"dataset": "talker", "options": {"size": 64, "n": 16}}
        plain["data"]["options"] = {"parts": {"drawn": drawn, "grid": {"dataset": f"grid:{grid_root}", "share": 0.5}}}
    else:
        plain["data"]["options"] = {"size": 64, "n": 16}
        plain["data"]["train_options"] = {}
    plain["data"]["validation_samples"] = 4
    plain["model"]["hidden_size"], plain["model"]["input_size_hw"] = 16, [64, 64]
    image = plain["model"]["image"]
    if image["weights"] != "none":
        image["weights"] = "none"
        image["backbone"] = "hrnet_w18_small" if image["backbone"].startswith("hrnet") else "mobilenetv3_small_050"
    plain["training"] |= {"steps": 4, "batch_size": 4, "evaluate_every": 2, "warmup_steps": 1, "threads": 1}
    plain["training"] |= {"workers": 0, "start_from": None}
    return plain


def test_a_recipe_trains_resumes_and_evaluates(path, grid_root, tmp_path):
    recipe = parse_recipe(toy(path, grid_root))
    folder = tmp_path / "run"
    run(recipe, folder)
    shutil.rmtree(folder / "checkpoints" / "step-000004")
    assert run(recipe, folder, resume=True).state.step == 4
    summary = evaluate(
        load(str(folder)), recipe.data.dataset, "test", folder, options=recipe.data.options, say=lambda _: None
    )
    covers = recipe.data.dataset != "crowd"  # five points of a small face are not covered
    assert set(summary["conditions"]) >= ({"clear", "covered"} if covers else {"clear"})
    assert json.loads((folder / "summary.json").read_text())["n"] == summary["n"]
    assert (folder / "report.md").is_file()
