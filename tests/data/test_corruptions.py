"""Corruptions: as strong as they say, the same whenever they are asked for, and nothing else is touched."""

from __future__ import annotations

import os
from dataclasses import fields
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkp import geometry
from mmkp.data import corruptions as cs
from mmkp.data.corruptions.audio import DISTANCE_M, ROOM_M3, room_response
from mmkp.data.corruptions.occluder import mean_face, occluder
from mmkp.data.corruptions.sheet import contact_sheet
from mmkp.data.face import eye_frame, face_box
from mmkp.data.sample import Sample
from mmkp.data.window import window
from mmkp.errors import InputError
from mmkp.schema import load_schema

FACE, BODY = load_schema("face68"), load_schema("coco17")
LIPS, EYES = np.r_[48:68], np.r_[36:48]
RATE = 16_000
IMAGE = [name for name, c in cs.CORRUPTIONS.items() if c.modality == "image"]
AUDIO = [name for name, c in cs.CORRUPTIONS.items() if c.modality == "audio"]
NAMES, SEVERITIES = st.sampled_from(list(cs.CORRUPTIONS)), st.integers(1, 5)
OWN = {  # the fields that a corruption of a modality may change
    "image": {"image", "visible", "people_visible"},
    "audio": {"audio", "rate_hz", "audio_time_s"},
    "text": {"text", "text_controls"},
}
TEXT = "place green by d| two now"


@cache
def _drawn() -> np.ndarray:
    """Smooth shapes with edges, 160 x 140: a picture that blur, noise and coarse pixels all spoil."""
    canvas = np.full((160, 140, 3), (90, 120, 150), np.uint8)
    for i, colour in enumerate([(220, 180, 150), (40, 30, 30), (190, 60, 70), (240, 240, 235)]):
        cv2.ellipse(canvas, (70, 50 + 22 * i), (50 - 10 * i, 30 - 5 * i), 20 * i, 0, 360, colour, -1, cv2.LINE_AA)
    return canvas


def picture() -> np.ndarray:
    return _drawn().copy()


