"""Shapley values, the fusion's weights, gradients: values worked out by hand, and properties that must hold."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_model import save_tiny, tiny_config
from transformers import ByT5Tokenizer

from mmkp import MmkpForKeypointDetection, cli, finding
from mmkp.codecs import make_codec
from mmkp.data.sample import Sample
from mmkp.errors import InputError, MissingExtraError
from mmkp.evaluation.predictions import Predictions
from mmkp.explain.item import Given, explain_item, frame_times
from mmkp.explain.modalities import attribute
from mmkp.explain.shapley import shapley_values
from mmkp.explain.weights import expert_precisions, fusion_weights, gate_shares, variance_px
from mmkp.explain.words import by_word, token_places
from mmkp.hub import load
from mmkp.modeling_mmkp import Encoded
from mmkp.schema import load_schema, parse_schema

MODALITIES = ("image", "text", "audio")
needs_captum = pytest.mark.skipif(importlib.util.find_spec("captum") is None, reason="captum is not installed")
games = st.integers(1, 4).flatmap(lambda m: arrays(np.float64, (1 << m, 3), elements=st.floats(-100, 100)))


def test_two_players_by_hand():
    # v() = 0, v(a) = 1, v(b) = 2, v(ab) = 4: a adds 1 as first and 2 as second; b adds 2 and 3
    np.testing.assert_allclose(shapley_values(np.array([0.0, 1.0, 2.0, 4.0])), [1.5, 2.5])


def test_three_players_by_hand():
    # the glove game: a and b hold a left glove, c the right one; a pair is worth 1
    pair = [0.0, 0, 0, 0, 0, 1, 1, 1]  # rows: none, a, b, ab, c, ac, bc, abc
    np.testing.assert_allclose(shapley_values(np.array(pair)), [1 / 6, 1 / 6, 4 / 6])


@settings(max_examples=60, deadline=None)
@given(games, st.data())
def test_shapley_values_keep_the_axioms(values, data):
    players = len(values).bit_length() - 1
    rows = np.arange(len(values))
    phi = shapley_values(values)
    np.testing.assert_allclose(phi.sum(0), values[-1] - values[0], atol=1e-9)  # efficiency
    i = data.draw(st.integers(0, players - 1))
    without = rows & ~(1 << i)
    null = shapley_values(values[without])  # player i changes nothing
    np.testing.assert_allclose(null[i], 0, atol=1e-9)
    j = data.draw(st.integers(0, players - 1))
    bit_i, bit_j = rows >> i & 1, rows >> j & 1
    swapped = rows & ~(1 << i) & ~(1 << j) | bit_i << j | bit_j << i
    alike = shapley_values(values + values[swapped])  # i and j may change places
    np.testing.assert_allclose(alike[i], alike[j], atol=1e-9)
    np.testing.assert_allclose(shapley_values(values[swapped])[i], phi[j], atol=1e-9)  # names do not matter


@pytest.mark.parametrize("rows", [0, 1, 3, 7])
def test_shapley_values_want_every_subset(rows):
    with pytest.raises(InputError, match="2\\^M rows"):
        shapley_values(np.zeros(rows))


def predictions_at(errors: dict[tuple[str, str], float], prior: float, items: int = 6) -> Predictions:
    """Two keypoints at 0, predicted to the right by an error in px; the second point by twice the error."""
    zero = np.zeros((items, 2, 2))

    def off(error: float) -> np.ndarray:
        return zero + np.array([[error, 0], [2 * error, 0]])

    made = Predictions(
        ids=np.arange(items).astype(str), groups=np.arange(items).astype(str), true_xy=zero,
        boxes=np.tile([0.0, 0, 10, 10], (items, 1)), mean_shape_xy=off(prior),
        keypoints_xy={cell: off(e) for cell, e in errors.items()},
    )  # fmt: skip
    made.visible = {condition: np.full((items, 2), 2) for condition in {c for c, _ in errors}}
    return made


PAIR = parse_schema(
    {"name": "pair", "keypoints": ["a", "b"], "groups": {"near": [0], "far": [1]},
     "normalizer": {"name": "px", "kind": "unit"}}
)  # fmt: skip


def test_modalities_are_worth_the_error_they_take_away():
    # of 6 px the image alone leaves 2, the sound alone 5, both 1: image (4 + 4) / 2, sound (1 + 1) / 2
    errors = {("clear", "image"): 2.0, ("clear", "audio"): 5.0, ("clear", "image+audio"): 1.0}
    found = attribute(predictions_at(errors, 6.0), PAIR, ["clear"], ("image", "audio"))["clear"]
    assert found["near"]["shapley"]["image"]["mean"] == pytest.approx(4)
    assert found["near"]["shapley"]["audio"]["mean"] == pytest.approx(1)
    assert found["near"]["shapley"]["audio"]["ci95"] == pytest.approx([1, 1])
    assert found["far"]["shapley"]["image"]["mean"] == pytest.approx(8)
    assert found["all"]["shapley"]["image"]["mean"] == pytest.approx(6)
    assert (found["near"]["prior"]["mean"], found["near"]["error"]["mean"]) == (6, 1)


def test_values_sum_to_the_gain_item_by_item(rng):
    subsets = ["image", "text", "audio", "image+text", "image+audio", "text+audio", "image+text+audio"]
    made = predictions_at({("clear", s): 1.0 for s in subsets}, 3.0)
    for cell in made.keypoints_xy:
        made.keypoints_xy[cell] = rng.normal(0, 5, made.true_xy.shape)
    made.keypoints_xy["clear", "text"][0] = np.nan  # a miss counts 1.0
    made.visible["clear"][1] = 0  # nothing labelled: left out of all means alike
    found = attribute(made, PAIR, ["clear"], MODALITIES)["clear"]
    for row in found.values():
        assert sum(e["mean"] for e in row["shapley"].values()) == pytest.approx(row["gain"]["mean"])
        assert row["gain"]["mean"] == pytest.approx(row["prior"]["mean"] - row["error"]["mean"])
        assert row["gain"]["n"] == 5


def test_a_text_control_takes_the_subsets_without_text_from_the_clear_picture():
    errors = {("clear", "image"): 2.0, ("even_times", "text"): 4.0, ("even_times", "image+text"): 1.0}
    found = attribute(predictions_at(errors, 6.0), PAIR, ["even_times"], ("image", "text"))
    # image (6 - 2 + 4 - 1) / 2, text (6 - 4 + 2 - 1) / 2
    values = found["even_times"]["near"]["shapley"]
    assert (values["image"]["mean"], values["text"]["mean"]) == (pytest.approx(3.5), pytest.approx(1.5))


def model_of(**changes: object) -> MmkpForKeypointDetection:
    torch.manual_seed(0)
    return MmkpForKeypointDetection(tiny_config(**changes)).eval()


def encoded_of(model: MmkpForKeypointDetection, present: list[list[bool]] | None = None) -> Encoded:
    """Three items with every modality; `present` takes some away."""
    torch.manual_seed(1)
    given = {
        "image": (torch.randn(3, 3, 32, 32),), "text": (torch.randint(3, 200, (3, 9)), torch.ones(3, 9)),
        "audio": (torch.randn(3, 20, 16), torch.ones(3, 20)),
    }  # fmt: skip
    return model.encode(given, None if present is None else torch.tensor(present))


@torch.no_grad()
def test_gates_are_those_of_the_forward():
    model = model_of(fusion={"name": "gated", "level": "feature"})
    encoded = encoded_of(model, [[True, True, True], [True, False, True], [False, True, False]])
    shares = gate_shares(model, encoded)["gates"]
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert not shares[1, 1].any() and not shares[2, 0].any()
    np.testing.assert_allclose(shares[2, 1], 1, atol=1e-6)
    xy, _ = model.read(model.detect(encoded))
    cell = ((xy - 3.5) / 8).round().long().clamp(0, 3)
    model.fusion.value.weight.zero_()
    for i in range(3):  # values of 1 for one modality and 0 for the others: what comes out is its gate
        model.fusion.value.bias.copy_(torch.eye(3)[i].repeat_interleave(16))
        passed = model.fusion(model.lift(encoded), encoded.present).mean(1)
        np.testing.assert_allclose(
            shares[:, i], passed[torch.arange(3)[:, None], cell[..., 1], cell[..., 0]], atol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "options", "expected_px2"),
    [
        ("heatmap", {"sigma_grid": 1.5}, (1.5 * 4) ** 2),
        ("simcc", {"sigma_bins": 6.0, "split_ratio": 2}, 3.0**2),
        ("rle", {}, (0.01 * 96) ** 2),
    ],
)
def test_the_variance_is_that_of_the_target(name, options, expected_px2):
    codec = make_codec(name, stride=4, input_size_hw=(64, 96), schema=load_schema("face5"), **options)
    target = codec.encode(torch.tensor([[[40.3, 31.2]]]), torch.ones(1, 1, dtype=torch.bool))
    assert variance_px(codec, codec.raw_of(target)).item() == pytest.approx(expected_px2, rel=0.03)


@torch.no_grad()
def test_experts_of_a_product_are_as_precise_as_their_heads_say():
    model = model_of(fusion={"name": "product", "level": "model"})
    found = expert_precisions(model, encoded_of(model, [[True, True, True], [True, True, False], [False, True, False]]))
    own = variance_px(model.codec, model.heads["image"](model.lift(encoded_of(model))["image"]))
    np.testing.assert_allclose(found["precision"][:2, 0] * own[:2], 1, rtol=1e-4)
    assert not found["precision"][1, 2].any() and not found["precision"][2, 0].any()
    np.testing.assert_allclose(found["share"].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found["share"][2, 1], 1, atol=1e-6)


class Few:
    """Six samples of five points; the last has no sound."""

    name, fingerprint, problems, schema = "few", "", (), load_schema("face5")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        return Sample(
            id=str(index), group=str(index), keypoints_xy=rng.uniform(5, 25, (5, 2)).astype(np.float32),
            visible=np.full(5, 2, np.uint8), box_xywh=np.array([-0.5, -0.5, 32.0, 32.0]),
            image=rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), text="bin |blue",
            audio=None if index == 5 else rng.uniform(-1, 1, 16_000).astype(np.float32),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("fusion", "quantities"),
    [
        ({"name": "gated", "level": "feature"}, {"gates"}),
        ({"name": "product", "level": "model"}, {"precision", "share"}),
    ],
)  # fmt: skip
def test_weights_by_condition_are_of_items_with_everything(tmp_path, fusion, quantities):
    loaded = load(str(save_tiny(tmp_path / "m", fusion=fusion)))
    found = fusion_weights(loaded, Few(), ["clear"], batch_size=4)
    assert set(found["items"]) == quantities
    for quantity in quantities - {"precision"}:
        row = found["items"][quantity]["clear"]["all"]
        assert sum(e["mean"] for e in row.values()) == pytest.approx(1, abs=1e-4)
        assert {e["n"] for e in row.values()} == {5}


def test_a_rule_reports_its_weights(tmp_path):
    options = {"name": "weighted", "level": "feature", "weights": {"image": 2.0, "audio": 2.0, "text": 1.0}}
    found = fusion_weights(load(str(save_tiny(tmp_path / "m", fusion=options))), Few(), ["clear"])
    assert found["weights"] == pytest.approx({"image": 0.4, "text": 0.2, "audio": 0.4}) and "items" not in found


def test_words_take_what_their_letters_contribute():
    tokenizer, text = ByT5Tokenizer(), "né |b\n"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == 8  # n, two bytes, blank, cursor, b, line end, special
    places = token_places(tokenizer, text, len(ids))
    assert places == [0, 1, 1, 2, 3, 4, 5, None]
    words, rest = by_word(text, places, np.array([1.0, 2, 4, 8, 16, 32, 64, 128]))
    assert words == [{"word": "né", "attribution": 7.0}, {"word": "|b", "attribution": 48.0}]
    assert rest == 200


def test_frames_are_told_from_the_picture():
    np.testing.assert_allclose(frame_times(51, 0.5)[[0, 25, 50]], [-0.25, 0, 0.25], atol=1e-12)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint whose fusion gives the text no weight."""
    options = {"name": "weighted", "level": "feature", "weights": {"image": 1.0, "audio": 1.0}}
    return load(str(save_tiny(tmp_path_factory.mktemp("tiny") / "m", fusion=options)))


