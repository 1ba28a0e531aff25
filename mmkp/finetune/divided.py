"""Small data divided: `divided:D` is D with the splits that it lacks, carved out of what it has.

The data's own splits stay. What is missing is taken by group while there are groups enough, by place in the order of
the data where there is one group alone, and not at all where there are too few items; a line says which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmkp.data import open_table
from mmkp.data.cache import DEFAULT_MB
from mmkp.data.rows import Row, RowDataset, RowTable
from mmkp.data.splits import assign_splits, check_split
from mmkp.errors import InputError

SHARE = 0.2  # of the groups, or of the items of a lone group
LEAST_ITEMS = 10  # of a lone group, for a fifth of it to be held out


@dataclass(frozen=True)
class Division:
    """The labelled rows of a table by split; `notes` names every compromise, and is empty where none was needed."""

    rows: dict[str, list[Row]]
    notes: tuple[str, ...]


def open_divided(spec: str, split: str = "train", cache_mb: int = DEFAULT_MB, **options: Any) -> RowDataset:
    """A split of `divide`'s.

    Args:
        spec: of a dataset in one of the formats.
        split: train, validation, test or all.
        cache_mb: as for `mmkp.data.open_dataset`.
        options: of the dataset.

    Raises:
        InputError: a dataset that is not made of rows, or without any label.
    """
    table = open_table(spec, **options)
    wanted, division = check_split(split, table.name), divide(table, spec)
    rows = division.rows.get(wanted) or [r for r in table.rows if is_labelled(r)]
    made = RowDataset(replace(table, rows=rows), "all", cache_mb)
    made.problems = [*made.problems, *division.notes]
    return made


def divide(table: RowTable, where: str = "") -> Division:
    """Train, validation and test of a table, none of them empty.

    Raises:
        InputError: no row has a label.
    """
    rows = [row for row in table.rows if is_labelled(row)]
    if not rows:
        got = f"{len(table.rows)} rows, none of them labelled" if table.rows else "no usable rows"
        first = f"; first fault: {table.faults[0]}" if table.faults else ""
        raise InputError(
            f"data {where or table.name}", expected="labelled keypoints", got=got + first,
            remedy="`mmkp data check` shows what is there.",
        )  # fmt: skip
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row, split in zip(rows, assign_splits([r.group for r in rows], [r.split for r in rows]), strict=True):
        found.setdefault(split, []).append(row)
    notes: list[str] = []
    if not found["test"] or not (found["train"] or found["validation"]):
        pool, found["test"], note = _carve(rows, "test")
        found |= {"train": pool, "validation": []}
        notes.append(note)
    if not found["validation"] or not found["train"]:
        pool = found["train"] + found["validation"]
        found["train"], found["validation"], note = _carve(pool, "validation")
        notes.append(note)
    return Division(found, tuple(notes))


def _carve(pool: Sequence[Row], what: str) -> tuple[list[Row], list[Row], str]:
    """What is left, what was taken, and how."""
    groups = sorted({r.group for r in pool}, key=lambda g: hashlib.sha1(g.encode()).hexdigest())
    if len(groups) > 1:
        chosen = set(groups[: max(1, round(SHARE * len(groups)))])
        taken = [r for r in pool if r.group in chosen]
        left = [r for r in pool if r.group not in chosen]
        return left, taken, f"{what}: {len(chosen)} of {len(groups)} groups ({len(taken)} items) taken out of training"
    if len(pool) >= LEAST_ITEMS:
        cut = len(pool) - round(SHARE * len(pool))
        return list(pool[:cut]), list(pool[cut:]), (
            f"{what}: all items are of one group ({groups[0]}): its last {len(pool) - cut} of {len(pool)} items are "
            "held out, so that figures say how well it does on more of the same, and nothing about others"
        )  # fmt: skip
    return list(pool), list(pool), (
        f"{what}: {len(pool)} items of one group are too few to hold any out: the training items serve as {what} too, "
        "and figures on them say nothing about new ones"
    )  # fmt: skip


def is_labelled(row: Row) -> bool:
    """Whether any keypoint of it is."""
    return bool((row.visible > 0).any())