@cache
def _bursts(seed: int) -> np.ndarray:
    """A second of coloured noise with pauses, peak 0.3."""
    rng = np.random.default_rng(seed)
    wave = np.convolve(rng.standard_normal(RATE), np.ones(8) / 8, "same")
    wave *= np.repeat(rng.uniform(0, 1, 20) > 0.3, len(wave) // 20)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def speech(seed: int) -> np.ndarray:
    return _bursts(seed).copy()


def face(**changes: object) -> Sample:
    """The mean face, 50 px between the outer corners of the eyes, with sound and text."""
    points = (mean_face() * 50 + (70, 55)).astype(np.float32)
    made = Sample(
        "clip_a/3", "clip_a", points, np.full(68, 2, np.uint8), face_box(points), picture(), speech(0), RATE, 0.5, TEXT,
        {"no_times": TEXT.replace("|", "")}, people_xy=points[None], people_visible=np.full((1, 68), 2, np.uint8),
    )  # fmt: skip
    return made.replace(**changes)


def donors(number: int = 8) -> list[Sample]:
    said = [f"{a} {b} |again" for a in ("bin", "lay") for b in ("red", "white", "blue", "pink")]
    return [
        face(id=f"d{i}/0", group=f"d{i}", audio=speech(100 + i), text=said[i], image=None, audio_time_s=0.4)
        for i in range(number)
    ]


def same(one: object, two: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
    return type(one) is type(two) and one == two


def edit_distance(one: str, two: str) -> int:
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(two, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


# --- what holds for all of them -------------------------------------------------------------------------------------


@given(NAMES, SEVERITIES, st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_deterministic_and_nothing_else_changes(name: str, severity: int, number: int) -> None:
    sample, pool = face(id=f"clip_a/{number}"), donors()
    before = face(id=f"clip_a/{number}")
    once, again = (cs.corrupt(sample, name, severity, pool) for _ in range(2))
    assert once is not None and again is not None
    corruption = cs.CORRUPTIONS[name]
    mine = set().union(*(OWN[modality] for modality in corruption.modalities))
    mine |= {"keypoints_xy", "people_xy"} if corruption.moves_points else set()
    for field in fields(Sample):
        first = getattr(once, field.name)
        assert same(first, getattr(again, field.name)), f"{field.name} is drawn anew"
        assert same(getattr(sample, field.name), getattr(before, field.name)), f"{field.name} changed in place"
        assert field.name in mine or same(first, getattr(sample, field.name)), f"{field.name} is not its own"


@given(NAMES, SEVERITIES)
@settings(max_examples=30, deadline=None)
def test_an_absent_modality_is_not_applicable(name: str, severity: int) -> None:
    for modality in cs.CORRUPTIONS[name].modalities:
        assert cs.corrupt(face(**{modality: None}), name, severity, donors()) is None


def test_severities_are_five_and_run_from_mild_to_strong() -> None:
    for name, corruption in cs.CORRUPTIONS.items():
        steps = np.diff(corruption.severities)
        assert len(corruption.severities) == 5 and ((steps > 0).all() or (steps < 0).all()), name
        assert corruption.what and corruption.unit


def test_seed_is_of_item_and_corruption() -> None:
    # worked out by `printf 'clip_a/3\nblur' | sha1sum`: its first sixteen hexadecimal digits
    assert cs.seed_of("clip_a/3", "blur") == 0x891585A9138E4D3E
    noisy = [cs.corrupt(face(id=i), "audio_noise", s).audio for i, s in (("x", 2), ("y", 2), ("x", 3))]
    assert not np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0], noisy[2])


def test_what_is_missing_at_a_low_rate_is_missing_at_a_higher_one() -> None:
    for name, modality in (("missing_audio", "audio"), ("conflict_audio", "audio"), ("conflict_text", "text")):
        items = [face(id=f"i{i}") for i in range(60)]
        changed = [
            {x.id for x in items if getattr(cs.corrupt(x, name, s, donors()), modality) is not getattr(x, modality)}
            for s in range(1, 6)
        ]
        assert all(a <= b for a, b in zip(changed, changed[1:], strict=False)), name
        assert 0 < len(changed[0]) < len(changed[-1]) == 60


def test_a_picture_turns_to_the_same_side_at_every_severity() -> None:
    for group in ("a", "b", "c", "d"):
        tips = [cs.corrupt(face(group=group), "rotation", s).keypoints_xy[0, 0] for s in range(6)]
        steps = np.sign(np.diff(tips)[:2])
        assert steps[0] == steps[1]


def test_frames_of_a_clip_share_what_stays_in_place() -> None:
    for name in ("occlude_eyes", "rotation"):
        one, two = (cs.corrupt(face(id=f"clip_a/{i}"), name, 3) for i in (1, 2))
        assert np.array_equal(one.image, two.image)
    turned = [cs.corrupt(face(group=f"g{i}"), "rotation", 3).keypoints_xy[0, 1] for i in range(12)]
    assert len(np.unique(np.round(turned, 3))) == 2  # to either side


def test_modalities_and_subsets() -> None:
    assert cs.CORRUPTIONS["blur"].touches("image+text") and not cs.CORRUPTIONS["blur"].touches("text+audio")
    assert cs.CORRUPTIONS["conflict_speech"].touches("image+text") and cs.CORRUPTIONS["conflict_speech"].touches(
        "audio"
    )
    assert not cs.CORRUPTIONS["conflict_speech"].touches("image")


def test_bad_names_severities_and_donors_are_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'babble'"):
        cs.corrupt(face(), "bable", 1)
    for severity in (6, -1, True, 2.0, "3"):
        with pytest.raises(InputError, match="from 1 to 5"):
            cs.corrupt(face(), "blur", severity)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="donor_pool"):
        cs.corrupt(face(), "conflict_audio", 1)
    with pytest.raises(InputError, match="'lips'"):
        occluder(FACE, "lip")
    assert cs.corrupt(face(), "conflict_audio", 5, [face(id="clip_a/9")]) is None  # its own clip tells no lies
    sample = face()
    assert cs.corrupt(sample, "blur", 0) is sample


# --- image ----------------------------------------------------------------------------------------------------------


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - two.astype(float)) ** 2)))


