"""The talking face's voice, and what the mouth makes of it."""

from __future__ import annotations

import builtins
import time
from importlib.util import find_spec

import numpy as np
import pytest

from mmkp.data.talker import speech
from mmkp.data.talker.clip import LEVEL_POWER, make_clip
from mmkp.data.talker.degrade import add_noise
from mmkp.data.talker.generate import EXCERPT_S, generate
from mmkp.data.talker.phrases import SPLITS, draw_sentence, split_of
from mmkp.data.talker.speech import RATE_HZ, Phoneme, synthesise
from mmkp.data.talker.visemes import PARAMETERS, STEP_S, trajectory, visemes_of
from mmkp.data.timing import CURSOR
from mmkp.errors import MissingExtraError, MmkpError

pytestmark = pytest.mark.skipif(
    find_spec("espeakng_loader") is None,
    reason="the extra 'talker' (espeakng-loader) is not installed",
)
OPEN, WIDE, ROUND, PRESS, TUCK = (PARAMETERS.index(name) for name in ("open", "wide", "round", "press", "tuck"))


def test_the_same_words_sound_the_same_whatever_was_said_before() -> None:
    """A voice that breathes (+m4 draws random numbers) and one that flutters; the clock must have no say either."""
    first = [synthesise("lay blue at s nine again", voice).sound for voice in ("en-us", "en-029+m4")]
    synthesise("something else entirely", "en-gb-x-rp+f2", 190, 70)
    time.sleep(1.1)
    second = [synthesise("lay blue at s nine again", voice).sound for voice in ("en-us", "en-029+m4")]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_words_are_in_order_and_lie_within_the_sound() -> None:
    spoken = synthesise("your father must find five maps for me")
    assert [w.text for w in spoken.words] == ["your", "father", "must", "find", "five", "maps", "for", "me"]
    times = [t for w in spoken.words for t in (w.start_s, w.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= spoken.duration_s


def test_resampling_keeps_pitch_and_level() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(22_050) / 22_050).astype(np.float32)
    found = speech._resample(tone, 22_050)
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / RATE_HZ)
    assert len(found) == RATE_HZ
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(MmkpError, match="en-nowhere"):
        synthesise("now", "en-nowhere")


def test_without_espeak_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: object, **options: object) -> object:
        if name == "espeakng_loader":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r"espeakng-loader.*mmkp\[talker\]"):
        synthesise("now")


@pytest.mark.parametrize(
    ("phoneme", "parameter", "least"), [("b", PRESS, 0.8), ("f", TUCK, 0.8), ("A:", OPEN, 0.8), ("u:", ROUND, 0.8)]
)
def test_each_phoneme_shapes_the_mouth_it_stands_for(phoneme: str, parameter: int, least: float) -> None:
    row = (Phoneme("@", 0.0, 0.3, False), Phoneme(phoneme, 0.3, 0.5, True), Phoneme("@", 0.5, 0.8, False))
    path = trajectory(row, 0.8)
    assert path[round(0.4 / STEP_S), parameter] > least
    assert path[round(0.05 / STEP_S), parameter] < 0.5


def test_rounding_comes_before_its_sound_and_closure_does_not() -> None:
    """Coarticulation: 60 ms before its start [u] already shows, [b] does not."""
    ahead = {}
    for name, parameter in (("u:", ROUND), ("b", PRESS)):
        row = (Phoneme("s", 0.0, 0.3, False), Phoneme(name, 0.3, 0.4, True))
        ahead[name] = trajectory(row, 0.4)[round(0.24 / STEP_S), parameter]
    assert ahead["u:"] > 0.2
    assert ahead["b"] < 0.1


def test_an_unknown_mnemonic_still_moves_the_mouth() -> None:
    assert visemes_of("_:") == ("rest",)
    assert visemes_of("aI3X") == ("aa", "ih")
    assert visemes_of("\u01c3") == ("schwa",)


def test_a_sentence_belongs_to_one_split() -> None:
    rng = np.random.default_rng(0)
    drawn = {split: {draw_sentence(split, rng) for _ in range(60)} for split in SPLITS}
    assert all(split_of(text) == split for split, texts in drawn.items() for text in texts)
    assert not drawn["train"] & drawn["test"]


def test_louder_opens_the_mouth_and_is_heard() -> None:
    """The level of the sound follows the gain that opens the jaw."""
    clip = make_clip(0, "train", 0)
    times = np.arange(len(clip.sound)) / RATE_HZ
    gain = np.interp(times, np.arange(len(clip.gain)) * STEP_S, clip.gain)
    ratio = np.abs(clip.sound) / np.maximum(np.abs(clip.speech.sound), 1e-3)
    audible = np.abs(clip.speech.sound) > 0.05
    loud, soft = audible & (gain > np.median(gain)), audible & (gain <= np.median(gain))
    expected = (gain[loud].mean() / gain[soft].mean()) ** LEVEL_POWER
    assert np.median(ratio[loud]) / np.median(ratio[soft]) == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
def test_noise_has_the_stated_ratio(snr_db: float, rng: np.random.Generator) -> None:
    clean = (0.1 * rng.standard_normal(8000)).astype(np.float32)
    noise = add_noise(clean, snr_db, rng) - clean
    assert 10 * np.log10(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.01)


def test_a_noisy_sample_says_its_ratio() -> None:
    noisy = next(s for s in (generate(0, i, 32) for i in range(200)) if s.info["snr_db"] is not None and s.present[2])
    index = int(noisy.group[-6:]) * 8 + int(noisy.id[-1])
    clean = generate(0, index, 32, degrade=False)
    noise = noisy.audio - clean.audio
    found = 10 * np.log10(np.mean(clean.audio**2) / np.mean(noise**2))
    assert found == pytest.approx(noisy.info["snr_db"], abs=0.05)


def test_the_cursor_stands_in_the_word_of_the_moment() -> None:
    for index in range(0, 40, 5):
        sample = generate(0, index, 32, degrade=False)
        clip, time_s = make_clip(0, "train", index // 8), sample.info["time_s"]
        word = next(w for w in clip.words if w.start_s <= time_s < w.end_s)
        before, _, after = sample.text.partition(CURSOR)
        held = before.split(" ")[-1] + after.split(" ")[0]
        assert held == word.text
        share = (time_s - word.start_s) / (word.end_s - word.start_s)
        assert abs(len(before.split(" ")[-1]) / len(word.text) - share) <= 0.5 / len(word.text) + 1e-9
        assert sample.text_controls["no_times"] == clip.sentence
        assert CURSOR in sample.text_controls["even_times"]


def test_the_excerpt_is_the_clip_at_its_moment() -> None:
    sample, clip = generate(0, 3, 32, degrade=False), make_clip(0, "train", 0)
    assert len(sample.audio) == round(EXCERPT_S * RATE_HZ)
    at, middle = round(sample.info["time_s"] * RATE_HZ), round(sample.audio_time_s * RATE_HZ)
    np.testing.assert_array_equal(sample.audio[middle - 800 : middle + 800], clip.sound[at - 800 : at + 800])
