"""Conditions by name: those of the protocol, corruptions as NAME:SEVERITY, and several of them joined by `+`.

    spoil = Conditions(dataset)["covered+audio_noise:3"]
    sample = spoil(sample)                    # None where it does not apply

Parts that are joined are applied from left to right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mmkp.data.corrupt import CONDITIONS
from mmkp.data.corruptions import CORRUPTIONS, NUM_SEVERITIES, Corruption, corrupt, corruptions_for, donor_pool
from mmkp.data.sample import KeypointDataset, Sample
from mmkp.errors import InputError, nearest
from mmkp.schema import KeypointSchema

CHANGES = {"covered": ("image",), "even_times": ("text",)}  # the modalities that a condition of the protocol changes
OCCLUDER = "occlude_"  # and a group of keypoints, which the schema decides


def changed_modalities(part: str) -> tuple[str, ...]:
    """The modalities that a condition changes; `part` is one that is not joined of others."""
    name, colon, _ = part.partition(":")
    if not colon:
        return CHANGES.get(part, ())
    return CORRUPTIONS[name].modalities if name in CORRUPTIONS else ("image",)  # an occluder of another schema's group


def check_condition(where: str, name: str, schema: KeypointSchema) -> None:
    """Refuse a condition that does not exist.

    Raises:
        InputError: no such condition or corruption, with the nearest; no such severity; a corruption that moves the
            keypoints, which have then no place in the clear picture.
    """
    registry = corruptions_for(schema)
    for part in [name] if name in CONDITIONS else name.split("+"):
        corruption, colon, severity = part.partition(":")
        if not colon and part not in CONDITIONS:
            known = [*CONDITIONS, *registry]
            remedy = f"Say how strong: {part}:3." if part in registry else nearest(part, known)
            raise InputError(
                where, expected="a condition, or a corruption as NAME:SEVERITY", got=repr(part), remedy=remedy
            )
        if colon and corruption not in registry:
            raise InputError(where, expected="a corruption", got=repr(corruption), remedy=nearest(corruption, registry))
        if colon and severity not in [str(s) for s in range(1, NUM_SEVERITIES + 1)]:
            raise InputError(where, expected=f"a severity from 1 to {NUM_SEVERITIES}", got=repr(severity))
        if colon and registry[corruption].moves_points:
            remedy = "A study (`mmkp study`) judges it."
            raise InputError(where, expected="a corruption that leaves keypoints in place", got=part, remedy=remedy)


class Conditions:
    """The conditions of a dataset by name; sound and sentences that lie are borrowed from its other items.

    Raises:
        InputError: (on asking) as `check_condition`.
    """

    def __init__(self, dataset: KeypointDataset) -> None:
        self.dataset = dataset
        self._registry: dict[str, Corruption] = corruptions_for(dataset.schema)
        self._donors: tuple[Sample, ...] | None = None

    def __getitem__(self, name: str) -> Callable[[Sample], Sample | None]:
        """What gives a sample under a condition, or None where it does not apply."""
        if name in CONDITIONS:
            return CONDITIONS[name]
        check_condition("condition", name, self.dataset.schema)
        changes = [CONDITIONS.get(part) or self._corruption(part) for part in name.split("+")]
        return partial(_one_after_another, changes)

    def _corruption(self, part: str) -> Callable[[Sample], Sample | None]:
        name, _, severity = part.partition(":")
        if self._registry[name].needs_donors and self._donors is None:
            self._donors = donor_pool(self.dataset)
        donors = self._donors or ()
        return lambda sample: corrupt(sample, name, int(severity), donors, self._registry)


def _one_after_another(changes: list[Callable[[Sample], Sample | None]], sample: Sample) -> Sample | None:
    changed: Sample | None = sample
    for change in changes:
        changed = None if changed is None else change(changed)
    return changed
