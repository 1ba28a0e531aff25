"""What a corruption is: one fault of one modality at five severities, the same for an item whenever it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmkp.data.sample import KeypointDataset, Sample
from mmkp.errors import InputError

NUM_SEVERITIES = 5
POOL = 32  # donors: enough that no two items in a row borrow from the same clip, few enough to be held
Change = Callable[[Sample, float, np.random.Generator, Sequence[Sample]], Sample | None]


@dataclass(frozen=True)
class Corruption:
    """A fault and how strong it gets.

    Attributes:
        modality: image, text or audio; `text+audio` where both are changed together.
        what: one line for tables and figures.
        unit: of `severities`.
        severities: the parameter at severity 1 to 5, mild to strong.
        change: (sample, parameter, rng, donors) -> the corrupted sample, or None where it cannot be done.
        scope: what shares a draw: `item`, or `group` for what stays in place while a clip runs.
        needs_donors: whether something is borrowed from other items.
        moves_points: whether the labels move with the picture; otherwise at most their visibility changes.
    """

    modality: str
    what: str
    unit: str
    severities: tuple[float, float, float, float, float]
    change: Change
    scope: Literal["item", "group"] = "item"
    needs_donors: bool = False
    moves_points: bool = False

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that are changed."""
        return tuple(self.modality.split("+"))

    def touches(self, subset: str) -> bool:
        """Whether a model that is given `subset` (`image+text`) can notice."""
        return not set(self.modalities).isdisjoint(subset.split("+"))

    def parameter(self, severity: int) -> float:
        """The parameter at a severity.

        Raises:
            InputError: a severity that is not a whole number from 1 to 5.
        """
        whole = isinstance(severity, int | np.integer) and not isinstance(severity, bool)
        if not (whole and 1 <= severity <= NUM_SEVERITIES):
            raise InputError("severity", expected=f"a whole number from 1 to {NUM_SEVERITIES}", got=repr(severity))
        return self.severities[int(severity) - 1]

    def apply(
        self, sample: Sample, severity: int, rng: np.random.Generator, donors: Sequence[Sample] = ()
    ) -> Sample | None:
        """The corrupted sample; what it shares with the given one is shared, nothing is changed in place.

        Args:
            sample: image frame.
            severity: 1 to 5.
            rng: all chance comes from it; `seed_of` says which one belongs to an item.
            donors: samples to borrow from, see `donor_pool`; those of the sample's own group are never used.

        Returns:
            None where the corruption does not apply: the modality is absent, or the keypoints are of another kind.

        Raises:
            InputError: no such severity; donors are needed and there are none.
        """
        parameter = self.parameter(severity)
        if any(getattr(sample, modality) is None for modality in self.modalities):
            return None
        if self.needs_donors and not donors:
            raise InputError(
                f"corruption: {self.what}", expected="donors", got="none",
                remedy="Pass mmkp.data.corruptions.donor_pool(dataset).",
            )  # fmt: skip
        return self.change(sample, parameter, rng, [donor for donor in donors if donor.group != sample.group])


def seed_of(key: str, name: str) -> int:
    """The seed of a draw: the first eight bytes of the sha1 of the item (or group) and the corruption.

    All severities share it: what is missing at a low rate is missing at a higher one too, a picture that turns left
    turns further left, and a curve over severities does not jump because other items were drawn.
    """
    return int.from_bytes(hashlib.sha1(f"{key}\n{name}".encode()).digest()[:8], "big")


def donor_pool(dataset: KeypointDataset, most: int = POOL) -> tuple[Sample, ...]:
    """Up to `most` samples of different groups, evenly spread over a dataset, without their pictures."""
    pool: dict[str, Sample] = {}
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), most)).round().astype(int)):
        sample = dataset[int(index)]
        pool.setdefault(sample.group, sample.replace(image=None))
    return tuple(pool.values())


def pick(donors: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """One of the donors."""
    return donors[int(rng.integers(len(donors)))]
