"""Facial keypoints in a CSV: values read by hand off the excerpt, the protocol's splits, and broken lines."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmkp.data import open_table
from mmkp.data.readers.csv_points import person_of
from mmkp.data.rows import RowDataset
from mmkp.errors import InputError

P1 = Path(__file__).resolve().parents[4] / "shared" / "data" / "p1"
HEADER68 = "image," + ",".join(f"x{k},y{k}" for k in range(68))
HEADER5 = "image," + ",".join(f"x{k},y{k}" for k in range(5))


def write(root: Path, lines: list[str], name: str = "faces.csv", encoding: str = "utf-8") -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for picture in ("ann_00.jpg", "ann_01_test.jpg", "bob_b_00.jpg"):
        cv2.imwrite(str(root / "images" / picture), np.full((60, 80, 3), 90, np.uint8))
    path = root / name
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def five(picture: str = "ann_00.jpg", *cells: str) -> str:
    return ",".join([picture, *(cells or ("10", "11", "30", "12", "20", "25", "12", "40", "28.5", "41"))])


@pytest.fixture(scope="module")
def excerpt():
    if not P1.exists():
        pytest.skip("the excerpt p1 is not here")
    return open_table(f"csv:{P1}")


def test_excerpt(excerpt):
    table = excerpt
    assert len(table.rows) == 3378 and not table.faults
    row = next(r for r in table.rows if r.id == "Abdel_Aziz_Al-Hakim_00")
    np.testing.assert_array_equal(row.keypoints_xy[[0, 36]], np.float32([[33.09, 55.65], [55.65, 51.55]]))
    assert row.where == "train.csv line 2" and row.group == "Abdel_Aziz_Al-Hakim" and row.visible.tolist() == [2] * 68
    outer = np.array([[55.65, 51.55], [100.78, 40.78]])  # points 36 and 45 of the file
    assert row.box_xywh[2] == pytest.approx(2.4 * np.linalg.norm(outer[1] - outer[0]), rel=1e-6)


def test_excerpt_keeps_the_protocol(excerpt):
    rows = excerpt.rows
    assert Counter(r.split for r in rows) == {"train": 2684, "validation": 284, "test": 410}
    people = {split: {r.group for r in rows if r.split == split} for split in ("train", "validation", "test")}
    assert [len(people[s]) for s in ("train", "validation", "test")] == [221, 23, 34]
    assert not (people["train"] & people["validation"] or people["train"] & people["test"])
    tenths = {p: int(hashlib.sha1(p.encode()).hexdigest(), 16) % 10 for s in ("train", "validation") for p in people[s]}
    assert all((tenths[p] == 0) == (p in people["validation"]) for p in tenths)
    assert len(RowDataset(excerpt, "test")) == 410 and len(RowDataset(excerpt, "train")) == 2684


@pytest.mark.parametrize(
    ("name", "person"),
    [("Abdullah_Gul_10.jpg", "Abdullah_Gul"), ("Abdullah_Gul_11_test.jpg", "Abdullah_Gul"),
     ("x/Bob_00_training.png", "Bob"), ("lone.jpg", "lone")],
)  # fmt: skip
def test_a_copy_is_of_the_same_person(name, person):
    assert person_of(name) == person


def test_pixels_counted_from_one_are_brought_to_zero(tmp_path):
    path = write(tmp_path / "faces", [HEADER5, five("bob_b_00.jpg", "1", "2", "", "", "3", "4", "5", "6", "7", "8")])
    (row,) = open_table(f"csv:{path}", schema="face5", first_pixel=1).rows
    np.testing.assert_array_equal(row.keypoints_xy[[0, 2, 4]], [[0, 1], [2, 3], [6, 7]])
    assert row.visible.tolist() == [2, 0, 2, 2, 2]
    with pytest.raises(InputError, match="first_pixel"):
        open_table(f"csv:{path}", schema="face5", first_pixel="one")


def test_five_points_by_hand(tmp_path):
    path = write(
        tmp_path / "faces", [HEADER5, five(), five("bob_b_00.jpg", "1", "2", "", "", "3", "4", "5", "6", "7", "8")]
    )
    first, second = open_table(f"csv:{path}", schema="face5").rows
    np.testing.assert_array_equal(first.keypoints_xy, [[10, 11], [30, 12], [20, 25], [12, 40], [28.5, 41]])
    assert second.visible.tolist() == [2, 0, 2, 2, 2] and np.isnan(second.keypoints_xy[1]).all()
    assert first.box_xywh is None and first.split is None and (first.group, second.group) == ("ann", "bob_b")


@pytest.mark.parametrize(
    "header",
    ["," + ",".join(map(str, range(10))), None, "image," + ",".join(f"x{k},y{k}" for k in range(1, 6)),
     "image,right_eye_x,right_eye_y,left_eye_x,left_eye_y,nose_tip_x,nose_tip_y,right_mouth_corner_x,"
     "right_mouth_corner_y,left_mouth_corner_x,left_mouth_corner_y"],
)  # fmt: skip
def test_other_headers_mean_the_same(tmp_path, header):
    path = write(tmp_path, [header, five()] if header else [five()], encoding="utf-8-sig")
    (row,) = open_table(f"csv:{path}", schema="face5").rows
    np.testing.assert_array_equal(row.keypoints_xy[[0, 4]], [[10, 11], [28.5, 41]])


def test_columns_may_stand_in_any_order(tmp_path):
    header = "y0,x0," + ",".join(f"x{k},y{k}" for k in range(1, 5)) + ",file_name"
    path = write(tmp_path, [header, "11,10,30,12,20,25,12,40,28.5,41,ann_00.jpg"])
    (row,) = open_table(f"csv:{path}", schema="face5").rows
    np.testing.assert_array_equal(row.keypoints_xy[0], [10, 11])


def test_the_course_s_own_files(tmp_path):
    """Udacity's P1_Facial_Keypoints: an unnamed first column, then 0 to 135; pictures in training/ and test/."""
    numbers = ",".join(str(v / 2) for v in range(136))
    for part, person in (("training", "ann"), ("test", "bob")):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / f"{person}_00.jpg"), np.zeros((90, 90, 3), np.uint8))
        header = "," + ",".join(map(str, range(136)))
        (tmp_path / f"{part}_frames_keypoints.csv").write_text(f"{header}\n{person}_00.jpg,{numbers}\n")
    rows = {row.group: row for row in open_table(f"csv:{tmp_path}").rows}
    assert rows["bob"].split == "test" and rows["ann"].image.parent.name == "training"
    np.testing.assert_array_equal(rows["ann"].keypoints_xy[67], [67, 67.5])


