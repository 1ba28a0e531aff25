"""Fine-tuning's parts: division of small data, choices with reasons, adapters, early stop, comparison."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_recipe
from tiny_model import tiny_config

from mmkp.data.rows import Row, RowTable
from mmkp.errors import InputError, MissingExtraError
from mmkp.evaluation.predictions import Predictions
from mmkp.finetune.compare import compare
from mmkp.finetune.divided import divide
from mmkp.finetune.look import DataFacts
from mmkp.finetune.options import FinetuneOptions, split_overrides
from mmkp.finetune.plan import baseline_recipes, choose_mode, make_plan, merge
from mmkp.finetune.run import describe, left_out
from mmkp.hub import Loaded
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import make_processor
from mmkp.schema import parse_schema
from mmkp.training.build import parameter_groups
from mmkp.training.checkpoint import RunState
from mmkp.training.loop import Trainer
from mmkp.training.lora import add_lora, merged

SCHEMA = parse_schema({"name": "two", "keypoints": ["a", "b"], "groups": {"first": [0]}})


def row(number: int, group: str, split: str | None = None, labelled: bool = True) -> Row:
    visible = np.full(2, 2 if labelled else 0, np.uint8)
    return Row(f"i{number}", group, f"line {number}", np.zeros((2, 2), np.float32), visible, split=split)


def table(groups: list[str], split: str | None = None) -> RowTable:
    return RowTable("folder", SCHEMA, [row(i, g, split) for i, g in enumerate(groups)])


def ids(rows: list[Row]) -> list[str]:
    return [r.id for r in rows]


def test_a_lone_group_is_divided_in_the_order_of_the_data():
    """20 frames of one clip: the last 4 are test, of the first 16 the last 3 validation; said so."""
    found = divide(table(["clip"] * 20))
    assert ids(found.rows["train"]) == [f"i{i}" for i in range(13)]
    assert ids(found.rows["validation"]) == ["i13", "i14", "i15"]
    assert ids(found.rows["test"]) == ["i16", "i17", "i18", "i19"]
    assert [note.partition(":")[0] for note in found.notes] == ["test", "validation"]
    assert "one group (clip)" in found.notes[0]


def test_two_groups_give_one_to_the_test():
    found = divide(table(["x"] * 10 + ["y"] * 12))
    assert len({r.group for r in found.rows["test"]}) == 1
    assert not {r.group for r in found.rows["test"]} & {r.group for r in found.rows["train"]}
    assert len(found.rows["validation"]) == 2


def test_one_item_serves_as_all_and_that_is_said():
    found = divide(table(["x"]))
    assert {split: ids(rows) for split, rows in found.rows.items()} == {
        "train": ["i0"], "validation": ["i0"], "test": ["i0"]
    }  # fmt: skip
    assert all("too few to hold any out" in note for note in found.notes)


def test_splits_that_are_there_stay_as_they_are():
    """Twenty pictures of a group each: the usual split by the groups' hashes, no compromise."""
    found = divide(table([f"g{i}" for i in range(20)]))
    assert found.notes == ()
    parts = [set(ids(found.rows[s])) for s in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    named = RowTable("folder", SCHEMA, [row(0, "a", "train"), row(1, "b", "train"), row(2, "c", "test")])
    divided = divide(named)
    assert ids(divided.rows["test"]) == ["i2"]
    assert len(divided.rows["train"]) == len(divided.rows["validation"]) == 1


def test_unlabelled_rows_count_for_nothing():
    mixed = RowTable("folder", SCHEMA, [row(i, f"g{i}", labelled=i % 2 == 0) for i in range(20)])
    assert sum(len(rows) for rows in divide(mixed).rows.values()) == 10
    with pytest.raises(InputError, match="expected labelled keypoints, got 3 rows, none of them labelled"):
        divide(RowTable("folder", SCHEMA, [row(i, "g", labelled=False) for i in range(3)]))


def facts(train: int, modalities: tuple[str, ...] = ("image",), notes: tuple[str, ...] = ()) -> DataFacts:
    counts = {"train": train, "validation": 10, "test": 10}
    return DataFacts("folder:x", SCHEMA, counts, counts, modalities, notes)


@pytest.fixture(scope="module")
def base() -> Loaded:
    config = tiny_config(modalities=("image", "text", "audio"), loss={"group_weights": {"lips": 2.0}})
    return Loaded(MmkpForKeypointDetection(config).eval(), make_processor(config), "somewhere", "0")


def test_the_mode_follows_the_number_of_labels():
    auto = FinetuneOptions()
    assert [choose_mode(facts(n), auto)[0] for n in (5, 19, 20, 400)] == ["head", "head", "full", "full"]
    assert choose_mode(facts(5), FinetuneOptions(mode="lora")) == (
        "lora", "finetune.mode=lora: low-rank adapters beside frozen encoders, as asked"
    )  # fmt: skip


def test_what_is_asked_goes_before_what_is_chosen(base):
    asked: dict[str, Any] = {"training": {"steps": 7, "learning_rate": 1e-4}, "augment": {"rotate_deg": 3}}
    plan = make_plan(facts(40), base, FinetuneOptions(), asked)
    training = plan.recipe.training
    assert (training.steps, training.learning_rate, training.batch_size) == (7, 1e-4, 16)
    assert plan.recipe.augment.rotate_deg == 3
    assert plan.recipe.augment.occluders == 0.15
    assert plan.reasons["training.steps"] == "as asked"
    lines = list(plan.lines())
    assert any(line.startswith("training.batch_size = 16: ") for line in lines)
    assert training.start_from == "somewhere"


def test_the_network_stays_the_checkpoints_and_modalities_that_data_lacks_stay_untouched(base):
    plan = make_plan(facts(40), base, FinetuneOptions(), {"training": {"steps": 10}})
    model = plan.recipe.model
    assert model.image.backbone == "test_efficientnet.r160_in1k"
    assert model.modalities == ("image", "text", "audio")
    assert model.loss.group_weights == {}  # the new schema has no lips
    assert set(plan.recipe.training.freeze) == {"text", "audio", "fusion"}
    assert plan.recipe.augment.drop_text == 0
    paired = make_plan(facts(40, ("image", "audio")), base, FinetuneOptions(), {"training": {"steps": 10}})
    assert set(paired.recipe.training.freeze) == {"text", "fusion"}
    assert (paired.recipe.augment.drop_image, paired.recipe.augment.drop_audio) == (0.15, 0.3)


def test_the_best_model_is_chosen_by_the_subsets_that_the_data_has(base):
    plan = make_plan(facts(50, ("image", "audio")), base, FinetuneOptions(), {"training": {"steps": 2}})
    assert plan.recipe.data.validation_subsets == ("image", "audio", "image+audio")
    assert plan.baselines["scratch"].data.validation_subsets == plan.recipe.data.validation_subsets
    whole = make_plan(facts(50, ("image", "text", "audio")), base, FinetuneOptions(), {"training": {"steps": 2}})
    assert whole.recipe.data.validation_subsets == ()
    assert all(": " in line for line in plan.lines())


def test_what_is_odd_about_the_data_is_said(base):
    problems = tuple(f"line {i}: bad row: x" for i in range(7))
    odd = DataFacts("folder:x", SCHEMA, {"train": 4}, {"train": 4}, ("image",), unboxed=0.5, problems=problems)
    lines = "\n".join(describe(odd, base))
    assert "50% of the training pictures have no box" in lines
    assert left_out(odd)[0] == "7 faults in the data (`mmkp data check` lists them):"
    assert left_out(odd)[1:] == [*odd.problems[:5], "... and 2 more"]
    assert left_out(facts(4)) == []
    assert len(describe(facts(4), base)) == 1  # the counts alone


def test_the_baseline_is_the_same_network_without_the_checkpoint(base):
    plan = make_plan(facts(12), base, FinetuneOptions(), {"training": {"steps": 10}})
    assert plan.recipe.training.freeze == ("image", "text", "audio", "fusion")
    scratch = plan.baselines["scratch"]
    assert scratch.training.start_from is None
    assert scratch.training.freeze == ()
    assert scratch.training.steps == 10
    assert scratch.augment == plan.recipe.augment
    assert plan.notes == {"scratch": "all weights at random"}  # this checkpoint began at random, it has no parents


def test_a_checkpoint_that_began_from_other_weights_is_compared_with_these_too(base, monkeypatch):
    config = copy.deepcopy(base.model.config)
    config.image_config.weights = "package:efficientnet-lite0"
    recipe = make_plan(facts(40), base, FinetuneOptions(), {"training": {"steps": 10}}).recipe
    recipes, notes = baseline_recipes(recipe, config, FinetuneOptions())
    assert recipes["parents"].model.image.weights == "package:efficientnet-lite0"
    assert recipes["scratch"].model.image.weights == "none"
    assert recipes["parents"].training.start_from is None
    assert "image encoder from package:efficientnet-lite0" in notes["parents"]
    assert set(baseline_recipes(recipe, config, FinetuneOptions(baselines=("scratch",)))[0]) == {"scratch"}
    monkeypatch.setattr("mmkp.finetune.plan._installed", lambda weights: False)
    recipes, notes = baseline_recipes(recipe, config, FinetuneOptions())
    assert set(recipes) == {"scratch"}
    assert notes["parents"] == "left out: package:efficientnet-lite0, for image, is not installed"


def test_steps_fit_the_minutes(base):
    plan = make_plan(facts(40), base, FinetuneOptions(minutes=1e-6), {})
    assert plan.recipe.training.steps == 50  # never fewer
    assert "finetune.minutes" in plan.reasons["training.steps"]
    assert plan.recipe.training.evaluate_every == 5
    assert plan.recipe.training.patience == 4
    free = make_plan(facts(4, notes=("validation: too few to hold any out",)), base, FinetuneOptions(), {})
    assert free.recipe.training.patience is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune.mode=fast"], "finetune.mode: expected 'auto', 'head', 'lora' or 'full', got 'fast'"),
        (["finetune.modes=head"], "Did you mean 'mode'"),
        (["training.start_from=x"], "--model to say it"),
        (["data.dataset=x"], "first argument"),
        (["finetune.baselines=[best]"], "'mean_shape', 'scratch', 'parents' or 'unchanged'"),
        (["finetune=3"], "finetune: expected"),
    ],
)
def test_a_wrong_key_is_refused_by_name(words, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        split_overrides(words)


def test_nested_values_are_merged_and_another_part_is_taken_whole():
    plain: dict[str, Any] = {"head": {"name": "heatmap", "layers": 2}, "a": {"b": 1, "c": 2}}
    merge(plain, {"a": {"b": 3}})
    merge(plain, {"head": {"name": "simcc"}})
    assert plain == {"head": {"name": "simcc"}, "a": {"b": 3, "c": 2}}


def small_model() -> Any:
    torch.manual_seed(0)
    return MmkpForKeypointDetection(tiny_config(modalities=("image", "audio")))


def test_adapters_begin_as_nothing_and_merge_into_plain_weights():
    pytest.importorskip("peft")
    plain = small_model().eval()
    model = copy.deepcopy(plain)
    assert "layers of the encoders adapted at rank 2" in add_lora(model, 2)
    given = {"pixel_values": torch.randn(2, 3, 32, 32), "input_features": torch.randn(2, 50, 16)}
    with torch.no_grad():
        torch.testing.assert_close(model(**given).raw, plain(**given).raw, atol=1e-5, rtol=1e-5)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        adapted, whole = model(**given).raw, merged(model)
        assert not torch.allclose(adapted, plain(**given).raw, atol=1e-3)
        torch.testing.assert_close(whole(**given).raw, adapted, atol=1e-4, rtol=1e-4)
    assert whole.state_dict().keys() == plain.state_dict().keys()
    assert any("lora" in k for k in model.state_dict())  # the one in training keeps its own
    assert merged(plain) is plain


def test_only_adapters_fusion_and_head_are_trained():
    pytest.importorskip("peft")
    from mmkp.recipe import TrainingSection

    model = small_model()
    add_lora(model, 2)
    parameter_groups(model, TrainingSection())
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in n for n in trained if n.startswith("encoders"))
    assert any(n.startswith("encoders.image.backbone") for n in trained)
    assert any(n.startswith("heads") for n in trained)
    assert not any("transformer" in n for n in trained)  # torch's own layers read their weights past an adapter


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("mmkp.training.lora.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mmkp\[lora\]"):
        add_lora(small_model(), 2)


