"""The custom format: what is written is read, and what is wrong is reported with its line and costs only itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from mmkp import InputError
from mmkp.commands.data import data_app
from mmkp.data import open_dataset, open_table
from mmkp.data.folder import read_folder
from mmkp.data.rows import Row, RowDataset, assemble
from mmkp.data.video import close_videos, read_frame

POINTS = [[1, 2, 2], [3, 4, 2], [5, 6, 1], [0, 0, 0], [9, 10.5, 2]]
DOCS = Path(__file__).parents[2] / "docs" / "custom_data.md"


@pytest.fixture
def root(tmp_path):
    """A folder with a picture, a sound of 1 s and face5, as yet without rows."""
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    ramp = np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)
    Image.fromarray(ramp).save(folder / "images" / "a.png")
    Image.fromarray(ramp[::-1].copy()).save(folder / "images" / "b.png")
    soundfile.write(folder / "a.wav", np.linspace(-0.5, 0.5, 16_000), 16_000)
    (folder / "schema.yaml").write_text("schema: face5\n")
    return folder


def write(root: Path, *rows: dict | str | bytes, newline: bytes = b"\n") -> None:
    lines = [r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in rows]
    (root / "metadata.jsonl").write_bytes(newline.join(lines))


def kinds(table) -> list[str]:
    return [fault.kind for fault in table.faults]


def test_a_row_is_what_it_says(root):
    write(root, {
        "file_name": "images/a.png", "audio": "a.wav", "audio_time": 0.75, "audio_start": 0.5, "audio_end": 1.0,
        "text": "hello", "keypoints": POINTS, "box": [1, 2, 10, 9.5], "group": "anna", "split": "val", "id": "x",
        "info": {"take": 3},
    })  # fmt: skip
    table = read_folder(root)
    (row,) = table.rows
    assert not table.faults
    assert (table.name, table.schema.name, table.root) == ("folder", "face5", root)
    assert (row.id, row.group, row.split, row.where) == ("x", "anna", "validation", "metadata.jsonl line 1")
    np.testing.assert_array_equal(row.visible, [2, 2, 1, 0, 2])
    np.testing.assert_array_equal(row.keypoints_xy, [[1, 2], [3, 4], [5, 6], [np.nan, np.nan], [9, 10.5]])
    assert row.box_xywh.tolist() == [1, 2, 10, 9.5]
    assert row.info == {"take": 3}
    sample = RowDataset(table, "validation")[0]
    assert sample.image[0, 0].tolist() == [0, 1, 2]
    assert (len(sample.audio), sample.rate_hz, sample.audio_time_s) == (8000, 16_000, 0.25)
    assert abs(sample.audio[0] - 0.0) < 1e-3


def test_any_modality_may_be_missing(root):
    write(
        root,
        {"file_name": "images/a.png"},
        {"file_name": None, "audio": "a.wav"},
        {"text": "only words", "keypoints": None},
        {"file_name": "", "text": None, "keypoints": POINTS},
    )
    table = read_folder(root)
    samples = [open_dataset(f"folder:{root}", "all")[i] for i in range(3)]
    assert [s.present for s in samples] == [(True, False, False), (False, False, True), (False, True, False)]
    assert [r.id for r in table.rows] == ["images/a.png", "a.wav", "metadata.jsonl line 3"]
    assert kinds(table) == ["no keypoints"] * 3 + ["bad row"]
    assert table.faults[-1].row == 4


@pytest.mark.parametrize(
    "value",
    [
        POINTS,
        [v for point in POINTS for v in point],
        json.dumps(POINTS),
        "1 2 2 3 4 2 5 6 1 0 0 0 9 10.5 2",
        [[str(v) for v in point] for point in POINTS],
    ],
)
def test_keypoints_in_all_their_spellings(root, value):
    write(root, {"file_name": "images/a.png", "keypoints": value})
    table = read_folder(root)
    assert not table.faults
    np.testing.assert_array_equal(table.rows[0].visible, [2, 2, 1, 0, 2])
    assert table.rows[0].keypoints_xy[4].tolist() == [9, 10.5]


@pytest.mark.parametrize("value", [[[1, 2], [3, 4], None, [7, 8], [9, 10]], [1, 2, 3, 4, None, None, 7, 8, 9, 10]])
def test_keypoints_without_flags(root, value):
    write(root, {"file_name": "images/a.png", "keypoints": value})
    table = read_folder(root)
    assert not table.faults
    assert table.rows[0].visible.tolist() == [2, 2, 0, 2, 2]
    assert np.isnan(table.rows[0].keypoints_xy[2]).all()


FAULTY = [
    ('{"file_name": "images/a.png",}', "bad json", False),
    ('{"file_name": "images/a.png"', "bad json", False),
    ("[" * 100_000, "bad json", False),
    ("[1, 2]", "bad row", False),
    ({"file_name": "images/a.png", "keypoints": POINTS[:4]}, "keypoint count", False),
    ({"file_name": "images/a.png", "keypoints": [1.0] * 14}, "keypoint count", False),
    ({"file_name": "images/a.png", "keypoints": [[1, 2, 2], [3, 4]] + POINTS[2:]}, "keypoint count", False),
    ({"file_name": "images/a.png", "keypoints": [["a", 2, 2], *POINTS[1:]]}, "not a number", False),
    ({"file_name": "images/a.png", "keypoints": "left eye"}, "not a number", False),
    ({"file_name": "images/a.png", "keypoints": {"nose": [1, 2]}}, "not a number", False),
    ({"file_name": "images/a.png", "keypoints": [[float("nan"), 2, 2], *POINTS[1:]]}, "not a number", True),
    ({"file_name": "images/a.png", "keypoints": [[1e300, 2, 2], *POINTS[1:]]}, "not a number", True),
    ({"file_name": "images/a.png", "keypoints": [[1, 2, 7], *POINTS[1:]]}, "bad flag", True),
    ({"file_name": "images/a.png", "keypoints": POINTS, "box": [1, 2, -3, 4]}, "bad box", True),
    ({"file_name": "images/a.png", "keypoints": POINTS, "box": "wide"}, "bad box", True),
    ({"file_name": "images/a.png", "keypoints": POINTS, "box": [1, 2, 3, float("nan")]}, "bad box", True),
    ({"file_name": "../a.png", "keypoints": POINTS, "text": "t"}, "path escape", False),
    ({"file_name": "/etc/passwd", "keypoints": POINTS, "text": "t"}, "path escape", False),
    ({"file_name": "images/a.png", "audio": "../../x.wav", "keypoints": POINTS}, "path escape", False),
    ({"file_name": "none.png", "keypoints": POINTS, "text": "t"}, "missing file", True),
    ({"file_name": "none.png", "keypoints": POINTS}, "missing file", False),
    ({"file_name": 7, "keypoints": POINTS, "text": "t"}, "bad row", True),
    ({"file_name": "images/a.png", "keypoints": POINTS, "text": "  "}, "empty text", True),
    ({"file_name": "images/a.png", "keypoints": POINTS, "text": ["a"]}, "bad row", True),
    ('{"file_name": "images/a.png", "text": "\\ud800"}', "encoding", True),
    (b'{"file_name": "images/a.png", "text": "caf\xe9"}', "encoding", True),
    ({"audio": "a.wav", "keypoints": POINTS, "audio_time": "soon"}, "not a number", True),
    ({"audio": "a.wav", "keypoints": POINTS, "audio_start": 2, "audio_end": 1}, "bad row", True),
    ({"audio": "a.wav", "keypoints": POINTS, "audio_time": 0.2, "audio_start": 0.5}, "bad row", True),
    ({"file_name": "images/a.png", "keypoints": POINTS, "split": "holdout"}, "bad row", True),
    ({"file_name": "images/a.png", "keypoints": POINTS, "frame": -1, "text": "t"}, "bad row", True),
    ({"file_name": "images/a.png", "keypoints": POINTS, "keypoint": 1}, "unknown field", True),
]  # fmt: skip


@pytest.mark.parametrize(("row", "kind", "usable"), FAULTY)
def test_a_fault_is_reported_with_its_line_and_costs_only_itself(root, row, kind, usable):
    good = {"file_name": "images/b.png", "keypoints": POINTS}
    write(root, good, "", row, {**good, "id": "last"})
    table = read_folder(root)
    ids = [r.where for r in table.rows]
    assert ids == [f"metadata.jsonl line {n}" for n in ([1, 3, 4] if usable else [1, 4])]
    assert kind in kinds(table)
    assert {fault.where for fault in table.faults} == {"metadata.jsonl line 3"}
    assert len(RowDataset(table, "all")) == len(table.rows)


def test_byte_order_marks_and_other_line_ends(root):
    row = {"file_name": "images/a.png", "keypoints": POINTS, "text": "é"}
    write(root, b"\xef\xbb\xbf" + json.dumps(row).encode(), {**row, "id": "b"}, newline=b"\r\n")
    table = read_folder(root)
    assert (len(table.rows), table.faults) == (2, [])
    (root / "metadata.jsonl").write_bytes(json.dumps(row, ensure_ascii=False).encode("utf-16"))
    assert read_folder(root).rows[0].text == "é"


def test_latin_1_is_read_as_it_was_meant(root):
    write(root, b'{"text": "caf\xe9", "keypoints": null}')
    table = read_folder(root)
    assert table.rows[0].text == "café"
    assert kinds(table) == ["encoding", "no keypoints"]


def test_ids_differ_and_groups_follow_the_file(root):
    row = {"file_name": "images/a.png", "keypoints": POINTS}
    write(root, row, row, {**row, "id": "x"}, {**row, "id": "x", "group": 7})
    table = read_folder(root)
    assert [r.id for r in table.rows] == ["images/a.png", "images/a.png@2", "x", "x@4"]
    assert [r.group for r in table.rows] == ["images/a.png"] * 3 + ["7"]
    assert [(f.kind, f.row) for f in table.faults] == [("duplicate id", 4)]


def test_unknown_fields_are_named_once_and_kept(root):
    write(root, *({"text": "t", "keypoints": POINTS, "keypoitns": i, "mood": "glad"} for i in range(3)))
    table = read_folder(root)
    assert kinds(table) == ["unknown field"] * 2
    assert "did you mean 'keypoints'?" in table.faults[0].message
    assert table.rows[2].info == {"keypoitns": 2, "mood": "glad"}


def test_csv(root):
    points = json.dumps(POINTS)
    (root / "metadata.csv").write_text(
        "\ufefffile_name,text,keypoints,group\n"
        f'images/a.png,"two\nlines","{points}",g\n'
        f'images/b.png,,"{points}",\n'
        f'images/b.png,"never closed,"{points}",g\n'
        f'images/a.png,one, two,"{points}",g\n'
        f'images/a.png,last,"{points}",h\n',
        encoding="utf-8",
    )
    table = read_folder(root)
    assert [(r.where, r.text, r.group) for r in table.rows] == [
        ("metadata.csv line 2", "two\nlines", "g"),
        ("metadata.csv line 4", None, "images/b.png"),
        ("metadata.csv line 7", "last", "h"),
    ]
    assert [(f.kind, f.row) for f in table.faults] == [("bad row", 5), ("bad row", 6)]
    assert table.rows[0].visible.tolist() == [2, 2, 1, 0, 2]


def test_parquet(root):
    flat = [float(v) for point in POINTS for v in point]
    rows = [
        {"file_name": "images/a.png", "keypoints": flat, "text": None},
        {"file_name": None, "keypoints": None, "text": "t"},
    ]
    pd.DataFrame(rows).to_parquet(root / "metadata.parquet")
    table = read_folder(root)
    assert [(r.where, r.text) for r in table.rows] == [
        ("metadata.parquet row 1", None),
        ("metadata.parquet row 2", "t"),
    ]
    assert table.rows[0].keypoints_xy[4].tolist() == [9, 10.5]
    (root / "metadata.parquet").write_bytes(b"PAR1 no such thing")
    with pytest.raises(InputError, match="a Parquet file"):
        read_folder(root)


def test_split_folders(root):
    for name, picture in (("train", "a"), ("test", "b")):
        (root / name).mkdir()
        (root / "images" / f"{picture}.png").rename(root / name / f"{picture}.png")
        row = {"file_name": f"{picture}.png", "keypoints": POINTS}
        (root / name / "metadata.jsonl").write_text(json.dumps(row))
    table = open_table(str(root))
    assert [(r.split, r.where) for r in table.rows] == [
        ("test", "test/metadata.jsonl line 1"), ("train", "train/metadata.jsonl line 1"),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", ["mp4", "mpg"])
def test_frames_and_sound_of_a_video(root, suffix):
    path = root / f"clip.{suffix}"
    greys = make_video(path, frames=30)
    write(root, *({"file_name": path.name, "frame": i, "audio": path.name, "keypoints": POINTS} for i in (0, 29, 7, 8)),
          {"file_name": path.name, "keypoints": POINTS, "text": "no frame"})  # fmt: skip
    table = read_folder(root)
    assert [r.id for r in table.rows][:2] == [f"clip.{suffix}#0", f"clip.{suffix}#29"]
    assert kinds(table) == ["bad row"]
    assert {r.group for r in table.rows} == {path.name}
    data = RowDataset(table, "all")
    for index, frame in enumerate((0, 29, 7, 8)):
        assert abs(float(data[index].image.mean()) - greys[frame]) < 12
    assert 0.9 < len(data[0].audio) / data[0].rate_hz < 1.6
    assert data[4].image is None
    for frame in (3, 3, 4, 20, 0, 29):
        assert abs(float(read_frame(path, frame).mean()) - greys[frame]) < 12
    with pytest.raises(InputError, match="30 frames"):
        read_frame(path, 30)
    with pytest.raises(InputError, match="expected a video"):
        read_frame(root / "schema.yaml", 0)
    with pytest.raises(InputError, match="expected a file"):
        read_frame(root / "none.mp4", 0)
    close_videos()


def make_video(path: Path, frames: int) -> list[int]:
    """Frames of one grey each, with a keyframe every 10, and a tone; returns the greys."""
    greys = [20 + 37 * i % 200 for i in range(frames)]  # neighbours differ by 37 or more
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg1video" if path.suffix == ".mpg" else "mpeg4", rate=25)
        video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 10
        video.codec_context.max_b_frames, video.bit_rate = 2, 4_000_000
        sound = file.add_stream("mp2", rate=44_100)
        for grey in greys:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8), "rgb24")
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        for start in range(0, 44_100, 1152):
            wave = (8000 * np.sin(np.arange(start, start + 1152) * 0.06)).astype(np.int16)[None]
            heard = av.AudioFrame.from_ndarray(wave, "s16", "mono")
            heard.rate, heard.pts = 44_100, start
            file.mux(sound.encode(heard))
        file.mux(sound.encode(None))
    return greys


def test_schemas_by_name_file_and_option(root, tmp_path):
    row = {"text": "t", "keypoints": [1, 2, 3, 4, 5, 6]}
    write(root, row)
    own = "name: tri\nkeypoints: [a, b, c]\n"
    (root / "schema.yaml").write_text(own)
    assert read_folder(root).schema.keypoints == ("a", "b", "c")
    (tmp_path / "own.yaml").write_text(own.replace("tri", "other"))
    assert read_folder(root, schema=str(tmp_path / "own.yaml")).schema.name == "other"
    assert open_table(f"folder:{root}", schema="quad4").schema.name == "quad4"
    for text in ("schema: ../own.yaml", "schema: /etc/passwd.yaml", "schema: face", "[", "name: x", "7"):
        (root / "schema.yaml").write_text(text)
        with pytest.raises(InputError, match=r"schema"):
            read_folder(root)
    (root / "schema.yaml").unlink()
    with pytest.raises(InputError, match="built in are .*face5"):
        read_folder(root)


def test_what_is_no_folder_is_refused_with_a_remedy(root, tmp_path):
    with pytest.raises(InputError, match="data_cards/"):
        read_folder(tmp_path / "none")
    with pytest.raises(InputError, match=r"docs/custom_data\.md"):
        read_folder(root)
    write(root, {"text": "t"})
    (root / "metadata.csv").write_text("file_name\n")
    with pytest.raises(InputError, match="one table"):
        read_folder(root)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=20,
)
field_names = st.sampled_from([
    "file_name", "frame", "audio", "audio_time", "audio_start", "audio_end", "text", "keypoints", "box", "group",
    "split", "id", "info", "other",
])  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(field_names, json_values))
def test_no_value_crashes_the_reader(root, values):
    write(root, values, {"file_name": "images/a.png", "keypoints": POINTS})
    table = read_folder(root)
    assert table.rows[-1].where == "metadata.jsonl line 2"
    assert len({r.id for r in table.rows}) == len(table.rows)
    for row in table.rows:
        assert row.keypoints_xy.shape == (5, 2)
        assert np.isfinite(row.keypoints_xy[row.visible > 0]).all()
    assert len(RowDataset(table, "all").fingerprint) == 16


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["metadata.jsonl", "metadata.csv"]))
def test_no_bytes_crash_the_reader(root, data, name):
    for old in root.glob("metadata.*"):
        old.unlink()
    (root / name).write_bytes(data)
    try:
        table = read_folder(root)
    except InputError as error:
        assert name in str(error)  # the table as a whole is none
        return
    assert all(row.keypoints_xy.shape == (5, 2) for row in table.rows)
    assert all(fault.kind and fault.where and fault.message for fault in table.faults)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_imagefolder_understands_the_format(root, form, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [
        {"file_name": "images/a.png", "audio": "a.wav", "text": "hello", "keypoints": POINTS, "group": "anna"},
        {"file_name": None, "audio": None, "text": "no picture", "keypoints": None, "group": "bert"},
    ]
    if form == "jsonl":
        write(root, *rows)
    else:
        cells = [{**r, "keypoints": json.dumps(r["keypoints"]) if r["keypoints"] else None} for r in rows]
        pd.DataFrame(cells).to_csv(root / "metadata.csv", index=False)
    assert [r.text for r in read_folder(root).rows] == ["hello", "no picture"]
    loaded = datasets.load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 2
    assert loaded[0]["image"].size == (16, 12)
    assert loaded[0]["text"] == "hello"
    assert loaded[0]["audio"] == "a.wav"
    points = loaded[0]["keypoints"]
    assert (json.loads(points) if form == "csv" else points) == POINTS
    assert loaded[1]["image"] is None


def test_the_page_s_example_runs_as_it_stands(tmp_path, monkeypatch):
    text = DOCS.read_text(encoding="utf-8")
    example, loading = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    exec(compile(example, "example", "exec"), {})
    table = read_folder("faces")
    assert (len(table.rows), table.faults) == (3, [])
    assert [s.present for s in (RowDataset(table, "all")[i] for i in range(3))] == [(True, True, True)] * 3
    checked = CliRunner().invoke(data_app, ["check", "faces"])
    assert checked.exit_code == 0, checked.output
    found: dict = {}
    exec(compile(loading, "loading", "exec"), found)
    assert found["dataset"].num_rows == 3
    (own,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    Path("faces/schema.yaml").write_text(own)
    assert read_folder("faces").schema.keypoints == ("right_hinge", "bridge", "left_hinge")


@pytest.mark.parametrize("box", [None, np.array([0.0, 0.0, 10.0, 10.0])])
def test_keypoints_without_a_picture_are_learned_from_where_a_box_places_them(box):
    """Labels of a row whose picture is lost lie nowhere, unless the box says where."""
    row = Row("a", "a", "line 1", np.ones((5, 2), np.float32), np.full(5, 2, np.uint8), box_xywh=box, text="hello")
    assert assemble(row, None, None).visible.tolist() == ([0] * 5 if box is None else [2] * 5)
    assert assemble(row, np.zeros((12, 16, 3), np.uint8), None).visible.tolist() == [2] * 5
