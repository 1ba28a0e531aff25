"""Study files: what they resolve to, what a cell depends on, and every fault by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mmkp.data.corruptions import CORRUPTIONS
from mmkp.errors import InputError
from mmkp.study import plan as planning
from mmkp.study.origin import command
from mmkp.study.plan import Cell, cell_of, settings_key, state
from mmkp.study.recipe import load_study
from mmkp.study.results import CellResults, Items, read_meta

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "recipes" / "studies").glob("*.yaml"))
PRINTS = {"train": "a", "validation": "b", "test": "c"}


def written(folder: Path, **changes: Any) -> Path:
    """A study of two arms as a file."""
    plain = {
        "kind": "study", "name": "s", "recipe": str(ROOT / "recipes" / "quickstart.yaml"), "budget": {"steps": 6},
        "arms": [{"name": "image", "modalities": ["image"]}, {"name": "gated", "fusion": {"name": "gated"}}],
    }  # fmt: skip
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**plain, **changes}.items() if v is not None}))
    return path


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_a_shipped_study_loads_and_says_what_it_costs(path):
    loaded = load_study(path)
    assert loaded.study.name == path.stem
    assert loaded.reference == "image"
    names = {n for c in loaded.study.corruptions for n in c.names}
    assert names <= set(CORRUPTIONS)
    text = path.read_text()
    assert all(word in text for word in ("# Command:", "# Cost:", "# Result:", path.name))


def test_the_studies_that_are_shipped():
    assert [p.stem for p in STUDIES] == ["grid", "talker", "talker_from_wild", "toy"]
    talker = load_study(ROOT / "recipes" / "studies" / "talker.yaml")
    assert len(talker.study.arms) * len(talker.study.seeds) == 27
    assert talker.classic == {"classic"}
    assert talker.recipe("classic", 1, 1).data.options == talker.recipe("image", 1, 9).data.options


def test_an_arm_is_the_base_recipe_with_its_changes(tmp_path):
    path = written(tmp_path, changes={"training.batch_size": 4})
    loaded = load_study(path, ["data.options.size=40", "budget.steps=9", "budget.checks=3"])
    recipe: Any = loaded.recipe("image", 7, 9)
    assert recipe.model.modalities == ("image",)
    assert recipe.augment.drop_image == 0  # what a specialist lives on is never taken away
    assert (recipe.training.seed, recipe.training.steps, recipe.training.batch_size) == (7, 9, 4)
    assert recipe.training.warmup_steps == 1  # 80 of 1200, as a share of 9
    assert recipe.training.evaluate_every == 3
    assert recipe.data.options == {"size": 40}
    other: Any = loaded.recipe("gated", 7, 9)
    assert (other.model.fusion.name, other.augment.drop_image) == ("gated", 0.25)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": [{"name": "image", "modalities": ["image"]}, {"name": "a", "fusion": {"name": "gatde"}}]}, "'gated'"),
        ({"arms": [{"name": "a"}, {"name": "A"}]}, "'a' more than once"),
        ({"arms": [{"name": "a"}, {"name": "b"}]}, "an arm of the image alone"),
        ({"arms": [{"name": "a/b"}]}, "pattern"),
        ({"arms": [{"name": "a", "fusio": {}}]}, "Did you mean 'fusion'"),
        ({"arms": [{"name": "a", "recipe": "nothing.yaml"}]}, "none there"),
        ({"arms": [{"name": "a", "changes": {"model.hiden_size": 8}}]}, "Did you mean 'hidden_size'"),
        ({"arms": [{"name": "a", "changes": {"model.codec.name": "openpose"}}]}, "a codec of one person"),
        ({"arms": [{"name": "a", "fusion": {"name": "gated", "level": "model"}}]}, "arm a fusion.level"),
        ({"arms": [{"name": "a", "fusion": {"name": "product", "level": "model"},
                    "changes": {"model.codec": {"name": "regression"}}}]}, "arm a fusion.name"),
        ({"reference": "imag"}, "Did you mean 'image'"),
        ({"budget": {}}, "steps or cpu_seconds, got neither"),
        ({"budget": {"steps": 5, "cpu_seconds": 5}}, "got both"),
        ({"budget": {"steps": 0}}, "greater than or equal to 1"),
        ({"seeds": [1, 1]}, "each seed once"),
        ({"corruptions": [{"names": ["blurr"]}]}, "Did you mean 'blur'"),
        ({"corruptions": [{"names": ["blur"], "severities": [6]}]}, "less than or equal to 5"),
        ({"corruptions": [{"names": ["blur"], "arms": ["gatd"]}]}, "Did you mean 'gated'"),
        ({"evaluate": {"conditions": ["coverd"]}}, "Did you mean 'covered'"),
        ({"evaluate": {"subsets": ["image+txt"]}}, "Did you mean 'image+text'"),
        ({"evaluate": {"primary": {"prt": "lips"}}}, "Did you mean 'part'"),
        ({"evaluate": {"primary": {"conditions": ["coverd"]}}}, "Did you mean 'covered'"),
        ({"corruptions": [{"names": ["blur"], "severities": [1, 1]}]}, "each once"),
        ({"corruptions": [{"names": ["blur"]}, {"names": ["blur"], "items": 9}]}, "'blur' more than once"),
        ({"changes": {"training.steps": 9}}, "Say it in the study's budget"),
        ({"changes": {"training": {"steps": 9}}}, "got training"),
        ({"arms": [{"name": "image", "modalities": ["image"], "changes": {"training.seed": 3}}]}, "study's seeds"),
        ({"changes": {"training.warmup_steps": "many"}}, "training.warmup_steps"),
        ({"arms": [{"name": "image", "modalities": ["image", "image"]}]}, "arm image modalities: expected each once"),
        ({"evaluate": {"subsets": ["image", "image"]}}, "subsets: expected each once"),
        ({"evaluate": {"conditions": ["covered"]}, "corruptions": [{"names": ["blur"]}]}, "clear among them"),
        ({"evaluate": {"split": "train"}}, "evaluate.split: expected data that no arm was trained on, got train"),
        ({"evaluate": {"conditions": ["clear", "clear"]}}, "evaluate.conditions: expected each once"),
        ({"evaluate": {"subsets": ["text+image"]}}, "Did you mean 'image+text'?"),
        ({"arms": [{"name": "image", "modalities": ["image"]}, {"name": "b", "label": "image"}]}, "labels that differ"),
        ({"arms": [{"name": "image", "modalities": ["image"], "label": "two\nlines"}]}, "label: expected one line"),
        ({"corruptions": [{"names": ["blur"], "arms": []}]}, "at least 1 item"),
        ({"alpha": 1e-9}, "greater than or equal to 0.0001"),
        ({"seeds": [2**64]}, "less than 4294967296"),
        ({"budget": {"cpu_seconds": float("inf")}}, "finite"),
        ({"kind": None}, "kind: study"),
        ({"recipe": "nothing.yaml"}, "none there"),
        ({"name": None}, "expected a value, got none"),
    ],
)  # fmt: skip
def test_a_fault_is_named(tmp_path, changes, words):
    with pytest.raises(InputError) as caught:
        load_study(written(tmp_path, **changes))
    assert words in str(caught.value)


def test_a_key_that_stands_twice_is_a_fault(tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text() + "seeds: [0]\nseeds: [1]\n")
    with pytest.raises(InputError, match="'seeds' more than once, first in line"):
        load_study(path)


def test_another_dataset_does_not_get_the_options_of_the_first(tmp_path):
    path = written(tmp_path, data={"dataset": "grid:somewhere"})
    recipe: Any = load_study(path).recipe("image", 0, 9)
    assert (recipe.data.dataset, recipe.data.options, recipe.data.train_options) == ("grid:somewhere", {}, {})
    recipe = load_study(path, ["data.options.frame_step=5"]).recipe("image", 0, 9)
    assert (recipe.data.options, recipe.data.train_options) == ({"frame_step": 5}, {})
    own = {"name": "classic", "recipe": str(ROOT / "recipes" / "classic_hog_svm.yaml")}
    arms = [{"name": "image", "modalities": ["image"]}, own]
    for dataset, kept in (("grid:somewhere", False), ("talker", True)):
        recipe = load_study(written(tmp_path, arms=arms, data={"dataset": dataset})).recipe("classic", 0, 9)
        assert recipe.data.dataset == dataset
        assert bool(recipe.data.options) is bool(recipe.data.train_options) is kept


def test_files_that_are_no_studies(tmp_path):
    with pytest.raises(InputError, match="none there"):
        load_study(tmp_path / "no.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InputError, match="sections by name"):
        load_study(tmp_path / "list.yaml")
    with pytest.raises(InputError, match="a classic recipe"):
        load_study(ROOT / "recipes" / "classic_hog_svm.yaml")


def test_a_key_holds_what_a_result_depends_on_and_nothing_else(tmp_path):
    def key(arm: str = "gated", seed: int = 0, prints: dict = PRINTS, **changes: Any) -> str:
        return cell_of(load_study(written(tmp_path, **changes)), arm, seed, prints).key

    base = key()
    assert base != key(changes={"data.validation_subsets": ["image"]})  # it chooses the best checkpoint
    assert base == key(changes={"training.log_every": 3, "training.threads": 2}, tuning="by hand", alpha=0.05)
    assert base == key(data={"dataset": "talker:elsewhere"})  # the fingerprints tell what lies there
    assert base == key(evaluate={"batch_size": 3, "primary": {"conditions": ["clear"]}})
    others = [
        key(seed=1), key("image"), key(prints={**PRINTS, "test": "d"}), key(budget={"steps": 7}),
        key(changes={"model.hidden_size": 32}), key(evaluate={"conditions": ["clear"]}),
        key(corruptions=[{"names": ["blur"]}]),
    ]  # fmt: skip
    assert len({base, *others}) == 8
    assert base == key(corruptions=[{"names": ["blur"], "arms": ["image"]}])  # another arm's


def test_the_settings_of_a_cell_do_not_know_its_data(tmp_path):
    loaded = load_study(written(tmp_path))
    one, other = (cell_of(loaded, "gated", 0, {**PRINTS, "test": test}) for test in ("a", "b"))
    assert one.key != other.key
    assert one.settings == other.settings == settings_key(loaded, "gated", 0)
    assert settings_key(loaded, "gated", 1) != one.settings


def test_a_checkpoint_that_is_trained_anew_under_its_name_is_another_start(tmp_path):
    import torch

    from mmkp.configuration_mmkp import MmkpConfig
    from mmkp.processing_mmkp import make_processor
    from mmkp.study.plan import _weights_of
    from mmkp.training.build import make_model

    def settings(seed: int) -> str:
        torch.manual_seed(seed)
        plain = {"name": "made", "keypoints": ["a", "b"]}
        small = {"backbone": "test_efficientnet", "stride": 8}
        made, _ = make_model(
            MmkpConfig(modalities=("image",), keypoint_schema=plain, hidden_size=16, image_config=small)
        )
        made.save_pretrained(tmp_path / "start")
        make_processor(made.config).save_pretrained(tmp_path / "start")
        _weights_of.cache_clear()
        changes = {"training.start_from": str(tmp_path / "start")}
        return settings_key(load_study(written(tmp_path, changes=changes)), "gated", 0)

    first = settings(0)
    assert first == settings(0) != settings(1)


def test_warming_up_keeps_its_share_unless_it_is_named(tmp_path):
    base = load_study(written(tmp_path)).recipe("gated", 0, 1000).training
    assert base.warmup_steps == 67  # 80 of the 1200 of recipes/quickstart.yaml
    named = load_study(written(tmp_path, changes={"training.warmup_steps": 7})).recipe("gated", 0, 1000).training
    assert named.warmup_steps == 7


def test_all_modalities_of_an_arm_are_always_judged(tmp_path):
    from mmkp.study.cell import subsets_of

    loaded = load_study(written(tmp_path, evaluate={"subsets": ["text", "image"]}))
    assert subsets_of(loaded, "gated") == ["image", "text", "image+text+audio"]
    assert subsets_of(loaded, "image") == ["image"]


def test_a_command_does_not_say_where_things_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = command(tmp_path / "a" / "s.yaml", ["data.dataset=grid:/home/me/grid", "budget.steps=3"])
    assert said == "mmkp study a/s.yaml --out OUT data.dataset=grid:PATH budget.steps=3"
    assert command(Path("/elsewhere/s.yaml"), []) == "mmkp study s.yaml --out OUT"


def test_a_stale_cell_is_put_aside_not_written_over(tmp_path):
    from mmkp.study.results import CellResults

    cell = planning.Cell("a", 0, "new")
    path = CellResults({"status": "done", "key": "old"}).save(tmp_path / "a-0.parquet")
    assert planning.state(path, cell) == "stale"
    assert planning.put_aside(path).name == "a-0-old.parquet"
    assert planning.state(path, cell) == "open"
    path.write_bytes(b"PAR1 cut off")
    assert planning.state(path, cell) == "open"
    CellResults({"status": "failed", "key": "new"}).save(path)
    assert [planning.state(path, cell, retry) for retry in (False, True)] == ["failed", "open"]


def test_a_damaged_cell_is_not_done(tmp_path):
    """The footer, which says that it is, lies at the end of the file and outlives a body that does not."""
    cell = Cell("gated", 0, "k")
    names = np.array([f"i{i}" for i in range(500)])
    error = np.random.default_rng(0).random(500)
    made = CellResults({"status": "done", "key": "k"})
    made.blocks["clear", 0, "image", "all"] = Items(names, names, error, error, error)
    path = made.save(tmp_path / "gated-0.parquet")
    assert state(path, cell) == "done"
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes(200) + whole[240:])
    assert read_meta(path)["status"] == "done"
    assert state(path, cell) == "stale"
    assert state(path, cell, retry=True) == "stale"


def test_a_whole_section_cannot_take_the_place_of_what_the_arms_say(tmp_path):
    """`changes.model.hidden_size=8` as an override is {model: {hidden_size: 8}}, beside the file's dotted keys."""
    talker = Path(__file__).parents[2] / "recipes" / "studies" / "talker.yaml"
    with pytest.raises(InputError, match=r"changes: expected single keys, .* got model"):
        load_study(talker, ["changes.model.hidden_size=8"])
