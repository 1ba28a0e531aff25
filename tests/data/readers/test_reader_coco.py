"""COCO's JSON and its relatives: values read by hand off the excerpts, and files written after the public formats."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmkp.data import open_dataset, open_table
from mmkp.data.readers.sources import split_of
from mmkp.errors import InputError
from mmkp.schema import load_schema

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
COCO17 = list(load_schema("coco17").keypoints)


def excerpt(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the excerpt {name} is not here")
    return path


def picture(path: Path, size_hw: tuple[int, int] = (48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size_hw, 3), 90, np.uint8))


def person(key: object = 7, image: object = 1, **changes: object) -> dict:
    """A COCO annotation: nose at (10, 20) visible, left eye at (12, 18) hidden, the rest unlabelled."""
    keypoints = [10, 20, 2, 12, 18, 1, *[0, 0, 0] * 15]
    made = {"id": key, "image_id": image, "category_id": 1, "bbox": [4.0, 6.0, 20.0, 30.0], "area": 300.5, "iscrowd": 0,
            "num_keypoints": 2, "keypoints": keypoints}  # fmt: skip
    return made | changes


def write(root: Path, annotations: list, name: str = "person_keypoints_train2017.json", **changes: object) -> Path:
    """COCO's layout: annotations/NAME, one picture in train2017/."""
    picture(root / "train2017" / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 48, "width": 64}], "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": COCO17, "skeleton": [[16, 14]]}],
    } | changes  # fmt: skip
    path = root / "annotations" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def kinds(table) -> Counter:
    return Counter(fault.kind for fault in table.faults)


def test_excerpt_of_coco():
    table = open_table(f"coco:{excerpt('official_formats/coco')}")
    assert len(table.rows) == 12  # of 14, two without labelled keypoints
    row = next(r for r in table.rows if r.id == "442619")
    np.testing.assert_array_equal(row.keypoints_xy[[0, 1, 16]], [[367, 81], [374, 73], [396, 341]])
    np.testing.assert_allclose(row.box_xywh, [280.29, 44.23, 218.7, 346.68])
    assert (row.image.name, row.group, row.split) == ("000000000785.jpg", "000000000785.jpg", "test")
    assert row.info["area"] == 27789.11055 and row.info["iscrowd"] == 0 and row.info["num_keypoints"] == 17
    assert kinds(table) == {"no keypoints": 1} and "2 of 14" in table.faults[0].message


def test_excerpt_with_captions():
    path = excerpt("coco_captions")
    table = open_table(f"coco:{path}")
    assert len(table.rows) == 86 and kinds(table) == {"no keypoints": 1, "crowd region": 1}
    row = next(r for r in table.rows if r.id == "441444")
    np.testing.assert_array_equal(row.keypoints_xy[0], [281, 240])
    assert row.visible[3] == 0 and np.isnan(row.keypoints_xy[3]).all()  # the left ear
    assert row.text == "She just finished chopping vegetables with the knife." and row.split == "train"
    joined = next(r for r in open_table(f"coco:{path}", caption="all").rows if r.id == "441444").text
    assert joined.startswith(row.text) and len(joined) > 3 * len(row.text)
    sample = open_dataset(f"coco:{path}", "train")[0]
    assert sample.image.shape[2] == 3 and sample.text


@pytest.mark.parametrize("path", ["official_formats/coco", "official_formats/coco/test_keypoint_partition_metric.json"])
def test_excerpt_of_wholebody_in_fields_and_in_one_list(path):
    table = open_table(f"wholebody:{excerpt(path)}")
    row = next(r for r in table.rows if r.id == "442619")
    assert len(table.rows) == 12 and row.keypoints_xy.shape == (133, 2)
    np.testing.assert_array_equal(row.keypoints_xy[[17, 22]], [[439, 378], [413, 353]])  # left big toe, right heel
    np.testing.assert_allclose(row.keypoints_xy[[23, 112]], [[355.823, 75.36], [304.10366, 181.75134]], rtol=1e-6)
    assert row.visible[23] == 2  # a face's flag of 1 means labelled
    assert (row.visible[91:112] == 0).all() and row.visible[112] == 2  # no left hand, a right one


def test_a_row_by_hand(tmp_path):
    write(tmp_path, [person()])
    (row,) = open_table(f"coco:{tmp_path}").rows
    np.testing.assert_array_equal(row.keypoints_xy[:2], [[10, 20], [12, 18]])  # indices of pixels: as they are
    np.testing.assert_array_equal(row.box_xywh, [3.5, 5.5, 20, 30])  # from the corner: half a pixel less
    assert row.visible.tolist() == [2, 1] + [0] * 15 and row.visible.dtype == np.uint8
    assert np.isnan(row.keypoints_xy[2:]).all()
    assert (row.group, row.split, row.where) == (
        "train2017/a.png", "train", "person_keypoints_train2017.json annotation 7"
    )  # fmt: skip
    assert row.text is None and row.info["category"] == "person" and row.info["image_id"] == 1