@pytest.fixture(scope="module")
def item() -> Given:
    one = Few()[0]
    return Given(one.image, one.text, (one.audio, 16_000), None, [0.0, 0.0, 30.0, 30.0])


@needs_captum
def test_contributions_sum_to_the_change(tiny, item, tmp_path):
    record = explain_item(tiny, item, tmp_path, group="all", target="y", steps=8)
    change = record["value"] - record["baseline_value"]
    missed = record["completeness_error"]
    assert sum(record["modalities"].values()) == pytest.approx(change + missed["absolute"], abs=1e-4)
    assert missed["relative"] == pytest.approx(abs(missed["absolute"] / change), rel=1e-2)
    assert abs(record["modalities"]["text"]) < 1e-6 < abs(record["modalities"]["audio"])
    expected = np.asarray(record["keypoints"])[:, 1].mean() * 32 / 30 - 0.5  # the box of 30 px fills 32 px
    assert record["value"] == pytest.approx(expected, abs=2e-2)
    assert [w["word"] for w in record["words"]] == ["bin", "|blue"]
    assert sum(record["audio_frames"]["attribution"]) == pytest.approx(record["modalities"]["audio"], abs=1e-4)
    assert json.loads((tmp_path / "explain.json").read_text()) == record
    assert cv2.imread(str(tmp_path / "explain.png")).std() > 10
    assert not any(m._forward_hooks for m in tiny.model.modules())  # nothing stays hooked into the model


