"""The visibility output beside any head: by hand, learned, joined, saved; and absent where it is not asked for."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from helpers import tiny_recipe

from mmkp import losses
from mmkp import pipeline as make_pipeline
from mmkp.configuration_mmkp import MmkpConfig
from mmkp.data import open_dataset
from mmkp.evaluation.predictions import Predictions
from mmkp.evaluation.run import evaluate
from mmkp.evaluation.score import summarize
from mmkp.evaluation.single import predict_one
from mmkp.heads.visibility import VisibilityHead
from mmkp.hub import load
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import make_processor
from mmkp.schema import load_schema


def build(visibility: float, level: str = "feature", head: str = "heatmap") -> MmkpForKeypointDetection:
    torch.manual_seed(0)
    return MmkpForKeypointDetection(
        MmkpConfig(
            keypoint_schema=load_schema("face5").model_dump(mode="json"), hidden_size=16, input_size_hw=(32, 32),
            image_config={"backbone": "test_efficientnet", "stride": 4}, text_config={"layers": 1, "heads": 2},
            audio_config={"layers": 1, "heads": 2, "mel_bins": 16}, fusion={"name": "average", "level": level},
            head={"name": head}, codec={"name": "regression" if head == "regression" else head},
            visibility=visibility,
        )
    )  # fmt: skip


def test_where_it_looks_and_what_it_says_by_hand():
    """Two cells, one channel: attention softmax(log 3, 0) = (3/4, 1/4) over the judgements 2 and -2 gives 1."""
    head = VisibilityHead(1, 1)
    with torch.no_grad():
        head.look.weight.fill_(1.0)
        head.judge.weight.fill_(4 / math.log(3))
        head.judge.bias.fill_(-2.0)
    grid = torch.tensor([math.log(3), 0.0]).view(1, 1, 1, 2)
    assert head(grid).item() == pytest.approx(0.75 * 2 + 0.25 * -2)


def test_loss_by_hand():
    """Visible at logit 0: log 2; hidden at log 3: -log(1 / 4); the unlabelled point is out, whatever it says."""
    logits = torch.tensor([[0.0, math.log(3), 50.0]])
    value = losses.visibility_cross_entropy(logits, torch.tensor([[2.0, 1.0, 0.0]]))
    assert value.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)


@pytest.mark.parametrize("level", ["feature", "model"])
@pytest.mark.parametrize("head", ["heatmap", "regression", "simcc"])
def test_it_learns_beside_any_head_and_at_both_levels(level, head):
    """One picture hides all points, another shows them: 150 steps tell the two apart."""
    model = build(5.0, level, head).eval()  # two pictures are no statistics
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([8.0, 20.0, 2.0]).repeat(2, 5, 1)
    labels[0, :, 2] = 1.0
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=labels).loss.backward()
        optimizer.step()
    seen = model(pixel_values=pixels).visibility
    assert seen.shape == (2, 5)
    assert (seen[0] < 0.2).all() and (seen[1] > 0.8).all()


def test_without_it_the_model_says_nothing_of_it():
    model = build(0.0).eval()
    assert model(pixel_values=torch.zeros(1, 3, 32, 32)).visibility is None
    assert not [name for name, _ in model.named_parameters() if name.startswith("visibility")]


def test_shares_of_visible_and_hidden_points_by_hand():
    """face5, six items alike: points 0 and 1 visible (one called so), 2 and 3 hidden (both called so), 4 unlabelled."""
    count, zeros = 6, np.zeros((6, 5, 2))
    points = zeros + np.array([[0, 0], [10, 0], [5, 5], [2, 8], [8, 8]])
    made = Predictions(
        np.arange(count).astype(str), np.array(list("abcdef")), points, np.full((count, 4), 20.0), points
    )
    made.visible["clear"] = np.tile(np.array([2, 2, 1, 1, 0]), (count, 1))
    made.keypoints_xy["clear", "image"] = points
    made.scores["clear", "image"] = np.ones((count, 5))
    made.visibility["clear", "image"] = np.tile([0.9, 0.4, 0.1, 0.5, 0.9], (count, 1))
    entry = summarize(made, load_schema("face5"), {})["conditions"]["clear"]["image"]
    assert (entry["visible_recall"]["mean"], entry["visible_recall"]["n"]) == (0.5, 6)
    assert entry["hidden_recall"]["mean"] == 1.0  # a half is not above a half
    assert entry["hidden_recall"]["ci95"] == [1.0, 1.0]
    made.visibility["clear", "image"][2:] = np.nan  # items that lack the subset have no say
    entry = summarize(made, load_schema("face5"), {})["conditions"]["clear"]["image"]
    assert (entry["visible_recall"]["mean"], entry["visible_recall"]["n"]) == (0.5, 2)


@pytest.fixture
def seeing(grid_root, tmp_path) -> str:
    """A folder with an untrained model of face68 that tells what can be seen."""
    recipe = tiny_recipe(grid_root)
    config = MmkpConfig.from_dict(
        {
            "keypoint_schema": load_schema("face68").model_dump(mode="json"), "visibility": 0.5,
            "hidden_size": 16, "input_size_hw": [48, 48], "head": {"name": "heatmap", "layers": 1},
            "image_config": {"backbone": recipe.model.image.backbone, "stride": 8},
            "text_config": {"layers": 1, "heads": 2}, "audio_config": {"layers": 1, "heads": 2, "mel_bins": 16},
            "codec": {"name": "heatmap"}, "fusion": {"name": "average", "level": "feature"},
        }
    )  # fmt: skip
    model = MmkpForKeypointDetection(config)
    with torch.no_grad():
        for head in model.visibility.values():
            head.judge.weight.zero_()
            head.judge.bias.copy_(torch.linspace(-2, 2, 68))  # says the same of everything: half are hidden
    model.save_pretrained(tmp_path / "seeing")
    make_processor(config).save_pretrained(tmp_path / "seeing")
    return str(tmp_path / "seeing")


def test_it_is_told_by_all_that_tell_keypoints(seeing):
    expected = torch.linspace(-2, 2, 68).sigmoid()
    picture, loaded = np.random.default_rng(0).integers(0, 255, (60, 60, 3)).astype(np.uint8), load(seeing)
    with torch.inference_mode():
        outputs = loaded.model(**loaded.processor(images=picture))
    found = loaded.processor.post_process_keypoint_detection(outputs)[0]["visibility"]
    torch.testing.assert_close(found, expected)
    answer = predict_one(loaded, picture)["instances"][0]
    np.testing.assert_allclose(answer["visibility"], expected, atol=1e-4)
    points = make_pipeline(model=seeing)(picture)[0]["keypoints"]
    np.testing.assert_allclose([p["visibility"] for p in points], expected, atol=1e-6)


def test_evaluate_scores_it(seeing, grid_root, tmp_path):
    data = f"grid:{grid_root}"
    summary = evaluate(load(seeing), data, "test", tmp_path / "out")
    test = open_dataset(data, "test")
    visible = np.stack([test[i].visible for i in range(len(test))])
    said = (torch.linspace(-2, 2, 68).sigmoid() > 0.5).numpy()
    clear = summary["conditions"]["clear"]["image"]
    assert clear["visible_recall"]["mean"] == pytest.approx(
        np.mean([said[v == 2].mean() for v in visible if (v == 2).any()])
    )
    covered = summary["conditions"]["covered"]["image"]
    assert covered["hidden_recall"]["groups"]["lips"]["mean"] == pytest.approx(1 - said[48:].mean())
    assert "visible_recall" not in summary["conditions"]["clear"]["mean_shape"]
    assert (
        json.loads((tmp_path / "out/summary.json").read_text())["conditions"]["clear"] == summary["conditions"]["clear"]
    )
    report = (tmp_path / "out/report.md").read_text()
    assert "| visible recall | hidden recall |" in report
    assert "Visible recall: of the keypoints that can be seen" in report
