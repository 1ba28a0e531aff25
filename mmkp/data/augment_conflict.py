"""Modalities that lie in training: pictures that can be seen get the sound, the words or both of another clip.

A model that has met such pairs believes the picture where the keypoints can be seen, and the rest where they cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from mmkp.data.augment import Augmented

KINDS = ((1,), (2,), (1, 2))  # places in `modality_mask`: the words, the sound, both of one clip
SEEN = 0.9  # the share of the labelled keypoints that can be seen where a lie is told


def tell_lies(
    made: Sequence[Augmented], groups: Sequence[str], chance: float, rngs: Sequence[np.random.Generator]
) -> tuple[list[Augmented], Bool[np.ndarray, " B"]]:
    """Exchange words and sounds for those of other groups of the batch.

    Args:
        made: the batch's items, augmented.
        groups: their clips or persons; a lie comes from another one.
        chance: of a lie, for an item that shows at least nine in ten of its labelled keypoints and has words or sound.
        rngs: a generator for each item.

    Returns:
        The items, and which of them hold a lie. An item that has nobody to borrow from stays as it is.
    """
    told, lies = list(made), np.zeros(len(made), bool)
    for i, (item, rng) in enumerate(zip(made, rngs, strict=True)):
        asked, kind, donor = rng.random(3)
        kinds = [k for k in KINDS if _has(item, k)]
        if asked >= chance or not kinds or not _is_seen(item):
            continue
        places = kinds[int(kind * len(kinds))]
        donors = [d for d, g in zip(made, groups, strict=True) if g != groups[i] and _has(d, places)]
        if donors:
            told[i], lies[i] = _with(item, donors[int(donor * len(donors))], places), True
    return told, lies


def _has(item: Augmented, places: tuple[int, ...]) -> bool:
    return bool(item.modality_mask[list(places)].all())


def _is_seen(item: Augmented) -> bool:
    labelled = item.visible > 0
    return bool(item.modality_mask[0] and labelled.any() and (item.visible[labelled] == 2).mean() >= SEEN)


def _with(item: Augmented, donor: Augmented, places: tuple[int, ...]) -> Augmented:
    if 1 in places:
        item = replace(item, text=donor.text)
    if 2 in places:
        item = replace(item, audio=donor.audio, rate_hz=donor.rate_hz, audio_time_s=donor.audio_time_s)
    return item