@pytest.mark.parametrize("name", ["blur", "gaussian_noise", "jpeg", "darkness", "low_resolution"])
def test_psnr_falls_with_severity(name: str) -> None:
    values = [psnr(picture(), cs.corrupt(face(), name, severity).image) for severity in range(1, 6)]
    assert (np.diff(values) < -0.2).all(), values


def test_noise_has_the_strength_that_it_says() -> None:
    grey = face(image=np.full((160, 140, 3), 128, np.uint8))
    for severity, std in ((1, 20.0), (2, 31.0)):  # stronger noise is cut at black and white
        assert cs.corrupt(grey, "gaussian_noise", severity).image.std() == pytest.approx(std, rel=0.02)


def test_darkness_is_that_many_stops() -> None:
    """White at 2 stops less: 255 * (1/4)^(1/2.2) = 135.8; read noise and shot noise by the camera's figures."""
    white = face(image=np.full((160, 140, 3), 255, np.uint8))
    dark = cs.corrupt(white, "darkness", 1).image
    assert dark.mean() == pytest.approx(135.8, abs=0.3)
    # 1000 electrons of 4000 with a spread of sqrt(1000 + 4): grey's relative spread is that over 1000, over 2.2
    assert dark.std() == pytest.approx(135.8 * np.sqrt(1004) / 1000 / 2.2, rel=0.05)


@pytest.mark.parametrize("group", list(FACE.groups))
def test_occluders_grow_and_mark_what_they_hide(group: str) -> None:
    members = FACE.group_indices()[group]
    shares = []
    for severity in range(1, 6):
        changed = cs.corrupt(face(), f"occlude_{group}", severity)
        differs = (changed.image != picture()).any(-1)
        shares.append(differs.mean())
        assert (changed.visible[members] == 1).all()  # this face is the mean face
        hidden = changed.keypoints_xy[changed.visible == 1]
        assert len(hidden) and np.array_equal(changed.people_visible[0], changed.visible)
        columns, rows = np.rint(hidden).astype(int).T
        inside = (columns >= 0) & (columns < 140) & (rows >= 0) & (rows < 160)
        assert differs[rows[inside], columns[inside]].mean() > 0.9  # a colour may be the picture's own by chance
    assert (np.diff(shares) > 0).all(), shares


def test_an_occluder_does_not_know_where_the_hidden_part_is() -> None:
    moved = face().keypoints_xy.copy()
    moved[LIPS] += (9, -14)
    moved[50] = np.nan
    one, two = (cs.corrupt(s, "occlude_lips", 4) for s in (face(), face(keypoints_xy=moved)))
    assert np.array_equal(one.image, two.image)


def test_occluders_hide_lips_on_grid() -> None:
    """At most a tenth of the mouth in sight at 8 % of the box, and none of it from 12 % on, whatever is said."""
    default = Path(__file__).parents[3] / "shared/data/grid"
    files = sorted((Path(os.environ.get("MMKP_TEST_GRID", default)) / "landmarks").glob("*.npz"))
    if not files:
        pytest.skip("no GRID landmarks: set MMKP_TEST_GRID to a folder that holds landmarks/*.npz")
    shapes = np.concatenate([np.load(file)["keypoints_xy"][10::25].astype(np.float32) - 0.5 for file in files[::4]])
    blank = np.zeros((288, 360, 3), np.uint8)
    seen = []
    for severity in (3, 4, 5):
        made = [cs.corrupt(face(keypoints_xy=xy, image=blank), "occlude_lips", severity) for xy in shapes]
        seen.append(np.mean([m.visible[LIPS] == 2 for m in made]))
    assert seen[0] < 0.1 and seen[1] < 0.01 and seen[2] < 0.001, seen