def test_a_run_ends_when_no_evaluation_brings_a_better_model():
    """Patience 2, an evaluation every 5 steps, the best model at step 10: it ends at 20, not before."""
    trainer = object.__new__(Trainer)
    trainer.settings = tiny_recipe(Path("x"), patience=2, evaluate_every=5, steps=100).training
    trainer.accelerator = type("One", (), {"num_processes": 1, "is_main_process": True})()
    trainer.state = RunState(torch.nn.Linear(1, 1), None, None, best=0.1, best_step=10)  # type: ignore[arg-type]
    done = {}
    for step in (0, 5, 10, 15, 19, 20):
        trainer.state.step = step
        done[step] = trainer._done_early()
    assert done == {0: False, 5: False, 10: False, 15: False, 19: False, 20: True}
    trainer.settings = tiny_recipe(Path("x")).training
    assert not trainer._done_early()


def predictions(errors: list[float], folder: Path, groups: int) -> Path:
    """Two points of which the first is off by so many px in a box of 100 x 100."""
    count = len(errors)
    true = np.tile(np.array([[10.0, 10.0], [20.0, 20.0]]), (count, 1, 1))
    said = true.copy()
    said[:, 0, 0] += errors
    made = Predictions(
        ids=np.array([f"i{i}" for i in range(count)]), groups=np.array([f"g{i % groups}" for i in range(count)]),
        true_xy=true, boxes=np.tile([0.0, 0.0, 100.0, 100.0], (count, 1)), mean_shape_xy=true + 30.0,
    )  # fmt: skip
    made.visible["clear"] = np.full((count, 2), 2)
    made.keypoints_xy["clear", "image"] = said
    made.scores["clear", "image"] = np.ones((count, 2))
    folder.mkdir()
    made.save(folder)
    return folder


