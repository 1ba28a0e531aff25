"""Exporters: what goes out comes back the same, and nothing that exists is written over."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmkp import InputError, load_schema
from mmkp.data import open_table
from mmkp.data.export import EXPORTERS, export_folder
from mmkp.data.export_coco import export_coco
from mmkp.data.export_items import encode_audio, encode_png
from mmkp.data.export_parquet import export_parquet
from mmkp.data.folder import read_folder
from mmkp.data.io import read_audio, read_image
from mmkp.data.rows import Row, RowDataset, RowTable
from mmkp.data.sample import Sample
from mmkp.data.shard_write import write_webdataset

SCHEMA = load_schema("face5")
EXPORT = {"folder": export_folder, "coco": export_coco, "parquet": export_parquet, "webdataset": write_webdataset}


@pytest.fixture
def table(tmp_path, rng) -> RowTable:
    """Seven rows: two people in one picture, a part of a longer sound, each modality missing once, one unlabelled."""
    root = tmp_path / "source" / "train"
    root.mkdir(parents=True)
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(root / f"{name}.jpg")
    soundfile.write(root / "long.wav", rng.uniform(-0.5, 0.5, 32_000), 16_000)
    a, b, sound = root / "a.jpg", root / "b.jpg", root / "long.wav"
    rows = [
        make(rng, "1", "anna", image=a, text="hello | there", audio=sound, audio_time_s=1.25, audio_start_s=1.0,
             audio_end_s=1.5, box_xywh=np.array([1.5, 2, 20.25, 10]), split="train", info={"area": 100.0, "k": [1]}),
        make(rng, "2", "anna", image=a, split="train"),
        make(rng, "3", "bert", image=b, text="größer “quoted”\nline", split="validation"),
        make(rng, "4", "carl", audio=sound, split="test"),
        make(rng, "5", "dora", text="only words"),
        make(rng, "6", "emil", image=b, audio=sound, audio_time_s=0.5),
    ]  # fmt: skip
    nothing = np.full((5, 2), np.nan, np.float32)
    rows.append(Row("7", "fritz", "line 7", nothing, np.zeros(5, np.uint8), image=b))
    return RowTable("folder", SCHEMA, rows, root=root)


def make(rng: np.random.Generator, name: str, group: str, **fields) -> Row:
    visible = rng.integers(0, 3, 5).astype(np.uint8)
    visible[0] = 2
    points_xy = np.where(visible[:, None] > 0, rng.uniform(-5, 2000, (5, 2)), np.nan).astype(np.float32)
    return Row(name, group, f"line {name}", points_xy, visible, **fields)


def same(row: Row, other: Row) -> None:
    for key in ("id", "group", "text", "split", "audio_time_s", "audio_start_s", "audio_end_s", "info"):
        assert getattr(row, key) == getattr(other, key), key
    np.testing.assert_array_equal(row.keypoints_xy, other.keypoints_xy)
    np.testing.assert_array_equal(row.visible, other.visible)
    assert (row.box_xywh is None) == (other.box_xywh is None)
    if row.box_xywh is not None:
        np.testing.assert_array_equal(row.box_xywh, other.box_xywh)


def test_a_folder_comes_back_the_same(table, tmp_path):
    calls: list[tuple[int, int]] = []
    made = export_folder(table, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    back = read_folder(tmp_path / "out")
    assert (made.rows, made.problems, len(back.rows), calls[-1]) == (7, [], 7, (7, 7))
    assert [f.kind for f in back.faults] == ["no keypoints"]
    assert back.schema == SCHEMA
    for row, other in zip(table.rows, back.rows, strict=True):
        same(row, other)
        for kind in ("image", "audio"):
            before, after = getattr(row, kind), getattr(other, kind)
            assert (before is None) == (after is None)
            assert before is None or before.read_bytes() == after.read_bytes()
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == ["audio/000001.wav", "images/000001.jpg", "images/000003.jpg", "metadata.jsonl", "schema.yaml"]
    again = export_folder(back, tmp_path / "again")
    assert (again.folder / "metadata.jsonl").read_bytes() == (made.folder / "metadata.jsonl").read_bytes()


def test_imagefolder_opens_the_export(table, tmp_path):
    datasets = pytest.importorskip("datasets")
    export_folder(table, tmp_path / "out")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in loaded.items()} == {"train": 7}
    assert loaded["train"]["split"][:4] == ["train", "train", "validation", "test"]
    assert loaded["train"][0]["image"].size == (30, 20)


class Talking:
    """A dataset without files: one sample with a sound of 16 bits, one that only floats hold, one text."""

    name, schema, problems, fingerprint = "talking", SCHEMA, (), "x"

    def __init__(self, rng: np.random.Generator) -> None:
        image = rng.integers(0, 255, (9, 7, 3), np.uint8)
        short = (rng.integers(-32768, 32767, 8000) / 32768).astype(np.float32)
        exact = rng.uniform(-1, 1, 8000).astype(np.float32)
        rows = [make(rng, str(i), f"g{i}") for i in range(3)]
        common = [{"id": r.id, "group": r.group, "keypoints_xy": r.keypoints_xy, "visible": r.visible} for r in rows]
        box = np.array([-0.5, -0.5, 7.0, 9.0])
        self.samples = [
            Sample(**common[0], box_xywh=box, image=image, audio=short, rate_hz=16_000, audio_time_s=0.2, text="a"),
            Sample(**common[1], box_xywh=box, image=image, audio=exact, rate_hz=22_050),
            Sample(**common[2], box_xywh=box, text="only words"),
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def test_a_dataset_without_files_loses_nothing(rng, tmp_path):
    dataset = Talking(rng)
    export_folder(dataset, tmp_path / "out", split="test")
    table = read_folder(tmp_path / "out")
    back = RowDataset(table, "test")
    assert [Path(r.audio).suffix for r in table.rows[:2]] == [".flac", ".wav"]
    for sample, other in zip(dataset.samples, (back[i] for i in range(3)), strict=True):
        np.testing.assert_array_equal(sample.keypoints_xy, other.keypoints_xy)
        np.testing.assert_array_equal(sample.box_xywh, other.box_xywh)
        assert (sample.text, sample.present, sample.audio_time_s) == (other.text, other.present, other.audio_time_s)
        if sample.image is not None:
            np.testing.assert_array_equal(sample.image, other.image)
            np.testing.assert_array_equal(sample.audio, other.audio)
            assert sample.rate_hz == other.rate_hz


def test_one_split_of_a_dataset_keeps_its_name(table, tmp_path):
    export_folder(RowDataset(table, "train"), tmp_path / "out")
    back = read_folder(tmp_path / "out")
    assert {r.split for r in back.rows} == {"train"}
    assert len(RowDataset(back, "train")) == len(RowDataset(table, "train"))


def test_coco(table, tmp_path):
    made = export_coco(table, tmp_path / "out")
    assert made.rows == 5
    assert [line.split(":")[0] for line in made.problems] == ["line 4", "line 5"]
    train = json.loads((tmp_path / "out/annotations/person_keypoints_train.json").read_text("utf-8"))
    assert sorted(p.name for p in (tmp_path / "out/annotations").iterdir()) == [
        "captions_train.json", "captions_val.json", "person_keypoints_train.json", "person_keypoints_val.json",
    ]  # fmt: skip
    (category,) = train["categories"]
    assert category["keypoints"] == list(SCHEMA.keypoints)
    assert category["skeleton"][0] == [1, 2]
    assert [(i["width"], i["height"]) for i in train["images"]] == [(30, 20), (30, 20)]
    first, second = train["annotations"][:2]
    assert first["image_id"] == second["image_id"] == 1
    assert first["bbox"] == [2.0, 2.5, 20.25, 10.0]
    assert (first["area"], second["area"]) == (100.0, 600.0)
    assert second["bbox"] == [0, 0, 30, 20]
    row = table.rows[0]
    points = np.array(first["keypoints"]).reshape(5, 3)
    assert points[:, 2].tolist() == row.visible.tolist()
    assert first["num_keypoints"] == int((row.visible > 0).sum())
    np.testing.assert_allclose(points[row.visible > 0, :2], row.keypoints_xy[row.visible > 0], atol=1e-4)
    captions = json.loads((tmp_path / "out/annotations/captions_train.json").read_text("utf-8"))
    assert [(c["image_id"], c["caption"]) for c in captions["annotations"]] == [(1, "hello | there")]


def test_coco_comes_back_through_its_reader(table, tmp_path):
    export_coco(table, tmp_path / "out")
    back = open_table(f"coco:{tmp_path / 'out' / 'annotations'}", schema="face5")
    rows = [row for row in table.rows if row.image is not None and row.visible.any()]
    rows = [r for r in rows if r.split != "validation"] + [r for r in rows if r.split == "validation"]
    assert len(back.rows) == len(rows)
    for row, other in zip(rows, back.rows, strict=True):
        np.testing.assert_allclose(other.keypoints_xy, row.keypoints_xy, atol=1e-4)
        np.testing.assert_array_equal(other.visible, row.visible)
        np.testing.assert_array_equal(read_image(other.image), read_image(row.image))
        if row.box_xywh is not None:
            np.testing.assert_allclose(other.box_xywh, row.box_xywh, atol=1e-6)
    assert back.rows[0].text == "hello | there"


def test_pycocotools_opens_the_export(table, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    export_coco(table, tmp_path / "out")
    opened = coco.COCO(str(tmp_path / "out/annotations/person_keypoints_val.json"))
    (annotation,) = opened.loadAnns(opened.getAnnIds())
    assert annotation["num_keypoints"] == int((table.rows[2].visible > 0).sum())
    name = opened.loadImgs(annotation["image_id"])[0]["file_name"]
    np.testing.assert_array_equal(read_image(tmp_path / "out/images" / name), read_image(table.rows[2].image))


def test_parquet(table, tmp_path):
    datasets = pytest.importorskip("datasets")
    calls: list[int] = []
    made = export_parquet(table, tmp_path / "out", rows_per_shard=2, progress=lambda done, total: calls.append(done))
    assert (made.rows, made.problems, calls) == (7, [], [1, 2, 3, 4, 5, 6, 7])
    assert sorted(p.name for p in (tmp_path / "out/data").iterdir()) == [
        "test-00000-of-00001.parquet", "train-00000-of-00003.parquet", "train-00001-of-00003.parquet",
        "train-00002-of-00003.parquet", "validation-00000-of-00001.parquet",
    ]  # fmt: skip
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = {row["id"]: row for part in loaded.values() for row in part}
    for row in table.rows:
        other = rows[row.id]
        assert (other["group"], other["split"], other["text"]) == (row.group, row.split, row.text)
        points = np.array(other["keypoints"] or np.zeros((5, 3)), np.float32)
        assert points[:, 2].tolist() == row.visible.tolist()
        np.testing.assert_array_equal(points[row.visible > 0, :2], row.keypoints_xy[row.visible > 0])
    np.testing.assert_array_equal(np.asarray(rows["1"]["image"]), read_image(table.rows[0].image))
    (tmp_path / "part.flac").write_bytes(rows["1"]["audio"]["bytes"])
    part, rate_hz = read_audio(tmp_path / "part.flac")
    np.testing.assert_array_equal(part, read_audio(table.rows[0].audio)[0][16_000:24_000])
    assert (rate_hz, rows["1"]["audio_time"], rows["6"]["audio_time"]) == (16_000, 0.25, 0.5)
    assert rows["4"]["audio"]["bytes"] == table.rows[3].audio.read_bytes()
    assert json.loads(rows["1"]["info"]) == {"area": 100.0, "k": [1]}


@pytest.mark.parametrize("name", EXPORTERS)
def test_nothing_is_written_over_or_in_place(table, tmp_path, name):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("x")
    for out, got in ((full, "one with content"), (tmp_path / "file", "a file"), (table.root / "new", "one in")):
        with pytest.raises(InputError, match=got):
            EXPORT[name](table, out)
    assert [p.name for p in full.iterdir()] == ["mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert EXPORT[name](table, empty).rows > 0


@pytest.mark.parametrize("name", EXPORTERS)
def test_an_export_that_fails_leaves_nothing(table, tmp_path, name):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EXPORT[name](table, tmp_path / "out", progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_file_that_is_gone_costs_itself(table, tmp_path, name):
    (table.root / "b.jpg").unlink()
    made = EXPORT[name](table, tmp_path / "out")
    assert any("line 3" in line for line in made.problems)
    assert made.rows == {"folder": 6, "parquet": 6, "webdataset": 6, "coco": 2}[name]


def test_encoders_lose_nothing(rng, tmp_path):
    image = rng.integers(0, 255, (5, 6, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(image))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    edge = np.tile(np.array([-32768, 32767, 0, 1], np.float32) / 32768, 500)
    for samples, expected in ((edge, ".flac"), (edge + 1e-6, ".wav"), (edge * 1.5, ".wav")):
        data, suffix = encode_audio(samples.astype(np.float32), 16_000)
        assert suffix == expected
        (tmp_path / f"a{suffix}").write_bytes(data)
        np.testing.assert_array_equal(read_audio(tmp_path / f"a{suffix}")[0], samples.astype(np.float32))
