"""Scores of several people a picture: AP by hand, who was found, intervals, and the file between."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mmkp import metrics
from mmkp.configuration_mmkp import MmkpConfig
from mmkp.data.sample import Sample
from mmkp.errors import InputError
from mmkp.evaluation.instance_scores import average_precision, drawn_precision, greedy_partners, summarize_people
from mmkp.evaluation.instances import Found, PeoplePredictions, evaluate_people, predict_people
from mmkp.evaluation.score import GroupBootstrap
from mmkp.evaluation.single import predict_one, write_prediction
from mmkp.hub import Loaded
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import make_processor
from mmkp.schema import load_schema

SHAPE = np.array([[-10.0, -8.0], [10.0, -8.0], [0.0, 2.0], [-8.0, 12.0], [8.0, 12.0]])


def faces(*middles: tuple[float, float]) -> np.ndarray:
    """(P, 5, 2) faces of 20 px between the eyes."""
    return np.array(middles)[:, None] + SHAPE


SCORED = load_schema("face5").model_copy(update={"sigmas": (0.025,) * 5})


def predictions(shift: float = 0.0, extra: bool = False) -> PeoplePredictions:
    """Six pictures of two people; what is found is `shift` px to the right, and the last picture's second is lost."""
    images = np.repeat(np.arange(6), 2)
    true = np.tile(faces((40, 40), (110, 100)), (6, 1, 1))
    found_xy, found_image = true[:-1] + [shift, 0], images[:-1]
    scores = np.linspace(0.9, 0.5, 11)
    if extra:  # somebody who is not there, surest of all
        found_xy = np.concatenate([found_xy, true[:1] + 60])
        found_image, scores = np.append(found_image, 0), np.append(scores, 1.0)
    made = PeoplePredictions(
        np.array([f"i{i}" for i in range(6)]), np.array([f"g{i}" for i in range(6)]), images, true,
        np.full(12, 40.0**2), {"clear": np.full((12, 5), 2, np.uint8)},
    )  # fmt: skip
    made.found["clear", "image"] = Found(found_image, found_xy, np.ones((len(scores), 5)), scores)
    return made


def entry(made: PeoplePredictions) -> dict:
    return summarize_people(made, SCORED, {})["conditions"]["clear"]["image"]


def test_scores_of_people_by_hand():
    """11 of 12 found, exactly: recall 11/12, AP the share of the 101 recalls up to it (0 to 0.91: 92 of 101)."""
    cell = entry(predictions())
    assert cell["ap"]["mean"] == pytest.approx(92 / 101)
    assert cell["ar"]["mean"] == pytest.approx(11 / 12)
    assert cell["recall"]["mean"] == pytest.approx((5 + 0.5) / 6)
    assert cell["precision"]["mean"] == 1 and cell["nme_matched"]["mean"] == 0
    assert cell["nme"]["mean"] == pytest.approx(0.5 / 6)  # one of two people missed in one of six pictures
    low, high = cell["ap"]["ci95"]
    assert low < cell["ap"]["mean"] < high == 1


def test_a_shift_costs_what_oks_says():
    """2 px at an area of 40^2: OKS = exp(-4 / (2 * 1600 * 0.05^2)) = 0.607: right up to a threshold of 0.6."""
    cell = entry(predictions(shift=2.0))
    assert cell["ap"]["mean"] == pytest.approx(92 / 101 * 3 / 10)
    assert cell["ap75"]["mean"] == 0 and cell["ap50"]["mean"] == pytest.approx(92 / 101)
    assert cell["nme_matched"]["mean"] == pytest.approx(2 / 20)


def test_somebody_who_is_not_there_costs_precision():
    cell = entry(predictions(extra=True))
    assert cell["precision"]["mean"] == pytest.approx((2 / 3 + 5) / 6)
    assert cell["ap"]["mean"] < 92 / 101 * 0.95


def test_drawn_precision_is_cocos_where_everybody_is_drawn_once():
    made = predictions(shift=1.0, extra=True)
    truth = metrics.GroundTruth(made.true_image, made.true_xy, made.visible["clear"], made.area, np.zeros((12, 4)))
    one = made.found["clear", "image"]
    detections = metrics.Detections(one.image, one.keypoints_xy, one.instance_scores)
    draws = GroupBootstrap(made.groups)
    draws.draws = np.ones((1, 6))
    drawn, whole = drawn_precision(truth, detections, SCORED, draws), metrics.coco_ap(truth, detections, SCORED)
    for name, value in drawn.items():
        assert value[0] == pytest.approx(whole[name], abs=1e-9), name
    assert average_precision(truth, detections, SCORED, GroupBootstrap(made.groups[:1]))["ap"]["ci95"] is None


def test_the_surest_chooses_first_and_nobody_is_taken_twice():
    true = faces((40, 40))
    truth = metrics.GroundTruth([0], true, np.full((1, 5), 2), [1600.0], np.zeros((1, 4)))
    twice = metrics.Detections([0, 0], np.concatenate([true, true + 1]), [0.4, 0.8])
    assert greedy_partners(truth, twice, SCORED).tolist() == [1]


