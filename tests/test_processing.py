"""The processor: frames, masks, and what it refuses; and the model through transformers' own doors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mmkp
from mmkp import InputError
from mmkp.data.io import check_audio, read_image
from mmkp.media import load_image

RATE = 16_000
LIMIT = 127  # bytes that the byte encoder reads


@pytest.fixture(scope="module")
def processor():
    return mmkp.MmkpProcessor()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return mmkp.MmkpForKeypointDetection(tiny_config()).eval()


def tiny_config(**changes):
    return mmkp.MmkpConfig(
        **{
            "keypoint_schema": mmkp.load_schema("face68").model_dump(mode="json"), "hidden_size": 16,
            "image_config": {"backbone": "mobilenetv3_small_050", "stride": 8}, "text_config": {"layers": 1},
            "audio_config": {"layers": 1}, **changes,
        }
    )  # fmt: skip


def tone(seconds=1.0, rate=RATE):
    return (0.3 * np.sin(np.arange(int(seconds * rate)) * 440 * 2 * np.pi / rate)).astype(np.float32)


@pytest.fixture
def picture(rng):
    return rng.integers(0, 255, (90, 160, 3), dtype=np.uint8)


def test_a_point_of_the_image_comes_back_from_the_input(processor, model, picture):
    """The way there and back for a crop, on the keypoints that the model gives: exact to a hundredth of a pixel."""
    inputs = processor(images=picture, boxes=[30, 10, 64, 50])
    outputs = model(**inputs)
    found = processor.post_process_keypoint_detection(outputs)[0]["keypoints"]
    assert not found.requires_grad
    scale = 128 / 64  # the box's longer side fills the input
    centre = np.array([30 + 32, 10 + 25])
    expected = (outputs.keypoints_xy[0].detach().numpy() - 63.5) / scale + centre
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-2)


def test_what_lies_in_the_box_is_what_the_network_sees(processor):
    """A bright pixel at a known place appears where the affine says."""
    image = np.zeros((100, 100, 3), np.uint8)
    image[60, 40] = 255
    inputs = processor(images=image, boxes=[24, 44, 32, 32])
    bright = inputs["pixel_values"][0, 0]
    row, column = divmod(int(bright.argmax()), 128)
    at = np.array([40, 60, 1]) @ inputs["image_to_input"][0].numpy().T
    np.testing.assert_allclose([column, row], at, atol=2)  # 4 px of the input per pixel of the image
    weights = (bright - bright.min()).numpy()
    centre = [(weights * grid).sum() / weights.sum() for grid in np.mgrid[:128, :128][::-1]]
    np.testing.assert_allclose(centre, at, atol=0.02)


def test_lists_with_holes_become_a_mask(processor, picture):
    inputs = processor(
        images=[picture, None, None], text=["a|b", "c", None], audio=[None, tone(), tone()], sampling_rate=RATE
    )
    assert inputs["modality_mask"].tolist() == [[True, True, False], [False, True, True], [False, False, True]]
    assert inputs["input_features"].shape[:2] == inputs["input_features_mask"].shape


def test_only_what_is_given_is_in_the_inputs(processor):
    assert set(processor(text="hello")) == {"input_ids", "attention_mask", "modality_mask"}


def test_text_alone_lands_in_the_target_size(processor, model):
    outputs = model(**processor(text="hello"))
    found = processor.post_process_keypoint_detection(outputs, target_sizes=[(256, 256)])[0]
    expected = outputs.keypoints_xy[0] * 2 + 0.5  # 256 / 128, pixel centres at whole numbers
    torch.testing.assert_close(found["keypoints"], expected, atol=1e-3, rtol=0)


def test_text_in_a_mixed_batch_lands_where_it_does_alone(processor, model, picture):
    """Its neighbour's picture is none of its business."""
    with torch.no_grad():
        alone = model(**processor(text="hello"))
        mixed = model(**processor(images=[picture, None], text=[None, "hello"]))
    sizes = [picture.shape[:2], (480, 640)]
    one = processor.post_process_keypoint_detection(alone, target_sizes=sizes[1:])[0]
    two = processor.post_process_keypoint_detection(mixed, target_sizes=sizes)[1]
    torch.testing.assert_close(two["keypoints"], one["keypoints"], atol=1e-2, rtol=0)


