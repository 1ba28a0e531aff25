"""Schemas: the built-in ones are right, and a wrong one is refused by its fault."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml

from mmkp import InputError, load_schema
from mmkp.schema import parse_schema, schema_names

TRIANGLE = {"name": "t", "keypoints": ["a", "b", "c"], "flip_pairs": [[0, 1]], "edges": [[0, 1], [1, 2]]}


@pytest.fixture(params=schema_names())
def schema(request):
    return load_schema(request.param)


def test_a_flip_twice_is_nothing(schema):
    np.testing.assert_array_equal(schema.flip_index[schema.flip_index], np.arange(schema.num_keypoints))


def mirrored(words: str) -> str:
    return re.sub("left|right", lambda found: {"left": "right", "right": "left"}[found[0]], words)


def test_every_keypoint_has_a_phrase_of_its_own_and_one_group(schema):
    assert len(set(schema.phrases)) == schema.num_keypoints
    assert sorted(i for members in schema.groups.values() for i in members) == list(range(schema.num_keypoints))


def test_a_flip_swaps_left_and_right_in_names_and_phrases(schema):
    for a, b in enumerate(schema.flip_index):
        assert re.sub(r"\d+", "", mirrored(schema.keypoints[a])) == re.sub(r"\d+", "", schema.keypoints[b])
        assert mirrored(schema.phrases[a]) == schema.phrases[b]


def test_a_flip_leaves_the_drawing_what_it_was(schema):
    edges = {frozenset(edge) for edge in schema.edges}
    assert len(edges) == len(schema.edges)
    flipped = {frozenset(int(schema.flip_index[i]) for i in edge) for edge in edges}
    assert flipped == edges


def test_sigmas_are_the_same_for_both_sides_but_for_feet_and_face_as_measured(schema):
    if schema.sigmas is None:
        assert schema.name in {"face5", "quad4", "box5", "centre1", "wflw98", "aflw19", "cofw29"}
        return
    differing = [i for i, j in enumerate(schema.flip_index) if schema.sigmas[i] != schema.sigmas[j]]
    measured = {"face68": range(68), "wholebody133": range(17, 91)}.get(schema.name, range(0))
    assert set(differing) <= set(measured)
    assert min(schema.sigmas) > 0.005 and max(schema.sigmas) < 0.2


@pytest.mark.parametrize(
    ("name", "count", "at"),
    [
        ("face5", 5, {0: "right_eye", 2: "nose_tip", 4: "left_mouth_corner"}),
        ("coco17", 17, {0: "nose", 1: "left_eye", 6: "right_shoulder", 9: "left_wrist", 16: "right_ankle"}),
        ("mpii16", 16, {0: "right_ankle", 5: "left_ankle", 6: "pelvis", 9: "head_top", 12: "right_shoulder"}),
        ("hand21", 21, {0: "wrist", 4: "thumb4", 8: "forefinger4", 17: "pinky_finger1"}),
        ("quad4", 4, {0: "top_left", 2: "bottom_right"}),
        ("animal17", 17, {0: "left_eye", 4: "tail_root", 7: "left_front_paw", 16: "right_back_paw"}),
        ("wflw98", 98, {16: "contour_16", 54: "nose_bridge_3", 60: "right_eyelid_0", 96: "right_pupil"}),
        ("aflw19", 19, {0: "right_brow_outer", 7: "right_eye", 13: "nose_tip", 18: "chin"}),
        ("cofw29", 29, {0: "right_brow_outer", 9: "left_eye_outer", 20: "nose_tip", 28: "chin"}),
        ("crowdpose14", 14, {0: "left_shoulder", 12: "head_top", 13: "neck"}),
        ("wholebody133", 133, {17: "left_big_toe", 23: "jaw_0", 91: "left_hand_root", 132: "right_pinky_finger4"}),
    ],
)  # fmt: skip
def test_the_order_is_the_datasets_own(name, count, at):
    schema = load_schema(name)
    assert schema.num_keypoints == count
    assert {i: schema.keypoints[i] for i in at} == at


def test_wholebody_is_its_parts():
    whole, body, face, hand = (load_schema(n) for n in ("wholebody133", "coco17", "face68", "hand21"))
    assert whole.keypoints[:17] == body.keypoints
    assert whole.sigmas[:17] == body.sigmas
    assert whole.keypoints[23:91] == face.keypoints
    assert whole.sigmas[23:91] == face.sigmas
    assert whole.sigmas[91:112] == whole.sigmas[112:] == hand.sigmas
    assert whole.flip_index[[1, 17, 23, 91, 132]].tolist() == [2, 20, 39, 112, 111]


def test_coco17_holds_cocos_sigmas():
    coco = pytest.importorskip("pycocotools.cocoeval")
    np.testing.assert_allclose(load_schema("coco17").sigmas, coco.Params(iouType="keypoints").kpt_oks_sigmas)


def test_face68_is_the_ibug_markup():
    schema = load_schema("face68")
    assert schema.num_keypoints == 68
    assert schema.normalizer.points == (36, 45)
    assert list(schema.groups) == ["jaw", "brows", "nose", "eyes", "lips"]
    assert schema.groups["lips"] == tuple(range(48, 68))
    assert schema.flip_index[[0, 8, 36, 39, 48, 54, 60]].tolist() == [16, 8, 45, 42, 54, 48, 64]
    points = np.zeros((1, 68, 2))
    points[0, 45] = [30, 40]
    assert schema.normalizer(points, np.zeros((1, 4))) == 50


def test_normalizers():
    boxes = np.array([[0, 0, 9, 16.0], [0, 0, 0, 5]])
    points = np.zeros((2, 3, 2))
    box = parse_schema({**TRIANGLE, "normalizer": {"name": "box", "kind": "box_side"}})
    assert box.normalizer(points, boxes).tolist() == [12.0, 0.0]
    unit = parse_schema({**TRIANGLE, "normalizer": {"name": "px", "kind": "unit"}})
    assert unit.normalizer(points, boxes).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip_pairs": [[0, 1], [1, 2]]}, "two flip pairs"),
        ({"flip_pairs": [[0, 3]]}, "outside 0..2"),
        ({"edges": [[0, 9]]}, "outside 0..2"),
        ({"sigmas": [0.1]}, "sigmas must hold 3"),
        ({"keypoints": ["a", "a", "b"]}, "all names must differ"),
        ({"keypoints": []}, "at least one name"),
        ({"normalizer": {"name": "d", "kind": "distance", "points": [1]}}, "takes two points"),
        ({"skeleton": []}, "expected keys of name, keypoints, .*, got 'skeleton'"),
    ],
)
def test_a_wrong_schema_is_refused_by_its_fault(change, message):
    with pytest.raises(InputError, match=message):
        parse_schema({**TRIANGLE, **change})


def test_a_schema_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TRIANGLE))
    assert load_schema(str(path)).keypoints == ("a", "b", "c")
    path2 = tmp_path / "broken.yaml"
    path2.write_text("name: [")
    with pytest.raises(InputError, match="a readable YAML file"):
        load_schema(str(path2))
    with pytest.raises(InputError, match="Did you mean 'face68'"):
        load_schema("face_68")
