"""Faults of the sound. Powers are means over the whole recording that the sample holds, silence included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Float32

from mmkp.data.augment_audio import noise
from mmkp.data.corruptions.base import Change, pick
from mmkp.data.sample import Sample
from mmkp.data.talker.degrade import add_noise
from mmkp.data.window import window, window_range

Sound = Float32[np.ndarray, " T"]
Waves = Callable[[Sound, int, float, np.random.Generator, Sequence[Sample]], Sound]  # sound, Hz, parameter, rng, donors
VOICES = 6  # of a babble: fewer can still be followed one by one
FEWEST_VOICES = 3
FADE_S = 0.005  # of a splice: short for speech, long enough not to click
ROOM_M3, DISTANCE_M = 50.0, 1.0  # a living room, and an arm's length and a half from mouth to microphone


def sound(waves: Waves) -> Change:
    """A corruption of the recording alone, from the function that makes it."""
    return partial(_change, waves)


def _change(
    waves: Waves, sample: Sample, value: float, rng: np.random.Generator, donors: Sequence[Sample]
) -> Sample:  # fmt: skip
    assert sample.audio is not None
    if not len(sample.audio):
        return sample
    return sample.replace(audio=waves(sample.audio, sample.rate_hz, value, rng, donors))


def at_snr(audio: Sound, rate_hz: int, snr_db: float, rng: np.random.Generator, donors: Sequence[Sample]) -> Sound:
    """Noise between white and a crowd's spectrum at a signal-to-noise ratio of `snr_db`."""
    return add_noise(audio, snr_db, rng)


def babble(audio: Sound, rate_hz: int, snr_db: float, rng: np.random.Generator, donors: Sequence[Sample]) -> Sound:
    """Several voices at once at a signal-to-noise ratio of `snr_db`: donors', or the recording's own stretches."""
    power = _power(audio)
    voices = [wave for donor in donors if (wave := _heard(donor, rate_hz)) is not None]
    if len(voices) < FEWEST_VOICES:
        crowd: np.ndarray = noise("babble", audio, len(audio), power, snr_db, rng)
    else:
        chosen = [voices[i] for i in rng.permutation(len(voices))[:VOICES]]
        crowd = np.sum([_looped(wave, len(audio), rng) / np.sqrt(_power(wave)) for wave in chosen], axis=0)
        crowd = crowd * np.sqrt(power / max(_power(crowd), 1e-12)) * 10 ** (-snr_db / 20)
    return _within(audio + crowd)


def clipping(audio: Sound, rate_hz: int, drive_db: float, rng: np.random.Generator, donors: Sequence[Sample]) -> Sound:
    """Cut at `drive_db` below the peak, then brought back to its mean power: only the distortion is new."""
    limit = float(np.abs(audio).max()) / 10 ** (drive_db / 20)
    return _at_power(np.clip(audio, -limit, limit), _power(audio))


def reverberation(
    audio: Sound, rate_hz: int, rt60_s: float, rng: np.random.Generator, donors: Sequence[Sample]
) -> Sound:
    """The sound in a room whose echoes fall by 60 dB in `rt60_s`; the direct sound stays at its time."""
    response = room_response(rt60_s, rate_hz, rng)[: len(audio)]  # what comes later is past the recording's end
    size = 1 << (2 * len(audio) - 1).bit_length()  # a power of two: a prime length takes a hundred times as long
    heard = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(response, size), size)[: len(audio)]
    return _at_power(heard, _power(audio))


def room_response(rt60_s: float, rate_hz: int, rng: np.random.Generator) -> Float[np.ndarray, " R"]:
    """Direct sound of amplitude 1, then noise that decays exponentially.

    Source: Polack's statistical model of a room (1988); the energies of direct and reverberant sound are to one another
    as the square of critical over actual distance, 0.057^2 V / (RT60 r^2) (Kuttruff, Room Acoustics).
    """
    times_s = np.arange(1, max(2, round(rt60_s * rate_hz))) / rate_hz
    tail = rng.standard_normal(len(times_s)) * 10 ** (-3 * times_s / rt60_s)
    direct_to_tail = 0.057**2 * ROOM_M3 / (rt60_s * DISTANCE_M**2)
    return np.concatenate([[1.0], tail / np.sqrt(np.sum(tail**2) * direct_to_tail)])


def delay(sample: Sample, late_ms: float, rng: np.random.Generator, donors: Sequence[Sample]) -> Sample:
    """The sound comes `late_ms` after the picture; until it begins there is silence."""
    assert sample.audio is not None
    middle_s = len(sample.audio) // 2 / sample.rate_hz
    time_s = middle_s if sample.audio_time_s is None else sample.audio_time_s
    silence = np.zeros(round(late_ms / 1000 * sample.rate_hz), sample.audio.dtype)
    return sample.replace(audio=np.concatenate([silence, sample.audio]), audio_time_s=time_s)


def other_speech(sample: Sample, length_s: float, rng: np.random.Generator, donors: Sequence[Sample]) -> Sample | None:
    """The `length_s` about the picture's moment come from another clip, faded in and out."""
    assert sample.audio is not None
    speakers = [donor for donor in donors if _heard(donor, sample.rate_hz) is not None]
    if not speakers:
        return None
    donor, total = pick(speakers, rng), len(sample.audio)
    assert donor.audio is not None
    other, _ = window(donor.audio, sample.rate_hz, donor.audio_time_s, length_s)
    start, stop = window_range(total, sample.rate_hz, sample.audio_time_s, length_s)
    first, end = max(start, 0), min(stop, total)
    if first >= end:
        return sample
    place = np.arange(first, end) - start
    edge = np.minimum(place + 1, len(other) - place) / (FADE_S * sample.rate_hz)
    weight = edge.clip(max=1).astype(np.float32)
    changed = sample.audio.copy()
    changed[first:end] += weight * (other[place] - changed[first:end])
    return sample.replace(audio=changed)


def _heard(donor: Sample, rate_hz: int) -> Sound | None:
    """A donor's recording, if it has one that is not silent, at that rate."""
    if donor.audio is None or donor.rate_hz != rate_hz or not np.any(donor.audio):
        return None
    return donor.audio


def _looped(wave: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """A stretch from a random place, end joined to beginning."""
    return np.take(wave, np.arange(length) + rng.integers(len(wave)), mode="wrap")


def _power(wave: np.ndarray) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64)))


def _at_power(wave: np.ndarray, power: float) -> Sound:
    """Scaled to a mean power, or less where it would leave [-1, 1]; silence stays."""
    return _within(wave * np.sqrt(power / max(_power(wave), 1e-12)))


def _within(wave: np.ndarray) -> Sound:
    """Turned down where it would leave [-1, 1], signal and noise alike."""
    return (wave / max(1.0, float(np.abs(wave).max()))).astype(np.float32)
