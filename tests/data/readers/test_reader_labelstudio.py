"""Label Studio: fixtures after labelstud.io's pages.

Task format: `id`, `data`, `annotations` [`id`, `result` [`id`, `from_name`, `to_name`, `type`, `value`],
`was_cancelled`, `ground_truth`], `predictions`. KeyPointLabels: `original_width`, `original_height` (px),
`image_rotation` (degrees), `value.x`, `value.y` ("coordinate by percentage of the image size (0-100)"),
`value.width`, `value.keypointlabels`.
RectangleLabels: `value.x`, `value.y` ("of the top left corner before rotation"), `width`, `height`, `rotation`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmkp.data import open_table
from mmkp.errors import InputError

SIZE = {"original_width": 80, "original_height": 60, "image_rotation": 0}


def point(x: Any, y: Any, name: Any, **changes: Any) -> dict:
    value = {"x": x, "y": y, "width": 0.7, "keypointlabels": [name]}
    return (
        {"id": f"{name}{x}", "from_name": "tag", "to_name": "img", "type": "keypointlabels", "value": value}
        | SIZE
        | changes
    )


def rectangle(key: str, x: float, y: float, width: float, height: float, rotation: float = 0) -> dict:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": ["cat"]}
    return {"id": key, "type": "rectanglelabels", "value": value} | SIZE


def area(words: str, **changes: Any) -> dict:
    return {"id": "t", "type": "textarea", "value": {"text": [words]}} | changes


def task(result: Any, image: str = "/data/upload/1/0a1b2c3d-x.jpg", key: int = 1, **changes: Any) -> dict:
    annotation = {"id": 1001, "result": result, "was_cancelled": False, "ground_truth": False}
    return {"id": key, "data": {"image": image}, "annotations": [annotation], "predictions": []} | changes


PAIR = [point(50, 50, "left_eye"), point(25, 50, "right_eye")]


def write(root: Path, tasks: Any) -> Path:
    (root / "images").mkdir(exist_ok=True)
    for name in ("x.jpg", "0a1b2c3e-y.jpg"):
        cv2.imwrite(str(root / "images" / name), np.full((60, 80, 3), 90, np.uint8))
    path = root / "project-1-at-2024.json"
    path.write_text(json.dumps(tasks))
    return path


def test_percent_become_pixels_of_our_frame(tmp_path):
    table = open_table(f"labelstudio:{write(tmp_path, [task([*PAIR, area('a cat')])])}")
    (row,) = table.rows
    assert table.schema.keypoints == ("left_eye", "right_eye") and table.schema.flip_pairs == ((0, 1),)
    np.testing.assert_allclose(row.keypoints_xy, [[39.5, 29.5], [19.5, 29.5]])  # 50 % of 80 is 40 px from the corner
    assert (row.id, row.text, row.image.name, row.group) == ("1", "a cat", "x.jpg", "images/x.jpg")
    assert row.box_xywh is None and row.visible.tolist() == [2, 2] and not table.faults


def test_points_go_to_their_rectangle(tmp_path):
    inner, outer = rectangle("in", 40, 40, 20, 20), rectangle("out", 0, 0, 100, 100)
    strayed = point(50, 50, "tail") | {"parentID": "out"}
    result = [outer, inner, point(50, 50, "left_eye"), point(10, 10, "right_eye"), strayed, area("big", parentID="out")]
    rows = open_table(f"labelstudio:{write(tmp_path, [task(result)])}").rows
    assert [(r.id, r.text) for r in rows] == [("1_0", "big"), ("1_1", None)]
    assert [r.visible.tolist() for r in rows] == [[0, 2, 2], [2, 0, 0]]
    np.testing.assert_allclose(rows[1].box_xywh, [31.5, 23.5, 16, 12])


def test_a_turned_rectangle_is_held_by_its_box(tmp_path):
    turned = rectangle("r", 50, 50, 25, 10, rotation=90)  # 20 x 6 px about (40, 30): 6 to the left, 20 down
    (row,) = open_table(f"labelstudio:{write(tmp_path, [task([turned, *PAIR])])}").rows
    np.testing.assert_allclose(row.box_xywh, [33.5, 29.5, 6, 20], atol=1e-9)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("x.jpg", "x.jpg"), ("/data/upload/1/0a1b2c3d-x.jpg", "x.jpg"),
        ("/data/upload/0a1b2c3e-y.jpg", "0a1b2c3e-y.jpg"),
        ("/data/local-files/?d=images/x.jpg", "x.jpg"), ("/data/local-files/?d=mnt%2Fdeep%2Fx.jpg", "x.jpg"),
        ("s3://bucket/folder/x.jpg", "x.jpg"), ("https://example.com/a/x.jpg?size=1", "x.jpg"),
    ],
)  # fmt: skip
def test_urls_name_files_here(tmp_path, url, name):
    (row,) = open_table(f"labelstudio:{write(tmp_path, [task(PAIR, url)])}").rows
    assert row.image == tmp_path / "images" / name


def test_the_annotation_that_counts_and_a_text_of_the_data(tmp_path):
    entry = task(PAIR)
    cancelled = {"was_cancelled": True, "result": [point(1, 1, "left_eye")]}
    truth = {"ground_truth": True, "result": [point(75, 50, "left_eye")]}
    entry["annotations"] = [cancelled, *entry["annotations"], truth]
    entry["data"]["said"] = "hello"
    (row,) = open_table(f"labelstudio:{write(tmp_path, [entry])}", text="said").rows
    np.testing.assert_allclose(row.keypoints_xy[0], [59.5, 29.5])
    assert row.text == "hello"


def test_a_schema_gives_the_order(tmp_path):
    table = open_table(f"labelstudio:{write(tmp_path, [task([point(50, 50, 'Nose Tip')])])}", schema="face5")
    assert table.rows[0].visible.tolist() == [0, 0, 2, 0, 0] and table.schema.name == "face5"
    with pytest.raises(InputError, match="names of the schema quad4"):
        open_table(f"labelstudio:{tmp_path}", schema="quad4")


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ("text", "bad row"), (task(None), "no keypoints"), (task([]), "no keypoints"),
        (task([point("a", 1, "left_eye")]), "not a number"),
        (task([point(1, 1, "left_eye", original_width=0)]), "not a number"),
        (task([point(1, 1, "left_eye", original_width=None)]), "not a number"),
        (task([point(1, 1, "left_eye", image_rotation=90)]), "bad row"), (task([point(1, 1, 3)]), "bad row"),
        (task([*PAIR, *PAIR]), "keypoint count"), (task(PAIR, "gone.jpg"), "missing file"),
        (task(PAIR, "/data/local-files/?d=../../x.jpg"), "path escape"), (task(PAIR, "/etc/x.jpg"), "path escape"),
        (task(PAIR, "no picture"), "bad row"), (task(PAIR, key=7), "duplicate id"),
        (task([rectangle("a", 0, 0, 1, 1), rectangle("b", 5, 5, 1, 1), *PAIR]), "bad row"),
        (task([rectangle("a", 0, 0, 9, 9, float("inf")), *PAIR]), "bad box"),
    ],
)  # fmt: skip
def test_a_bad_task_costs_itself(tmp_path, bad, kind):
    table = open_table(f"labelstudio:{write(tmp_path, [task(PAIR, key=7), bad])}")
    assert [r.id for r in table.rows] == ["7"] and [(f.kind, f.row) for f in table.faults] == [(kind, 2)]


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**6), 10**30) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    ("id",), ("data",), ("data", "image"), ("annotations",), ("annotations", 0), ("annotations", 0, "result"),
    *(("annotations", 0, "result", 0, key) for key in ("id", "type", "value", "original_width", "image_rotation")),
    *(("annotations", 0, "result", 0, "value", key) for key in ("x", "keypointlabels")),
    *(("annotations", 0, "result", 1, "value", key) for key in ("rotation", "width", "rectanglelabels")),
    ("annotations", 0, "result", 0, "parentID"), ("annotations", 0, "result", 1, "id"),
]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=JUNK, place=st.sampled_from(PLACES))
@example(junk=[[]], place=("annotations", 0, "result", 1, "value", "rotation"))
def test_junk_in_any_field_leaves_the_good_task(tmp_path, junk, place):
    bad = json.loads(json.dumps(task([point(1, 1, "left_eye"), rectangle("r", 0, 0, 50, 50)])))
    spot: Any = bad
    for key in place[:-1]:
        spot = spot[key]
    spot[place[-1]] = junk
    rows = open_table(f"labelstudio:{write(tmp_path, [bad, task(PAIR, key='good')])}").rows
    assert rows[-1].id == "good"


def test_other_files_are_refused(tmp_path):
    path = write(tmp_path, {"images": []})
    with pytest.raises(InputError, match="coco:FILE"):
        open_table(f"labelstudio:{path}")
    path.write_text(json.dumps([task([])]))
    with pytest.raises(InputError, match="labelled keypoints"):
        open_table(f"labelstudio:{path}")
    path.write_text("[1,]")
    with pytest.raises(InputError, match="line 1"):
        open_table(f"labelstudio:{path}")
