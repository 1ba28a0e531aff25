"""Parquet and WebDataset shards give the rows that were written; broken ones cost themselves."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_corpus import make_folder

from mmkp.data import open_dataset, open_table
from mmkp.data.export_parquet import export_parquet
from mmkp.data.rows import RowDataset, RowTable
from mmkp.data.shard_source import split_of_file
from mmkp.data.shard_write import write_webdataset
from mmkp.errors import InputError

WRITERS = {"parquet": export_parquet, "webdataset": write_webdataset}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> RowTable:
    return open_table(str(make_folder(tmp_path_factory.mktemp("shards") / "folder")))


@pytest.fixture(params=list(WRITERS))
def shards(request, table, tmp_path) -> tuple[str, Path]:
    WRITERS[request.param](table, tmp_path / "out", rows_per_shard=15)
    return request.param, tmp_path / "out"


def test_everything_comes_back(shards, table):
    name, folder = shards
    back = open_table(f"{name}:{folder}")
    assert (back.faults, back.schema) == ([], table.schema)
    assert sorted(p.name.split("-")[0] for p in folder.rglob("*.[tp]ar*")) == ["train"] * 3
    before, after = RowDataset(table, "all"), RowDataset(back, "all")
    for i, (a, b) in enumerate(zip(table.rows, back.rows, strict=True)):
        assert (a.id, a.group, a.text, a.audio_time_s) == (b.id, b.group, b.text, b.audio_time_s)
        np.testing.assert_array_equal(a.keypoints_xy, b.keypoints_xy)
        np.testing.assert_array_equal(a.visible, b.visible)
        np.testing.assert_array_equal(before[i].box_xywh, after[i].box_xywh)
        for kind in ("image", "audio"):
            one, other = getattr(before[i], kind), getattr(after[i], kind)
            assert (one is None) == (other is None)
            np.testing.assert_array_equal(one, other)


def test_progress_counts_rows(table, tmp_path):
    calls: list[tuple[int, int]] = []
    made = write_webdataset(table, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 40) for i in range(1, 41)] and made.rows == 40


def test_shards_are_unpacked_once_and_anew_when_they_change(shards, monkeypatch):
    name, folder = shards
    first = open_table(f"{name}:{folder}").rows[1]
    monkeypatch.setattr("mmkp.data.shards.read_shard", lambda *a: pytest.fail("read again"))
    assert open_table(f"{name}:{folder}").rows[1].image == first.image
    monkeypatch.undo()
    shard = sorted(folder.rglob("*.[tp]ar*"))[0]
    again = folder.with_name("again")
    write = WRITERS[name]
    write(RowTable("folder", open_table(f"{name}:{folder}").schema, [first.replace(text="changed")]), again)
    shard.write_bytes(sorted(again.rglob("*.[tp]ar*"))[0].read_bytes())
    assert open_table(f"{name}:{folder}").rows[0].text == "changed"


def test_a_truncated_shard_keeps_what_came_before_and_the_others(shards):
    name, folder = shards
    shard = sorted(folder.rglob("*.[tp]ar*"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    back = open_table(f"{name}:{folder}")
    assert {f.kind for f in back.faults} == {"broken shard"} and back.faults[0].where == shard.name
    ids = {r.id for r in back.rows}
    assert {f"row-{i:04d}" for i in (*range(15), *range(30, 40))} <= ids
    assert len(ids) < 40 and (name == "parquet" or len(ids) > 25)  # Parquet keeps its index at the end


def test_only_broken_shards(tmp_path):
    for name, suffix in (("parquet", "parquet"), ("webdataset", "tar")):
        (tmp_path / f"a.{suffix}").write_bytes(b"not a shard" * 100)
        with pytest.raises(InputError, match="shards that can be read"):
            open_table(f"{name}:{tmp_path}")


def write_parquet(path: Path, columns: dict, metadata: dict | None = None) -> Path:
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path)
    return path


def test_parquet_without_keypoints_says_what_was_found(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"image": [b"x"], "caption": ["a"]})
    with pytest.raises(InputError, match=r"column keypoints, got caption, image"):
        open_table(f"parquet:{tmp_path}", schema="face5")


def test_tar_without_json_says_what_was_found(tmp_path):
    write_tar(tmp_path / "a.tar", {"1.jpg": b"x", "1.txt": b"a"})
    with pytest.raises(InputError, match=r"json with keypoints, got id, image, text"):
        open_table(f"webdataset:{tmp_path}", schema="face5")


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def test_no_schema_says_where_it_belongs(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"keypoints": [[1.0]], "text": ["a"]})
    with pytest.raises(InputError, match=r"schema\.yaml"):
        open_table(f"parquet:{tmp_path}")


FIVE = [[float(i), 2.0] for i in range(5)]


def test_the_schema_may_stand_in_the_metadata(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"keypoints": [FIVE], "text": ["a"]}, {b"mmkp_schema": b'"face5"'})
    assert open_table(f"parquet:{tmp_path}").schema.name == "face5"


def test_other_numbers_of_keypoints_are_faults_of_their_rows(tmp_path):
    columns = {"keypoints": [FIVE, [[1.0, 1.0]] * 3, None], "text": ["a", "b", "c"]}
    table = open_table(f"parquet:{write_parquet(tmp_path / 'a.parquet', columns)}", schema="face5")
    assert [r.text for r in table.rows] == ["a", "c"]
    assert [(f.kind, f.row) for f in table.faults] == [("keypoint count", 2), ("no keypoints", 3)]


def test_a_column_of_flags(tmp_path):
    columns = {"keypoints": [FIVE], "visible": [[2, 1, 0, 2, 1]], "text": ["a"]}
    row = open_table(f"parquet:{write_parquet(tmp_path / 'a.parquet', columns)}", schema="face5").rows[0]
    assert row.visible.tolist() == [2, 1, 0, 2, 1] and row.keypoints_xy[1].tolist() == [1, 2]
    assert np.isnan(row.keypoints_xy[2]).all()


def test_a_file_named_outside_the_folder_is_not_read(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "in").mkdir()
    columns = {"image": [{"bytes": None, "path": "../secret.png"}], "keypoints": [FIVE], "text": ["a"]}
    table = open_table(f"parquet:{write_parquet(tmp_path / 'in' / 'a.parquet', columns)}", schema="face5")
    assert table.rows[0].image is None and [f.kind for f in table.faults] == ["path escape"]


def test_tar_members_with_dangerous_names_stay_inside(tmp_path):
    said = json.dumps({"keypoints": FIVE}).encode()
    write_tar(tmp_path / "a.tar", {"../../evil.json": said, "../../evil.txt": b"hi", "../../evil.png": b"no picture"})
    row = open_table(f"webdataset:{tmp_path}", schema="face5").rows[0]
    assert row.id == "evil" and row.image is not None and "shards" in row.image.parts
    assert not (tmp_path.parent / "evil.png").exists()


def test_bad_json_and_one_id_twice(tmp_path):
    said = json.dumps({"id": "same", "keypoints": FIVE, "text": "a"}).encode()
    write_tar(tmp_path / "a.tar", {"1.json": said, "2.json": b"{", "3.json": b"[1]", "4.json": said})
    table = open_table(f"webdataset:{tmp_path}", schema="face5")
    assert [f.kind for f in table.faults] == ["bad json", "bad json", "duplicate id"]
    assert len({r.id for r in table.rows}) == len(table.rows) == 2


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("val/0001.tar", "validation"),
        ("test_3.tar", "test"),
        ("a.tar", None),
    ],
)
def test_splits_that_shards_are_named_after(name, split):
    assert split_of_file(Path("/data") / name) == split


def test_named_splits_are_kept(table, tmp_path):
    rows = [r.replace(split=("train", "val", "test")[i % 3]) for i, r in enumerate(table.rows)]
    write_webdataset(RowTable("folder", table.schema, rows), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").glob("*.tar")) == [
        "test-000000.tar", "train-000000.tar", "validation-000000.tar"
    ]  # fmt: skip
    assert len(open_dataset(f"webdataset:{tmp_path / 'out'}", "validation")) == 13