def test_eyes_that_are_not_labelled_leave_the_whole_picture(tmp_path):
    cells = [f"{20 + k % 9}" for k in range(136)]
    cells[72:74] = ["", ""]  # point 36
    path = write(tmp_path, [HEADER68, ",".join(["ann_00.jpg", *cells])])
    table = open_table(f"csv:{path}")
    assert table.rows[0].box_xywh is None and table.rows[0].visible.sum() == 134
    assert [f.kind for f in table.faults] == ["bad box"] and table.faults[0].row == 2


def test_one_person_is_split_by_picture(tmp_path):
    table = open_table(f"csv:{write(tmp_path, [HEADER5, five(), five('ann_01_test.jpg')])}", schema="face5")
    assert len({r.group for r in table.rows}) == 2 and [f.kind for f in table.faults] == ["one group"]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ("ann_00.jpg,1,2", "keypoint count"),
        (five("ann_00.jpg", *["one"] * 10), "not a number"),
        (five("gone.jpg"), "missing file"),
        (five("../../etc/passwd"), "path escape"),
        (five("/etc/passwd"), "path escape"),
        (five(""), "bad row"),
        (five("ann_00.jpg", *[""] * 10), "no keypoints"),
        (five("ann_00.jpg", *["1e30"] * 10), "no keypoints"),
        ('"' + five(), "keypoint count"),
    ],
)
def test_a_bad_line_costs_itself(tmp_path, bad, kind):
    table = open_table(f"csv:{write(tmp_path, [HEADER5, bad, five('bob_b_00.jpg')])}", schema="face5")
    assert [r.id for r in table.rows] == ["bob_b_00"] and kind in [f.kind for f in table.faults]
    assert {f.row for f in table.faults} == {2}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)), min_size=1, max_size=12))
def test_junk_leaves_the_good_rows(tmp_path, junk):
    path = write(tmp_path, [])
    cells = b",".join(part.replace(b"\n", b" ") for part in junk)
    lines = [HEADER5.encode(), cells, b"ann_00.jpg," + cells, five("bob_b_00.jpg").encode()]
    path.write_bytes(b"\n".join(lines))
    table = open_table(f"csv:{path}", schema="face5")
    assert table.rows[-1].id == "bob_b_00" and len(table.rows) + len({f.row for f in table.faults if f.row}) >= 2


def test_wrong_columns_and_words_are_refused(tmp_path):
    path = write(tmp_path, [HEADER5, five()])
    expected = "68 keypoints of face68.*5 keypoints.*schema=NAME says which they are: box5, face5"
    with pytest.raises(InputError, match=expected):
        open_table(f"csv:{path}")
    with pytest.raises(InputError, match="person or picture"):
        open_table(f"csv:{path}", group="clip")
    with pytest.raises(InputError, match="youtube_faces.md"):
        open_table(f"csv:{tmp_path / 'none'}")
    path.write_bytes(b"")
    with pytest.raises(InputError, match="columns"):
        open_table(f"csv:{path}")
