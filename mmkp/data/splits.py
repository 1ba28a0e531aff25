"""Splits by group: the ones that the data names, and a hash of the group where it names none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mmkp.errors import InputError, nearest

SPLITS = ("train", "validation", "test", "all")
ALIASES = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation", "testing": "test"}


def hash_tenth(group: str) -> int:
    """0 to 9, the same on every machine: sha1 of the group modulo 10."""
    return int(hashlib.sha1(group.encode()).hexdigest(), 16) % 10


def hashed_split(group: str) -> str:
    """0-6 train, 7 validation, 8-9 test."""
    tenth = hash_tenth(group)
    return "train" if tenth < 7 else "validation" if tenth == 7 else "test"


def canonical(name: str | None) -> str | None:
    """The split's usual name: `val`, `valid` and `dev` are validation."""
    if name is None:
        return None
    lowered = str(name).strip().lower()
    return ALIASES.get(lowered, lowered) or None


def assign_splits(groups: Sequence[str], named: Sequence[str | None]) -> list[str]:
    """The split of every row.

    What the data names stays. Rows without a name are split by the hash of their group; where the data names splits
    but has no validation, or no test, the tenths of its training groups that the hash gives them take that part.

    Few groups may leave a part without any: where the data names no splits and has at least three groups, a tenth of
    them (one at least) becomes validation and a fifth (one at least) test, in the order of their hashes.

    Args:
        groups: what a split may not divide.
        named: the data's own split of each row, None where it names none.
    """
    canonical_names = [canonical(n) for n in named]
    known = {n for n in canonical_names if n}
    if not known and len({hashed_split(g) for g in groups}) < 3 <= len(set(groups)):
        return _shared_out(groups)
    split = []
    for group, name in zip(groups, canonical_names, strict=True):
        hashed = hashed_split(group)
        if name is None or (name == "train" and hashed not in known):
            split.append(hashed)
        else:
            split.append(name)
    return split


def _shared_out(groups: Sequence[str]) -> list[str]:
    order = sorted(set(groups), key=lambda g: hashlib.sha1(g.encode()).hexdigest())
    test, validation = max(1, round(0.2 * len(order))), max(1, round(0.1 * len(order)))
    names = ["test"] * test + ["validation"] * validation
    found = dict(zip(order, names + ["train"] * (len(order) - len(names)), strict=True))
    return [found[group] for group in groups]


def check_split(split: str, where: str) -> str:
    """A known split by its usual name.

    Raises:
        InputError: another word.
    """
    name = canonical(split)
    if name not in SPLITS:
        raise InputError(
            f"{where} split", expected=f"one of {', '.join(SPLITS)}", got=repr(split), remedy=nearest(split, SPLITS)
        )
    return str(name)
