"""300W, WFLW, AFLW, COFW in the pose community's JSON: values read by hand, and files after its converters."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmkp.data import open_table

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "official_formats"


def excerpt(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"the excerpt of {name} is not here")
    return SHARED / name


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((80, 90, 3), 90, np.uint8))


def write(path: Path, image: str, *annotations: dict) -> None:
    """One picture in images/; the category has no names of keypoints, as in all four conversions."""
    picture(path.parents[1] / "images" / image)
    path.parent.mkdir(parents=True, exist_ok=True)
    category = {"supercategory": "person", "id": 1, "name": "face", "keypoints": [], "skeleton": []}
    images = [{"id": 3, "file_name": image, "height": 80, "width": 90}]
    path.write_text(json.dumps({"categories": [category], "images": images, "annotations": list(annotations)}))


def ramp(count: int, flags: list[float] | float) -> list[float]:
    """Points (10 + i, 20 + 2 i), one after the other with their flags."""
    given = flags if isinstance(flags, list) else [flags] * count
    return [value for i in range(count) for value in (10.25 + i, 20.5 + 2 * i, given[i])]


def test_excerpt_of_300w():
    table = open_table(f"300w:{excerpt('300w')}")
    row = table.rows[0]
    assert len(table.rows) == 2 and not table.faults and table.schema.name == "face68"
    np.testing.assert_allclose(row.keypoints_xy[[0, 1, 26]], [[268, 398.882], [285.21, 470.547], [672.527, 287.694]])
    np.testing.assert_allclose(row.box_xywh, [223.7298, 217.3791, 531.2424, 571.4508])
    assert (row.visible == 2).all() and row.group == "indoor_029.png" and row.info["scale"] == 2.385


def test_excerpt_of_wflw_has_a_box_that_cuts_a_face():
    table = open_table(f"wflw:{excerpt('wflw')}")
    assert [r.id for r in table.rows] == ["2", "12", "40", "1169"]
    assert len({r.group for r in table.rows}) == 2  # three faces are of one picture
    np.testing.assert_allclose(table.rows[0].keypoints_xy[0], [440.696106, 132.732559])
    np.testing.assert_allclose(table.rows[0].box_xywh, [432.3053162, 113.7500775, 100.6894776, 101.074938])
    assert [(f.kind, f.id) for f in table.faults] == [("bad box", "40")]  # 48 px high for points that span 111
    assert "63 of 98" in table.faults[0].message
    np.testing.assert_allclose(table.rows[2].box_xywh[[2, 3]], [119.8634196, 133.2790824])


def test_aflw_as_the_community_converts_it(tmp_path):
    """After mmpose's tests/data/aflw/test_aflw.json: 19 points, all flagged 1; bbox is 1.2 times their extent; center,
    scale (of 200 px) and box_size of the owners' square box; iscrowd, area, num_keypoints, category_id."""
    points = np.array(ramp(19, 1)).reshape(-1, 3)[:, :2]
    low, size = points.min(0), np.ptp(points, axis=0)
    annotation = {
        "image_id": 3, "id": 3, "keypoints": ramp(19, 1), "num_keypoints": 19,
        "bbox": [*(low - 0.1 * size), *(1.2 * size)], "iscrowd": 0, "area": 933.1, "category_id": 1,
        "center": [19.0, 38.0], "scale": 0.2, "box_size": 40.0,
    }  # fmt: skip
    write(tmp_path / "annotations" / "face_landmarks_aflw_train.json", "image22568.jpg", annotation)
    write(tmp_path / "annotations" / "face_landmarks_aflw_test.json", "image04476.jpg", annotation)
    write(tmp_path / "annotations" / "face_landmarks_aflw_test_frontal.json", "image04476.jpg", annotation)
    table = open_table(f"aflw:{tmp_path}")
    assert not table.faults and [(r.split, r.group) for r in table.rows] == [
        ("test", "images/image04476.jpg"), ("train", "images/image22568.jpg")
    ]  # fmt: skip
    row = table.rows[1]
    np.testing.assert_allclose(row.keypoints_xy[[0, 18]], [[10.25, 20.5], [28.25, 56.5]])
    np.testing.assert_allclose(row.box_xywh, [8.45, 16.9, 21.6, 43.2])
    assert (row.visible == 2).all() and row.info["box_size"] == 40


