"""Finding faces: what is known by hand, and a small finder fitted on drawn faces that must find others of them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from mmkp import finding, geometry
from mmkp.configuration_mmkp import MmkpConfig
from mmkp.data.face import face_box
from mmkp.data.talker.mouth import MouthState, landmarks
from mmkp.data.talker.person import draw_person
from mmkp.data.talker.render import draw_scene, render
from mmkp.data.talker.view import View, place
from mmkp.errors import InputError
from mmkp.evaluation import single
from mmkp.finding import Found
from mmkp.hub import load, packaged
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import make_processor
from mmkp.schema import load_schema
from mmkp.training.finder import Plan, fit, spot_loss, spot_targets
from mmkp.training.scenes import Face, lay
from mmkp.training.textures import TEXTURES, draw_texture

PLAN = Plan(scenes=100, scene_px=128, steps=150, batch_size=8, searched=12, crops=60, judge_steps=120, checked=2)
BACKBONE = "encoders.image.backbone."


@given(
    st.integers(64, 1200), st.integers(64, 1200), st.floats(0, 1), st.sampled_from([32, 64]),
)  # fmt: skip
def test_every_size_is_nominal_on_some_level(height, width, share, face_px):
    smallest, largest = finding.SMALLEST * width, finding.LARGEST * min(height, width)
    side = smallest * max(1, largest / smallest) ** share
    levels = finding.pyramid((height, width), face_px)
    octaves = [abs(np.log2(side * affine[0, 0] / face_px)) for affine, _ in levels]
    assert min(octaves) <= 0.25 + 1e-9


@pytest.mark.parametrize("image_hw", [(40_000, 300), (3000, 10), (300, 40_000), (1, 1), (4000, 6000)])
def test_no_shape_of_a_picture_makes_a_level_grow_beyond_bounds(image_hw):
    """In faces: 6 across, 120 down, and the margin."""
    for _, (height, width) in finding.pyramid(image_hw, 64):
        assert height <= 64 * 121 and width <= 64 * 7


def test_a_level_holds_the_picture_and_a_margin():
    for affine, (height, width) in finding.pyramid((120, 200), 64):
        corners = geometry.transform(np.array([[-0.5, -0.5], [199.5, 119.5]]), affine)
        assert (corners[0] >= 16 - 0.5 - 1e-6).all()
        assert (corners[1] <= np.array([width, height]) - 0.5 - 16 + 1e-6).all()
        assert height % 32 == width % 32 == 0


def test_overlap_by_hand():
    one = np.array([[0.0, 0, 10, 10]])
    other = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [2.5, 2.5, 5, 5]])
    np.testing.assert_allclose(finding.overlap(one, other), [[1, 1 / 3, 0, 0.25]])


def test_the_best_of_a_heap_stays():
    boxes = np.array([[0.0, 0, 10, 10], [1, 0, 10, 10], [30, 0, 10, 10], [60, 0, 10, 10]])
    found = finding.suppress(Found(boxes, np.array([0.6, 0.9, 0.7, 0.1])), most=2)
    np.testing.assert_array_equal(found.boxes_xywh[:, 0], [1, 30])
    np.testing.assert_array_equal(found.scores, [0.9, 0.7])
    assert len(finding.suppress(Found(np.zeros((0, 4)), np.zeros(0)), 5)) == 0


def test_a_box_that_its_points_carry_away_is_no_face():
    before = np.array([[0.0, 0, 10, 10]] * 4)
    after = np.array([[1.0, 1, 9, 9], [8, 0, 10, 10], [0, 0, 40, 40], [np.nan, 0, 10, 10]])
    assert finding.settled(before, after).tolist() == [True, False, False, False]


def test_targets_by_hand():
    # cells' middles lie at 7.5, 23.5, 39.5, 55.5 px; a face of 48 px about (25.5, 23.5)
    made = spot_targets(np.array([[1.5, -0.5, 48, 48]]), (4, 4), 48)
    assert made[0, 1, 1] == 1
    np.testing.assert_allclose(made[1:, 1, 1], [2 / 48, 0, 0], atol=1e-6)
    assert made[0, 1, 2] == -1  # 14 px away: 0.29 of a face
    assert made[0, 3, 3] == 0
    assert made[0, 1, 3] == 0
    far_size = spot_targets(np.array([[25.5 - 48, 23.5 - 48, 96, 96]]), (4, 4), 48)
    assert (far_size[0] == 0).all()  # an octave off: another level's business
    some = spot_targets(np.array([[25.5 - 34, 23.5 - 34, 68, 68]]), (4, 4), 48)
    assert some[0, 1, 1] == -1  # half an octave off: nobody's business
    assert (spot_targets(np.zeros((0, 4)), (2, 3), 48) == 0).all()


def test_the_loss_is_nothing_for_the_truth_and_grows_with_the_distance():
    wanted = torch.from_numpy(spot_targets(np.array([[1.5, -0.5, 48, 48]]), (4, 4), 48))[None]
    said = wanted.clone()
    said[:, 0] = torch.where(wanted[:, 0] > 0, 20.0, -20.0)
    assert spot_loss(said, wanted) < 1e-6
    said[:, 1] += 0.25
    assert spot_loss(said, wanted) == pytest.approx(2 * 0.25, abs=1e-5)
    said[:, 0, 3, 3] = 0  # an unsure cell beside the face: a quarter of a bit in nats
    assert spot_loss(said, wanted) == pytest.approx(0.5 + 0.25 * np.log(2), abs=1e-5)


def _marked_face() -> Face:
    """A grey picture with a white dot at each corner of the eyes."""
    points = np.full((68, 2), np.nan)
    points[36:42] = [[30, 40], [33, 38], [37, 38], [40, 40], [37, 42], [33, 42]]
    points[42:48] = [[60, 40], [63, 38], [67, 38], [70, 40], [67, 42], [63, 42]]
    image = np.full((100, 100, 3), 60, np.uint8)
    for x, y in points[[36, 39, 42, 45]].astype(int):
        image[y, x] = 255
    return Face(image, points, face_box(points))


@pytest.mark.parametrize("seed", range(6))
def test_a_face_lies_where_its_box_says(seed, monkeypatch):
    monkeypatch.setattr("mmkp.training.scenes.COVERED", 0.0)
    canvas = np.full((200, 220, 3), 60, np.uint8)
    box = lay(canvas, _marked_face(), np.array([100.0, 90]), 144.0, np.random.default_rng(seed))
    dots = np.argwhere(canvas[..., 0] > 90)[:, ::-1]
    middle = box[:2] + box[2:] / 2 - [0, 0.5 * box[2] / 2.4]  # the box hangs half an eye distance below the eyes
    np.testing.assert_allclose((dots.min(0) + dots.max(0)) / 2, middle, atol=1.5)
    assert box[2] == pytest.approx(144, rel=1e-6)


@pytest.mark.parametrize("kind", TEXTURES)
def test_textures_are_pictures_and_come_again(kind):
    one = TEXTURES[kind]((40, 60), np.random.default_rng(3))
    assert one.shape == (40, 60, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, TEXTURES[kind]((40, 60), np.random.default_rng(3)))
    assert (one != TEXTURES[kind]((40, 60), np.random.default_rng(4))).any()


def tiny_model(schema: str = "face68", backbone: str = "mobilenetv3_small_050", **image: Any) -> tuple[Any, Any]:
    """A small model of 64 px, untrained."""
    torch.manual_seed(0)
    config = MmkpConfig(
        modalities=["image"], hidden_size=16, input_size_hw=(64, 64), head={"name": "regression", "hidden": 8},
        image_config={"backbone": backbone, "stride": 16, **image}, codec={"name": "regression"},
        keypoint_schema=load_schema(schema).model_dump(mode="json"),
    )  # fmt: skip
    return MmkpForKeypointDetection(config).eval(), make_processor(config)


def seeing_model() -> tuple[Any, Any]:
    """One with the packaged grid-talker's backbone: untrained features tell no face from a wall."""
    model, processor = tiny_model(backbone="tf_efficientnet_lite0")
    with safe_open(packaged()["grid-talker"] / "model.safetensors", "pt") as file:
        state = {k: file.get_tensor(k).float() for k in file.keys() if k.startswith(BACKBONE)}  # noqa: SIM118
    model.encoders["image"].backbone.load_state_dict({k.removeprefix(BACKBONE): v for k, v in state.items()})
    return model, processor


