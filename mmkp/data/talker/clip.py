"""A clip: one person who speaks one sentence, and what the face does at each moment of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32

from mmkp.data.talker.mouth import MouthState
from mmkp.data.talker.person import Person, draw_person
from mmkp.data.talker.phrases import SPLITS, draw_sentence
from mmkp.data.talker.render import Scene, draw_scene
from mmkp.data.talker.speech import ACCENTS, RATE_HZ, SPEAKERS, Speech, synthesise
from mmkp.data.talker.view import View
from mmkp.data.talker.visemes import STEP_S, trajectory
from mmkp.data.timing import Word, sentence

FRAMES_PER_CLIP = 8
LEVEL_RMS = 0.05  # of speech at a loudness gain of 1: leaves room for loud words and for noise 5 dB above them
LEVEL_POWER = 1.4  # sound level against mouth opening: a mouth twice as open sounds about 8 dB louder
_LOUDNESS_BLUR_S = 0.05


@dataclass(frozen=True)
class Clip:
    """One clip. All times in seconds from its start.

    Attributes:
        frames_s: the moments of its pictures.
        mouth: (F, 6) `visemes.PARAMETERS` every `STEP_S`, as the phonemes ask.
        gain: (F,) loudness every `STEP_S`; opens the mouth further and is heard, but is in no text.
        waves: (5, 3) amplitude, frequency in Hz and phase of what speech leaves free: smile, yaw, pitch, roll, brows
    """

    split: str
    number: int
    person: Person
    scene: Scene
    voice: str
    speech: Speech
    sound: Float32[np.ndarray, " T"]
    frames_s: Float[np.ndarray, " 8"]
    mouth: Float[np.ndarray, "F 6"]
    gain: Float[np.ndarray, " F"]
    base: Float[np.ndarray, " 5"]
    waves: Float[np.ndarray, "5 3"]
    skew: float

    @property
    def words(self) -> tuple[Word, ...]:
        """The words with their times."""
        return self.speech.words

    @property
    def sentence(self) -> str:
        """The words alone."""
        return sentence(self.words)


@lru_cache(maxsize=4)
def make_clip(seed: int, split: str, number: int) -> Clip:
    """The clip of a number. The last few are kept, as several frames come from each."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    person, scene = draw_person(rng), draw_scene(rng)
    voice = str(rng.choice(ACCENTS)) + str(rng.choice(SPEAKERS))
    speech = synthesise(draw_sentence(split, rng), voice, int(rng.integers(115, 200)), int(rng.integers(25, 80)))
    gain = _loudness(speech, rng)
    start, end = speech.words[0].start_s, speech.words[-1].end_s
    moments = start + (np.arange(FRAMES_PER_CLIP) + rng.random(FRAMES_PER_CLIP)) / FRAMES_PER_CLIP * (end - start)
    # smile, yaw, pitch, roll (degrees), brows: a clip's own value and a slow sway of about a fifth of it
    spread = np.array([0.42, 14.0, 7.0, 7.0, 0.4])
    limit = np.array([0.9, 38.0, 18.0, 22.0, 0.9])
    base = np.clip(rng.normal([0.12, 0, 0, 0, 0], spread), -limit, limit)
    base[0] = max(base[0], -0.45)
    waves = np.stack([spread * rng.uniform(0.05, 0.3, 5), rng.uniform(0.2, 0.8, 5), rng.uniform(0, 2 * np.pi, 5)], -1)
    return Clip(
        split, number, person, scene, voice, speech, _voiced(speech.sound, gain), moments,
        trajectory(speech.phonemes, speech.duration_s), gain, base, waves, float(np.clip(rng.normal(0, 0.2), -1, 1)),
    )  # fmt: skip


def moment(clip: Clip, time_s: float, rng: np.random.Generator) -> tuple[MouthState, View]:
    """What the face does and how the head is held; `rng` decides on a blink."""
    at = min(time_s / STEP_S, len(clip.mouth) - 1.0)
    low = int(at)
    high, share = min(low + 1, len(clip.mouth) - 1), at - low
    mouth = clip.mouth[low] * (1 - share) + clip.mouth[high] * share
    gain = clip.gain[low] * (1 - share) + clip.gain[high] * share
    sway = clip.base + clip.waves[:, 0] * np.sin(2 * np.pi * clip.waves[:, 1] * time_s + clip.waves[:, 2])
    smile, yaw, pitch, roll, brows = (float(v) for v in sway)
    lids = float(rng.uniform(0.0, 0.35) if rng.random() < 0.04 else rng.uniform(0.8, 1.05))
    opened = float(np.clip(mouth[0] * gain, 0.0, 1.4))
    state = MouthState(opened, *(float(v) for v in mouth[1:]), smile=smile, skew=clip.skew, brows=brows, lids=lids)
    return state, View(yaw, pitch, roll)


def _loudness(speech: Speech, rng: np.random.Generator) -> Float[np.ndarray, " F"]:
    """A gain per clip (how far away one speaks) times one per word (stress that no spelling shows)."""
    times = np.arange(0.0, speech.duration_s + STEP_S, STEP_S)
    word = np.searchsorted([w.start_s for w in speech.words], times, side="right") - 1
    stress = np.exp(rng.normal(0, 0.40, len(speech.words)))
    raw = np.exp(rng.normal(0, 0.30)) * stress[np.clip(word, 0, None)]
    width = round(3 * _LOUDNESS_BLUR_S / STEP_S)
    kernel = np.exp(-0.5 * (np.arange(-width, width + 1) * STEP_S / _LOUDNESS_BLUR_S) ** 2)
    smooth = np.convolve(np.pad(np.log(raw), width, mode="edge"), kernel / kernel.sum(), mode="valid")
    return np.exp(np.clip(smooth, np.log(0.4), np.log(2.2)))


def _voiced(sound: Float32[np.ndarray, " T"], gain: np.ndarray) -> Float32[np.ndarray, " T"]:
    """The sound at a level that follows the loudness; loud speech is also brighter (less steep a spectrum)."""
    at = np.interp(np.arange(len(sound)) / RATE_HZ, np.arange(len(gain)) * STEP_S, gain)
    bright = np.diff(sound, prepend=0.0)  # rises 6 dB per octave
    tilted = sound + np.clip(at - 1.0, -0.5, 1.0) * bright
    level = LEVEL_RMS / max(1e-6, float(np.sqrt(np.mean(sound**2))))
    return np.clip(tilted * at**LEVEL_POWER * level, -0.99, 0.99).astype(np.float32)
