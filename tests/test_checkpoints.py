"""The packaged checkpoints: small, safe, documented, as good as their cards say; and how they are made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import tiny_recipe
from huggingface_hub import ModelCard
from tiny_model import save_tiny

from mmkp import InputError, card
from mmkp.card_figures import minutes_of, without_place
from mmkp.commands import push as push_commands
from mmkp.evaluation.run import evaluate
from mmkp.hub import load, packaged
from mmkp.schema import load_schema

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
    for word in ("license:", "**Trained on**", "**Recipe**", "**Limits**", "n = ", "clear", "covered", "mean_shape"):
        assert word in text, word
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["licence"] in text
    assert all(n in text for n in facts["figures"].split() if n.replace(".", "").isdigit())
    assert ModelCard(text).data.pipeline_tag == "keypoint-detection"
    assert ("RESEARCH ONLY" in text) == (not facts.get("open", True))


def test_a_checkpoint_predicts_from_every_subset(folder):
    loaded = load(folder.name)
    assert next(loaded.model.parameters()).dtype == torch.float32
    processor, wave = loaded.processor, np.zeros(16_000, np.float32)
    given = {"images": np.zeros((90, 80, 3), np.uint8), "text": "bin bl|ue", "audio": wave}
    own = [{"image": "images"}.get(m, m) for m in loaded.model.modalities]
    for subset in ([m] for m in own) if len(own) == 1 else (*([m] for m in own), own):
        inputs = processor(**{k: given[k] for k in subset}, sampling_rate=16_000)
        with torch.no_grad():
            outputs = loaded.model(**inputs)
        assert torch.isfinite(outputs.keypoints_xy).all()


def test_grid_talker_is_as_good_as_its_card_says(tmp_path):
    """Every fifteenth frame of the test clips, within the card's interval widened by half its width."""
    if not GRID.is_dir():
        pytest.skip("needs the GRID excerpt: set MMKP_TEST_GRID to a folder in the layout of data_cards/grid.md")
    options, conditions = {"frame_step": 15}, ["clear", "covered"]
    summary = evaluate(
        load("grid-talker"), f"grid:{GRID}", "test", tmp_path, options, conditions, say=lambda _: None
    )  # fmt: skip
    figures = json.loads((packaged()["grid-talker"] / "facts.json").read_text())["figures"].replace(",", "").split()
    for condition in conditions:
        low, high = (float(v.strip("[]")) for v in figures[figures.index(condition) + 3 :][:2])
        slack = (high - low) / 2
        found = summary["conditions"][condition]["image+text+audio"]["nme"]["groups"]["lips"]["mean"]
        assert low - slack < found < high + slack