@needs_captum
def test_a_smooth_path_misses_next_to_nothing(tiny, item, tmp_path):
    words = explain_item(tiny, Given(text=item.text), tmp_path, group="all", target="y", steps=32)
    assert set(words["modalities"]) == {"text"} and words["box"] == "none"
    assert abs(words["value"] - words["baseline_value"]) > 0.01
    assert words["completeness_error"]["relative"] < 1e-3
    assert (tmp_path / "explain.png").is_file()


@needs_captum
def test_a_picture_alone_is_explained(tiny, item, tmp_path):
    record = explain_item(tiny, Given(image=item.image), tmp_path, steps=2)
    assert set(record["modalities"]) == {"image"} and "words" not in record and "audio_frames" not in record
    assert record["box"] == "whole image" and record["box_xywh"] == [-0.5, -0.5, 32, 32]
    assert (tmp_path / "explain.png").is_file()


@needs_captum
def test_the_face_is_found_by_another_model(run, face_model, finder, scene, tmp_path):
    cv2.imwrite(str(tmp_path / "scene.png"), scene[0][..., ::-1])
    command = ("--model", face_model, "--image", tmp_path / "scene.png", "--out", tmp_path / "out")
    code, _, err = run(*command, "--find-with", finder[2])
    assert (code, err) == (0, "")
    record = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert record["box"] == "found"
    searcher = finder[0]
    best = finding.find(searcher.model, searcher.processor, scene[0], most=1).boxes_xywh[0]
    assert record["box_xywh"] == best.round(3).tolist()
    code, _, err = run(*command)
    assert code == 0
    assert "is given the whole picture" in err
    assert json.loads((tmp_path / "out" / "explain.json").read_text())["box"] == "whole image"
    assert run(*command, "--whole")[2] == ""