def test_sound_as_16_bit_integers_is_the_same_sound(processor):
    wave = tone()
    a = processor(audio=wave, sampling_rate=RATE)["input_features"]
    b = processor(audio=(wave * 32_768).astype(np.int16), sampling_rate=RATE)["input_features"]
    assert (a - b).abs().max() < 0.3
    assert (a - b).abs().mean() < 0.02


def test_a_16_bit_picture_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_image(tmp_path / "deep.png")[0, :, 0], np.arange(256), atol=1)
    np.testing.assert_array_equal(load_image(Image.open(tmp_path / "deep.png")), read_image(tmp_path / "deep.png"))


def test_a_picture_of_fractions_is_refused(tmp_path):
    fractions = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    fractions.save(tmp_path / "f.tif")
    for source in (tmp_path / "f.tif", fractions):
        with pytest.raises(InputError, match=r"^image.*: expected a picture of 8 or 16 bits, got one of fractions"):
            load_image(source)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_pictures_of_other_modes_are_read(mode, tmp_path):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    assert read_image(path).shape == (4, 5, 3)
    assert read_image(path).min() > 250


def test_sound_is_heard_around_its_moment(processor):
    """Silence with a tone in its second half: heard at 0.75 s, not at 0.25 s; and the end is masked."""
    sound = np.concatenate([np.zeros(RATE // 2, np.float32), tone(0.5)])
    early, late = (
        processor(audio=sound, sampling_rate=RATE, audio_times=[t])["input_features"].max().item() for t in (0.25, 0.75)
    )
    assert early < -1.5
    assert late > 0.5
    mask = processor(audio=sound, sampling_rate=RATE, audio_times=[1.0])["input_features_mask"][0]
    assert mask.float().mean() == pytest.approx(0.5, abs=0.03)


def test_another_rate_is_resampled(processor):
    a = processor(audio=tone(1, RATE), sampling_rate=RATE)["input_features"]
    b = processor(audio=tone(1, 44_100), sampling_rate=44_100)["input_features"]
    loud = a > 0.5
    assert loud.any()
    assert (a - b)[loud].abs().mean() < 0.05


def test_the_same_through_save_and_auto_classes_in_a_fresh_process(processor, model, picture, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    np.save(tmp_path / "picture.npy", picture)
    code = (
        "import sys, numpy as np, torch, mmkp; mmkp.register()\n"
        "from transformers import AutoModelForKeypointDetection, AutoProcessor, AutoConfig\n"
        "f = sys.argv[1]; p = AutoProcessor.from_pretrained(f)\n"
        "m = AutoModelForKeypointDetection.from_pretrained(f).eval()\n"
        "assert type(p).__name__ == 'MmkpProcessor' and AutoConfig.from_pretrained(f).model_type == 'mmkp'\n"
        "i = p(images=np.load(f + '/picture.npy'), text='bin bl|ue', return_tensors='pt')\n"
        "np.save(f + '/out.npy', m(**i).keypoints_xy.detach().numpy())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    expected = model(**processor(images=picture, text="bin bl|ue")).keypoints_xy.detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-3)


def test_pil_and_grey_pictures(processor, picture):
    a = processor(images=Image.fromarray(picture))["pixel_values"]
    torch.testing.assert_close(a, processor(images=picture)["pixel_values"])
    assert processor(images=picture[..., 0])["pixel_values"].shape == (1, 3, 128, 128)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "an image, a text or a sound"),
        ({"text": ["a", None]}, "none for item 1"),
        ({"text": ["a"], "images": []}, "lists of one length"),
        ({"text": ""}, "Leave the text out"),
        ({"text": "  "}, "Leave the text out"),
        ({"text": "x" * 10_000}, "at most 128 tokens, got 10001"),
        ({"images": np.zeros((4, 4, 3))}, "uint8 array"),
        ({"images": np.zeros((0, 4, 3), np.uint8)}, "uint8 array"),
        ({"images": "photo.jpg"}, "PIL picture"),
        ({"images": np.zeros((9, 9, 3), np.uint8), "boxes": [0, 0, 0, 5]}, "with an area"),
        ({"images": np.zeros((9, 9, 3), np.uint8), "boxes": [0, 0, float("nan"), 5]}, "with an area"),
        ({"audio": tone()}, "the sound's rate"),
        ({"audio": np.zeros(0, np.float32), "sampling_rate": RATE}, "at least 25 ms"),
        ({"audio": np.zeros(1, np.float32), "sampling_rate": RATE}, "at least 25 ms"),
        ({"audio": np.zeros((RATE, 8), np.float32), "sampling_rate": RATE}, "one channel"),
        ({"audio": np.full(RATE, np.nan, np.float32), "sampling_rate": RATE}, "NaN or infinite"),
        ({"audio": tone(), "sampling_rate": 0}, "sampling rate"),
        (
            {"audio": tone(), "sampling_rate": RATE, "audio_times": [99.0]},
            "a moment of the sound, 1.00 s long, got 99.0",
        ),
        ({"audio": tone(), "sampling_rate": RATE, "audio_times": -0.5}, "a moment of the sound"),
        ({"audio": tone(), "sampling_rate": RATE, "audio_times": float("nan")}, "a moment of the sound"),
        ({"text": ["a", "b"], "boxes": [0, 0, 5, 5]}, "one for each of 2 items"),
        ({"text": [3]}, "a string"),
        ({"text": "\udcff"}, "no UTF-8"),
    ],
)
def test_bad_input_is_one_clear_error(processor, inputs, message):
    with pytest.raises(InputError, match=message):
        processor(**inputs)


def test_the_model_without_any_modality(model):
    with pytest.raises(InputError, match="at least one of image, text, audio"):
        model()


def test_a_specialist_ignores_what_it_has_no_encoder_for(processor, picture):
    torch.manual_seed(0)
    alone = mmkp.MmkpForKeypointDetection(tiny_config(modalities=("image",))).eval()
    assert set(alone.encoders) == {"image"}
    with_text = alone(**processor(images=picture, text="a|b")).keypoints_xy
    torch.testing.assert_close(with_text, alone(**processor(images=picture)).keypoints_xy)


def test_transformers_trainer_trains_it(processor, picture, tmp_path):
    """Thirty steps of transformers.Trainer on one picture: the loss falls."""
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    model = mmkp.MmkpForKeypointDetection(tiny_config(modalities=("image", "text")))
    inputs = {k: v[0] for k, v in processor(images=picture, text="a|b").items()}
    points = torch.rand(68, 2) * 128
    item = {**inputs, "labels": torch.cat([points, torch.full((68, 1), 2.0)], -1)}
    arguments = TrainingArguments(
        tmp_path, max_steps=30, per_device_train_batch_size=4, learning_rate=3e-3, logging_steps=1, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=[item] * 120)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < 0.85 * losses[0]
    assert trainer.evaluate([item] * 4)["eval_loss"] > 0


def test_a_text_is_cut_to_whole_words_around_its_cursor(processor):
    words = [f"word{i}" for i in range(60)]
    words[40] = "wo|rd40"
    made = processor.fitting(" ".join(words))
    assert LIMIT - 14 < len(made) <= LIMIT
    assert "wo|rd40" in made
    kept = made.split()
    first = words.index(kept[0])
    assert kept == words[first : first + len(kept)]
    assert abs(made.index("|") - len(made) / 2) < 14  # as much before as after


def test_a_text_without_cursor_keeps_its_first_words(processor):
    made = processor.fitting("left shoulder of the person " * 20)
    assert made != "left shoulder of the person " * 20
    assert ("left shoulder of the person " * 20).startswith(made)
    assert LIMIT - 14 < len(made) <= LIMIT


def test_a_word_longer_than_the_encoder_takes_is_cut(processor):
    assert processor.fitting("x" * 300) == "x" * LIMIT
    assert "|" in processor.fitting("\u00e9" * 200 + "|" + "\u00e9" * 200)
    assert len(processor.fitting("\u00e9" * 200 + "|" + "\u00e9" * 200).encode()) in (LIMIT, LIMIT - 2)


@given(st.text(min_size=1, max_size=400).filter(lambda t: t.strip() and t.isprintable()))
def test_any_cut_text_is_taken_and_is_the_longest(text):
    processor = mmkp.MmkpProcessor()
    made = processor.fitting(text)
    assert made in text
    assert processor.texts([made])["input_ids"].shape[1] <= LIMIT + 1
    assert (made == text) == (len(text.encode()) <= LIMIT)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("aaa bbb c|c " + "x" * 200, "aaa bbb c|c"),
        ("x" * 200 + " c|c ddd eee", "c|c ddd eee"),
        ("a | " + "x" * 110 + " " + "y" * 40, "a | " + "x" * 110),
    ],
    ids=["before", "after", "all of one side"],
)
def test_a_long_word_on_one_side_does_not_cost_the_other(processor, text, kept):
    assert processor.fitting(text) == kept


