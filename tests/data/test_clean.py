"""`mmkp data clean`: what is dropped, fixed and kept, the log, and that nothing is touched or overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from broken import FACE5, Record, good_folder, jpeg, write_folder

from mmkp.data import open_table
from mmkp.data.check import check
from mmkp.data.clean import clean
from mmkp.data.folder import read_folder
from mmkp.errors import InputError


def log_of(out: Path) -> list[tuple[int, str, str]]:
    """Row, action and kind of each line."""
    lines = [json.loads(line) for line in (out / "cleaning_log.jsonl").read_text().splitlines()]
    return [(line["row"], line["action"], line["kind"]) for line in lines]


def cleaned(folder: Path, records: list[Record], out: Path, **options):
    """The table of the cleaned copy, by id."""
    write_folder(folder, list(records))
    clean(str(folder), out, workers=1, **options)
    return {row.id: row for row in read_folder(out).rows}


def test_a_good_folder_comes_back_as_it_was(tmp_path):
    folder, records = good_folder(tmp_path / "data", 3)
    rows = cleaned(folder, records, tmp_path / "out")
    for before in open_table(str(folder)).rows:
        after = rows[before.id]
        np.testing.assert_array_equal(after.keypoints_xy, before.keypoints_xy)
        np.testing.assert_array_equal(after.visible, before.visible)
        assert (after.text, after.group, after.audio_time_s) == (before.text, before.group, before.audio_time_s)
        assert after.image.read_bytes() == before.image.read_bytes()
        assert after.audio.read_bytes() == before.audio.read_bytes()
    assert log_of(tmp_path / "out") == []


def test_a_bad_file_costs_its_modality_and_a_row_with_nothing_left_goes(tmp_path):
    folder, records = good_folder(tmp_path / "data", 3)
    (folder / "0000.jpg").write_bytes(b"")
    (folder / "0001.wav").write_bytes(b"")
    (folder / "0002.jpg").write_bytes(b"")
    records[2].update(audio=None, text=None)
    rows = cleaned(folder, records, tmp_path / "out")
    assert (rows["row-0"].image, rows["row-0"].text) == (None, "face number 0")
    assert rows["row-1"].audio is None
    assert rows["row-1"].image is not None
    assert log_of(tmp_path / "out") == [
        (1, "fixed", "undecodable image"), (2, "fixed", "undecodable audio"),
        (3, "fixed", "undecodable image"), (3, "dropped", "nothing left"),
    ]  # fmt: skip
    assert set(rows) == {"row-0", "row-1"}


def test_labels_are_mended(tmp_path):
    folder, records = good_folder(tmp_path / "data", 4)
    records[0]["keypoints"][1] = [99, 3, 2]
    records[1]["box"] = [500, 500, 9, 9]
    records[2]["text"] = ""
    records[3]["audio_time"] = 50
    rows = cleaned(folder, records, tmp_path / "out")
    assert rows["row-0"].visible.tolist() == [2, 0, 2, 2, 2]
    assert np.isnan(rows["row-0"].keypoints_xy[1]).all()
    assert rows["row-1"].box_xywh is None
    assert rows["row-2"].text is None
    assert rows["row-3"].audio is None
    assert check(str(tmp_path / "out"), workers=1).report.findings == []


def test_copies_go_unless_they_are_asked_for(tmp_path):
    folder, records = good_folder(tmp_path / "data", 3)
    (folder / "0002.jpg").write_bytes(jpeg(0))
    assert set(cleaned(folder, records, tmp_path / "out")) == {"row-0", "row-1"}
    assert log_of(tmp_path / "out") == [(3, "dropped", "duplicate image")]
    assert len(cleaned(folder, records, tmp_path / "all", keep_duplicates=True)) == 3
    assert log_of(tmp_path / "all") == [(3, "kept", "duplicate image")]


def test_a_group_goes_whole_to_where_most_of_it_is(tmp_path):
    folder, records = good_folder(tmp_path / "data", 3)
    for record, split in zip(records, ("test", "train", "test"), strict=True):
        record.update(group="anna", split=split)
    rows = cleaned(folder, records, tmp_path / "out")
    assert [row.split for row in rows.values()] == ["test"] * 3
    assert log_of(tmp_path / "out") == [(2, "fixed", "group in two splits")]


def test_swapped_sides_and_outliers_are_reported_and_mended_on_request(tmp_path):
    folder, records = good_folder(tmp_path / "data", 30)
    right_way = [list(p) for p in records[4]["keypoints"]]
    records[4]["keypoints"] = [right_way[i] for i in FACE5.flip_index]
    records[7]["keypoints"][0] = [31, 31, 2]
    kept = cleaned(folder, records, tmp_path / "kept")
    assert len(kept) == 30
    assert log_of(tmp_path / "kept") == [(5, "kept", "left right swapped"), (8, "kept", "shape outlier")]
    rows = cleaned(folder, records, tmp_path / "out", fix_swapped=True, drop_outliers=True)
    assert log_of(tmp_path / "out") == [(5, "fixed", "left right swapped"), (8, "dropped", "shape outlier")]
    assert "row-7" not in rows
    np.testing.assert_allclose(rows["row-4"].keypoints_xy, np.array(right_way)[:, :2], atol=1e-4)


@pytest.mark.parametrize("place", [".", "inside", "inside/deeper"])
def test_never_in_place(tmp_path, place):
    folder, _ = good_folder(tmp_path / "data", 1)
    names = sorted(p.name for p in folder.iterdir())
    with pytest.raises(InputError, match="outside the data|new or empty"):
        clean(str(folder), folder / place, workers=1)
    assert sorted(p.name for p in folder.iterdir()) == names


def test_never_in_place_when_the_data_is_the_working_folder(tmp_path, monkeypatch):
    folder, _ = good_folder(tmp_path / "data", 1)
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="outside the data"):
        clean(".", Path("inside"), workers=1)
    assert not (folder / "inside").exists()


def test_never_over_something_and_nothing_half_written(tmp_path):
    folder, _ = good_folder(tmp_path / "data", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="new or empty"):
        clean(str(folder), tmp_path / "out", workers=1)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    write_folder(folder, ["{}"])
    with pytest.raises(InputError, match="usable rows"):
        clean(str(folder), tmp_path / "other", workers=1)
    assert not (tmp_path / "other").exists()


def test_the_command_prints_a_summary_and_refuses_datasets_without_rows(tmp_path, mmkp):
    folder, records = good_folder(tmp_path / "data", 3)
    (folder / "0002.jpg").write_bytes(b"")
    code, out, _ = mmkp("data", "clean", folder, "--out", tmp_path / "out")
    assert code == 0
    assert "3 rows written" in out
    assert ["fixed", "undecodable", "image", "1"] in [line.split() for line in out.splitlines()]
    code, _, err = mmkp("data", "clean", "talker", "--out", tmp_path / "talker")
    assert code == 2
    assert "mmkp data export talker --to folder" in err