def test_other_keypoints_get_occluders_where_their_group_lies_in_the_box() -> None:
    """Donors' heads lie at (1/2, 1/4) of their boxes; the sample's own say otherwise, and are not asked."""
    registry = cs.corruptions_for(BODY)
    assert {"occlude_head", "occlude_arms", "occlude_legs", "blur"} <= set(registry)
    assert not {"occlude_lips", "occlude_eyes"} & set(registry)

    def body(group: str, box: tuple[float, ...], head_share: tuple[float, float]) -> Sample:
        points = np.full((17, 2), np.nan, np.float32)
        points[:5] = np.array(box[:2]) + np.array(head_share) * box[2:]
        return Sample(f"{group}/0", group, points, np.full(17, 2, np.uint8), np.array(box), picture())

    pool = [body(f"d{i}", (10.0 * i, 5.0, 40.0 + i, 80.0), (0.5, 0.25)) for i in range(3)]
    sample = body("own", (20.0, 40.0, 100.0, 100.0), (0.9, 0.9))
    changed = cs.corrupt(sample, "occlude_head", 2, pool, registry)
    rows, columns = np.nonzero((changed.image != picture()).any(-1))
    assert (columns.mean(), rows.mean()) == (pytest.approx(70, abs=0.6), pytest.approx(65, abs=0.6))
    assert np.ptp(columns) == pytest.approx(2 * 0.04 * 100, abs=1.5)  # a radius of 4 % of the side, 100 px
    assert cs.corrupt(sample, "occlude_arms", 2, pool, registry) is None  # no donor has any
    assert cs.corrupt(sample, "occlude_lips", 2, pool) is None  # not a face
    assert cs.corrupt(face(keypoints_xy=np.full((68, 2), np.nan, np.float32)), "occlude_lips", 2) is None


def test_labels_turn_with_the_picture() -> None:
    """A bright dot on every tenth keypoint is found again at the turned keypoint; the middle of the box stays."""
    points = np.round(face().keypoints_xy)
    image = np.zeros((160, 140, 3), np.uint8)
    columns, rows = points[::10].astype(int).T
    image[rows, columns] = 255
    image = cv2.dilate(image, np.ones((3, 3), np.uint8))
    box = np.array([20.0, 15.0, 100.0, 120.0])
    middle = box[:2] + box[2:] / 2
    sample = face(image=image, keypoints_xy=points, box_xywh=box)
    for severity, degrees in enumerate((10, 20, 30, 45, 60), 1):
        changed = cs.corrupt(sample, "rotation", severity)
        before, after = points - middle, changed.keypoints_xy - middle
        turn = np.degrees(np.arctan2(np.cross(before[0], after[0]), before[0] @ after[0]))
        assert abs(turn) == pytest.approx(degrees, abs=0.01)
        assert np.linalg.norm(after, axis=1) == pytest.approx(np.linalg.norm(before, axis=1), abs=1e-3)
        seen = changed.visible[::10] == 2
        x, y = np.rint(changed.keypoints_xy[::10][seen]).astype(int).T
        assert seen.any() and (changed.image[y, x, 0] > 150).all()
        outside = geometry.whole_image_box((160, 140))[2:] - 0.5
        gone = ((changed.keypoints_xy < -0.5) | (changed.keypoints_xy > outside)).any(1)
        assert np.array_equal(changed.visible == 1, gone)


# --- audio ----------------------------------------------------------------------------------------------------------


def power(wave: np.ndarray) -> float:
    return float(np.mean(wave.astype(np.float64) ** 2))