def test_names_in_another_order_are_put_in_the_schemas(tmp_path):
    turned = [{"id": 1, "name": "person", "keypoints": COCO17[::-1]}]
    write(tmp_path, [person()], categories=turned)
    (row,) = open_table(f"coco:{tmp_path}").rows
    np.testing.assert_array_equal(row.keypoints_xy[[16, 15]], [[10, 20], [12, 18]])


def test_names_that_are_not_the_schemas_are_said(tmp_path):
    write(tmp_path, [person()], categories=[{"id": 1, "keypoints": ["beak", *COCO17[1:]]}])
    table = open_table(f"coco:{tmp_path}")
    assert kinds(table) == {"keypoint names": 1} and "beak taken for nose" in table.faults[0].message


def test_another_number_of_keypoints_is_refused_and_taken_with_schema_file(tmp_path):
    category = {"id": 1, "keypoints": ["nose", "left_wing", "right_wing"], "skeleton": [[1, 2], [1, 3]]}
    write(tmp_path, [person(keypoints=[1, 2, 2, 3, 4, 2, 5, 6, 1])], categories=[category])
    with pytest.raises(InputError, match="the 17 keypoints of coco17, got 3: nose"):
        open_table(f"coco:{tmp_path}")
    table = open_table(f"coco:{tmp_path}", schema="file")
    assert table.schema.flip_pairs == ((1, 2),) and table.schema.edges == ((0, 1), (0, 2))
    np.testing.assert_array_equal(table.rows[0].keypoints_xy, [[1, 2], [3, 4], [5, 6]])


def test_crowds_and_the_unlabelled_are_counted_and_kept_on_request(tmp_path):
    write(tmp_path, [person(1), person(2, iscrowd=1), person(3, keypoints=[0] * 51), person(4, keypoints=None)])
    table = open_table(f"coco:{tmp_path}")
    assert [r.id for r in table.rows] == ["1"]
    assert sorted(str(f) for f in table.faults) == [
        "person_keypoints_train2017.json: crowd region: 1 of 4 annotations left out; crowd=keep takes them",
        "person_keypoints_train2017.json: no keypoints: 2 of 4 annotations left out; unlabelled=keep takes them",
    ]
    kept = open_table(f"coco:{tmp_path}", crowd="keep", unlabelled="keep")
    assert [r.id for r in kept.rows] == ["1", "2", "3", "4"] and not kept.faults


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (person(8, keypoints=["10"] * 51), "not a number"),
        (person(8, keypoints=[1, 2, 2]), "keypoint count"),
        (person(8, keypoints=[[1, 2], [3]]), "not a number"),
        (person(8, image=99), "bad row"),
        (person(8, image=[1]), "bad row"),
        (person(7), "duplicate id"),
        ("text", "bad row"),
    ],
)
def test_a_bad_row_costs_itself(tmp_path, bad, kind):
    write(tmp_path, [person(), bad])
    table = open_table(f"coco:{tmp_path}")
    assert [r.id for r in table.rows] == ["7"] and kinds(table) == {kind: 1} and table.faults[0].row == 2


@pytest.mark.parametrize("box", [[4, 6, -20, 30], [4, 6, 20], "box", [4, 6, float("nan"), 30], None])
def test_a_bad_box_is_replaced_by_the_keypoints_extent(tmp_path, box):
    write(tmp_path, [person(bbox=box)])
    table = open_table(f"coco:{tmp_path}")
    # the points span x 10 ... 12 and y 18 ... 20; 1.2 times that
    np.testing.assert_allclose(table.rows[0].box_xywh, [9.8, 17.8, 2.4, 2.4])
    assert kinds(table) == {"bad box": 1}


def test_a_point_without_a_place_is_masked(tmp_path):
    write(tmp_path, [person(keypoints=[float("nan"), 20, 2, 12, 18, 1, 1e30, 0, 2, *[0, 0, 0] * 14])])
    table = open_table(f"coco:{tmp_path}")
    assert table.rows[0].visible.tolist() == [0, 1] + [0] * 15 and kinds(table) == {"not a number": 1}


def test_missing_and_escaping_pictures_cost_one_fault_each(tmp_path):
    images = [{"id": i, "file_name": name} for i, name in enumerate(("a.png", "gone.png", "../a.png", None), 1)]
    write(tmp_path, [person(i, image) for i, image in enumerate((1, 2, 2, 3, 4))], images=images)
    table = open_table(f"coco:{tmp_path}")
    assert [r.id for r in table.rows] == ["0"]
    assert kinds(table) == {"missing file": 1, "path escape": 1, "bad row": 1}
    missing = next(f for f in table.faults if f.kind == "missing file")
    assert "images=DIR" in missing.message and "data_cards/coco.md" in missing.message