def test_an_unknown_keyword_is_refused_by_name(processor, picture):
    with pytest.raises(InputError, match="got 'box'. Did you mean 'boxes'"):
        processor(images=picture, box=[0, 0, 10, 10])
    with pytest.raises(InputError, match="return_tensors: expected pt or np, got 'tf'"):
        processor(images=picture, return_tensors="tf")
    assert processor(text="a|b", padding=True, return_attention_mask=True)["input_ids"].shape == (1, 4)
    with pytest.raises(InputError, match="at most 128 tokens"):
        processor(text="word " * 60, truncation="do_not_truncate")


def test_a_long_text_is_refused_unless_it_may_be_cut(processor):
    with pytest.raises(InputError, match="at most 128 tokens"):
        processor(text="word " * 60)
    cut = processor(text=["word " * 60, None], images=[None, np.zeros((8, 8, 3), np.uint8)], truncation=True)
    assert cut["input_ids"].shape[1] <= 128
    assert cut["modality_mask"].tolist() == [[False, True, False], [True, False, False]]


def test_arrays_where_they_are_asked_for(processor, picture):
    arrays = processor(images=picture, text="a|b", return_tensors="np")
    tensors = processor(images=picture, text="a|b")
    assert set(arrays) == set(tensors)
    for name, value in arrays.items():
        assert isinstance(value, np.ndarray)
        np.testing.assert_array_equal(value, tensors[name].numpy())