@pytest.mark.parametrize("name", ["audio_noise", "babble"])
@pytest.mark.parametrize("pool", [0, 8])
def test_measured_snr_is_the_one_asked_for(name: str, pool: int) -> None:
    """On a quiet recording, which is never turned down, so that what was added is the difference."""
    quiet = 0.05 * speech(0)
    for severity, snr_db in enumerate((20.0, 12.5, 5.0, -2.5, -10.0), 1):
        changed = cs.corrupt(face(audio=quiet), name, severity, donors(pool))
        added = changed.audio - quiet
        assert 10 * np.log10(power(quiet) / power(added)) == pytest.approx(snr_db, abs=0.1)


@pytest.mark.parametrize("name", AUDIO)
def test_sound_stays_in_range(name: str) -> None:
    loud = speech(0) / 0.3
    for severity in range(1, 6):
        changed = cs.corrupt(face(audio=loud), name, severity, donors()).audio
        if changed is not None:
            assert changed.dtype == np.float32 and np.isfinite(changed).all() and np.abs(changed).max() <= 1.0


def test_turned_down_sound_keeps_its_ratio() -> None:
    """At full scale and -10 dB: the part along the signal over the rest, whatever the gain."""
    loud = (speech(0) / 0.3).astype(np.float64)
    changed = cs.corrupt(face(audio=loud.astype(np.float32)), "babble", 5, donors()).audio
    assert np.abs(changed).max() == pytest.approx(1, abs=1e-6)
    gain = changed @ loud / (loud @ loud)
    measured = 10 * np.log10(gain**2 * power(loud) / power(changed - gain * loud))
    assert measured == pytest.approx(-10, abs=0.5)  # babble and signal are not quite orthogonal


def test_clipping_cuts_at_the_level_and_keeps_the_power() -> None:
    shares = []
    for severity, drive_db in enumerate((6, 12, 18, 24, 30), 1):
        changed = cs.corrupt(face(), "clipping", severity).audio
        top = np.abs(changed).max()
        over = np.abs(speech(0)) > 0.3 / 10 ** (drive_db / 20)
        assert np.array_equal(np.abs(changed) > top * (1 - 1e-5), over)
        assert power(changed) == pytest.approx(power(speech(0)), rel=1e-4)
        shares.append(over.mean())
    assert (np.diff(shares) > 0).all()


@pytest.mark.parametrize("rt60_s", [0.2, 0.7, 2.0])
def test_room_decays_by_60_db_in_its_time(rt60_s: float) -> None:
    """Energy falls by 30 dB in half of RT60 (Schroeder's integral), and direct to tail is as the room has it."""
    ratios, drops = [], []
    for seed in range(8):
        response = room_response(rt60_s, RATE, np.random.default_rng(seed))
        left = np.cumsum(response[:0:-1] ** 2)[::-1]
        drops.append(10 * np.log10(left[round(rt60_s / 2 * RATE)] / left[0]))
        ratios.append(response[0] ** 2 / left[0])
    assert np.mean(drops) == pytest.approx(-30, abs=0.5)
    assert np.mean(ratios) == pytest.approx(0.057**2 * ROOM_M3 / (rt60_s * DISTANCE_M**2))


