"""Finding faces: what is known by hand, and a small finder fitted on drawn faces that must find others of them."""

from __future__ import annotations

import json
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_finder import tiny_model

from mmkp import finding, geometry
from mmkp.data.face import face_box
from mmkp.errors import InputError
from mmkp.evaluation import single
from mmkp.finding import Found
from mmkp.hub import load
from mmkp.training.finder import fit, spot_loss, spot_targets
from mmkp.training.scenes import Face, lay
from mmkp.training.textures import TEXTURES, draw_texture


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