def test_predictions_come_back_from_their_file(tmp_path):
    made = predictions()
    made.meta = {"key": "k"}
    made.save(tmp_path)
    back = PeoplePredictions.load(tmp_path)
    assert back.meta == made.meta and entry(back) == entry(made)
    (tmp_path / "instances.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="instances"):
        PeoplePredictions.load(tmp_path)


def test_nobody_found_and_nobody_there():
    made = predictions()
    none = Found(np.zeros(0, int), np.zeros((0, 5, 2)), np.zeros((0, 5)), np.zeros(0))
    made.found["clear", "image"] = none
    cell = entry(made)
    assert cell["ap"]["mean"] == 0 and cell["nme"]["mean"] == 1 and cell["precision"]["mean"] is None
    made.visible["clear"] = np.zeros((12, 5), np.uint8)
    cell = entry(made)
    assert cell["ap"]["mean"] is None and cell["recall"]["mean"] is None and cell["nme"]["mean"] is None


# ---- a whole model, which is told what it says ----


class TwoPictures:
    """A dataset of a picture with two people and one with nobody."""

    name, schema, problems, fingerprint = "two", SCORED, (), "f"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        xy = faces((20, 20), (45, 44)).astype(np.float32)[: 2 - 2 * index]
        visible = np.full(xy.shape[:2], 2, np.uint8)
        first = (xy[0], visible[0]) if len(xy) else (np.full((5, 2), np.nan, np.float32), np.zeros(5, np.uint8))
        return Sample(
            id=f"s{index}", group=f"g{index}", keypoints_xy=first[0], visible=first[1],
            box_xywh=np.array([-0.5, -0.5, 64, 64]), image=np.full((64, 64, 3), 90, np.uint8), text="a|b",
            people_xy=xy, people_visible=visible, info={"people_area": [48.0**2] * len(xy)},
        )  # fmt: skip


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    torch.manual_seed(0)
    config = MmkpConfig(
        keypoint_schema=SCORED.model_dump(mode="json"), hidden_size=16, input_size_hw=(64, 64),
        image_config={"backbone": "test_efficientnet", "stride": 4, "deepest_stride": 8},
        text_config={"layers": 1, "heads": 2, "dropout": 0.0}, modalities=("image", "text"),
        head={"name": "openpose", "stages": 1, "layers": 0}, codec={"name": "openpose"},
    )  # fmt: skip
    model = MmkpForKeypointDetection(config).eval()
    target = model.codec.encode(torch.from_numpy(faces((20, 20), (45, 44))).float()[None])
    said = model.codec.raw_of(target)
    model.heads["joint"].forward = lambda grid: said.expand(len(grid), -1, -1, -1)
    return Loaded(model, make_processor(config), "told", "d")


def test_evaluation_from_samples_to_the_report(loaded, tmp_path):
    """It says two people in both pictures: all are found, half of those said are there."""
    protocol = {"model": "told", "data": "two", "split": "test"}
    summary = evaluate_people(loaded, TwoPictures(), ["clear"], tmp_path, "k", protocol)
    assert summary == json.loads((tmp_path / "summary.json").read_text()) and summary["primary"] == "ap"
    assert set(summary["conditions"]["clear"]) == {"image", "text", "image+text"}
    cell = summary["conditions"]["clear"]["image+text"]
    assert cell["recall"]["mean"] == 1 and cell["precision"]["mean"] == 0.5
    assert cell["nme"]["mean"] == pytest.approx(0, abs=1e-3) and set(cell["nme"]["groups"]) == {"eyes", "nose", "lips"}
    assert cell["ap"]["ci95"] is None and "2 groups" in cell["ap"]["reason"]
    report = (tmp_path / "report.md").read_text()
    assert "| image+text |" in report and (tmp_path / "people.png").is_file()
    kept = (tmp_path / "instances.npz").stat().st_mtime_ns
    evaluate_people(loaded, TwoPictures(), ["clear"], tmp_path, "k", protocol)
    assert (tmp_path / "instances.npz").stat().st_mtime_ns == kept  # used again


def test_an_item_without_the_modality_has_nobody(loaded):
    class Silent(TwoPictures):
        def __getitem__(self, index: int) -> Sample:
            return super().__getitem__(index).replace(text=None if index else "a|b")

    made = predict_people(loaded.model, loaded.processor, Silent(), ["clear"])
    assert made.found["clear", "text"].image.tolist() == [0, 0]
    assert made.found["clear", "image"].image.tolist() == [0, 0, 1, 1]
    points = sorted(made.found["clear", "image"].keypoints_xy[2:].tolist())
    np.testing.assert_allclose(points, faces((20, 20), (45, 44)), atol=0.1)


def test_oks_without_sigmas_is_refused_before_the_long_part(loaded, tmp_path):
    bare = Loaded(loaded.model, loaded.processor, "told", "d")
    before, loaded.model.schema = loaded.model.schema, load_schema("face5")
    try:
        with pytest.raises(InputError, match="OKS with schema face5"):
            evaluate_people(bare, TwoPictures(), ["clear"], tmp_path, "k", {})
    finally:
        loaded.model.schema = before


def test_predict_writes_everybody_and_null_for_what_is_missing(loaded, tmp_path):
    image = np.full((128, 128, 3), 90, np.uint8)
    result = predict_one(loaded, image=image)
    assert len(result["instances"]) == 2
    best = result["instances"][0]
    assert best["score"] > 0.8 and len(best["keypoints"]) == 5
    x, y, width, height = best["box_xywh"]
    assert width == pytest.approx(40, abs=0.2) and height == pytest.approx(40, abs=0.2)  # 20 px, twice enlarged
    best["keypoints"][2] = [None, None]
    picture, file = write_prediction(result, image, loaded, tmp_path)
    assert json.loads(file.read_text())["instances"][0]["keypoints"][2] == [None, None]
    assert picture.is_file()
