"""Corruptions: what may go wrong with image, sound and text, at five severities each, the same in every run.

    corrupted = corrupt(sample, "audio_noise", severity=3)
    corrupted = corrupt(sample, "conflict_audio", severity=5, donors=donor_pool(dataset))

Conditions of the protocol (the cover over the mouth, texts with evenly spaced times) stay in `mmkp.data.corrupt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from mmkp.data.corruptions import audio, image, text
from mmkp.data.corruptions.absence import conflict, missing
from mmkp.data.corruptions.audio import sound
from mmkp.data.corruptions.base import NUM_SEVERITIES, Corruption, donor_pool, seed_of
from mmkp.data.corruptions.image import picture
from mmkp.data.corruptions.occluder import occluder
from mmkp.data.corruptions.text import words
from mmkp.data.sample import Sample
from mmkp.errors import choose
from mmkp.schema import KeypointSchema, load_schema

__all__ = [
    "CORRUPTIONS",
    "NUM_SEVERITIES",
    "Corruption",
    "corrupt",
    "corruptions_for",
    "donor_pool",
    "rng_of",
    "seed_of",
]

_FACE = load_schema("face68")
_SNR_DB = (20.0, 12.5, 5.0, -2.5, -10.0)
_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
_RATES = (0.1, 0.25, 0.5, 0.75, 1.0)

# Image: noise and JPEG at the strengths of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, their published code:
# standard deviation .08 .12 .18 .26 .38 of 255, quality 25 18 15 10 7). Sound late by one frame of 25 a second to ten;
# viewers notice from 125 ms on and bear up to 185 ms (ITU-R BT.1359-1).
CORRUPTIONS: dict[str, Corruption] = {
    "occlude_jaw": occluder(_FACE, "jaw"),
    "occlude_brows": occluder(_FACE, "brows"),
    "occlude_nose": occluder(_FACE, "nose"),
    "occlude_eyes": occluder(_FACE, "eyes"),
    "occlude_lips": occluder(_FACE, "lips"),
    "blur": Corruption(
        "image", "Gaussian blur", "% of box side, sigma", (1, 2, 3, 5, 8), picture(image.blur)),
    "gaussian_noise": Corruption(
        "image", "Gaussian noise", "grey levels, std", (20, 31, 46, 66, 97), picture(image.gaussian_noise)),
    "jpeg": Corruption(
        "image", "JPEG", "quality", (25, 18, 15, 10, 7), picture(image.jpeg)),
    "darkness": Corruption(
        "image", "darkness with sensor noise", "stops less light", (2, 4, 6, 7, 8), picture(image.darkness)),
    "low_resolution": Corruption(
        "image", "low resolution", "px across the box", (48, 32, 24, 16, 12), picture(image.low_resolution)),
    "rotation": Corruption(
        "image", "rotation about the box's middle", "degrees", (10, 20, 30, 45, 60), image.rotation,
        scope="group", moves_points=True),
    "missing_image": Corruption(
        "image", "no image", "probability", _RATES, missing("image")),
    "audio_noise": Corruption(
        "audio", "noise", "dB SNR", _SNR_DB, sound(audio.at_snr)),
    "babble": Corruption(
        "audio", "several other voices", "dB SNR", _SNR_DB, sound(audio.babble)),
    "clipping": Corruption(
        "audio", "clipping", "dB below the peak", (6, 12, 18, 24, 30), sound(audio.clipping)),
    "reverberation": Corruption(
        "audio", "reverberation", "s, RT60", (0.2, 0.4, 0.7, 1.2, 2.0), sound(audio.reverberation), scope="group"),
    "delay": Corruption(
        "audio", "sound later than the picture", "ms", (40, 80, 160, 240, 400), audio.delay),
    "other_speech": Corruption(
        "audio", "the moment's sound from another clip", "s", (0.1, 0.2, 0.3, 0.4, 0.6), audio.other_speech,
        needs_donors=True),
    "missing_audio": Corruption(
        "audio", "no sound", "probability", _RATES, missing("audio")),
    "typos": Corruption(
        "text", "typos", "share of letters", (0.05, 0.1, 0.2, 0.3, 0.5), words(text.typos)),
    "dropped_words": Corruption(
        "text", "dropped words", "probability", (0.1, 0.25, 0.5, 0.75, 0.9), words(text.dropped_words)),
    "shuffled_words": Corruption(
        "text", "shuffled words", "share of words", _SHARES, words(text.shuffled_words)),
    "empty_text": Corruption(
        "text", "text cut off, in the end absent", "share of words", _SHARES, words(text.empty_text)),
    "other_text": Corruption(
        "text", "words from another clip", "share of words", _SHARES, text.other_text, needs_donors=True),
    "missing_text": Corruption(
        "text", "no text", "probability", _RATES, missing("text")),
    "conflict_audio": Corruption(
        "audio", "the sound of another clip", "probability", _SHARES, conflict("audio"), needs_donors=True),
    "conflict_text": Corruption(
        "text", "the sentence of another clip", "probability", _SHARES, conflict("text"), needs_donors=True),
    "conflict_speech": Corruption(
        "text+audio", "sound and sentence of another clip", "probability", _SHARES, conflict("text", "audio"),
        needs_donors=True),
}  # fmt: skip


def corruptions_for(schema: KeypointSchema) -> dict[str, Corruption]:
    """The corruptions that make sense for a schema: the general ones, and an occluder for each of its groups."""
    general = {name: made for name, made in CORRUPTIONS.items() if not name.startswith("occlude_")}
    return {f"occlude_{group}": occluder(schema, group) for group in schema.groups} | general


def rng_of(sample: Sample, name: str, scope: str = "item") -> np.random.Generator:
    """The generator of an item (or of its whole group) under a corruption: the same at every severity, in every process
    and order."""
    return np.random.default_rng(seed_of(sample.group if scope == "group" else sample.id, name))


def corrupt(
    sample: Sample, name: str, severity: int, donors: Sequence[Sample] = (),
    corruptions: dict[str, Corruption] | None = None,
) -> Sample | None:  # fmt: skip
    """A sample under a corruption by name, its chance drawn from the item's own generator.

    Args:
        sample: image frame; not changed.
        name: of `corruptions`.
        severity: 1 to 5; 0 gives the sample itself.
        donors: see `donor_pool`; needed where the corruption says so.
        corruptions: the registry; `CORRUPTIONS` by default, `corruptions_for(schema)` for other keypoints than face68.

    Returns:
        None where the corruption does not apply to the sample.

    Raises:
        InputError: no such corruption or severity; donors are needed and there are none.
    """
    corruption = cast(Corruption, choose("corruption", name, CORRUPTIONS if corruptions is None else corruptions))
    if severity == 0 and not isinstance(severity, bool):
        return sample
    return corruption.apply(sample, severity, rng_of(sample, name, corruption.scope), donors)