@pytest.fixture(scope="module")
def run(grid_root, tmp_path_factory) -> Path:
    """A run's folder as training leaves it, its weights fresh, its figures measured."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    schema = load_schema("face68").model_dump(mode="json")
    image = {"backbone": "test_efficientnet.r160_in1k", "stride": 8, "weights": "package:efficientnet-lite0"}
    save_tiny(out, keypoint_schema=schema, image_config=image)
    recipe = yaml.safe_load(tiny_recipe(grid_root, seed=7).to_yaml())
    recipe["training"]["start_from"] = "talker-small"
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows = [{"step": i, "loss": 1.0, "elapsed_s": s} for i, s in enumerate((300.0, 600.0, 90.0, 150.0))]
    (out / "metrics.jsonl").write_text("\n".join(json.dumps(r) for r in rows) + '\n{"step": 9, "elap')
    (out / "environment.json").write_text(json.dumps({"threads": 2, "cpus": 4, "gpus": [], "processes": 1}))
    evaluate(
        load(str(out)), f"grid:{grid_root}", "test", out, {"frame_step": 5}, ["clear", "covered"], say=lambda _: None
    )
    return out


@pytest.fixture(scope="module")
def image_run(run, tmp_path_factory) -> Path:
    """A run of the image alone, its figures written by hand."""
    out = save_tiny(tmp_path_factory.mktemp("runs") / "image", modalities=("image",))
    (out / "recipe.yaml").write_text(yaml.safe_dump({"name": "wild", "training": {"seed": 1, "steps": 3}}))
    write_summary(out, {"image": 0.0512, "mean_shape": 0.25})
    return out


@pytest.mark.parametrize(
    ("data", "named"),
    [("/data/anna/faces", "faces"), ("~/x/faces/", "faces"), ("./faces", "faces"), (r"C:\Users\anna\faces", "faces"),
     ("a/b/faces", "faces"), ("grid", "grid"), ("anna/faces", "anna/faces")],
)  # fmt: skip
def test_a_card_does_not_tell_where_data_lies_on_a_disk(data, named, image_run, tmp_path):
    assert without_place(data) == named
    summary = json.loads((image_run / "summary.json").read_text())
    for path in image_run.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    summary["protocol"]["data"] = data
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    text = card.card("mine", tmp_path, "apache-2.0", "own", "l")
    assert f"Split `test` of {named}, n" in text
    assert named == data or data not in text + json.dumps(card.facts(tmp_path, "apache-2.0", "own"))


def write_summary(folder: Path, means: dict[str, float], split: str = "test") -> None:
    folder.mkdir(exist_ok=True)
    rows = {s: {"nme": cell(v), "pck": cell(1 - v)} for s, v in means.items()}
    protocol = {
        "data": "p1",
        "split": split,
        "box": "truth",
        "normalizer": "box_side",
        "groups": 3,
        "pck_threshold": 0.1,
    }
    summary = {"n": 12, "protocol": protocol, "primary": "nme", "schema": "face5", "conditions": {"clear": rows}}
    (folder / "summary.json").write_text(json.dumps(summary))


def cell(mean: float) -> dict:
    return {"mean": mean, "ci95": None, "n": 12, "groups": {}, "reason": "3 groups"}


def test_packaging_a_run(run, tmp_path):
    out = card.package(run, tmp_path / "new" / "out", "apache-2.0", "drawn faces", "it is a test")
    summary = json.loads((run / "summary.json").read_text())
    lips = summary["conditions"]["covered"]["image"]["nme"]["groups"]["lips"]["mean"]
    assert f"{lips:.4f}" in (out / "README.md").read_text()
    whole, half = load(str(run)), load(str(out))
    inputs = whole.processor(text="bin bl|ue")
    with torch.no_grad():
        difference = whole.model(**inputs).keypoints_xy - half.model(**inputs).keypoints_xy
    assert difference.abs().max() < 0.1  # px; half precision keeps three digits
    assert (out / "model.safetensors").stat().st_size < 0.6 * (run / "model.safetensors").stat().st_size
    assert [p.name for p in out.parent.iterdir()] == ["out"]  # nothing half made is left


def test_the_card_of_a_run(run, tmp_path):
    section = tmp_path / "peers.md"
    section.write_text("## Comparison with peers\n\nNone yet.\n")
    write_summary(tmp_path / "others", {"image": 0.0712, "image+text+audio": 0.0612, "mean_shape": 0.3}, "others")
    more = card.More(sections=(section,), evaluations={"others": tmp_path / "others"})
    text = card.card("org/tiny", run, "apache-2.0", "drawn faces (CC0)", "it is a test", more)
    summary = json.loads((run / "summary.json").read_text())
    for condition, rows in summary["conditions"].items():
        assert f"### test, {condition}" in text
        assert all(f"| {subset} | {row['nme']['mean']:.4f}" in text for subset, row in rows.items())
    for words in (
        "### others, clear", "| image+text+audio | 0.0612 |", "**Training cost** 12 minutes on 2 threads of a CPU",
        "one seed, 7", "`recipes/tiny.yaml`, 4 steps of 4 items", "**Started from** `talker-small`; image encoder from "
        "timm/tf_efficientnet_lite0.in1k", "outer_eye_distance, the distance from right_eye_0 to left_eye_3",
        "**Intended use** Research", "Scores are not calibrated", "expected calibration error", "lips (20)",
        "## Comparison with peers", 'load("org/tiny")', "over image",
    ):  # fmt: skip
        assert words in text, words
    assert "RESEARCH ONLY" not in text
    assert str(run) not in text


def test_the_metadata_are_the_hubs(run, tmp_path):
    write_summary(tmp_path / "others", {"image": 0.0712, "mean_shape": 0.3}, "others")
    write_summary(tmp_path / "again", {"image": 0.0813, "mean_shape": 0.3}, "others")
    evaluations = {"others": tmp_path / "others", "lies": tmp_path / "again"}
    more = card.More(base_models=("org/parent",), evaluations=evaluations)
    data = ModelCard(card.card("tiny", run, "mit", "d", "l", more)).data
    assert (data.license, data.base_model) == ("mit", ["org/parent", "timm/tf_efficientnet_lite0.in1k"])
    assert {"keypoint-detection", "image", "text", "audio", "face68"} <= set(data.tags)
    found = {(r.dataset_split, r.dataset_config, r.metric_name): r.metric_value for r in data.eval_results}
    assert len(found) == len(data.eval_results)  # no name stands for two values
    assert found["others", "clear", "NME (box_side), all, image"] == 0.0712
    assert found["others", "lies, clear", "NME (box_side), all, image"] == 0.0813
    lips = json.loads((run / "summary.json").read_text())["conditions"]["covered"]["image"]["nme"]["groups"]["lips"]
    assert found["test", "covered", "NME (outer_eye_distance), lips, image"] == pytest.approx(lips["mean"], abs=1e-6)


def test_a_restricted_licence_is_said_loudly_and_first(image_run):
    more = card.More(licence_link="https://example.org/terms")
    text = card.card("face68-wild", image_run, "Research only", "wild faces", "l", more)
    data = ModelCard(text).data
    assert (data.license, data.license_name, data.license_link) == (
        "other",
        "research-only",
        "https://example.org/terms",
    )
    body = text.split("---")[2]
    assert body.index("RESEARCH ONLY: NOT FOR COMMERCIAL USE") < body.index("keypoints of the schema")
    assert card.facts(image_run, "Research only", "wild faces")["open"] is False
    nc = ModelCard(card.card("x", image_run, "cc-by-nc-4.0", "", "")).data
    assert (nc.license, nc.license_name) == ("cc-by-nc-4.0", None)
    assert "No licence is stated" in card.card("x", image_run, "", "", "")


def test_the_card_of_an_image_alone(image_run):
    text = card.card("wild", image_run, "mit", "wild faces", "l")
    assert "5 keypoints of the schema `face5` from image alone." in text
    assert "| image | 0.0512 | 0.949 |" in text
    assert "mmkp predict --model wild --image photo.jpg --out DIR" in text
    assert card.facts(image_run, "mit", "d")["figures"] == "NME, image: clear all points 0.0512"


def test_minutes_are_added_over_the_parts_of_a_resumed_run(run, tmp_path):
    assert minutes_of(run / "metrics.jsonl") == pytest.approx((600 + 150) / 60)
    assert minutes_of(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no_summary", r"expected summary\.json, got none there. Train and evaluate"),
        ("overflow", "weights in fp16: expected finite numbers, got 1 tensors with others, first mean_shape"),
        ("too_large", "at most 0 MB"),
        ("evaluation", r"evaluation .*none: expected summary\.json"),
        ("summary", "an evaluation's summary"),
        ("section", "a Markdown file"),
    ],
)
def test_what_cannot_be_packaged_leaves_the_folder_as_it_was(image_run, tmp_path, monkeypatch, fault, words):
    import shutil

    source, out = Path(shutil.copytree(image_run, tmp_path / "run")), tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("as it was")
    more = card.More()
    if fault == "no_summary":
        (source / "summary.json").unlink()
    elif fault == "overflow":
        model = load(str(source)).model
        model.mean_shape[0, 0] = 1e6
        model.save_pretrained(source)
    elif fault == "too_large":
        monkeypatch.setattr(card, "MAX_MB", 0)
    elif fault == "evaluation":
        more = card.More(evaluations={"x": tmp_path / "none"})
    elif fault == "summary":
        (source / "summary.json").write_text('{"conditions": {}}')
    else:
        more = card.More(sections=(tmp_path / "none.md",))
    with pytest.raises(InputError, match=words):
        card.package(source, out, "mit", "d", "l", more)
    assert [p.read_text() for p in out.iterdir()] == ["as it was"]
    assert {p.name for p in tmp_path.iterdir()} == {"run", "out"}


@pytest.mark.parametrize("columns", ["80", "200"])
def test_models_lists_all_of_it(run, image_run, tmp_path, monkeypatch, capsys, columns):
    """At 80 columns, as in a pipe, no line is longer and nothing is cut."""
    monkeypatch.setenv("COLUMNS", columns)
    found = {
        "tiny": card.package(run, tmp_path / "tiny", "apache-2.0", "d", "l"),
        "wild": card.package(image_run, tmp_path / "wild", "research-only", "d", "l"),
    }
    monkeypatch.setattr("mmkp.loading.source.packaged", lambda: found)
    push_commands.models()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= int(columns)
    text = "\n".join(lines)
    for words in ("face68 (68 points)", "image + text + audio", "apache-2.0", "RESEARCH-ONLY", "0.0512", "MB", "clear"):
        assert words in text, words
    assert "…" not in text


def test_the_command_line_of_the_card(image_run, tmp_path, capsys):
    from typer import Typer
    from typer.testing import CliRunner

    app = Typer()
    app.command()(card.main)
    words = [str(image_run), str(tmp_path / "out"), "--licence", "mit", "--data", "d", "--limits", "l"]
    done = CliRunner().invoke(app, [*words, "--evaluation", f"again={image_run}"])
    assert done.exit_code == 0, done.output
    assert "### again, clear" in (tmp_path / "out" / "README.md").read_text()
    assert CliRunner().invoke(app, [*words, "--evaluation", "nothing"]).exit_code == 2