def test_reverberation_starts_with_the_sound_and_grows() -> None:
    click = np.zeros(RATE, np.float32)
    click[4000] = 0.5
    late = []
    for severity in range(1, 6):
        changed = cs.corrupt(face(audio=click), "reverberation", severity).audio
        assert np.abs(changed[:4000]).max() < 1e-6 and changed[4000] > 0
        late.append(power(changed[4000 + RATE // 20 :]) / power(changed))
    assert (np.diff(late) > 0).all(), late


def test_delayed_sound_is_that_of_an_earlier_moment() -> None:
    for severity, late_ms in enumerate((40, 80, 160, 240, 400), 1):
        for moment_s in (0.5, 0.05, None):  # None: the middle, also of the sound as it was
            own, late = face(audio_time_s=moment_s), cs.corrupt(face(audio_time_s=moment_s), "delay", severity)
            place_s = 0.5 if moment_s is None else moment_s
            assert late.audio_time_s == place_s
            heard, was = (
                window(s.audio, RATE, at, 0.02)[0] for s, at in ((late, place_s), (own, place_s - late_ms / 1000))
            )
            if place_s > late_ms / 1000 + 0.01:
                assert np.array_equal(heard, was)
            elif place_s < late_ms / 1000 - 0.01:
                assert not heard.any()  # it has not begun


def test_a_delayed_sound_can_be_processed_at_the_start_of_a_recording() -> None:
    from mmkp.configuration_mmkp import MmkpConfig
    from mmkp.processing_mmkp import make_processor

    late = cs.corrupt(face(audio_time_s=0.0), "delay", 5)
    made = make_processor(MmkpConfig())(audio=[late.audio], sampling_rate=RATE, audio_times=[late.audio_time_s])
    assert made["input_features"].shape[0] == 1


def test_other_speech_replaces_the_moment_and_no_more() -> None:
    own, pool = speech(0), donors()
    for severity, length_s in enumerate((0.1, 0.2, 0.3, 0.4, 0.6), 1):
        changed = cs.corrupt(face(), "other_speech", severity, pool).audio
        half = round(length_s * RATE) // 2
        assert np.array_equal(changed[: 8000 - half], own[: 8000 - half])
        assert np.array_equal(changed[8000 + half :], own[8000 + half :])
        inner = slice(8000 - half + 100, 8000 + half - 100)  # past the fades of 80 samples
        theirs = slice(6400 - half + 100, 6400 + half - 100)  # the donors' moment is 0.4 s
        assert any(np.allclose(changed[inner], donor.audio[theirs], atol=1e-7) for donor in pool)


# --- text -----------------------------------------------------------------------------------------------------------


def texts(name: str, severity: int, number: int = 60) -> list[str | None]:
    pool = donors()
    return [cs.corrupt(face(id=f"i{i}"), name, severity, pool).text for i in range(number)]


@pytest.mark.parametrize("name", ["typos", "dropped_words", "shuffled_words", "empty_text"])
def test_edit_distance_grows_with_severity(name: str) -> None:
    means = [np.mean([edit_distance(TEXT, text or "") for text in texts(name, s)]) for s in range(1, 6)]
    assert (np.diff(means) > 0.5).all(), means


def test_other_text_replaces_that_share_of_the_words() -> None:
    own = set(TEXT.replace("|", "").split())
    for severity, share in enumerate((0.2, 0.4, 0.6, 0.8, 1.0), 1):
        kept = [len(own & set(text.replace("|", "").split())) for text in texts("other_text", severity, 60)]
        assert np.mean(kept) / 6 == pytest.approx(1 - share, abs=0.04)  # 4 sd of a rounding at random
    lent = {donor.text for donor in donors()}
    assert set(texts("other_text", 5, 60)) <= lent


def test_texts_keep_their_cursor_and_lose_their_controls() -> None:
    for name in ("typos", "dropped_words", "shuffled_words", "other_text", "conflict_text"):
        for severity in (1, 5):
            assert all(text.count("|") == 1 for text in texts(name, severity, 20)), name
    assert cs.corrupt(face(), "typos", 1).text_controls == {}
    assert cs.corrupt(face(text="no cursor here"), "conflict_text", 5, donors()).text.count("|") == 0


def test_typos_are_about_that_share_of_the_letters() -> None:
    """19 letters at 20 %: 3.8 typos, each one edit, a swap two; a quarter of swaps at most."""
    distances = [edit_distance(TEXT, text) for text in texts("typos", 3, 200)]
    assert 3.4 < np.mean(distances) < 4.8


def test_shuffled_and_cut_texts_by_hand() -> None:
    own = TEXT.replace("|", "").split()
    place = [i for i, token in enumerate(TEXT.split()) if "|" in token]
    for text in texts("shuffled_words", 5, 30):
        words = text.replace("|", "").split()
        assert sorted(words) == sorted(own)
        assert all(a != b for a, b in zip(words, own, strict=True))  # at share 1 every word has moved
        assert [i for i, token in enumerate(text.split()) if "|" in token] == place  # and the cursor has not
    assert cs.corrupt(face(text="a|gain"), "shuffled_words", 5).text == "a|gain"
    assert set(texts("empty_text", 5, 20)) == {None}
    # at share 0.6, two of five words are left; the word with the cursor is gone, the cursor is not
    assert cs.corrupt(face(text="a b c| d e"), "empty_text", 3).text == "a b |"
    assert cs.corrupt(face(text="a| b c d e"), "empty_text", 3).text == "a| b"


def test_a_pause_stays_a_pause_until_it_is_taken_or_lied_about() -> None:
    for name in ("typos", "dropped_words", "shuffled_words", "empty_text", "other_text"):
        assert cs.corrupt(face(text="|"), name, 4, donors()).text == "|", name
    assert cs.corrupt(face(text="|"), "empty_text", 5).text is None
    assert cs.corrupt(face(text="|"), "other_text", 5, donors()).text in {donor.text for donor in donors()}


# --- absence and conflict -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_missing_at_its_rate(modality: str) -> None:
    for severity, rate in enumerate((0.1, 0.25, 0.5, 0.75, 1.0), 1):
        items = [cs.corrupt(face(id=f"i{i}"), f"missing_{modality}", severity) for i in range(200)]
        share = np.mean([getattr(item, modality) is None for item in items])
        assert share == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / 200) + 1e-9)


def test_a_conflict_is_another_clips_and_one_clips_only() -> None:
    pool = [*donors(), face(id="clip_a/8", text="mine |own", audio=speech(7))]
    lies = [cs.corrupt(face(id=f"i{i}"), "conflict_speech", 5, pool) for i in range(40)]
    sources = [[d.group for d in pool if d.text == lie.text and same(d.audio, lie.audio)] for lie in lies]
    assert all(len(source) == 1 and source != ["clip_a"] for source in sources)
    assert len({source[0] for source in sources}) > 4 and {lie.audio_time_s for lie in lies} == {0.4}
    half = [cs.corrupt(face(id=f"i{i}"), "conflict_audio", 2, pool) for i in range(200)]
    assert np.mean([not same(item.audio, face().audio) for item in half]) == pytest.approx(0.4, abs=0.14)
    assert all(item.text == TEXT for item in half)
    mute = [face(group="b", text="|", audio=np.zeros(RATE, np.float32))]
    assert (
        cs.corrupt(face(), "conflict_text", 5, mute) is None and cs.corrupt(face(), "conflict_audio", 5, mute) is None
    )


class Clips:
    """24 items in 6 groups."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Sample:
        return face(id=f"c{index // 4}/{index % 4}", group=f"c{index // 4}")


def test_donor_pool_has_one_of_each_group_and_no_pictures() -> None:
    pool = cs.donor_pool(Clips())  # type: ignore[arg-type]
    assert [donor.group for donor in pool] == [f"c{i}" for i in range(6)]
    assert all(donor.image is None and donor.audio is not None for donor in pool)
    assert [donor.group for donor in cs.donor_pool(Clips(), most=3)] == ["c0", "c3", "c5"]  # type: ignore[arg-type]


def test_contact_sheet_shows_every_image_corruption() -> None:
    made = contact_sheet(face(), FACE, side=40)
    assert made.shape == (11 * (54 + 4) - 4, 6 * (40 + 4) - 4, 3)
    clear, worst = made[:40, :40], made[:40, 5 * 44 : 5 * 44 + 40]
    assert np.array_equal(clear, made[58:98, :40]) and not np.array_equal(clear, worst)
    assert eye_frame(face().keypoints_xy)[1] == pytest.approx(50, abs=1e-3)