def test_pictures_where_told(tmp_path):
    write(tmp_path / "x", [person()])
    (tmp_path / "x" / "train2017" / "a.png").unlink()
    picture(tmp_path / "elsewhere" / "a.png")
    table = open_table(f"coco:{tmp_path / 'x'}", images=str(tmp_path / "elsewhere"))
    assert table.rows[0].image == tmp_path / "elsewhere" / "a.png" and table.root == tmp_path / "elsewhere"
    with pytest.raises(InputError, match="data_cards/coco.md"):
        open_table(f"coco:{tmp_path / 'x'}", images=str(tmp_path / "nowhere"))


def test_both_splits_of_a_folder_stay_apart(tmp_path):
    write(tmp_path, [person()])
    write(tmp_path, [person()], name="person_keypoints_val2017.json")
    picture(tmp_path / "val2017" / "a.png")
    write(tmp_path, [person()], name="captions_train2017.json")
    rows = open_table(f"coco:{tmp_path}").rows
    assert [(r.id, r.group, r.split) for r in rows] == [
        ("person_keypoints_train2017_7", "train2017/a.png", "train"),
        ("person_keypoints_val2017_7", "val2017/a.png", "val"),
    ]


def test_captions_first_all_and_by_id(tmp_path):
    write(tmp_path, [person(i) for i in range(40)])
    said = [{"image_id": 1, "id": 9, "caption": "Second."}, {"image_id": 1, "id": 3, "caption": " First\n one. "},
            {"image_id": 1, "id": 4, "caption": "  "}, {"image_id": 1, "id": 5, "caption": 3}]  # fmt: skip
    write(tmp_path, said, name="captions_train2017.json")
    table = open_table(f"coco:{tmp_path}")
    assert {r.text for r in table.rows} == {"First one."} and kinds(table) == {"empty text": 1, "bad row": 1}
    assert open_table(f"coco:{tmp_path}", caption="all").rows[0].text == "First one. Second."
    drawn = [r.text for r in open_table(f"coco:{tmp_path}", caption="random-by-id").rows]
    assert 8 < drawn.count("Second.") < 32
    assert drawn == [r.text for r in open_table(f"coco:{tmp_path}", caption="random-by-id").rows]
    assert open_table(f"coco:{tmp_path}", captions="none").rows[0].text is None
    told = write(tmp_path, said[:1], name="captions_other.json")
    assert open_table(f"coco:{tmp_path}", captions=str(told)).rows[0].text == "Second."


def test_spoken_captions_bring_sound(tmp_path):
    """SpokenCOCO_train.json: data -> image, captions -> text, speaker, uttid, wav (see mmkp.data.readers.captions)."""
    write(tmp_path, [person()])
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "u.wav").write_bytes(b"")
    said = [{"text": "a man skis", "speaker": "m01", "uttid": "m01-u", "wav": "wavs/u.wav"},
            {"text": "outside", "speaker": "m02", "uttid": "m02-u", "wav": "../u.wav"}]  # fmt: skip
    spoken = tmp_path / "SpokenCOCO_train.json"
    spoken.write_text(json.dumps({"data": [{"image": "train2014/COCO_train2014_000000000001.jpg", "captions": said}]}))
    table = open_table(f"coco:{tmp_path}", spoken=str(spoken))
    (row,) = table.rows
    assert (row.text, row.audio, row.info["speaker"]) == ("a man skis", tmp_path / "wavs" / "u.wav", "m01")
    assert kinds(table) == {"path escape": 1}


def test_crowdpose_as_its_owners_write_it(tmp_path):
    """After CrowdPose's own JSON (Jeff-sjtu/CrowdPose; mmpose's tests/data/crowdpose/test_crowdpose.json).

    images: file_name, id, height, width, crowdIndex. annotations: num_keypoints, iscrowd, keypoints (14 x 3, flags as
    COCO's), image_id, bbox xywh, category_id, id; no area. categories[0].keypoints: left_shoulder ... head, neck.
    """
    names = [f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
             for side in ("left", "right")] + ["head", "neck"]  # fmt: skip
    keypoints = [0, 0, 0, 20, 10, 2, *[0, 0, 0] * 10, 25, 2, 1, 22, 8, 1]
    annotation = {"num_keypoints": 3, "iscrowd": 0, "keypoints": keypoints, "image_id": 1, "bbox": [10.6, 1.34, 27, 35],
                  "category_id": 1, "id": 123803}  # fmt: skip
    picture(tmp_path / "images" / "a.png")
    write(
        tmp_path, [annotation], name="mmpose_crowdpose_trainval.json",
        images=[{"file_name": "a.png", "id": 1, "height": 48, "width": 64, "crowdIndex": 0.33}],
        categories=[{"supercategory": "person", "id": 1, "name": "person", "keypoints": names}],
    )  # fmt: skip
    table = open_table(f"crowdpose:{tmp_path}")
    (row,) = table.rows
    assert not table.faults and table.schema.name == "crowdpose14"
    np.testing.assert_array_equal(row.keypoints_xy[[1, 12, 13]], [[20, 10], [25, 2], [22, 8]])
    assert row.visible.tolist() == [0, 2, *[0] * 10, 1, 1] and row.info["crowdIndex"] == 0.33 and row.split is None
    np.testing.assert_allclose(row.box_xywh, [10.1, 0.84, 27, 35])