def test_px_stay_exact_in_half_precision(processor):
    inputs = processor(images=np.zeros((1100, 40, 3), np.uint8), boxes=[0.1, 1000.7, 33.3, 44.4])
    exact = inputs["image_to_input"].clone()
    half = inputs.to(torch.float16)
    assert half is inputs
    assert half["pixel_values"].dtype == torch.float16
    assert torch.equal(half["image_to_input"], exact)


@pytest.mark.parametrize("form", [np.ndarray.tolist, list], ids=["plain numbers", "numpy's numbers"])
def test_a_sound_as_a_list_is_one_sound(processor, form):
    made = processor(audio=form(tone()), sampling_rate=(RATE,))
    assert torch.equal(made["input_features"], processor(audio=tone(), sampling_rate=RATE)["input_features"])
    with pytest.raises(InputError, match="one, or one for each of 2 items, got 3"):
        processor(audio=[tone(), tone()], sampling_rate=np.array([RATE] * 3))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.uint16])
def test_whole_numbers_are_samples_of_full_scale(processor, dtype):
    """8 bits are unsigned around 128, as WAV has them; the silence of any form is silence."""
    info = np.iinfo(dtype)
    half = 2 ** (info.bits - 1)
    whole = np.rint(tone().astype(np.float64) * half + (half if info.min == 0 else 0))
    exact = np.abs(check_audio(whole.clip(info.min, info.max).astype(dtype), RATE) - tone()).max()
    assert exact <= 0.51 / half + 1e-7
    silence = np.full(RATE, half if info.min == 0 else 0, dtype)
    assert not check_audio(silence, RATE).any()


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (tone() * 32768, r"samples in \[-1, 1\], got up to 9830.*Divide them by their full scale"),
        (tone().astype(np.complex64), "real numbers, got complex64"),
        (tone() > 0, "real numbers, got bool"),
        (np.arange(RATE), "8, 16 or 32 bits, whose full scale is known, got int64"),
        ([0.1, "x"] * 400, "numbers alone in a list of samples"),
    ],
)  # fmt: skip
def test_samples_of_another_scale_or_kind_are_refused(processor, samples, words):
    with pytest.raises(InputError, match=words):
        processor(audio=samples, sampling_rate=RATE)


@pytest.mark.parametrize("sizes", [[], [(10, 10), (20, 20)], (10,)])
def test_sizes_are_one_for_each_item(processor, model, picture, sizes):
    outputs = model(**processor(images=picture))
    with pytest.raises(InputError, match="target_sizes: expected \\(height, width\\) for each of 1 items"):
        processor.post_process_keypoint_detection(outputs, target_sizes=sizes)
