"""What the data is: how many labelled items and groups, which modalities, and whether it must be divided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmkp.data import READERS, open_dataset, open_table, split_spec
from mmkp.data.sample import MODALITIES, KeypointDataset
from mmkp.errors import InputError
from mmkp.finetune.divided import divide
from mmkp.schema import KeypointSchema

LOOKED_AT = 32  # items of a dataset that is not made of rows
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataFacts:
    """The data that a model is fine-tuned on.

    Attributes:
        spec: how to open it, `divided:D` where D lacks a split.
        schema: of its keypoints.
        items: labelled items by split.
        groups: by split; at least so many where a dataset was only looked into.
        modalities: that at least one training item has.
        notes: compromises about the splits.
        sampled: whether only some items were looked at.
        unboxed: share of the training rows with a picture that have no box, so that the whole picture is theirs.
        problems: faults that the reader found, of rows that it left out among them.
    """

    spec: str
    schema: KeypointSchema
    items: dict[str, int]
    groups: dict[str, int]
    modalities: tuple[str, ...]
    notes: tuple[str, ...] = ()
    sampled: bool = False
    unboxed: float = 0.0
    problems: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the test items are others than those that are learned from."""
        return not any("too few to hold any out: the training items serve as test" in note for note in self.notes)

    @property
    def validated(self) -> bool:
        """Whether the validation items are others than those that are learned from."""
        return not any("too few to hold any out" in note for note in self.notes)


def look(data: str, options: dict[str, Any]) -> DataFacts:
    """Read what there is.

    Raises:
        InputError: no such data, or no label in it.
    """
    name, _ = split_spec(data)
    if name not in READERS or options.get("streaming"):
        return _look_at_samples(data, options)
    table = open_table(
        data, **{k: v for k, v in options.items() if k not in ("cache_mb", "streaming", "buffer", "held")}
    )
    division = divide(table, data)
    parts = {split: division.rows[split] for split in SPLITS}
    train = parts["train"]
    there = {"image": any(r.image is not None for r in train), "text": any(r.text is not None for r in train),
             "audio": any(r.audio is not None for r in train)}  # fmt: skip
    return DataFacts(
        f"divided:{data}" if division.notes else data, table.schema, {s: len(rows) for s, rows in parts.items()},
        {s: len({r.group for r in rows}) for s, rows in parts.items()},
        tuple(m for m in MODALITIES if there[m]), division.notes,
        unboxed=float(np.mean([r.box_xywh is None for r in train if r.image is not None] or [False])),
        problems=tuple(str(fault) for fault in table.faults),
    )  # fmt: skip


def _look_at_samples(data: str, options: dict[str, Any]) -> DataFacts:
    items, groups, present = {}, {}, np.zeros(3, bool)
    for split in SPLITS:
        dataset: KeypointDataset = open_dataset(data, split, **options)
        items[split] = len(dataset)
        chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), LOOKED_AT)).round().astype(int))
        samples = [dataset[int(i)] for i in chosen]
        groups[split] = len({s.group for s in samples})
        if split == "train":
            present = np.any([s.present for s in samples], axis=0)
            if not any((s.visible > 0).any() for s in samples):
                raise InputError(
                    f"data {data}", expected="labelled keypoints", got=f"none in {len(samples)} items looked at"
                )
    return DataFacts(data, dataset.schema, items, groups, tuple(np.array(MODALITIES)[present].tolist()),
                     sampled=True)  # fmt: skip