def test_cofw_keeps_what_is_occluded(tmp_path):
    """After mmpose's tests/data/cofw/test_cofw.json: 29 points flagged 2.0, or 1.0 where occluded; bbox of whole
    numbers as the owners give it, which may leave points out; iscrowd, area, num_keypoints, no center and scale."""
    annotation = {
        "keypoints": ramp(29, [2.0] * 20 + [1.0] * 9), "image_id": 3, "id": 1766, "num_keypoints": 29,
        "bbox": [12.0, 22.0, 20.0, 40.0], "iscrowd": 0, "area": 800.0, "category_id": 1,
    }  # fmt: skip
    write(tmp_path / "annotations" / "cofw_train.json", "001766.jpg", annotation)
    table = open_table(f"cofw:{tmp_path}")
    (row,) = table.rows
    assert not table.faults and row.visible.tolist() == [2] * 20 + [1] * 9
    np.testing.assert_array_equal(row.keypoints_xy[28], [38.25, 76.5])
    np.testing.assert_array_equal(row.box_xywh, [11.5, 21.5, 20, 40])


@pytest.mark.parametrize("step", [1, 8])
def test_wflw_after_the_converter_of_the_community(tmp_path, step):
    """After mmpose's tools/dataset_converters/wflw2coco.py: is_crowd (sic), area, center and scale = side / 200; a bbox
    about the middle of the points whose sides are theirs divided by scale: 200 px whatever the face's size."""
    keypoints = [value for i in range(98) for value in (10.0 + step * (i % 50), 10.0 + step * (i // 2), 1.0)]
    width, height = 49 * step, 48 * step
    scale = width / 200
    sides = np.array([width, height]) / scale
    centre = np.array([10 + width / 2, 10 + height / 2])
    annotation = {
        "keypoints": keypoints, "image_id": 3, "id": 0, "num_keypoints": 98, "bbox": [*(centre - sides / 2), *sides],
        "is_crowd": 0, "area": width * height, "category_id": 1, "center": list(centre), "scale": scale,
    }  # fmt: skip
    write(tmp_path / "annotations" / "face_landmarks_wflw_train.json", "0--Parade/0_Parade.jpg", annotation)
    table = open_table(f"wflw:{tmp_path}")
    assert [f.kind for f in table.faults] == ["bad box"]  # too large about 49 px, and cutting 392 px
    expected = [10 - 0.1 * width, 10 - 0.1 * height, 1.2 * width, 1.2 * height]
    np.testing.assert_allclose(table.rows[0].box_xywh, expected)
    assert table.rows[0].group == "images/0--Parade/0_Parade.jpg" and table.rows[0].info["is_crowd"] == 0


def test_a_face_without_a_box_takes_centre_and_scale(tmp_path):
    annotation = {"keypoints": ramp(68, 1), "image_id": 3, "id": 5, "center": [43.75, 87.5], "scale": 0.75}
    other = annotation | {"id": 6, "scale": 0.01}  # 2 px: another convention, so the points' extent is taken
    write(tmp_path / "annotations" / "face_landmarks_300w_valid.json", "helen/testset/1.jpg", annotation, other)
    table = open_table(f"300w:{tmp_path}")
    np.testing.assert_allclose(table.rows[0].box_xywh, [43.75 - 75, 87.5 - 75, 150, 150])
    np.testing.assert_allclose(table.rows[1].box_xywh, [10.25 - 6.7, 20.5 - 13.4, 80.4, 160.8])
    assert [(f.kind, f.id) for f in table.faults] == [("bad box", "6")] and table.rows[0].split == "valid"
