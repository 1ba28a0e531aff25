"""`mmkp finetune` as it is used: a folder of pictures, another schema, a run folder that says what it brought."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file
from tiny_model import save_tiny
from typer.testing import CliRunner

from mmkp import cli, hub
from mmkp.commands.finetune import finetune
from mmkp.errors import InputError
from mmkp.finetune.run import check_out, load_base
from mmkp.finetune.run import finetune as run_finetune

APP = typer.Typer()
APP.command()(finetune)
QUICK = ["training.steps=2", "training.evaluate_every=1", "training.batch_size=4", "training.threads=1"]


def pictures(folder: Path, count: int = 12, groups: int = 12, labelled: bool = True) -> str:
    """A bright square whose corners are the mouth's corners and a point of its own."""
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for i in range(count):
        x, y = (int(v) for v in rng.integers(5, 20, 2))
        image = np.full((40, 40, 3), 40, np.uint8)
        cv2.rectangle(image, (x, y), (x + 12, y + 12), (230, 220, 210), -1)
        cv2.imwrite(str(folder / f"p{i}.png"), image)
        points = [[x, y + 12, 2], [x + 12, y + 12, 2], [x + 6, y, 2]] if labelled else None
        lines.append(json.dumps({"file_name": f"p{i}.png", "keypoints": points, "group": f"g{i % groups}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    names = ["right_mouth_corner", "left_mouth_corner", "hat"]
    (folder / "schema.yaml").write_text(json.dumps({"name": "hat3", "keypoints": names, "flip_pairs": [[0, 1]]}))
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """Three modalities, five points of a face; for research only."""
    folder = save_tiny(tmp_path_factory.mktemp("base") / "model", modalities=("image", "text"))
    (folder / "facts.json").write_text(json.dumps({"licence": "research-only", "data": "faces of the wild"}))
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return pictures(tmp_path_factory.mktemp("data") / "own")


@pytest.fixture(scope="module")
def finished(base, data, tmp_path_factory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("runs") / "tuned"
    result = CliRunner().invoke(APP, [data, "--model", base, "--out", str(out), *QUICK], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out, result


def test_the_run_folder_is_whole_and_loads(finished):
    out, _ = finished
    names = {p.name for p in out.iterdir()}
    assert {
        "recipe.yaml", "config.json", "model.safetensors", "processor_config.json", "metrics.jsonl", "summary.json",
        "report.md", "README.md", "facts.json", "environment.json", "plan.json", "scratch",
    } <= names  # fmt: skip
    loaded = hub.load(str(out))
    assert loaded.model.schema.keypoints == ("right_mouth_corner", "left_mouth_corner", "hat")
    assert loaded.model.modalities == ("image", "text")


def test_every_choice_is_explained_and_the_head_is_told(finished):
    _, result = finished
    assert "finetune.mode=head: only fusion and head are trained" in result.output
    assert "training.steps = 2: as asked" in result.output
    assert "keypoints: 2 of 3 keep their weights; anew: hat" in result.output


def test_whole_pictures_are_told_of_and_remembered(finished, tmp_path):
    out, result = finished
    assert "100% of the training pictures have no box" in result.output
    assert json.loads((out / "facts.json").read_text())["boxes"] == "whole pictures"
    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), np.full((40, 40, 3), 40, np.uint8))
    asked = ["predict", "-m", str(out), "-i", str(picture), "-o", str(tmp_path / "o")]
    assert "fine-tuned on whole pictures" in CliRunner().invoke(cli.app, [*asked, "--box", "5,5,20,20"]).output
    assert "fine-tuned on whole" not in CliRunner().invoke(cli.app, asked).output


def test_choices_with_colons_in_them_are_one_line_of_the_report(finished):
    out, _ = finished
    line = next(x for x in (out / "report.md").read_text().splitlines() if x.startswith("- `augment = "))
    assert line.count("`") == 2
    assert line.split("`")[1].endswith("}")
    assert "made by `mmkp finetune`" in (out / "README.md").read_text()


def test_a_text_beyond_the_encoder_is_cut_not_the_run(base, tmp_path):
    data = Path(pictures(tmp_path / "told"))
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        row["text"] = "the square with the hat on it " * 10
    (data / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    asked = [str(data), "--model", base, "--out", str(tmp_path / "out"), *QUICK, "finetune.baselines=[]"]
    result = CliRunner().invoke(APP, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert re.search(r"train: (\d+) of \1 texts are longer than the encoder takes", result.output)


def test_what_the_data_does_not_have_stays_untouched(finished, base):
    out, _ = finished
    before, after = load_file(f"{base}/model.safetensors"), load_file(out / "model.safetensors")
    for name in before:
        if name.startswith(("encoders", "lifts", "fusion")) and "num_batches" not in name:
            assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["heads.joint.blocks.0.1.weight"], after["heads.joint.blocks.0.1.weight"])


def test_the_report_compares_on_the_held_out_items(finished):
    out, result = finished
    summary = json.loads((out / "summary.json").read_text())["finetune"]
    rows = summary["conditions"]["clear"]
    assert set(rows) == {"fine-tuned", "scratch", "mean shape"}  # another schema: the checkpoint itself cannot be asked
    assert summary["subset"] == "image"
    assert len({r["nme"]["n"] for r in rows.values()}) == 1
    assert rows["fine-tuned"]["nme"]["reason"].endswith("an interval needs at least 5")
    ratio = rows["fine-tuned"]["nme"]["mean"] / rows["scratch"]["nme"]["mean"]
    assert rows["scratch"]["ratio"]["ratio"] == pytest.approx(ratio)
    report = (out / "report.md").read_text()
    assert "| scratch |" in report
    assert "What was chosen, and why" in report
    assert "all weights at random" in report
    assert "| scratch |" in result.output


def test_the_card_says_where_it_comes_from_and_passes_the_licence_on(finished, base):
    out, _ = finished
    readme = (out / "README.md").read_text()
    assert "research-only" in readme
    assert "RESEARCH ONLY" in readme
    assert base in readme
    assert "faces of the wild" in readme
    facts = json.loads((out / "facts.json").read_text())
    assert (facts["licence"], facts["open"], facts["base_model"]) == ("research-only", False, base)


def test_a_finished_run_is_not_overwritten_but_resumed(finished, data, base):
    out, _ = finished
    with pytest.raises(InputError, match="--resume"):
        run_finetune(data, base, out, QUICK)
    before = (out / "model.safetensors").read_bytes()
    found = run_finetune(data, base, out, QUICK, resume=True, say=lambda line: None)
    assert (out / "model.safetensors").read_bytes() == before
    assert found.n == json.loads((out / "summary.json").read_text())["n"]
    assert (out / "report.md").read_text().count("## Fine-tuning") == 1


def test_one_clip_and_adapters(base, tmp_path):
    """All pictures of one group: its last items are held out, said so, and the saved model needs no peft."""
    pytest.importorskip("peft")
    said: list[str] = []
    options = [*QUICK, "finetune.mode=lora", "finetune.lora_rank=2", "finetune.baselines=[mean_shape]"]
    out = tmp_path / "tuned"
    found = run_finetune(pictures(tmp_path / "own", 12, 1), base, out, options, say=said.append)
    assert any("all items are of one group" in line for line in said)
    assert found.n == 2
    assert set(found.rows["clear"]) == {"fine-tuned", "mean shape"}
    weights = load_file(out / "model.safetensors")
    assert weights.keys() == load_file(f"{base}/model.safetensors").keys()
    assert not torch.equal(weights["encoders.image.neck.smooth.1.weight"],
                           load_file(f"{base}/model.safetensors")["encoders.image.neck.smooth.1.weight"])  # fmt: skip
    hub.load(str(out))


def test_the_same_schema_is_measured_against_the_checkpoint_as_it_was(finished, data, tmp_path):
    out, _ = finished
    found = run_finetune(
        data, str(out), tmp_path / "again", [*QUICK, "finetune.baselines=[unchanged]"], say=lambda line: None
    )
    assert set(found.rows["clear"]) == {"fine-tuned", "unchanged"}


@pytest.mark.parametrize(
    ("count", "labelled", "message"),
    [(3, False, "expected labelled keypoints, got 3 rows, none of them labelled"), (0, True, "got no usable rows")],
)
def test_data_without_labels_is_refused(base, tmp_path, count, labelled, message):
    folder = pictures(tmp_path / "own", count, 1, labelled)
    with pytest.raises(InputError, match=message):
        run_finetune(folder, base, tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()


def test_the_models_own_folder_is_not_written_into(base, data, tmp_path):
    with pytest.raises(InputError, match="another folder than the model's own"):
        run_finetune(data, base, Path(base), QUICK)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="new or empty folder, got one with content"):
        check_out(tmp_path, base, resume=False)
    with pytest.raises(InputError, match="got a file"):
        check_out(tmp_path / "notes.txt", base, resume=False)


def test_models_that_cannot_be_a_start_are_refused(tmp_path):
    people = save_tiny(tmp_path / "people", head={"name": "openpose", "stages": 1, "layers": 1},
                       codec={"name": "openpose"}, modalities=("image",))  # fmt: skip
    with pytest.raises(InputError, match="one person a picture"):
        load_base(str(people))
    classic = tmp_path / "classic"
    classic.mkdir()
    root = Path(__file__).parents[1] / "recipes"
    (classic / "recipe.yaml").write_text((root / "classic_hog_svm.yaml").read_text())
    with pytest.raises(InputError, match="classic recipe, which keeps no model"):
        load_base(str(classic))
    with pytest.raises(InputError, match="packaged name, a folder or a Hub id"):
        load_base("no-such-model")
