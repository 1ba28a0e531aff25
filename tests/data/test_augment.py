"""Augmentation is exact: points stay on what they mark, a flip twice is nothing, off means off."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mmkp import geometry
from mmkp.data import augment_image
from mmkp.data.augment import AugmentConfig, Augmenter, rng_for, spec_augment
from mmkp.data.augment_audio import NOISES, augment_audio, noise
from mmkp.data.augment_text import drop_words, swap_sides
from mmkp.data.sample import Sample
from mmkp.data.window import window
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema, load_schema

OFF = AugmentConfig.off()
SEEDS = st.integers(0, 2**32 - 1)
SCHEMA = KeypointSchema(name="pair", keypoints=("left_hand", "right_hand", "head"), flip_pairs=((0, 1),))
RATE = 16_000


def config(**changes: object) -> AugmentConfig:
    """Nothing but what is named."""
    return AugmentConfig.model_validate({**OFF.model_dump(), **changes})


def smooth(size_hw: tuple[int, int] = (144, 180), seed: int = 0) -> np.ndarray:
    noisy = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    return np.ascontiguousarray(cv2.GaussianBlur(noisy, (0, 0), 2))


def voice(seconds: float = 2.0) -> np.ndarray:
    return (0.1 * np.random.default_rng(7).standard_normal(round(seconds * RATE))).astype(np.float32)


def sample(**changes: object) -> Sample:
    points = np.array([[60, 70], [110.5, 65.25], [88, 40]], np.float32)
    box = np.array([30.0, 10.0, 120.0, 120.0])
    made = Sample("i", "g", points, np.full(3, 2, np.uint8), box, smooth(), voice(), RATE, 1.0, "the le|ft hand")
    return made.replace(**changes)


# --- geometry


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_points_come_back_to_the_image(seed: int) -> None:
    made = Augmenter(config(rotate_deg=90, scale=0.5, shift=0.3, flip=0.5, crop=0.5), SCHEMA, (96, 128))(
        sample(), np.random.default_rng(seed)
    )
    back = geometry.input_to_image(made.keypoints_xy.astype(np.float64), made.image_to_input)
    order = SCHEMA.flip_index if made.flipped else slice(None)
    assert np.abs(back[order] - sample().keypoints_xy).max() < 1e-3


@given(SEEDS, st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_a_keypoint_stays_on_what_it_marks(seed: int, which: int) -> None:
    """A blob drawn at a point is found at the point after turning, scaling, shifting and flipping."""
    points = sample().keypoints_xy.astype(np.float64)
    y, x = np.mgrid[0:144, 0:180]
    blob = 255 * np.exp(-((x - points[which, 0]) ** 2 + (y - points[which, 1]) ** 2) / (2 * 3.0**2))
    image = np.repeat(np.rint(blob).astype(np.uint8)[..., None], 3, axis=2)
    chance = np.random.default_rng(seed)
    made = Augmenter(config(rotate_deg=40, scale=0.3, shift=0.1, flip=0.5), SCHEMA, (128, 128))(
        sample(image=image), chance
    )
    found = int(SCHEMA.flip_index[which]) if made.flipped else which
    weights = made.image[..., 0].astype(np.float64)
    if (made.keypoints_xy[found] < 15).any() or (made.keypoints_xy[found] > 112).any():
        return  # the blob is cut by the frame
    rows, columns = np.mgrid[0:128, 0:128]
    centroid = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    assert np.abs(centroid - made.keypoints_xy[found]).max() < 0.15


@pytest.mark.parametrize("size_hw", [(64, 64), (64, 65), (33, 48)])
def test_flip_twice_is_nothing(size_hw: tuple[int, int]) -> None:
    flip = Augmenter(config(flip=1), SCHEMA, size_hw)
    whole = geometry.whole_image_box(size_hw)
    start = sample(image=smooth(size_hw), box_xywh=whole, text="Left hand, right foot")
    once = flip(start, rng_for(0, 0, 0))
    assert once.flipped and once.text == "Right hand, left foot"
    assert np.array_equal(once.image, start.image[:, ::-1])
    assert once.keypoints_xy[0] == pytest.approx([size_hw[1] - 1 - 110.5, 65.25])  # the left hand was the right one
    again = start.replace(image=once.image, keypoints_xy=once.keypoints_xy, text=once.text)
    twice = flip(again, rng_for(0, 0, 1))
    assert np.array_equal(twice.image, start.image)
    assert np.allclose(twice.keypoints_xy, start.keypoints_xy, atol=1e-4)
    assert twice.text == start.text


@pytest.mark.parametrize("size_hw", [(96, 96), (97, 75)])
def test_a_flipped_crop_is_the_mirrored_crop(size_hw: tuple[int, int]) -> None:
    plain = Augmenter(OFF, SCHEMA, size_hw)(sample(), rng_for(0, 0, 0))
    flipped = Augmenter(config(flip=1), SCHEMA, size_hw)(sample(), rng_for(0, 0, 0))
    assert np.array_equal(flipped.image, plain.image[:, ::-1])
    assert np.allclose(flipped.keypoints_xy[[1, 0, 2], 0], size_hw[1] - 1 - plain.keypoints_xy[:, 0], atol=1e-3)


def test_off_is_the_plain_crop() -> None:
    start = sample()
    made = Augmenter(OFF, SCHEMA, (100, 120))(start, rng_for(3, 1, 4))
    affine = geometry.crop_affine(start.box_xywh, (100, 120))
    assert np.array_equal(made.image, geometry.warp(start.image, affine, (100, 120)))
    assert np.array_equal(made.image_to_input, affine)
    assert np.allclose(made.keypoints_xy, geometry.transform(start.keypoints_xy, affine), atol=1e-4)
    assert made.text == start.text and made.audio is start.audio and made.audio_time_s == start.audio_time_s
    assert made.visible.tolist() == [2, 2, 2] and made.modality_mask.all() and not made.flipped


def test_no_flip_without_pairs() -> None:
    bare = KeypointSchema(name="bare", keypoints=("a", "b", "c"))
    made = [Augmenter(config(flip=1), bare, (64, 64))(sample(), rng_for(0, 0, i)) for i in range(5)]
    assert not any(m.flipped for m in made) and made[0].text == "the le|ft hand"


def test_nothing_turns_when_the_image_is_not_shown() -> None:
    wild = Augmenter(config(rotate_deg=90, shift=0.3, flip=1, crop=1, drop_image=1), SCHEMA, (64, 64))
    for start in (sample(), sample(image=None)):
        made = wild(start, rng_for(0, 0, 0))
        assert made.image is None and not made.flipped
        assert np.array_equal(made.image_to_input, geometry.crop_affine(start.box_xywh, (64, 64)))


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_half_crop_enlarges_twofold_and_keeps_a_point(seed: int) -> None:
    made = Augmenter(config(crop=1), SCHEMA, (96, 96))(sample(), np.random.default_rng(seed))
    plain = geometry.crop_affine(sample().box_xywh, (96, 96))
    assert made.image_to_input[0, 0] == pytest.approx(2 * plain[0, 0])
    inside = ((made.keypoints_xy >= -0.5) & (made.keypoints_xy <= 95.5)).all(axis=1)
    assert inside.any()
    assert np.array_equal(made.visible == 2, inside)
    corners = geometry.transform(
        np.array([[-0.5, -0.5], [95.5, 95.5]]), geometry.compose(plain, geometry.invert(made.image_to_input))
    )
    assert corners.min() >= -0.5 - 1e-6 and corners.max() <= 95.5 + 1e-6


def test_unlabelled_points_stay_unlabelled() -> None:
    points = sample().keypoints_xy.copy()
    points[0] = np.nan
    start = sample(keypoints_xy=points, visible=np.array([0, 2, 1], np.uint8))
    made = Augmenter(config(flip=1), SCHEMA, (64, 64))(start, rng_for(0, 0, 0))
    assert np.isnan(made.keypoints_xy[1]).all() and np.isfinite(made.keypoints_xy[[0, 2]]).all()
    assert made.visible.tolist() == [2, 0, 1]


# --- determinism and modalities


def test_same_generator_same_sample() -> None:
    everything = AugmentConfig(
        crop=0.3, cover=0, occluders=0.5, grey=0.3, blur=0.5, jpeg=0.5, low_resolution=0.5, audio_noise=1,
        audio_shift_ms=40, text_drop_words=0.3, drop_image=0.1, drop_audio=0.1,
    )  # fmt: skip
    augmenter = Augmenter(everything, SCHEMA, (64, 64))
    backwards = {i: augmenter(sample(), rng_for(1, 2, i)) for i in reversed(range(20))}
    for i in range(20):
        one, two = augmenter(sample(), rng_for(1, 2, i)), backwards[i]
        for name, value in vars(one).items():
            assert np.array_equal(value, getattr(two, name)), name
    assert rng_for(1, 2, 3).random() != rng_for(1, 3, 2).random()


@given(SEEDS, st.sets(st.sampled_from(["image", "text", "audio"])))
@settings(max_examples=60, deadline=None)
def test_never_all_modalities_dropped(seed: int, absent: set[str]) -> None:
    start = sample(**dict.fromkeys(absent))
    made = Augmenter(config(drop_image=1, drop_text=1, drop_audio=1), SCHEMA, (32, 32))(
        start, np.random.default_rng(seed)
    )
    assert made.modality_mask.sum() == (len(absent) < 3)
    shown = [made.image is not None, made.text is not None, made.audio is not None]
    assert made.modality_mask.tolist() == shown
    assert not (made.modality_mask & ~np.array(start.present)).any()


def test_dropout_frequencies() -> None:
    augmenter = Augmenter(config(drop_image=1, drop_text=1, drop_audio=1), SCHEMA, (16, 16))
    survivors = np.sum([augmenter(sample(), rng_for(0, 0, i)).modality_mask for i in range(600)], axis=0)
    assert (np.abs(survivors - 200) < 50).all()  # four standard deviations of a third of 600 are 46
    rare = Augmenter(config(drop_text=0.25), SCHEMA, (16, 16))
    kept = np.sum([rare(sample(), rng_for(0, 0, i)).modality_mask for i in range(600)], axis=0)
    assert kept[0] == kept[2] == 600 and abs(kept[1] - 450) < 43


# --- pictures


def test_colour_matrix_values() -> None:
    """Grey keeps luma, hue keeps greys, a bound of brightness is met."""
    matrix = augment_image.colour_matrix(config(grey=1), rng_for(0, 0, 0))
    assert matrix[:, :3] @ [10, 200, 30] == pytest.approx(np.full(3, 0.299 * 10 + 0.587 * 200 + 0.114 * 30))
    turned = augment_image.colour_matrix(config(hue_deg=90), rng_for(0, 0, 1))
    assert turned[:, :3] @ [70, 70, 70] == pytest.approx([70, 70, 70])
    assert np.abs(turned[:, :3] - np.eye(3)).max() > 0.05
    gains = [augment_image.colour_matrix(config(brightness=0.3), rng_for(0, 0, i))[0, 0] for i in range(200)]
    assert 0.7 <= min(gains) < 0.75 and 1.25 < max(gains) <= 1.3
    contrast = augment_image.colour_matrix(config(contrast=0.4), rng_for(0, 0, 2))
    assert contrast @ [127.5, 127.5, 127.5, 1] == pytest.approx([127.5] * 3)
    assert augment_image.colour_matrix(OFF, rng_for(0, 0, 0)) is None


def test_noise_has_the_drawn_strength_in_every_channel() -> None:
    flat = np.full((128, 96, 3), 128, np.uint8)
    noisy = augment_image._noisy(flat, 6.0, rng_for(0, 0, 0)).astype(float) - 128
    assert noisy.std((0, 1)) == pytest.approx([6, 6, 6], rel=0.05)
    assert np.abs(noisy.mean((0, 1))).max() < 0.25
    other = augment_image._noisy(flat, 6.0, rng_for(0, 0, 1)).astype(float) - 128
    assert abs(np.corrcoef(noisy.ravel(), other.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("change", ["blur", "low_resolution", "jpeg"])
def test_camera_faults_lose_detail_and_keep_place(change: str) -> None:
    rows, columns = np.mgrid[0:64, 0:80]
    blob = 250 * np.exp(-((columns - 37.3) ** 2 + (rows - 30.6) ** 2) / (2 * 6.0**2))
    image = np.repeat(np.rint(blob).astype(np.uint8)[..., None], 3, axis=2)
    image[5:9, 5:9] = 255  # detail to lose, outside of where the centroid is taken
    extra = {"blur_sigma_px": 4.0, "low_resolution_factor": 4.0, "jpeg_quality": (5, 10)}
    out = augment_image.camera(image, config(**{change: 1}, **extra), rng_for(0, 0, 4))
    assert out.shape == image.shape and np.abs(out.astype(int) - image)[:14, :14].mean() > 0.5
    weights = np.where((rows > 11) & (columns > 18), out[..., 1].astype(float), 0)
    weights[weights < 20] = 0  # JPEG's ringing
    centroid = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    assert centroid == pytest.approx([37.3, 30.6], abs=0.3)


def test_jpeg_keeps_red_red() -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    out = augment_image.camera(red, config(jpeg=1), rng_for(0, 0, 0))
    assert np.abs(out.astype(int) - red).max() < 10


def test_occluders_hide_points_they_lie_on() -> None:
    augmenter = Augmenter(config(occluders=1, occluder_size=0.5), SCHEMA, (64, 64))
    plain = Augmenter(OFF, SCHEMA, (64, 64))(sample(), rng_for(0, 0, 0))
    columns, rows = np.rint(plain.keypoints_xy).astype(int).T
    hidden = 0
    for i in range(60):
        made = augmenter(sample(), rng_for(0, 0, i))
        unchanged = (made.image == plain.image).all(axis=2)
        assert unchanged[rows, columns][made.visible == 2].all()
        hidden += int((made.visible == 1).sum())
    assert 20 < hidden < 160  # of 180


def test_cover_in_training() -> None:
    points = np.random.default_rng(0).uniform(60, 120, (68, 2)).astype(np.float32)
    points[36:42], points[42:48] = (70, 50), (110, 50)
    points[36], points[45], points[48:68] = (62, 50), (118, 50), (90, 103)
    start = sample(keypoints_xy=points, visible=np.full(68, 2, np.uint8))
    augmenter = Augmenter(config(cover=1, flip=0.5), load_schema("face68"), (96, 96))
    made = [augmenter(start, rng_for(0, 0, i)) for i in range(20)]
    assert all((m.visible[48:68] == 1).all() and (m.visible[36:48] == 2).all() for m in made)
    assert len({m.image[66:72, 45:51].tobytes() for m in made}) > 10  # a fresh cover each time
    points[40] = np.nan
    uncovered = augmenter(start.replace(keypoints_xy=points), rng_for(0, 0, 0))
    assert (uncovered.visible == 2).sum() >= 67
    with pytest.raises(InputError, match="face68"):
        Augmenter(config(cover=0.5), SCHEMA, (96, 96))


# --- words


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("left", "right"),
        ("Left RIGHT left.", "Right LEFT right."),
        ("le|ft", "ri|ght"),
        ("righ|t foot", "lef|t foot"),
        ("|left right|", "|right left|"),
        ("LE|FT", "RI|GHT"),
        ("left_wrist, left-handed", "right_wrist, right-handed"),
        ("leftovers, bright, over|left, left|over, cleft", "leftovers, bright, over|left, left|over, cleft"),
        ("", ""),
        ("soon |", "soon |"),
    ],
)
def test_swap_sides(text: str, swapped: str) -> None:
    assert swap_sides(text) == swapped


@given(st.lists(st.sampled_from(["left", "Right", "RIGHT", "hand", "|", "le|ft", "l|eft", "rig|h", "x"]), max_size=8))
def test_swap_twice_is_nothing(words: list[str]) -> None:
    text = " ".join(words)
    assert swap_sides(swap_sides(text)) == text
    assert swap_sides(text).count("|") == text.count("|")


@given(SEEDS, st.floats(0, 1))
def test_dropping_words_keeps_the_cursor_and_a_word(seed: int, probability: float) -> None:
    text = "bin bl|ue at f two now"
    words = drop_words(text, probability, np.random.default_rng(seed)).split()
    assert sum(word.count("|") for word in words) == 1
    assert any(word != "|" for word in words)
    assert [w for w in text.split() if w in words] == [w for w in words if w != "|"]
    assert drop_words("|", 1.0, np.random.default_rng(seed)) == "|"


def test_text_without_times() -> None:
    augmenter = Augmenter(config(text_no_times=1), SCHEMA, (16, 16))
    assert augmenter(sample(text_controls={"no_times": "the left hand"}), rng_for(0, 0, 0)).text == "the left hand"
    assert augmenter(sample(), rng_for(0, 0, 0)).text == "the le|ft hand"


# --- sound


@pytest.mark.parametrize("kind", NOISES)
@given(SEEDS, st.floats(-5, 40))
@settings(max_examples=20, deadline=None)
def test_snr_as_asked(kind: str, seed: int, snr_db: float) -> None:
    audio = voice()
    power = float(np.mean(audio.astype(np.float64) ** 2))
    made = noise(kind, audio, 8000, power, snr_db, np.random.default_rng(seed))
    measured = 10 * np.log10(power / np.mean(made.astype(np.float64) ** 2))
    assert measured == pytest.approx(snr_db, abs=0.2)


@pytest.mark.parametrize("gain_db", [0.0, 6.0])
def test_noise_lands_in_the_window_and_nowhere_else(gain_db: float) -> None:
    audio = voice()
    made = augment_audio(audio, RATE, 1.0, config(audio_noise=1, snr_db=(10, 10), gain_db=gain_db), rng_for(0, 0, 5))
    changed = np.flatnonzero(made != audio)
    assert changed.min() >= RATE * 0.7 - 1 and changed.max() <= RATE * 1.3  # 0.25 s and a margin of 0.05 s each way
    assert len(changed) > 0.95 * 0.6 * RATE
    if gain_db == 0:
        added = (made - audio)[changed.min() : changed.max() + 1]
        ratio = 10 * np.log10(np.mean(audio.astype(np.float64) ** 2) / np.mean(added.astype(np.float64) ** 2))
        assert ratio == pytest.approx(10, abs=0.2)


def test_sound_stays_in_range_and_silence_stays_silent() -> None:
    loud = np.sin(np.arange(RATE) / 5).astype(np.float32)
    for i in range(20):
        made = augment_audio(loud, RATE, 0.5, config(audio_noise=1, snr_db=(0, 0), gain_db=20), rng_for(0, 0, i))
        assert np.abs(made).max() <= 1 + 1e-6
    silence = np.zeros(RATE, np.float32)
    assert not augment_audio(silence, RATE, 0.5, config(audio_noise=1), rng_for(0, 0, 0)).any()
    empty = np.zeros(0, np.float32)
    assert len(augment_audio(empty, RATE, None, AugmentConfig(audio_noise=1), rng_for(0, 0, 0))) == 0


def test_gain_bounds() -> None:
    audio = 0.01 * np.ones(RATE, np.float32)
    gains = [augment_audio(audio, RATE, 0.5, config(gain_db=6), rng_for(0, 0, i))[8000] / 0.01 for i in range(100)]
    assert 0.5 <= min(gains) < 0.6 and 1.7 < max(gains) <= 2.0


def test_audio_shift_moves_the_moment() -> None:
    augmenter = Augmenter(config(audio_shift_ms=40), SCHEMA, (16, 16))
    times = [augmenter(sample(), rng_for(0, 0, i)).audio_time_s for i in range(50)]
    assert 0.96 <= min(times) < 0.97 and 1.03 < max(times) <= 1.04
    middle = augmenter(sample(audio_time_s=None), rng_for(0, 0, 0)).audio_time_s
    assert middle == pytest.approx(times[0])  # the recording lasts 2 s


@pytest.mark.parametrize(
    ("time_s", "first_value", "real"),
    [(1.0, 12000, (0, 8000)), (None, 12000, (0, 8000)), (0.0, 0, (4000, 8000)), (2.0, 28000, (0, 4000)),
     (0.1, 0, (2400, 8000)), (9.0, None, (0, 0)), (-9.0, None, (0, 0))],
)  # fmt: skip
def test_window(time_s: float | None, first_value: int | None, real: tuple[int, int]) -> None:
    ramp = np.arange(2 * RATE, dtype=np.float32)
    cut, (first, end) = window(ramp, RATE, time_s, 0.5)
    assert cut.shape == (8000,) and cut.dtype == np.float32 and (first, end) == real
    assert not cut[:first].any() and not cut[end:].any()
    if first_value is not None:
        assert np.array_equal(cut[first:end], np.arange(first_value, first_value + end - first))


def test_window_refuses_what_is_no_time() -> None:
    for rate, time_s, length in ((0, 0.0, 0.5), (RATE, float("nan"), 0.5), (RATE, 0.0, 0.0)):
        with pytest.raises(InputError, match="audio window"):
            window(voice(), rate, time_s, length)


def test_spec_augment_masks_stripes() -> None:
    features = torch.arange(1, 2 * 50 * 40 + 1, dtype=torch.float32).reshape(2, 50, 40)
    before = features.clone()
    masks = config(time_masks=1, time_mask_frames=6, freq_masks=1, freq_mask_bins=5)
    filled = []
    for i in range(60):
        out = spec_augment(features, rng_for(0, 0, i), masks, fill=-3.0)
        for item, source in zip(out, features, strict=True):
            hit = (item == -3.0).numpy()
            times, bins = hit.all(axis=1), hit.all(axis=0)
            assert np.array_equal(hit, times[:, None] | bins[None]) and times.sum() <= 6 and bins.sum() <= 5
            assert torch.equal(item[~torch.from_numpy(hit)], source[~torch.from_numpy(hit)])
            filled.append((int(times.sum()), int(bins.sum())))
    assert torch.equal(features, before)
    assert np.max(filled, axis=0).tolist() == [6, 5] and np.min(filled, axis=0).tolist() == [0, 0]
    single = spec_augment(before[0].numpy(), rng_for(0, 0, 3), masks, fill=-3.0)
    assert np.array_equal(single, spec_augment(before[:1], rng_for(0, 0, 3), masks, fill=-3.0)[0].numpy())
    assert torch.equal(spec_augment(features, rng_for(0, 0, 0), OFF), features)


# --- configuration


@pytest.mark.parametrize(
    "bad",
    [{"flip": 1.1}, {"rotate_deg": -1}, {"scale": 1.0}, {"drop_image": -0.1}, {"snr_db": (20, 5)}, {"blurr": 0.1},
     {"jpeg_quality": (0, 50)}, {"noise_std": float("nan")}, {"time_masks": -1}],
)  # fmt: skip
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        AugmentConfig.model_validate(bad)