def answer(model: Any, points: np.ndarray) -> None:
    """Make the head answer `points`, in units of the input's side from its middle, and nothing else."""
    last = model.heads["joint"].last
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.from_numpy(points.reshape(-1)).float())


def drawn_faces(count: int, seed: int) -> list[Face]:
    """Faces of the embedded data's painter, each another person, looking about straight ahead."""
    rng, faces = np.random.default_rng(seed), []
    for _ in range(count):
        person = draw_person(rng)
        points_mm = landmarks(person, MouthState())
        view = place(View(*rng.uniform(-8, 8, 3)), points_mm, 96, 0.6, rng.uniform(-0.5, 0.5, 2))
        image = render(person, MouthState(), points_mm, view, draw_scene(rng), np.zeros(2), 96)
        points = view.project(points_mm)
        faces.append(Face(image, points, face_box(points)))
    return faces


def mean_points(faces: list[Face]) -> np.ndarray:
    """(68, 2) the mean shape in the box, in its sides from its middle."""
    shapes = [(f.keypoints_xy - f.box_xywh[:2]) / f.box_xywh[2] - 0.5 for f in faces]
    return np.mean(shapes, 0)


@pytest.fixture(scope="module")
def finder(tmp_path_factory) -> tuple[Any, dict, Path]:
    """A model with a finder fitted on 60 drawn people, its state before, and the folder it was saved to."""
    torch.set_num_threads(1)
    people = drawn_faces(72, seed=0)
    model, processor = seeing_model()
    answer(model, mean_points(people))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    record = fit(model, processor, people[:60], people[60:], plan=PLAN)
    folder = tmp_path_factory.mktemp("finder") / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "record.json").write_text(json.dumps(record))
    return load(str(folder)), before, folder


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A picture with three people whom the finder has not seen, and their boxes."""
    rng = np.random.default_rng(5)
    canvas, boxes = draw_texture((240, 320), np.random.default_rng(11)), []
    for face, middle, side in zip(
        drawn_faces(3, seed=9), ((70, 80), (170, 150), (255, 70)), (90, 110, 80), strict=True
    ):
        boxes.append(lay(canvas, face, np.array(middle, float), float(side), rng))
    return canvas, np.array(boxes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_finds_the_same(finder, scene, dtype):
    """The same faces; of two whose scores are a hair apart either may be the first."""
    loaded, _, folder = finder
    whole = finding.find(loaded.model, loaded.processor, scene[0])
    half = finding.find(load(str(folder)).model.to(dtype), loaded.processor, scene[0])
    assert len(half) == len(whole) > 0
    places = [found.boxes_xywh[found.boxes_xywh[:, 0].argsort()] for found in (half, whole)]
    np.testing.assert_allclose(*places, atol=4)
    np.testing.assert_allclose(np.sort(half.scores), np.sort(whole.scores), atol=0.05)


def test_only_the_finder_is_fitted(finder):
    loaded, before, _ = finder
    after = loaded.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert {key.split(".")[0] for key in set(after) - set(before)} == {"finder"}


def test_several_faces_are_found_where_they_are(finder, scene):
    loaded, _, _ = finder
    image, boxes = scene
    found = finding.find(loaded.model, loaded.processor, image)
    assert len(found) >= 3
    shared = finding.overlap(found.boxes_xywh[:3], boxes)  # the best three are the three people, each once
    assert (shared.max(0) > 0.4).all()
    assert sorted(shared.argmax(1).tolist()) == [0, 1, 2]
    assert (np.diff(found.scores) <= 0).all()
    one = finding.find(loaded.model, loaded.processor, image, most=1)
    np.testing.assert_allclose(one.boxes_xywh, found.boxes_xywh[:1])
    none = finding.find(loaded.model, loaded.processor, image, threshold=1.0)
    assert none.boxes_xywh.shape == (0, 4)


@pytest.mark.parametrize("seed", range(4))
def test_no_face_on_a_wall(finder, seed):
    loaded, _, _ = finder
    wall = draw_texture((200, 260), np.random.default_rng([123, seed]))
    assert len(finding.find(loaded.model, loaded.processor, wall)) == 0
    assert len(finding.find(loaded.model, loaded.processor, np.full((8, 300, 3), seed * 40, np.uint8))) == 0


def test_who_can_find(finder):
    assert finding.can_find(finder[0].model)
    assert not finding.can_find(tiny_model()[0])
    points, processor = tiny_model("face5")
    assert not finding.can_find(points)
    with pytest.raises(InputError, match="right_eye_0.*face5"):
        finding.check_findable(points)
    with pytest.raises(InputError, match="a model with a finder"):
        finding.find(points, processor, np.zeros((50, 50, 3), np.uint8))
    whole, _ = tiny_model()
    whole.encoders["image"] = torch.nn.Identity()
    with pytest.raises(InputError, match="an image encoder of one scale"):
        finding.check_findable(whole)


def test_no_faces_to_fit_on():
    model, processor = tiny_model()
    with pytest.raises(InputError, match="training pictures with the eyes labelled"):
        fit(model, processor, [], [])


def test_predict_gives_every_face_its_points(finder, scene, mmkp, tmp_path):
    cv2.imwrite(str(tmp_path / "three.png"), scene[0][..., ::-1])
    code, printed, _ = mmkp("predict", "-m", finder[2], "-i", tmp_path / "three.png", "-o", tmp_path / "out")
    assert code == 0
    assert "instance(s) from image" in printed
    result = json.loads((tmp_path / "out/predictions.json").read_text())
    assert result["box"] == "found"
    assert len(result["instances"]) >= 3
    scores = [one["score"] for one in result["instances"]]
    assert scores == sorted(scores, reverse=True)
    for one in result["instances"]:  # this model answers the mean shape, so that the points tell the box again
        np.testing.assert_allclose(face_box(np.array(one["keypoints"])), one["box_xywh"], rtol=0.01, atol=1.0)


def test_predict_with_one_face(finder, scene, monkeypatch):
    monkeypatch.setattr(single, "find", partial(finding.find, most=1))
    result = single.predict_one(finder[0], scene[0])
    assert len(result["instances"]) == 1
    assert np.array(result["instances"][0]["keypoints"]).shape == (68, 2)


def test_predict_on_a_wall_and_on_the_whole(finder, mmkp, tmp_path):
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((60, 80, 3), 90, np.uint8))
    arguments = ("predict", "-m", finder[2], "-i", tmp_path / "wall.png", "-o", tmp_path / "out")
    code, printed, _ = mmkp(*arguments)
    assert code == 0
    assert "no face found" in printed
    assert json.loads((tmp_path / "out/predictions.json").read_text())["instances"] == []
    assert (cv2.imread(str(tmp_path / "out/picture.png")) == 90).all()
    assert "1 instance(s)" in mmkp(*arguments, "--whole")[1]
    assert json.loads((tmp_path / "out/predictions.json").read_text())["box"] == "whole image"
    assert "1 instance(s)" in mmkp(*arguments, "--box", "5,5,40,40")[1]
    code, _, complaint = mmkp(*arguments, "--whole", "--box", "5,5,40,40")
    assert code == 2
    assert "no --box beside it" in complaint


def test_another_model_finds_for_one_that_cannot(finder, scene, tmp_path, mmkp):
    blind = tmp_path / "blind"
    model = MmkpForKeypointDetection(MmkpConfig.from_dict({**finder[0].model.config.to_dict(), "finder": None}))
    model.save_pretrained(blind)
    finder[0].processor.save_pretrained(blind)
    whole = single.predict_one(load(str(blind)), scene[0])
    assert whole["box"] == "whole image"
    said = single.predict_one(load(str(blind)), scene[0], finder=finder[0])
    assert said["box"] == "found"
    boxes = [one["box_xywh"] for one in said["instances"]]
    assert boxes == [one["box_xywh"] for one in single.predict_one(finder[0], scene[0])["instances"]]
    cv2.imwrite(str(tmp_path / "scene.png"), scene[0][..., ::-1])
    words = ("predict", "-m", blind, "-i", tmp_path / "scene.png", "-o", tmp_path / "out", "--find-with")
    assert f"{len(boxes)} instance(s)" in mmkp(*words, finder[2])[1]
    code, _, complaint = mmkp(*words, blind)
    assert code == 2
    assert "expected a model that finds faces" in complaint
    code, _, complaint = mmkp(*words, finder[2], "--whole")
    assert code == 2
    assert "neither --box nor --whole" in complaint
