"""Forms in which pictures, sounds, boxes and rates come from other libraries, in processor and pipeline."""

from __future__ import annotations

# ruff: noqa: F811, because fixtures are imported
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from test_processing import model, processor  # noqa: F401

import mmkp
from mmkp import InputError
from mmkp.media import from_cli, load_audio, load_image

RATE = 16_000
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 255, (40, 60, 3)).astype(np.uint8)
SOUND = (0.1 * RNG.normal(size=RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def pipe(model, processor):
    return mmkp.KeypointDetectionPipeline(model=model, processor=processor)


@pytest.mark.parametrize(
    "form",
    [
        torch.from_numpy(PICTURE),
        torch.from_numpy(PICTURE).permute(2, 0, 1),
        [torch.from_numpy(PICTURE).permute(2, 0, 1)],
        (image for image in [PICTURE]),
    ],
    ids=["tensor (H, W, 3)", "tensor (3, H, W)", "list", "generator"],
)
def test_pictures(processor, form):
    made, expected = processor(images=form), processor(images=PICTURE)
    assert torch.equal(made["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize("box", [{"x": 5, "y": 4, "width": 30, "height": 20}, np.array([5, 4, 30, 20], np.int64)])
def test_boxes(processor, box):
    expected = processor(images=PICTURE, boxes=[5, 4, 30, 20])["image_to_input"]
    assert torch.equal(processor(images=PICTURE, boxes=box)["image_to_input"], expected)
    assert torch.equal(processor(images=[PICTURE], boxes=[box])["image_to_input"], expected)


@pytest.mark.parametrize(
    ("samples", "rate", "moment"),
    [
        (SOUND[None], RATE, 0.25),
        (torch.from_numpy(SOUND)[None], torch.tensor(RATE), np.float32(0.25)),
        (np.stack([SOUND, SOUND]), np.int64(RATE), np.float64(0.25)),
        (np.stack([SOUND, SOUND], 1), float(RATE), [0.25]),
    ],
    ids=["torchaudio's", "tensors", "two channels first", "two channels last"],
)
def test_sounds(processor, samples, rate, moment):
    expected = processor(audio=SOUND, sampling_rate=RATE, audio_times=0.25)["input_features"]
    made = processor(audio=samples, sampling_rate=rate, audio_times=moment)["input_features"]
    torch.testing.assert_close(made, expected)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"images": 5}, "expected a PIL picture"),
        ({"images": np.zeros((0, 0), np.uint8)}, "expected a PIL picture"),
        ({"images": torch.rand(3, 8, 8)}, "image \\* 255"),
        ({"text": 5}, "expected a string, got int"),
        ({"text": {"a": 1}}, "expected a string, got dict"),
        ({"audio": SOUND, "sampling_rate": "16000"}, "a whole number of Hz, got '16000'"),
        ({"audio": SOUND, "sampling_rate": 16000.5}, "a whole number of Hz"),
        ({"audio": SOUND, "sampling_rate": True}, "a whole number of Hz"),
        ({"images": [PICTURE], "boxes": ["1,2,3,4"]}, "x, y, width, height"),
        ({"images": PICTURE, "boxes": {"x": 1, "y": 2}}, "x, y, width, height"),
        ({"images": PICTURE, "boxes": [1000, 2000, 30, 40]}, "one within 60 x 40 px"),
        ({"images": PICTURE, "boxes": [-30, 0, 29, 40]}, "one within 60 x 40 px"),
    ],
)
def test_what_is_none_of_them_is_named(processor, inputs, message):
    with pytest.raises(InputError, match=message):
        processor(**inputs)


def test_a_box_that_touches_the_picture_is_taken(processor):
    crop = processor(images=PICTURE, boxes=[-30, -20, 31, 40])["pixel_values"]
    assert crop.std() > 0  # the picture's corner is in it


def test_a_picture_that_would_be_turned_is_told(processor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "phone.png", exif=exif)
    opened = Image.open(tmp_path / "phone.png")
    with pytest.warns(UserWarning, match="exif_transpose"):
        as_it_lies = processor(images=opened)["pixel_values"]
    assert torch.equal(as_it_lies, processor(images=PICTURE)["pixel_values"])
    upright = processor(images=load_image(tmp_path / "phone.png"))["pixel_values"]
    assert torch.equal(upright, processor(images=np.rot90(PICTURE, -1).copy())["pixel_values"])


def test_what_looks_like_a_special_token_is_text(processor):
    """Of a tokenizer of bytes: 3 more than the byte, and 1 for the end."""
    coded = processor(text=["a</s>b", "<pad>"])
    expected = [byte + 3 for byte in b"a</s>b"]
    assert coded["input_ids"][0].tolist() == [*expected, 1]
    assert coded["attention_mask"].sum(1).tolist() == [7, 6]


def test_the_models_own_door(model, processor):
    inputs = processor(images=PICTURE)
    whole = model(**inputs)
    parts = model(**inputs, return_dict=False)
    assert isinstance(parts, tuple)
    assert torch.equal(parts[0], whole.keypoints_xy)
    with pytest.raises(InputError, match=r"pixel_values: expected \(B, 3, 128, 128\), got \(1, 3, 96, 96\)"):
        model(pixel_values=torch.zeros(1, 3, 96, 96))


def test_open_files_and_file_urls(pipe, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a b.png")
    soundfile.write(tmp_path / "s.wav", SOUND, RATE, subtype="FLOAT")
    expected = pipe(PICTURE, audio=(SOUND, RATE))
    file = io.BytesIO((tmp_path / "a b.png").read_bytes())
    assert pipe({"image": file, "audio": io.BytesIO((tmp_path / "s.wav").read_bytes())}) == expected
    with (tmp_path / "a b.png").open("rb") as opened:
        np.testing.assert_array_equal(load_image(opened), PICTURE)
    np.testing.assert_array_equal(load_image((tmp_path / "a b.png").as_uri()), PICTURE)
    assert load_audio((tmp_path / "s.wav").as_uri())[1] == RATE
    assert pipe((tmp_path / "a b.png").as_uri()) == pipe(PICTURE)
    with pytest.raises(InputError, match="expected a file, got none there"):
        load_image("file:///nowhere/a.png")
    with pytest.raises(InputError, match="opened for bytes"):
        load_image(io.StringIO("text"))


def test_numpys_numbers_are_numbers(pipe):
    assert pipe(PICTURE, threshold=np.float32(0), top_k=np.int64(1)) == pipe(PICTURE, threshold=0.0, top_k=1)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("https://host/a.png", "https://host/a.png"),
        ("http://h:80//x.png", "http://h:80/x.png"),
        ("a/b.png", Path("a/b.png")),
    ],
)
def test_a_url_on_the_command_line(typed, meant):
    assert from_cli(Path(typed)) == meant
