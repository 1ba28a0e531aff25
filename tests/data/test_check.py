"""`mmkp data check`: every kind of finding, exit codes, JSON, and datasets that are not made of rows."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
import soundfile
from broken import good_folder, good_record, jpeg, picture, table_of, tone, write_folder
from PIL import Image

from mmkp.data.check import check
from mmkp.data.check.labels import outside
from mmkp.data.check.probe import heard_of, probe, probe_image
from mmkp.data.io import read_image
from mmkp.errors import InputError


def findings(folder, **options) -> list[tuple[int, str]]:
    """Row and kind of each."""
    return [(f.row, f.kind) for f in check(str(folder), workers=1, **options).report.findings]


def test_a_good_folder_has_no_findings_and_exits_0(tmp_path, mmkp):
    folder, _ = good_folder(tmp_path / "data", 25)
    code, out, _ = mmkp("data", "check", folder)
    assert code == 0
    assert "25 usable rows, 50 files decoded" in out
    assert "nothing wrong found" in out


def test_warnings_exit_0_and_errors_exit_2(tmp_path, mmkp):
    folder, records = good_folder(tmp_path / "data", 3)
    records[1]["text"] = " "
    write_folder(folder, records)
    assert mmkp("data", "check", folder)[0] == 0
    (folder / "0002.jpg").write_bytes(b"no picture")
    code, out, _ = mmkp("data", "check", folder)
    assert code == 2
    assert "undecodable image" in out
    assert "metadata.jsonl line 3" in out


def test_json_is_all_that_stdout_holds(tmp_path, mmkp):
    folder, records = good_folder(tmp_path / "data", 2)
    (folder / "0001.jpg").write_bytes(jpeg(1)[:300])
    code, out, _ = mmkp("data", "check", folder, "--json")
    report = json.loads(out)
    (finding,) = report["findings"]
    assert code == 2
    assert (report["rows"], report["errors"], report["counts"]) == (2, 1, {"undecodable image": 1})
    assert set(finding) == {"kind", "where", "row", "id", "message", "severity"}
    assert (finding["row"], finding["id"], finding["severity"]) == (2, "row-1", "error")


def test_nothing_readable_is_json_too_and_a_missing_folder_names_the_card(tmp_path, mmkp):
    code, out, _ = mmkp("data", "check", tmp_path / "none", "--json")
    assert (code, json.loads(out)["counts"]) == (2, {"unreadable": 1})
    for spec in (tmp_path / "none", f"folder:{tmp_path}/none", f"coco:{tmp_path}/none", f"grid:{tmp_path}/none"):
        code, _, err = mmkp("data", "check", spec)
        assert code == 2
        assert "data_cards/" in err, spec


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_found_though_it_is_decoded_small(tmp_path, progressive):
    made = io.BytesIO()
    Image.fromarray(picture(1, (240, 320))).save(made, "JPEG", quality=90, progressive=progressive)
    whole, path = made.getvalue(), tmp_path / "cut.jpg"
    for length in (*range(1, len(whole), len(whole) // 40), len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_image(path)
        with pytest.raises(InputError):
            probe_image(path)
    path.write_bytes(whole)
    assert probe_image(path).size_hw == (240, 320)


def test_the_size_is_that_of_the_upright_picture(tmp_path):
    image, path = Image.fromarray(picture(1, (240, 320))), tmp_path / "turned.jpg"
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    assert probe_image(path).size_hw == read_image(path).shape[:2] == (320, 240)


def test_a_picture_counts_as_covering_half_a_pixel_around_its_centres():
    row = table_of(np.array([[[-1.0, 3], [-1.01, 3], [10, 8], [10.01, 8], [4, 8.01]]])).rows[0]
    assert outside(row, (8, 10)).tolist() == [False, True, False, True, True]
    hidden = row.replace(visible=np.zeros(5, np.uint8))
    assert not outside(hidden, (8, 10)).any()


def test_copies_are_found_by_their_bytes_and_by_their_looks(tmp_path):
    folder, records = good_folder(tmp_path / "data", 6, size_hw=(96, 96))
    (folder / "0003.jpg").write_bytes((folder / "0001.jpg").read_bytes())
    Image.fromarray(picture(2, (96, 96))).resize((64, 64)).save(folder / "0005.jpg", quality=60)
    records[5]["keypoints"] = [[x / 1.5, y / 1.5, v] for x, y, v in records[2]["keypoints"]]
    write_folder(folder, records)
    assert findings(folder) == [(4, "duplicate image"), (6, "near duplicate")]


def test_people_in_one_picture_and_frames_of_a_group_are_no_copies(tmp_path):
    folder, records = good_folder(tmp_path / "data", 4, size_hw=(96, 96))
    records[1]["file_name"] = records[0]["file_name"]
    Image.fromarray(picture(2, (96, 96))).save(folder / "0003.jpg", quality=60)
    records[3]["group"] = records[2]["group"]
    write_folder(folder, records)
    assert findings(folder) == []
    write_folder(folder, [*records, {**records[0], "id": "again"}])  # all the same but the name
    assert findings(folder) == [(5, "duplicate image")]


def test_a_group_in_two_splits_is_an_error_of_its_smaller_part(tmp_path):
    folder, records = good_folder(tmp_path / "data", 5)
    for record, split in zip(records, ["train", "train", "test", "val", "test"], strict=True):
        record.update(split=split, group="anna" if split != "val" else "otto")
    records[4]["group"] = "eve"
    write_folder(folder, records)
    (finding,) = check(str(folder), workers=1).report.findings
    assert (finding.row, finding.kind, finding.severity) == (3, "group in two splits", "error")
    assert finding.message == "group 'anna' is in train too, this row in test"


def test_what_sounds_can_have(tmp_path):
    folder, records = good_folder(tmp_path / "data", 5)
    soundfile.write(folder / "0000.wav", tone(0, 0.4), 8000)
    soundfile.write(folder / "0001.wav", np.zeros(8000), 8000)
    soundfile.write(folder / "0002.wav", np.clip(tone(2) * 10, -1, 1), 8000)
    records[3].update(audio_start=0.1, audio_end=0.5)
    records[4].update(audio_time=2.0)
    write_folder(folder, records)
    expected = [(5, "audio time"), (1, "short audio"), (2, "silent audio"), (3, "clipped audio"), (4, "short audio")]
    assert findings(folder) == expected


def test_the_facts_of_a_sound_by_hand():
    samples = np.array([0.5, -0.5, 1.0, -1.0], np.float32)
    heard = heard_of(samples, 8, 0.25)
    assert (heard.duration_s, heard.clipped, heard.time_s) == (0.5, 0.5, 0.25)
    assert heard.rms == pytest.approx(np.sqrt(0.625))


def test_coordinates_as_shares_are_noticed(tmp_path):
    folder, records = good_folder(tmp_path / "data", 3)
    for record in records:
        record["keypoints"] = [[x / 32, y / 32, v] for x, y, v in record["keypoints"]]
    write_folder(folder, records)
    assert findings(folder) == [(0, "normalised coordinates")]


def test_a_pipe_named_like_a_picture_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    row = table_of(np.zeros((1, 5, 2))).rows[0].replace(image=tmp_path / "pipe.jpg")
    (fact,) = probe([row], workers=1).pictures.values()
    assert isinstance(fact, InputError)


def test_files_shared_by_rows_are_decoded_once(tmp_path, monkeypatch):
    folder, records = good_folder(tmp_path / "data", 3)
    for record, time_s in zip(records, (0.2, 0.3, 0.4), strict=True):
        record.update(audio="0000.wav", audio_time=time_s, file_name="0000.jpg")
    write_folder(folder, records)
    assert check(str(folder), workers=1).report.files == 2


def test_a_dataset_with_its_own_reader_is_checked_by_its_samples(grid_root, tmp_path, mmkp):
    code, out, _ = mmkp("data", "check", f"grid:{grid_root}", f"cache_dir={tmp_path}", "frame_step=25", "--json")
    report = json.loads(out)
    assert report["rows"] == 14
    assert code == 0, report["counts"]


def test_the_list_names_every_dataset_with_its_card(mmkp):
    code, out, _ = mmkp("data")
    assert code == 0
    assert "data_cards/grid.md" in out
    assert "coco:PATH" in out


def test_one_bad_row_among_many_keeps_its_number_through_splits(tmp_path):
    for name in ("train", "test"):
        part = tmp_path / "data" / name
        part.mkdir(parents=True)
        records = [{**good_record(part, i), "id": f"{name}-{i}", "group": f"{name}-{i}"} for i in range(2)]
        (part / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in records))
    (tmp_path / "data" / "schema.yaml").write_text("schema: face5\n")
    (tmp_path / "data" / "test" / "0001.jpg").write_bytes(b"")
    bad = [f for f in check(str(tmp_path / "data"), workers=1).report.findings if f.severity == "error"]
    assert [(f.where, f.row, f.id) for f in bad] == [("test/metadata.jsonl line 2", 2, "test-1")]


def test_a_text_longer_than_the_encoder_reads_is_a_warning(tmp_path):
    rows = [{"id": str(i), "group": str(i), "box": [0, 0, 9, 9], "keypoints": [[1, 1, 2]] * 5} for i in range(3)]
    for row, text in zip(rows, ("word " * 40, "wo|rd " * 40, "word"), strict=True):
        row["text"] = text
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    (tmp_path / "schema.yaml").write_text("schema: face5\n")
    found = [f for f in check(str(tmp_path)).report.findings if f.kind == "long text"]
    assert [(f.row, f.severity) for f in found] == [(1, "warning"), (2, "warning")]
    assert "200 bytes" in found[0].message
    assert "the first, as no |" in found[0].message
    assert "those around |" in found[1].message
