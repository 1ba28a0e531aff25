"""Schemas: the built-in ones are right, and a wrong one is refused by its fault."""

from __future__ import annotations

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


def test_every_keypoint_has_a_sigma_a_phrase_and_a_group(schema):
    assert len(schema.sigmas) == len(set(schema.phrases)) == schema.num_keypoints
    assert sorted(i for members in schema.groups.values() for i in members) == list(range(schema.num_keypoints))


def test_left_and_right_names_are_flipped_into_each_other(schema):
    for a, b in enumerate(schema.flip_index):
        if "left" in schema.keypoints[a]:
            assert "right" in schema.keypoints[b]


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
        ({"skeleton": []}, "Extra inputs"),
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