def test_ap10k_as_its_owners_write_it(tmp_path):
    """After AP-10K's own JSON (AlexTheBad/AP-10K; mmpose's tests/data/ap10k/test_ap10k.json).

    images: license, id, file_name, width, height, background. annotations: id, image_id, category_id (the species),
    bbox of whole numbers, area, iscrowd, num_keypoints, keypoints (17 x 3). Every category has the same keypoints.
    Pictures lie in data/; three ways to split, of which the first is taken.
    """
    names = [
        "left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow", "left_front_paw",
        "right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee", "left_back_paw", "right_hip",
        "right_knee", "right_back_paw",
    ]  # fmt: skip
    species = [
        {"id": i, "name": n, "supercategory": "Bovidae", "keypoints": names} for i, n in ((1, "antelope"), (5, "cow"))
    ]
    annotation = {"id": 6, "image_id": 4, "category_id": 5, "bbox": [8, 7, 29, 31], "area": 899, "iscrowd": 0,
                  "num_keypoints": 2, "keypoints": [28, 13, 2, 0, 0, 0, 26, 19, 2, *[0, 0, 0] * 14]}  # fmt: skip
    picture(tmp_path / "data" / "000000000004.png")
    images = [{"license": 1, "id": 4, "file_name": "000000000004.png", "width": 64, "height": 48, "background": 1}]
    for split in ("train-split1", "train-split2", "val-split1"):
        write(tmp_path, [annotation], name=f"ap10k-{split}.json", images=images, categories=species)
    table = open_table(f"ap10k:{tmp_path}")
    assert not table.faults and [r.split for r in table.rows] == ["train", "val"]
    row = table.rows[0]
    np.testing.assert_array_equal(row.keypoints_xy[[0, 2]], [[28, 13], [26, 19]])
    assert row.info["category"] == "cow" and row.info["background"] == 1 and row.group == "data/000000000004.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"images": [], "annotations": [],}', "line 1"),
        (b"", "JSON"),
        ('{"images": ["é"]}'.encode("latin-1"), "UTF-8"),
        (b"[]", "neither"),
        (b'{"images": []}', "only images"),
        (b"[" * 100_000, "data coco"),
    ],
)
def test_a_file_that_is_not_the_format_is_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=message):
        open_table(f"coco:{path}")


def test_a_folder_of_which_no_file_can_be_preferred(tmp_path):
    for name in ("one.json", "two.json"):
        write(tmp_path, [person()], name=name)
    with pytest.raises(InputError, match="one.json, two.json"):
        open_table(f"coco:{tmp_path}")
    with pytest.raises(InputError, match="data_cards/coco.md"):
        open_table(f"coco:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("options", [{"caption": "second"}, {"crowd": "no"}, {"captoin": "all"}, {"schema": "coco18"}])
def test_options_that_are_none_are_refused(tmp_path, options):
    write(tmp_path, [person()])
    with pytest.raises(InputError):
        open_table(f"coco:{tmp_path}", **options)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("annotations/person_keypoints_train2017.json", "train"),
        ("annotations/person_keypoints_val2017.json", "val"),
        ("ap10k-test-split1.json", "test"),
        ("coco_wholebody_val_v1.0.json", "val"),
        ("mmpose_crowdpose_trainval.json", None),
        ("face_landmarks_300w_valid_common.json", "valid"),
        ("train/labels.json", "train"),
        ("retrained_latest.json", None),
    ],
)
def test_split_told_by_a_name(name, split):
    assert split_of(Path("root") / name) == split


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from([*person(), "center", "scale"]), value=JSON, image=JSON, category=JSON)
def test_whatever_stands_in_a_field_the_good_row_stays(tmp_path, field, value, image, category):
    images = [{"id": 1, "file_name": "a.png"}, image, {"id": 2, "file_name": image}]
    people = [person(), person(8, **{field: value}), value, person(9, image=2)]
    write(tmp_path, people, images=images, categories=[{"id": 1, "keypoints": COCO17, "name": "person"}, category])
    table = open_table(f"coco:{tmp_path}")
    assert table.rows[0].id == "7"
    assert all(np.isfinite(r.keypoints_xy[r.visible > 0]).all() for r in table.rows)