@needs_captum
def test_scores_of_plain_coordinates_explain_nothing(item, tmp_path):
    codec = {"codec": {"name": "regression"}, "head": {"name": "regression"}}
    loaded = load(str(save_tiny(tmp_path / "m", **codec)))
    with pytest.raises(InputError, match="--target score: expected a number that depends .* --target y"):
        explain_item(loaded, item, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def run(capsys, monkeypatch):
    """The command line in this process: exit code, what it printed, what it complained."""

    def run_mmkp(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmkp", "explain", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return run_mmkp


@pytest.fixture(scope="module")
def face_model(tmp_path_factory) -> Path:
    schema = load_schema("face68").model_dump(mode="json")
    folder = tmp_path_factory.mktemp("face") / "m"
    return save_tiny(folder, keypoint_schema=schema, fusion={"name": "gated", "level": "feature"})


def test_a_dataset_is_explained_and_its_predictions_used_again(run, face_model, grid_root, tmp_path):
    command = ("--model", face_model, "--data", f"grid:{grid_root}", "--out", tmp_path, "frame_step=25")
    code, out, err = run(*command)
    assert code == 0, err
    assert "clear: NME" in out and "covered: NME" in out and "used again" not in err
    found = json.loads((tmp_path / "explain.json").read_text())
    for groups in found["conditions"].values():
        for row in groups.values():
            assert sum(e["mean"] for e in row["shapley"].values()) == pytest.approx(row["gain"]["mean"], abs=1e-6)
    report = (tmp_path / "explain.md").read_text()
    assert "## covered" in report and "### Gates" in report and "| lips |" in report
    assert cv2.imread(str(tmp_path / "shapley.png")).std() > 10
    code, _, err = run(*command)
    assert code == 0 and "used again" in err
    assert json.loads((tmp_path / "explain.json").read_text()) == found


def test_an_evaluation_of_other_items_keeps_its_predictions(run, face_model, grid_root, tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "predictions.npz").write_bytes(b"an evaluation's")
    command = ("--model", face_model, "--data", f"grid:{grid_root}", "--out", tmp_path, "frame_step=25")
    assert run(*command)[0] == 0
    assert (tmp_path / "predictions.npz").read_bytes() == b"an evaluation's"
    assert (tmp_path / "explain" / "predictions.npz").is_file()
    assert "used again" in run(*command)[2]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "expected either --data, or any of --image, --text, --audio, got neither"),
        (["--data", "grid:x", "--text", "hi"], "got --data beside --text"),
        (["--text", "hi", "frame_step=2"], "expected key=value only beside --data"),
        (["--text", "hi", "--group", "lip"], "--group: expected a group .* face68, got 'lip'. Did you mean 'lips'?"),
        (["--text", "hi", "--target", "scor"], "--target: .*'scor'. Did you mean 'score'?"),
        (["--text", "  "], "text: expected at least one character"),
        (["--image", "PHOTO", "--box", "900,0,5,5"], "--box: expected a box within 80 x 60 px"),
        (["--text", "hi", "--whole"], "--whole only beside --image"),
        (["--image", "PHOTO", "--box", "0,0,9,9", "--whole"], "--whole: expected no --box beside it"),
        (["--image", "PHOTO", "--find-with", "MODEL"], "--find-with .*: expected a model that finds faces"),
        (["--audio", "WAV", "--audio-time", "99"], "audio_time: expected a moment of the sound"),
        (["--text", "hi", "--out", "PHOTO"], "--out .*: expected a folder that can be written"),
    ],
)
@needs_captum
def test_bad_input_is_one_line(run, face_model, tmp_path, arguments, complaint):
    files = {"PHOTO": tmp_path / "photo.png", "WAV": tmp_path / "sound.wav", "MODEL": face_model}
    cv2.imwrite(str(files["PHOTO"]), np.zeros((60, 80, 3), np.uint8))
    soundfile.write(files["WAV"], np.zeros(16_000), 16_000)
    plain = [files.get(a, a) for a in arguments]
    out = [] if "--out" in plain else ["--out", tmp_path / "out"]
    code, _, err = run("--model", face_model, *plain, *out)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert re.search(complaint, err), err
    assert not (tmp_path / "out").exists()


def test_without_captum_the_extra_is_named(tiny, item, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "captum" else real(name, *a))
    with pytest.raises(MissingExtraError, match=r"pip install 'mmkp\[explain\]'"):
        explain_item(tiny, item, tmp_path / "out")
