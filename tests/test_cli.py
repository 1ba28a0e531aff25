"""The command line on good and bad input: one clear line, the right exit code, no traceback, nothing half written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import yaml
from helpers import tiny_recipe


@pytest.fixture(scope="module")
def recipe_file(grid_root, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(tiny_recipe(grid_root).to_yaml())
    return path


@pytest.fixture(scope="module")
def run_folder(recipe_file, tmp_path_factory) -> Path:
    """`mmkp train` in a process of its own, as a user starts it."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    command = [sys.executable, "-m", "mmkp", "train", str(recipe_file), "training.steps=3", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "report:" in done.stdout
    return out


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    return path


@pytest.fixture
def wav(tmp_path) -> Path:
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.sin(np.arange(16_000) / 9) * 0.3, 16_000)
    return path


def test_train_writes_the_whole_run_folder(run_folder):
    names = {p.name for p in run_folder.iterdir()}
    assert {
        "recipe.yaml",
        "config.json",
        "model.safetensors",
        "metrics.jsonl",
        "summary.json",
        "report.md",
        "environment.json",
        "predictions.npz",
        "error_by_subset.png",
        "clear_spread.png",
        "covered_worst.png",
        "training_curves.png",
    } <= names
    assert yaml.safe_load((run_folder / "recipe.yaml").read_text())["training"]["steps"] == 3
    summary = json.loads((run_folder / "summary.json").read_text())
    assert set(summary["conditions"]) == {"clear", "covered", "even_times", "covered+even_times"}
    lips = summary["conditions"]["covered"]["image+text+audio"]["nme"]["groups"]["lips"]
    assert lips["ci95"][0] <= lips["mean"] <= lips["ci95"][1]
    assert lips["n"] == 60
    assert summary["conditions"]["clear"]["mean_shape"]["nme"]["mean"] > 0
    report = (run_folder / "report.md").read_text()
    assert f"{summary['conditions']['covered']['image']['nme']['mean']:.4f}" in report


def test_a_second_evaluation_uses_the_predictions_again(mmkp, run_folder, grid_root, monkeypatch):
    import mmkp.evaluation.run as run

    def refuse(*_args, **_kwargs):
        raise AssertionError("predicted again")

    monkeypatch.setattr(run, "predict_dataset", refuse)
    code, out, err = mmkp("evaluate", "--model", run_folder, "--data", f"grid:{grid_root}", "--out", run_folder)
    assert code == 0
    assert "used again" in err
    assert "covered" in out


