"""Boxes as keypoints: corners and middle in our frame, the category as the text, nothing left out in silence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmkp import InputError
from mmkp.data import open_dataset, open_table

CAPTIONS = Path(__file__).parents[3] / "shared" / "data" / "coco_captions"


@pytest.fixture
def coco(tmp_path) -> Path:
    """Two objects of one picture: a person without labelled joints, and one with; COCO's box is by its corner."""
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    joints = [0, 0, 0] * 17
    common = {"image_id": 1, "category_id": 1, "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "person", "keypoints": [f"k{i}" for i in range(17)], "skeleton": []}],
        "annotations": [
            {**common, "id": 1, "bbox": [10, 4, 20, 30], "area": 600, "num_keypoints": 0, "keypoints": joints},
            {**common, "id": 2, "bbox": [0, 0, 60, 40], "area": 9, "num_keypoints": 1,
             "keypoints": [5, 5, 2, *joints[3:]]},
        ],
    }  # fmt: skip
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def test_corners_and_middle_by_hand(coco):
    table = open_table(f"boxes:coco:{coco}", keypoints="box5")
    assert len(table.rows) == 2  # also the one whose joints nobody labelled
    # COCO's corner (10, 4) lies half a px up and left of the centre of pixel (10, 4)
    expected = [[9.5, 3.5], [29.5, 3.5], [29.5, 33.5], [9.5, 33.5], [19.5, 18.5]]
    np.testing.assert_allclose(table.rows[0].keypoints_xy, expected)
    assert table.rows[0].text == "person"
    assert table.rows[0].box_xywh is None


@pytest.mark.parametrize(("keypoints", "count"), [("quad4", 4), ("centre1", 1), ("box5", 5)])
def test_samples_see_the_whole_picture(coco, keypoints, count):
    sample = open_dataset(f"boxes:coco:{coco}", "all", keypoints=keypoints)[0]
    assert sample.keypoints_xy.shape == (count, 2)
    np.testing.assert_allclose(sample.box_xywh, [-0.5, -0.5, 60, 40])


def test_words_that_do_not_fit(coco):
    with pytest.raises(InputError, match="quad4"):
        open_table(f"boxes:coco:{coco}", keypoints="quad5")
    with pytest.raises(InputError, match="NAME:PATH|PATH"):
        open_table("boxes")


@pytest.mark.skipif(not CAPTIONS.is_dir(), reason="needs the COCO captions excerpt in ../shared/data")
def test_people_of_coco_by_their_captions():
    table = open_table(f"boxes:coco:{CAPTIONS}")
    assert len(table.rows) > 100
    assert all(len(row.text) > 10 for row in table.rows)
    assert all(np.ptp(row.keypoints_xy, axis=0).min() > 0 for row in table.rows)
