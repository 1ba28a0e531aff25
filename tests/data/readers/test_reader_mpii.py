"""MPII: values read by hand off the excerpt, and a .mat written after the owners' description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmkp.data import open_table
from mmkp.errors import InputError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((30, 40, 3), 90, np.uint8))


def entry(image: str = "000000001.jpg", **changes: Any) -> dict:
    """A person of the JSON: right ankle at (11, 21), head top at (15, 2), the rest unlabelled."""
    joints, labelled = [[-1.0, -1.0] for _ in range(16)], [0] * 16
    joints[0], joints[9], labelled[0], labelled[9] = [11, 21], [15, 2], 1, 1
    return {"image": image, "joints": joints, "joints_vis": labelled, "center": [12, 11], "scale": 0.1} | changes


def write_json(root: Path, people: Any, name: str = "mpii_train.json") -> Path:
    picture(root / "images" / "000000001.jpg")
    path = root / "annotations" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(people))
    return path


def test_excerpt():
    path = SHARED / "official_formats" / "mpii"
    if not path.exists():
        pytest.skip("the excerpt of MPII is not here")
    table = open_table(f"mpii:{path}")
    assert len(table.rows) == 5 and not table.faults
    row = next(r for r in table.rows if r.id == "051423444_0")
    # joints_vis 0 for both ankles; right knee at 1033, 649 counted from 1
    assert row.visible.tolist() == [0, 2, 2, 2, 2, 0, *[2] * 10]
    np.testing.assert_array_equal(row.keypoints_xy[[1, 15]], [[1032, 648], [841, 329]])
    # center 1030, 396 and scale 3.139233: 784.80825 px wide, 47.088495 px lower
    np.testing.assert_allclose(row.box_xywh, [1029 - 392.404125, 395 + 47.088495 - 392.404125, 784.80825, 784.80825])
    assert row.image.name == "051423444.jpg" and row.split == "test"
    for person in table.rows:
        labelled, low = person.keypoints_xy[person.visible > 0], person.box_xywh[:2]
        assert (labelled > low).all() and (labelled < low + person.box_xywh[2:]).all()


def test_json_by_hand(tmp_path):
    write_json(tmp_path, [entry(), entry()])
    table = open_table(f"mpii:{tmp_path}")
    first, second = table.rows
    np.testing.assert_array_equal(first.keypoints_xy[[0, 9]], [[10, 20], [14, 1]])
    assert np.isnan(first.keypoints_xy[1]).all() and first.visible.tolist() == [2, *[0] * 8, 2, *[0] * 6]
    np.testing.assert_allclose(first.box_xywh, [11 - 12.5, 10 + 1.5 - 12.5, 25, 25])
    assert (first.id, second.id, first.group) == ("000000001_0", "000000001_1", "images/000000001.jpg")
    assert first.split == "train" and table.schema.name == "mpii16"


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (entry(joints=[[1, 2]]), "keypoint count"),
        (entry(joints=[["1", "2"]] * 16), "not a number"),
        (entry(joints_vis="all"), "not a number"),
        (entry(image="gone.jpg"), "missing file"),
        (entry(image="/etc/passwd"), "path escape"),
        (entry(image=None), "bad row"),
        ("text", "no keypoints"),
        ({"image": "000000001.jpg", "center": [1, 2], "scale": 1}, "no keypoints"),  # as in the test part
    ],
)
def test_a_bad_person_costs_itself(tmp_path, bad, kind):
    write_json(tmp_path, [bad, entry()])
    table = open_table(f"mpii:{tmp_path}")
    assert len(table.rows) == 1 and [f.kind for f in table.faults] == [kind]


def test_a_person_without_scale_gets_the_joints_extent(tmp_path):
    write_json(tmp_path, [entry(scale="large")])
    np.testing.assert_allclose(open_table(f"mpii:{tmp_path}").rows[0].box_xywh, [9.6, -0.9, 4.8, 22.8])


def test_coco_like_files_and_wrong_words_are_refused(tmp_path):
    path = write_json(tmp_path, {"images": []})
    with pytest.raises(InputError, match="coco:FILE"):
        open_table(f"mpii:{path}")
    with pytest.raises(InputError, match="skip or keep"):
        open_table(f"mpii:{path}", unlabelled="no")
    path.with_suffix(".mat").write_bytes(b"nothing of MATLAB")
    with pytest.raises(InputError, match="MATLAB file"):
        open_table(f"mpii:{path.with_suffix('.mat')}")


def structs(items: list[dict]) -> np.ndarray:
    """A MATLAB struct array; [] stands for an empty field."""
    names = list(dict.fromkeys(name for item in items for name in item))
    made = np.zeros((1, len(items)), dtype=[(name, object) for name in names])
    for i, item in enumerate(items):
        for name in names:
            made[0, i][name] = item.get(name, np.zeros((0, 0)))
    return made


def write_mat(path: Path) -> None:
    """RELEASE after "Annotation description" on the owners' page, and miscs/gen_mpii.m of bearpaw/pytorch-pose.

    annolist(i).image.name; .annorect(r): x1 y1 x2 y2 (the head), scale, objpos.x .y, annopoints.point(p): x, y, id
    from 0, is_visible, which is 0 / 1, '0' / '1', or empty for the two of the head; .vididx. img_train(i); act(i).
    """
    point = [
        {"x": 11.0, "y": 21.0, "id": 0, "is_visible": 1}, {"x": 12.0, "y": 18.0, "id": 1, "is_visible": "0"},
        {"x": 15.5, "y": 2.25, "id": 9},
    ]  # fmt: skip
    head = {"x1": 10, "y1": 2, "x2": 22, "y2": 18, "scale": 0.1, "objpos": structs([{"x": 12, "y": 11}])}
    whole = head | {"annopoints": structs([{"point": structs(point)}])}
    single = head | {"annopoints": structs([{"point": structs(point[:1])}])}
    unlabelled = {"scale": 0.1, "objpos": structs([{"x": 12, "y": 11}])}
    images = [
        {"image": structs([{"name": "000000001.jpg"}]), "annorect": structs([whole, single]), "vididx": 17},
        {"image": structs([{"name": "000000002.jpg"}]), "annorect": structs([unlabelled]), "vididx": 18},
        {"image": structs([{"name": "000000003.jpg"}])},
    ]
    acts = [{"act_name": "curling", "cat_name": "winter activities", "act_id": 1}, {"act_id": -1}, {"act_id": -1}]
    release = {"annolist": structs(images), "img_train": np.array([[1, 0, 1]]), "act": structs(acts)}
    pytest.importorskip("scipy.io").savemat(path, {"RELEASE": release})


def test_mat_by_hand(tmp_path):
    write_mat(tmp_path / "mpii_human_pose_v1_u12_1.mat")
    for number in (1, 2, 3):
        picture(tmp_path / "images" / f"00000000{number}.jpg")
    table = open_table(f"mpii:{tmp_path}")
    assert [str(f) for f in table.faults] == [
        "mpii_human_pose_v1_u12_1.mat: no keypoints: 1 people left out; unlabelled=keep takes them"
    ]
    first, second = table.rows
    np.testing.assert_array_equal(first.keypoints_xy[[0, 1, 9]], [[10, 20], [11, 17], [14.5, 1.25]])
    assert first.visible.tolist() == [2, 1, *[0] * 7, 2, *[0] * 6]  # an empty is_visible means labelled
    assert first.info["head_box"] == [9, 1, 12, 16] and 0.6 * np.hypot(12, 16) == 12  # PCKh's length of this head
    np.testing.assert_allclose(first.box_xywh, [11 - 12.5, 10 + 1.5 - 12.5, 25, 25])
    assert (first.group, first.split, first.info["activity"]) == ("video 17", "train", "curling")
    assert second.visible.tolist() == [2, *[0] * 15] and second.group == first.group
    kept = open_table(f"mpii:{tmp_path}", unlabelled="keep").rows
    assert [(r.group, r.split) for r in kept[2:]] == [("video 18", "test")]


def test_head_boxes_of_the_validation_file(tmp_path):
    """mpii_gt_val.mat (gt_valid.mat) holds headboxes_src, 2 x 2 x N: [x1 y1; x2 y2] of each person of mpii_val.json."""
    savemat = pytest.importorskip("scipy.io").savemat
    path = write_json(tmp_path, [entry(), entry()], "mpii_val.json")
    corners = np.array([[[10, 2], [22, 18]], [[5, 5], [8, 9]]], float).transpose(1, 2, 0)
    savemat(path.with_name("mpii_gt_val.mat"), {"headboxes_src": corners})
    rows = open_table(f"mpii:{tmp_path}").rows
    assert [r.info["head_box"] for r in rows] == [[9, 1, 12, 16], [4, 4, 3, 4]]
    savemat(path.with_name("mpii_gt_val.mat"), {"headboxes_src": corners[..., :1]})
    with pytest.raises(InputError, match="2 x 2 x 2"):
        open_table(f"mpii:{tmp_path}")