def test_an_evaluation_that_was_killed_is_simply_done_again(mmkp, run_folder, grid_root, tmp_path):
    command = ["evaluate", "-m", str(run_folder), "-d", f"grid:{grid_root}", "-o", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-m", "mmkp", *command], stdout=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "out" / "predictions.npz").exists():
        time.sleep(0.01)  # then it is scoring and drawing
    process.kill()
    process.wait()
    (tmp_path / "out" / "predictions.npz.part").write_bytes(b"cut off")
    code, _, said = mmkp(*command)
    assert code == 0
    assert "used again" in said
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["n"] == 60
    assert (tmp_path / "out" / "report.md").exists()


def test_stale_predictions_are_not_used(mmkp, run_folder, grid_root, tmp_path):
    first = mmkp("evaluate", "-m", run_folder, "-d", f"grid:{grid_root}", "--split", "validation", "-o", tmp_path)
    other = mmkp("evaluate", "-m", run_folder, "-d", f"grid:{grid_root}", "--split", "test", "-o", tmp_path)
    assert (first[0], other[0]) == (0, 0)
    assert "used again" not in other[2]
    assert json.loads((tmp_path / "summary.json").read_text())["n"] == 60


def test_predict_cuts_a_long_text_around_its_cursor(mmkp, run_folder, tmp_path):
    text = "before " * 40 + "bin bl|ue at" + " after" * 40
    code, printed, said = mmkp("predict", "-m", run_folder, "-o", tmp_path / "out", "--text", text)
    assert code == 0
    assert "1 instance(s) from text" in printed
    assert "note: the text is longer than the model reads" in said
    assert "bin bl|ue at" in said
    assert len(said) < len(text)


@pytest.mark.parametrize("given", [("image",), ("text",), ("audio",), ("image", "text", "audio")])
def test_predict_from_any_subset(mmkp, run_folder, photo, wav, tmp_path, given):
    options = {"image": ["--image", photo], "text": ["--text", "bin bl|ue"], "audio": ["--audio", wav]}
    out = tmp_path / "out"
    code, printed, _ = mmkp("predict", "-m", run_folder, "-o", out, *[v for m in given for v in options[m]])
    assert code == 0
    assert "+".join(given) in printed
    result = json.loads((out / "predictions.json").read_text())
    assert result["modalities"] == list(given)
    assert np.array(result["instances"][0]["keypoints"]).shape == (68, 2)
    assert len(result["schema"]["keypoints"]) == 68
    picture = cv2.imread(str(out / "picture.png"))
    assert picture.shape[:2] == ((60, 80) if "image" in given else (512, 512))


def test_predict_in_a_box(mmkp, run_folder, photo, tmp_path):
    code, _, _ = mmkp("predict", "-m", run_folder, "-i", photo, "--box", "10,5,40,40", "-o", tmp_path / "o")
    assert code == 0
    points = np.array(json.loads((tmp_path / "o/predictions.json").read_text())["instances"][0]["keypoints"])
    assert (points >= 5).all()
    assert (points <= 50).all()


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that are not what they are called."""
    made = {
        name: folder / name
        for name in ("text.png", "empty.wav", "one.wav", "eight.wav", "nan.wav", "huge.png", "cut.jpg")
    }
    made["text.png"].write_text("not a picture")
    soundfile.write(made["empty.wav"], np.zeros(0), 16_000)
    cv2.imwrite(str(folder / "good.png"), np.zeros((10, 20, 3), np.uint8))
    soundfile.write(folder / "good.wav", np.zeros(44_100), 44_100)
    soundfile.write(made["one.wav"], np.zeros(1), 16_000)
    soundfile.write(made["eight.wav"], np.zeros((16_000, 8)), 16_000)
    soundfile.write(made["nan.wav"], np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    # a PNG header that claims 30,000 x 30,000, and nothing behind it
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    made["huge.png"].write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    _, coded = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    made["cut.jpg"].write_bytes(coded.tobytes()[: len(coded) // 3])
    return made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "at least one of --image, --text, --audio"),
        (["--image", "{folder}/none.png"], "none there"),
        (["--image", "{folder}"], "a folder"),
        (["--image", "{folder}/text.png"], "a picture (JPEG, PNG, WebP ...)"),
        (["--image", "{folder}/cut.jpg"], "a picture (JPEG, PNG, WebP ...)"),
        (["--image", "{folder}/huge.png"], "at most 100 megapixels"),
        (["--audio", "{folder}/empty.wav"], "at least 25 ms"),
        (["--audio", "{folder}/one.wav"], "at least 25 ms"),
        (["--audio", "{folder}/eight.wav"], "one channel"),
        (["--audio", "{folder}/nan.wav"], "NaN or infinite"),
        (["--audio", "{folder}/text.png"], "a sound file"),
        (["--text", ""], "Leave the text out"),
        (["--text", "a", "--box", "1,2,3"], "x,y,width,height"),
        (["--text", "a", "--box", "1,2,0,4"], "with an area"),
        (["--text", "a", "--box", "nan,2,3,4"], "x,y,width,height"),
        (["--image", "{folder}/good.png", "--box", "200,200,50,50"], "a box within 20 x 10 px"),
        (["--text", "a", "--box", "0,0,1e9,1e9"], "x,y,width,height"),
        (["--audio", "{folder}/good.wav", "--audio-time", "nan"], "a moment of the sound"),
        (["--audio", "{folder}/good.wav", "--audio-time", "inf"], "a moment of the sound"),
    ],
)
def test_predict_on_bad_input(mmkp, run_folder, tmp_path, options, message):
    bad_files(tmp_path)
    out = tmp_path / "out"
    options = [o.replace("{folder}", str(tmp_path)) for o in options]
    code, printed, complaint = mmkp("predict", "-m", run_folder, "-o", out, *options)
    assert code == 2
    assert message in complaint
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1
    assert not printed
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{recipe}", "trainig.steps=3"], "Did you mean 'training'"),
        (["train", "{recipe}", "training.stepz=3"], "Did you mean 'steps'"),
        (["train", "{recipe}", "training.steps=many"], "a valid integer"),
        (["train", "{recipe}", "training.steps"], "section.key=value"),
        (["train", "{recipe}", "training.batch_size=0"], "greater than or equal to 1"),
        (["train", "{recipe}", "model.fusion.name=gatd"], "Did you mean 'gated'"),
        (["train", "{recipe}", "model.head.name=heatmpa"], "Did you mean 'heatmap'"),
        (["train", "{recipe}", "model.head.layer=1"], "options that it has"),
        (["train", "{recipe}", "model.image.backbone=mobilenetv3_smal_100"], "Did you mean"),
        (["train", "{recipe}", "model.codec.sigma=2"], "options that it has"),
        (["train", "{recipe}", "model.codec.stride=4"], "parts that fit together"),
        (["train", "{recipe}", "model.fusion.name=gated", "model.fusion.groups=7"], "parts that fit together"),
        (["train", "{recipe}", "model.text.heads=5"], "parts that fit together"),
        (["train", "{recipe}", "model.head.kernel=4"], "parts that fit together"),
        (["train", "{recipe}", "model.image.stride=0"], "parts that fit together"),
        (["train", "{recipe}", "model.text.layers=0"], "parts that fit together"),
        (["train", "{recipe}", "model.audio.mel_bins=0"], "parts that fit together"),
        (["train", "{recipe}", "model.audio.dropout=2"], "parts that fit together"),
        (["train", "{recipe}", "model.loss.group_weights={mouth: 2}"], "a group of face68"),
        (["train", "{recipe}", "data.dataset=gird:x"], "Did you mean 'grid'"),
        (["train", "{recipe}", "data.dataset=grid"], "data_cards/grid.md"),
        (["train", "{recipe}", "data.dataset=grid:/nowhere/at/all"], "data_cards/grid.md"),
        (["train", "{recipe}", "data.options={frames: 2}"], "options that it has"),
        (["train", "{recipe}", "data.options={frame_step: abc}"], "options that it has"),
        (["train", "none.yaml"], "a .yaml file"),
        (["evaluate", "-m", "{run}", "-d", "grid:{empty}", "-o", "{out}"], "grid:"),
        (["evaluate", "-m", "{run}", "-d", "grid:{grid}", "--split", "tset", "-o", "{out}"], "Did you mean 'test'"),
        (
            ["evaluate", "-m", "{run}", "-d", "grid:{grid}", "--condition", "coverd", "-o", "{out}"],
            "Did you mean 'covered'",
        ),
        (["evaluate", "-m", "{empty}", "-d", "grid:{grid}", "-o", "{out}"], "no config.json"),
        (
            ["evaluate", "-m", "no-such-model", "-d", "grid:{grid}", "-o", "{out}"],
            "a packaged name, a folder or a Hub id",
        ),
    ],
)
def test_bad_recipes_and_data(mmkp, recipe_file, run_folder, grid_root, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    places = {"recipe": recipe_file, "run": run_folder, "grid": grid_root, "empty": tmp_path / "empty", "out": out}
    given = [a.format(**places) if "{m" not in a and "{f" not in a else a for a in arguments]
    extra = ["--out", out] if given[0] == "train" else []
    code, _, complaint = mmkp(*given, *extra)
    assert code == 2, complaint
    assert message in complaint
    assert "Traceback" not in complaint
    assert not (out / "model.safetensors").exists()
    assert not (out / "checkpoints").exists()


def test_a_checkpoint_of_another_schema(mmkp, run_folder, grid_root, tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    config = json.loads((other / "config.json").read_text())
    config["keypoint_schema"]["name"] = "lips68"
    (other / "config.json").write_text(json.dumps(config))
    code, _, complaint = mmkp("evaluate", "-m", other, "-d", f"grid:{grid_root}", "-o", tmp_path / "out")
    assert code == 2
    assert "keypoints of the schema lips68" in complaint
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit(mmkp, run_folder, wav, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    tensors = load_file(other / "model.safetensors")
    tensors.pop("heads.joint.logits.weight")
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    code, _, complaint = mmkp("predict", "-m", other, "--audio", wav, "-o", tmp_path / "out")
    assert code == 2
    assert "lacks" in complaint
    assert "heads.joint.logits.weight" in complaint


@pytest.mark.parametrize("damage", ["cut", "noise", "config"])
def test_a_damaged_checkpoint(mmkp, run_folder, wav, tmp_path, damage):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    file = other / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:5000])
    elif damage == "noise":
        file.write_bytes(np.random.default_rng(0).bytes(5000))
    else:
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, "input_size_hw": [64]}))
    code, _, complaint = mmkp("predict", "-m", other, "--audio", wav, "-o", tmp_path / "out")
    assert code == 2
    assert "a checkpoint of mmkp" in complaint
    assert not (tmp_path / "out").exists()


def test_another_processor_makes_predictions_stale(run_folder, tmp_path, monkeypatch):
    import shutil

    from mmkp.hub import load

    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    text = (other / "processor_config.json").read_text()
    (other / "processor_config.json").write_text(text.replace("0.485", "0.5"))
    monkeypatch.chdir(run_folder.parent)
    assert load(str(run_folder)).digest == load(run_folder.name).digest  # however the path is spelled
    assert load(str(run_folder)).digest != load(str(other)).digest


def test_one_condition_alone_keeps_all_subsets(mmkp, run_folder, grid_root, tmp_path):
    command = ["evaluate", "-m", run_folder, "-d", f"grid:{grid_root}", "-o", tmp_path, "--condition", "covered"]
    assert mmkp(*command, "frame_step=5")[0] == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["conditions"]) == {"covered"}
    assert len(summary["conditions"]["covered"]) == 8  # seven subsets and the mean shape
    assert summary["n"] == 12
    assert summary["protocol"]["options"] == {"frame_step": 5}


def test_wrong_arguments_exit_with_2(mmkp):
    assert mmkp("trian")[0] == 2
    assert mmkp("predict")[0] == 2


def test_env_and_models(mmkp):
    code, printed, _ = mmkp("env")
    assert code == 0
    assert "torchaudio" in printed
    assert "runs ONE process" in printed
    assert mmkp("models")[0] == 0


def test_importing_mmkp_is_light():
    """No torch, no transformers: what a second's import time means on any machine."""
    code = "import sys, mmkp; mmkp.load_schema('face68'); print({'torch', 'transformers', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_training_calibrates_the_scores_on_validation(run_folder):
    known = json.loads((run_folder / "config.json").read_text())["calibration"]
    assert known["n"] > 0 and known["temperature"] > 0
    summary = json.loads((run_folder / "summary.json").read_text())
    assert summary["protocol"]["calibration"] == known
    cell = summary["confidence"]["clear"]["image"]
    assert cell["ece"]["n"] == summary["n"] * 68
    assert cell["ece"]["mean"] >= abs(cell["mean_score"] - cell["accuracy"]) - 1e-6  # Jensen: bins cannot cancel less
    assert (run_folder / "reliability.png").stat().st_size > 1000


def test_calibrate_wants_a_folder_of_ones_own(mmkp, grid_root):
    code, _, complaint = mmkp("calibrate", "--model", "grid-talker", "--data", f"grid:{grid_root}")
    assert code == 2
    assert "a folder with a checkpoint" in complaint