def test_the_comparison_is_paired_over_groups(tmp_path):
    """2 px against 4 px on one of two points of a box of 100 px: 0.01 against 0.02, a ratio of 0.5 in every draw."""
    folders = {"fine-tuned": predictions([2.0] * 12, tmp_path / "a", 12),
               "scratch": predictions([4.0] * 12, tmp_path / "b", 12)}  # fmt: skip
    found = compare(folders, SCHEMA, "image")
    rows = found.rows["clear"]
    assert rows["fine-tuned"]["nme"]["mean"] == pytest.approx(0.01)
    assert rows["scratch"]["nme"]["mean"] == pytest.approx(0.02)
    assert rows["mean shape"]["nme"]["mean"] == pytest.approx(0.3 * 2**0.5)
    ratio = rows["scratch"]["ratio"]
    assert ratio["ratio"] == pytest.approx(0.5)
    assert ratio["ci95"] == pytest.approx([0.5, 0.5])
    assert ratio["better"]


def test_few_groups_give_no_interval_but_the_reason(tmp_path):
    folders = {"fine-tuned": predictions([2.0] * 4, tmp_path / "a", 2),
               "scratch": predictions([4.0] * 4, tmp_path / "b", 2)}  # fmt: skip
    rows = compare(folders, SCHEMA, "image", mean_shape=False).rows["clear"]
    assert rows["fine-tuned"]["nme"]["ci95"] is None
    assert "2 groups" in rows["scratch"]["ratio"]["reason"]
    assert "mean shape" not in rows
    other = predictions([1.0] * 3, tmp_path / "c", 2)
    with pytest.raises(InputError, match="the same items"):
        compare({**folders, "scratch": other}, SCHEMA, "image")
