"""Predictions as a file: what was predicted, for which items, by which model, under which protocol."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.errors import InputError

FILE = "predictions.npz"
Cell = tuple[str, str]  # condition, subset


@dataclass
class Predictions:
    """All predictions of one evaluation, in the image frame.

    Attributes:
        ids, groups: (N,) str.
        true_xy: (N, K, 2) px, NaN where unlabelled.
        boxes: (N, 4) xywh px.
        visible: by condition (N, K), COCO's flag.
        keypoints_xy: by (condition, subset) (N, K, 2) px.
        scores: by (condition, subset) (N, K).
        visibility: by (condition, subset) (N, K), the probability that the keypoint can be seen, NaN where the item
            lacks the subset; empty for a model that does not tell.
        mean_shape_xy: (N, K, 2) px, the training's mean shape placed in each item's box.
        meta: what the predictions depend on; a file with another `meta["key"]` is stale. Of the items `lacking`, the
            model's modalities that none of them has, and `whole`, the share of pictures of which the box is all.
    """

    ids: np.ndarray
    groups: np.ndarray
    true_xy: np.ndarray
    boxes: np.ndarray
    mean_shape_xy: np.ndarray
    visible: dict[str, np.ndarray] = field(default_factory=dict)
    keypoints_xy: dict[Cell, np.ndarray] = field(default_factory=dict)
    scores: dict[Cell, np.ndarray] = field(default_factory=dict)
    visibility: dict[Cell, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def without(self, lacking: Sequence[str]) -> Predictions:
        """The same without the subsets that name one of the modalities."""
        gone = set(lacking)
        kept = [
            {cell: v for cell, v in cells.items() if gone.isdisjoint(cell[1].split("+"))}
            for cells in (self.keypoints_xy, self.scores, self.visibility)
        ]
        return replace(self, keypoints_xy=kept[0], scores=kept[1], visibility=kept[2])

    def save(self, folder: Path) -> Path:
        """Write `predictions.npz` into a folder, whole or not at all."""
        arrays: dict[str, Any] = {
            "ids": self.ids, "groups": self.groups, "true_xy": self.true_xy, "boxes": self.boxes,
            "mean_shape_xy": self.mean_shape_xy, "meta": np.array(json.dumps(self.meta)),
        }  # fmt: skip
        arrays |= {f"visible|{c}": v for c, v in self.visible.items()}
        arrays |= {f"xy|{c}|{s}": v.astype(np.float32) for (c, s), v in self.keypoints_xy.items()}
        arrays |= {f"score|{c}|{s}": v.astype(np.float16) for (c, s), v in self.scores.items()}
        arrays |= {f"seen|{c}|{s}": v.astype(np.float16) for (c, s), v in self.visibility.items()}
        return write_arrays(arrays, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Predictions:
        """Read them back; nothing is unpickled.

        Raises:
            InputError: no such file, or a broken one.
        """
        path = folder / FILE
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {k: data[k] for k in data.files}
            plain = {k: arrays[k] for k in ("ids", "groups", "true_xy", "boxes", "mean_shape_xy")}
            meta = json.loads(str(arrays["meta"]))
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f"predictions {path}", expected="a file that `mmkp evaluate` wrote", got=str(error)
            ) from error
        made = cls(**plain, meta=meta)
        cells = {"xy": made.keypoints_xy, "score": made.scores, "seen": made.visibility}
        for name, value in arrays.items():
            kind, *rest = name.split("|")
            if kind == "visible":
                made.visible[rest[0]] = value
            elif kind in cells:
                cells[kind][(rest[0], rest[1])] = value
        return made


def write_arrays(arrays: dict[str, Any], target: Path) -> Path:
    """Write an .npz, whole or not at all."""
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(part, target)
    return target


def reuse(kind: Any, path: Path, key: str) -> Any:
    """Predictions in a folder's file `path` that were made for `key`; None where there are none, or others.

    Args:
        kind: `Predictions`, or another class with `load` and `meta`.
    """
    if not path.is_file():
        return None
    try:
        made = kind.load(path.parent)
    except InputError:
        return None  # a broken file is written anew
    return made if made.meta.get("key") == key else None
