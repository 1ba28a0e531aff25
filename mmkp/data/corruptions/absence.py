"""Modalities that are not there, and modalities that lie: the sound or the sentence of another clip, all else right."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from mmkp.data.corruptions.base import Change, pick
from mmkp.data.corruptions.text import like
from mmkp.data.sample import Sample
from mmkp.data.timing import CURSOR


def missing(modality: str) -> Change:
    """The modality is absent with a given probability."""
    return partial(_missing, modality)


def _missing(modality: str, sample: Sample, rate: float, rng: np.random.Generator, _: object) -> Sample:
    if rng.random() >= rate:
        return sample
    without = sample.replace(**{modality: None})
    return without.replace(text_controls={}) if modality == "text" else without


def conflict(*modalities: str) -> Change:
    """With a given probability these modalities, text and audio, come from another clip, all from the same one."""
    return partial(_conflict, modalities)


def _conflict(
    modalities: tuple[str, ...], sample: Sample, rate: float, rng: np.random.Generator, donors: Sequence[Sample]
) -> Sample | None:
    liars = [donor for donor in donors if all(_says_something(donor, modality) for modality in modalities)]
    if not liars:
        return None
    liar, lies = pick(liars, rng), rng.random() < rate
    if not lies:
        return sample
    if "audio" in modalities:
        sample = sample.replace(audio=liar.audio, rate_hz=liar.rate_hz, audio_time_s=liar.audio_time_s)
    if "text" in modalities and sample.text is not None and liar.text is not None:
        sample = sample.replace(text=like(liar.text, sample.text), text_controls={})
    return sample


def _says_something(donor: Sample, modality: str) -> bool:
    """Whether there is a lie to tell: words beside the cursor, a sound that is not silent."""
    if modality == "text":
        return bool(donor.text and donor.text.replace(CURSOR, "").strip())
    return donor.audio is not None and bool(np.any(donor.audio))
