"""A mixture of datasets with the same keypoints: one has pictures alone, another picture, sound and words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmkp.data.sample import KeypointDataset, Sample
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema


class MixPart(BaseModel):
    """A part of a mixture: a dataset, its share of the items, and its own options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    share: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    options: dict[str, Any] = {}
    train_options: dict[str, Any] = {}


class MixDataset:
    """Several datasets as one. An item's id and group carry the name of its part, `wild/...`.

    The split `train` holds every item of every part at least once and repeats those of the parts whose share would
    otherwise be too small. The split `validation` repeats nothing: it takes as many as the shares allow, evenly spread.
    Other splits hold every item once, whatever the shares.

    Args:
        split: train, validation, test or all; each part must have it.
        parts: name -> dataset, share, options, train_options; the shares are relative.

    Raises:
        InputError: no parts, a part that is not there, or parts with different keypoints.
    """

    name = "mix"

    def __init__(self, split: str = "train", parts: Mapping[str, Any] | None = None) -> None:
        described = _described(parts)
        self.parts = {name: _open(part, split) for name, part in described.items()}
        self.schema = _shared_schema(self.parts)
        shares = [part.share for part in described.values()]
        self._index = _index([len(d) for d in self.parts.values()], shares, split)
        self.fingerprint = hashlib.sha1(
            repr([(n, d.fingerprint, s) for (n, d), s in zip(self.parts.items(), shares, strict=True)]).encode()
        ).hexdigest()[:16]

    @property
    def problems(self) -> Sequence[str]:
        """What was skipped or masked while reading, by part."""
        return [f"{name}: {line}" for name, dataset in self.parts.items() for line in dataset.problems]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Sample:
        part, item = self._index[index]
        name = list(self.parts)[part]
        sample = self.parts[name][int(item)]
        return sample.replace(id=f"{name}/{sample.id}", group=f"{name}/{sample.group}")


def _described(parts: Mapping[str, Any] | None) -> dict[str, MixPart]:
    if not isinstance(parts, Mapping) or not parts:
        raise InputError(
            "dataset mix", expected="the option parts: {NAME: {dataset: ..., share: ...}, ...}", got=repr(parts)
        )
    made = {}
    for name, part in parts.items():
        try:
            made[str(name)] = MixPart.model_validate(part)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, ("parts", name, *first["loc"])))
            raise InputError(f"dataset mix {where}", expected=first["msg"], got=repr(first["input"])[:80]) from error
    return made


def _open(part: MixPart, split: str) -> KeypointDataset:
    from mmkp.data import open_dataset

    if part.options.get("streaming"):
        raise InputError(f"dataset mix, {part.dataset}", expected="a part with a length", got="streaming")
    more = part.train_options if split == "train" else {}
    return open_dataset(part.dataset, split, **{**part.options, **more})


def _shared_schema(parts: Mapping[str, KeypointDataset]) -> KeypointSchema:
    (first_name, first), *others = parts.items()
    for name, dataset in others:
        if dataset.schema.keypoints != first.schema.keypoints:
            raise InputError(
                f"dataset mix, part {name}", expected=f"the keypoints of {first.schema.name}, as in {first_name}",
                got=f"{dataset.schema.name}, {dataset.schema.num_keypoints} keypoints",
            )  # fmt: skip
    return first.schema


def _index(lengths: Sequence[int], shares: Sequence[float], split: str) -> np.ndarray:
    """(N, 2) part and item: see MixDataset for what a split holds."""
    counts = list(lengths)
    if split in ("train", "validation"):
        scales = [Fraction(n) / Fraction(s) for n, s in zip(lengths, shares, strict=True)]
        whole = max(scales) if split == "train" else min(scales)
        counts = [max(1, round(whole * Fraction(s))) for s in shares]
    rows = [
        np.stack([np.full(count, part), np.arange(count) % length if count >= length else _spread(count, length)], 1)
        for part, (count, length) in enumerate(zip(counts, lengths, strict=True))
    ]
    return np.concatenate(rows)


def _spread(count: int, length: int) -> np.ndarray:
    return np.linspace(0, length - 1, count).round().astype(int)
