"""ICDAR 2015: values read by hand off the excerpt, transcripts with commas, words that repeat, broken lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmkp.data import open_table
from mmkp.errors import InputError

EXCERPT = Path(__file__).resolve().parents[4] / "shared" / "data" / "icdar2015"
WORD = "10,11,40,12,41,25,9,24,Exit"


def write(root: Path, lines: list[str], name: str = "img_1", labels: str = "gt", images: str = "images") -> Path:
    for folder in (labels, images):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / images / f"{name}.jpg"), np.full((60, 80, 3), 90, np.uint8))
    (root / labels / f"gt_{name}.txt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")
    return root


def test_excerpt():
    if not EXCERPT.exists():
        pytest.skip("the excerpt of ICDAR 2015 is not here")
    table = open_table(f"icdar:{EXCERPT}")
    assert len(table.rows) == 1659 and len({r.group for r in table.rows}) <= 400
    row = next(r for r in table.rows if r.id == "img_2_1")
    np.testing.assert_array_equal(row.keypoints_xy, [[790, 302], [903, 304], [902, 335], [790, 335]])
    assert (row.text, row.group, row.box_xywh, row.split) == ("JOINT", "img_2.jpg", None, None)
    assert {"$8,888", "$100,000", "STRAPS,"} <= {r.text for r in table.rows}
    assert Counter(f.kind for f in table.faults) == {"ambiguous text": 182, "empty text": 1}
    (marked,) = [f for f in table.faults if f.kind == "empty text"]
    assert "2577 words" in str(marked)
    assert len(open_table(f"icdar:{EXCERPT}", repeats="skip").rows) == 1659 - 182
    kept = open_table(f"icdar:{EXCERPT}", illegible="keep").rows
    assert len(kept) == 1659 + 2577 and sum(r.text is None for r in kept) == 2577


def test_a_transcript_may_hold_commas_and_quotes(tmp_path):
    write(tmp_path, [WORD, '1,2,3,4,5,6,7,8,"5,00" Café', "1,2,3,4,5,6,7,8,###", ""])
    table = open_table(f"icdar:{tmp_path}")
    assert [r.text for r in table.rows] == ["Exit", '"5,00" Café']
    np.testing.assert_array_equal(table.rows[1].keypoints_xy, [[1, 2], [3, 4], [5, 6], [7, 8]])
    assert [(f.kind, f.row) for f in table.faults] == [("empty text", 0)]
    assert table.schema.keypoints == ("top_left", "top_right", "bottom_right", "bottom_left")


def test_words_that_repeat_are_named(tmp_path):
    write(tmp_path, [WORD, "50,11,70,12,71,25,49,24,Exit", "1,2,3,4,5,6,7,8,exit"])
    write(tmp_path, [WORD], name="img_2")
    table = open_table(f"icdar:{tmp_path}")
    assert [(f.kind, f.where, f.row, f.id) for f in table.faults] == [
        ("ambiguous text", "gt_img_1.txt line 1", 1, "img_1_1"),
        ("ambiguous text", "gt_img_1.txt line 2", 2, "img_1_2"),
    ]
    assert len(table.rows) == 4
    assert [r.id for r in open_table(f"icdar:{tmp_path}", repeats="skip").rows] == ["img_1_3", "img_2_1"]


def test_the_owners_folders_are_their_parts(tmp_path):
    for part in ("training", "test"):
        write(tmp_path, [WORD], f"img_{part}", f"ch4_{part}_localization_transcription_gt", f"ch4_{part}_images")
    rows = open_table(f"icdar:{tmp_path}").rows
    assert {(r.split, r.image.parent.name) for r in rows} == {
        ("training", "ch4_training_images"),
        ("test", "ch4_test_images"),
    }


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ("1,2,3,4", "keypoint count"), ("a,b,c,d,e,f,g,h,word", "not a number"), ("1,2,3,4,5,6,7,8,", "empty text"),
        ("1,2,3,4,5,6,7,nan,word", "not a number"), ("1,2,3,4,5,6,7,1e20,word", "not a number"),
        ("1,2,3,4,5,6,7,,word", "not a number"),
    ],
)  # fmt: skip
def test_a_bad_line_costs_itself(tmp_path, bad, kind):
    write(tmp_path, [bad, WORD])
    table = open_table(f"icdar:{tmp_path}")
    assert [r.id for r in table.rows] == ["img_1_2"] and [(f.kind, f.row) for f in table.faults] == [(kind, 1)]


def test_latin_1_is_told_by_line_and_a_missing_picture_by_file(tmp_path):
    write(tmp_path, [WORD])
    (tmp_path / "gt" / "gt_img_1.txt").write_bytes(
        WORD.replace("Exit", "Café").encode("latin-1") + b"\n" + WORD.encode()
    )
    (tmp_path / "gt" / "gt_img_9.txt").write_text(WORD)
    table = open_table(f"icdar:{tmp_path}")
    assert len(table.rows) == 1
    assert [(f.kind, f.where) for f in table.faults] == [
        ("encoding", "gt_img_1.txt line 1"), ("missing file", "gt_img_9.txt"),
    ]  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.lists(st.one_of(st.binary(max_size=30), st.text(max_size=30).map(str.encode)), min_size=1, max_size=12))
def test_junk_leaves_the_good_words(tmp_path, junk):
    write(tmp_path, [])
    line = b",".join(part.replace(b"\n", b" ") for part in junk)
    file = tmp_path / "gt" / "gt_img_1.txt"
    file.write_bytes(line + b"\n1,2,3,4,5,6,7," + line + b"\n20,1,30,1,30,9,20,9,the good word")
    assert open_table(f"icdar:{tmp_path}").rows[-1].text == "the good word"


def test_nothing_there_and_wrong_words_are_refused(tmp_path):
    with pytest.raises(InputError, match="icdar2015.md"):
        open_table(f"icdar:{tmp_path / 'none'}")
    write(tmp_path, [WORD])
    with pytest.raises(InputError, match="keep or skip"):
        open_table(f"icdar:{tmp_path}", repeats="maybe")
