"""`mmkp data preview`, and the verbs that write copies: tiles of rows with and without each modality."""

from __future__ import annotations

import json

import numpy as np
import pytest
from broken import FACE5, good_folder, picture, tone, write_folder
from PIL import Image

from mmkp.data.folder import read_folder
from mmkp.data.preview import LEFT, PALE, RIGHT, SIDE, item, preview, sides, spectrogram, wrapped
from mmkp.data.sample import Sample
from mmkp.errors import InputError
from mmkp.schema import load_schema


def sample(**changes) -> Sample:
    """A face5 sample of 40 x 40 px with points 10 px apart."""
    xy = np.array([[10, 10], [30, 10], [20, 20], [15, 30], [25, 30]], np.float32)
    plain = Sample(
        id="one", group="g", keypoints_xy=xy, visible=np.full(5, 2, np.uint8), text="a face",
        box_xywh=np.array([-0.5, -0.5, 40, 40]), image=np.full((40, 40, 3), 90, np.uint8), audio=tone(0), rate_hz=8000,
    )  # fmt: skip
    return plain.replace(**changes)


def at(tile: np.ndarray, xy: tuple[float, float]) -> tuple[int, ...]:
    """The tile's colour where a point of the 40 px picture is drawn."""
    x, y = (round((v + 0.5) * SIDE / 40 - 0.5) for v in xy)
    return tuple(int(v) for v in tile[y, x])


def test_points_lie_where_the_enlarged_picture_has_them_in_the_colour_of_their_side():
    tile = item(sample(), FACE5)
    assert at(tile, (10, 10)) == RIGHT
    assert at(tile, (30, 10)) == LEFT
    assert at(tile, (5, 35)) == (90, 90, 90)


def test_hidden_points_are_hollow_and_unlabelled_ones_are_not_drawn():
    tile = item(sample(visible=np.array([1, 0, 2, 2, 2], np.uint8)), FACE5)
    assert at(tile, (10, 10)) == (0, 0, 0)
    assert at(tile, (30, 10)) == (90, 90, 90)


@pytest.mark.parametrize("absent", [{"image": None}, {"audio": None}, {"text": None}, {"text": "", "audio": None}])
def test_absent_modalities_leave_a_tile_of_the_same_size(absent):
    whole, part = item(sample(), FACE5), item(sample(**absent), FACE5)
    assert part.shape == whole.shape == (SIDE, 2 * SIDE, 3)
    assert (part != whole).any()


def test_nothing_labelled_and_nothing_there_is_still_a_tile():
    empty = sample(image=None, audio=None, text=None, visible=np.zeros(5, np.uint8))
    unknown = empty.replace(keypoints_xy=np.full((5, 2), np.nan, np.float32))
    assert item(unknown, FACE5).shape == (SIDE, 2 * SIDE, 3)


def test_a_tone_is_a_line_at_its_frequency_and_the_moment_is_marked():
    rate_hz, time_s = 16_000, np.arange(16_000) / 16_000
    shown, note = spectrogram(np.sin(2 * np.pi * 2000 * time_s).astype(np.float32), rate_hz, 0.25)
    height, width = shown.shape[:2]
    brightest = int(shown[:, width // 2 : width // 2 + 60].astype(int).sum((1, 2)).argmax())
    assert 1 - brightest / height == pytest.approx(2000 / 8000, abs=0.03)
    assert (shown[:, int(0.25 * width)] == 255).all()
    assert (shown[:, int(0.5 * width)] == PALE[0]).all()
    assert note == "1.00 s, 16000 Hz; picture at 0.25 s"


def test_long_texts_are_wrapped_and_cut_with_dots():
    assert wrapped("one two three", 7, 3) == ["one two", "three"]
    assert wrapped("a " * 200, 10, 2) == ["a a a a a", "a a a  ..."]
    assert wrapped("x" * 50, 10, 9) == ["x" * 10] * 5


def test_sides_come_from_names_or_from_the_order_of_the_others():
    face = load_schema("face68")
    assert sides(face)[[0, 16, 36, 45, 48, 27]].tolist() == [1, -1, 1, -1, 1, 0]
    assert sides(load_schema("coco17"))[[1, 2, 0]].tolist() == [-1, 1, 0]


def test_items_are_spread_over_the_split_and_over_sheets(tmp_path, mmkp):
    folder, records = good_folder(tmp_path / "data", 30)
    for i, record in enumerate(records):
        record["split"] = "test" if i < 2 else "train"
    write_folder(folder, list(records))
    assert [p.name for p in preview(str(folder), tmp_path / "out", n=30)] == ["preview_01.png", "preview_02.png"]
    code, out, _ = mmkp("data", "preview", folder, "--out", tmp_path / "one", "-n", 5, "--split", "test")
    assert code == 0
    assert "preview.png" in out
    with Image.open(tmp_path / "one" / "preview.png") as sheet:
        assert sheet.width == 2 * 2 * SIDE + 8
    with pytest.raises(InputError, match="split"):
        preview(str(folder), tmp_path / "out", split="tests")


def test_undecodable_pictures_are_absent_in_a_preview(tmp_path):
    folder, _ = good_folder(tmp_path / "data", 2)
    (folder / "0001.jpg").write_bytes(b"")
    assert preview(str(folder), tmp_path / "out")[0].is_file()


def test_convert_and_export_write_what_can_be_read_back(tmp_path, mmkp):
    folder, _ = good_folder(tmp_path / "data", 2)
    Image.fromarray(picture(1)).save(folder / "0000.jpg")
    for to in ("folder", "coco", "parquet"):
        code, out, err = mmkp("data", "export", folder, "--to", to, "--out", tmp_path / to)
        assert (code, "2 rows as" in out) == (0, True), err
    assert len(read_folder(tmp_path / "folder").rows) == 2
    code, _, err = mmkp("data", "convert", folder, "--schema", "coco17", "--out", tmp_path / "coco17")
    assert code == 0, err
    table = read_folder(tmp_path / "coco17")
    names = [n for n, v in zip(table.schema.keypoints, table.rows[0].visible, strict=True) if v]
    assert sorted(names) == ["left_eye", "nose", "right_eye"]
    code, _, err = mmkp("data", "convert", folder, "--schema", "quad4", "--out", tmp_path / "quad")
    assert (code, "none shared" in err) == (2, True)
    code, _, err = mmkp("data", "export", folder, "--to", "folder", "--out", folder / "inside")
    assert (code, json.dumps(err)[:7]) == (2, '"error:')
