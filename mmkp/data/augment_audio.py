"""Augmentation of sound: gain, noise at a given signal-to-noise ratio, and masks over features."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32

from mmkp.data.augment_config import AugmentConfig
from mmkp.data.window import window_range

Array = TypeVar("Array", bound=Any)
NOISES = ("white", "pink", "babble")
TABLE_SAMPLES = 1 << 17  # 8 s at 16 kHz: longer than any window, so that offsets give fresh noise
MARGIN_S = 0.05  # changed on either side of the window, so that a resampler's filter sees no step at its edges
BABBLE_VOICES = (3, 7)  # shifted copies, from and below


def augment_audio(
    audio: Float32[np.ndarray, " T"],
    rate_hz: int,
    time_s: float | None,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> Float32[np.ndarray, " T"]:
    """Gain and noise over the window about `time_s` and a margin; the rest of the recording stays as it is.

    The changed part is scaled down where it would leave [-1, 1], which changes no ratio of signal to noise.
    """
    start, stop = window_range(len(audio), rate_hz, time_s)
    margin = round(MARGIN_S * rate_hz)
    start, stop = max(0, start - margin), min(len(audio), stop + margin)
    gain = 10 ** (rng.uniform(-config.gain_db, config.gain_db) / 20)
    noisy = rng.random() < config.audio_noise
    if start >= stop or (gain == 1 and not noisy):
        return audio
    part = audio[start:stop].astype(np.float32)
    power = float(np.dot(audio, audio)) / len(audio)
    if noisy and power > 0:
        part += noise(NOISES[rng.integers(len(NOISES))], audio, stop - start, power, rng.uniform(*config.snr_db), rng)
    part *= np.float32(gain)
    peak = float(np.abs(part).max())
    changed = audio.copy()
    changed[start:stop] = part / np.float32(max(1.0, peak))
    return changed


def noise(
    kind: str, audio: np.ndarray, length: int, power: float, snr_db: float, rng: np.random.Generator
) -> Float32[np.ndarray, " length"]:
    """Noise whose mean power lies `snr_db` below `power`.

    Args:
        kind: one of `NOISES`; babble is made of shifted copies of `audio`.
        audio: the recording.
        length: samples.
        power: mean square of the signal, amplitude squared.
        snr_db: signal-to-noise ratio.
        rng: picks offsets.
    """
    if kind == "babble":
        source = _babble(audio, length, rng)
    else:
        table = _table(kind)
        source = np.take(table, np.arange(length) + rng.integers(len(table)), mode="wrap")
    level = float(np.dot(source, source)) / length
    if level <= 0:
        return np.zeros(length, dtype=np.float32)
    return source * np.float32(np.sqrt(power / level) * 10 ** (-snr_db / 20))


def _babble(audio: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Several voices at once: stretches of the recording from random places, end joined to beginning."""
    total = np.zeros(length, dtype=np.float32)
    for offset in rng.integers(len(audio), size=rng.integers(*BABBLE_VOICES)):
        if offset + length <= len(audio):
            total += audio[offset : offset + length]
        else:
            total += np.take(audio, np.arange(offset, offset + length), mode="wrap")
    return total


@lru_cache(maxsize=2)
def _table(kind: str) -> Float32[np.ndarray, " TABLE"]:
    """Noise of unit power, drawn once, the same in every process."""
    values = np.random.default_rng(0).standard_normal(TABLE_SAMPLES)
    if kind == "pink":
        spectrum = np.fft.rfft(values)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))  # power falls as 1 / frequency
        spectrum[0] = 0
        values = np.fft.irfft(spectrum, TABLE_SAMPLES)
    return (values / np.sqrt(np.mean(values**2))).astype(np.float32)


def spec_augment(features: Array, rng: np.random.Generator, config: AugmentConfig, fill: float = 0.0) -> Array:
    """Mask stretches of time and frequency, drawn for each item by itself.

    Args:
        features: (F, M) numpy or (B, F, M) numpy or torch: frames by frequency bins; not changed.
        rng: picks widths (0 to the limit) and places, uniformly.
        config: how many masks, how wide at most.
        fill: the value put in; what the features hold for silence, or their mean.

    Source: Park et al., SpecAugment, Interspeech 2019, without the time warp.
    """
    masked = features.copy() if isinstance(features, np.ndarray) else features.clone()
    items = masked[None] if masked.ndim == 2 else masked
    frames, bins = items.shape[1], items.shape[2]
    for item in items:
        for _ in range(config.time_masks):
            first, end = _stretch(frames, config.time_mask_frames, rng)
            item[first:end] = fill
        for _ in range(config.freq_masks):
            first, end = _stretch(bins, config.freq_mask_bins, rng)
            item[:, first:end] = fill
    return masked


def _stretch(length: int, widest: int, rng: np.random.Generator) -> tuple[int, int]:
    width = int(rng.integers(min(widest, length) + 1))
    first = int(rng.integers(length - width + 1))
    return first, first + width
