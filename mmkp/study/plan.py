"""Which cells a study has, what each depends on, and which of them are finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmkp.data import open_dataset
from mmkp.errors import InputError, nearest
from mmkp.schema import KeypointSchema
from mmkp.study import results
from mmkp.study.corruptions import check_names
from mmkp.study.recipe import Loaded

CELL_VERSION = 2  # raise it when the same recipe, seed and data would give other results
START_VERSION = "-2"  # of how a fusion's weights are taken over by `training.start_from`
TRAINED = ("version", "recipe", "seed", "budget", "start")  # of what a cell depends on: what its weights depend on
VALIDATION = ("validation_samples", "validation_subsets")  # of data: by what the best checkpoint is chosen
FREE = ("threads", "workers", "log_every", "trackers")  # of training: what a result does not depend on


@dataclass(frozen=True)
class Cell:
    """An arm and a seed.

    Attributes:
        key: a hash of everything that its results depend on.
        settings: the same without the data, which is not at hand wherever cells are read.
        data: (split, fingerprint) of each split.
        trained: a hash of everything that its weights depend on; how it is judged is not among that.
    """

    arm: str
    seed: int
    key: str
    settings: str = ""
    data: tuple[tuple[str, str], ...] = ()
    trained: str = ""

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.arm}-{self.seed}"


class Folders:
    """Where a study keeps what: `cells/*.parquet` are its results and all that a report needs."""

    def __init__(self, out: Path) -> None:
        self.out, self.cells, self.runs, self.logs = out, out / "cells", out / "runs", out / "logs"

    def make(self) -> None:
        """Make them.

        Raises:
            InputError: they cannot be written.
        """
        try:
            for folder in (self.cells, self.runs, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            where = f"--out {self.out}"
            raise InputError(where, expected="a folder that can be written", got=str(error)) from error

    def cell(self, cell: Cell) -> Path:
        """A cell's file."""
        return self.cells / f"{cell.name}.parquet"


def plan(loaded: Loaded, only: str | None = None) -> list[Cell]:
    """All cells, seed by seed, so that a study that is stopped has every arm before it has every seed.

    Args:
        only: an arm; the others are left out.

    Raises:
        InputError: the data is not there, or lacks a group of keypoints that the study names.
    """
    study = loaded.study
    arms = [study.arm(only).name] if only else [arm.name for arm in study.arms]
    prints = {arm: _fingerprints(loaded, arm) for arm in arms}
    return [cell_of(loaded, arm, seed, prints[arm]) for seed in study.seeds for arm in arms]


def state(path: Path, cell: Cell, retry: bool = False) -> str:
    """`done`, `failed` (as recorded), `stale` (of other settings, or damaged) or `open`.

    A failure is open when it is tried again.
    """
    meta = results.read_meta(path)
    if meta is None:
        return "open"
    if meta.get("key") != cell.key or meta.get("version") != results.VERSION or not results.is_whole(path):
        return "stale"
    return "open" if retry and meta["status"] == "failed" else str(meta["status"])


def put_aside(path: Path) -> Path:
    """Move a stale cell out of the way; hours of work are not written over."""
    key = (results.read_meta(path) or {}).get("key", "unknown")
    target = path.parent / "stale" / f"{path.stem}-{key}{path.suffix}"
    target.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another process on the same folder was faster
        os.replace(path, target)
    return target


def _fingerprints(loaded: Loaded, arm: str) -> dict[str, str]:
    """Of the three splits; the data is generated here, once, where it has to be."""
    data: Any = loaded.recipe(arm, loaded.study.seeds[0], 1).data
    judged, made = loaded.study.evaluate, {}
    for split in ("train", "validation", judged.split):
        own = data.train_options if split == "train" else {}
        dataset = open_dataset(data.dataset, split, **{**data.options, **own})
        _check_schema(loaded, dataset.schema)
        made[split] = str(getattr(dataset, "fingerprint", ""))
    return made


def _check_schema(loaded: Loaded, schema: KeypointSchema) -> None:
    """Refuse what only the data's keypoints can tell: a part or an occluder of a group that they do not have."""
    study, part = loaded.study, loaded.study.evaluate.primary.part
    if part is not None and part not in schema.groups:
        raise InputError(
            f"study {study.name} evaluate.primary.part", expected=f"a group of {schema.name}", got=repr(part),
            remedy=nearest(part, schema.groups),
        )  # fmt: skip
    check_names(f"study {study.name} corruptions", [n for c in study.corruptions for n in c.names], schema)


def cell_of(loaded: Loaded, arm: str, seed: int, fingerprints: dict[str, str]) -> Cell:
    """The cell of an arm and a seed on data of these fingerprints, by split."""
    depends = _depends(loaded, arm, seed)
    weights = {**_training(depends), "data": [fingerprints.get(split) for split in ("train", "validation")]}
    return Cell(
        arm, seed, _hash({**depends, "data": fingerprints}), _hash(depends), tuple(fingerprints.items()), _hash(weights)
    )  # fmt: skip


def settings_key(loaded: Loaded, arm: str, seed: int) -> str:
    """A hash of everything that a cell's results depend on but for the data."""
    return _hash(_depends(loaded, arm, seed))


def training_key(loaded: Loaded, arm: str, seed: int) -> str:
    """A hash of everything that a cell's weights depend on but for the data."""
    return _hash(_training(_depends(loaded, arm, seed)))


def _training(depends: dict[str, Any]) -> dict[str, Any]:
    return {k: depends[k] for k in TRAINED if k in depends}


def _depends(loaded: Loaded, arm: str, seed: int) -> dict[str, Any]:
    study = loaded.study
    # without what is as usual, so that a recipe may learn new keys; a default that changes raises CELL_VERSION
    dump: dict[str, Any] = {"mode": "json", "exclude_defaults": True}
    recipe = loaded.recipe(arm, seed, study.budget.steps or 1).model_dump(**dump)
    recipe["training"] = {k: v for k, v in recipe.get("training", {}).items() if k not in FREE}
    start = recipe["training"].get("start_from")
    recipe["data"] = {k: v for k, v in recipe["data"].items() if k in VALIDATION}  # the rest: fingerprints
    recipe.pop("name")
    depends = {
        "version": CELL_VERSION, "recipe": recipe, "seed": seed, "budget": study.budget.model_dump(**dump),
        "evaluate": study.evaluate.model_dump(**dump, exclude={"batch_size", "primary"}),
        "part": study.evaluate.primary.part,
        "corruptions": [c.model_dump(**dump, exclude={"arms"}) for c in study.corruptions_of(arm)],
        "reference": arm == loaded.reference,
    }  # fmt: skip
    if start:
        parts = recipe["training"].get("start_parts")
        depends["start"] = _weights_of(start) + (START_VERSION if not parts or "fusion" in parts else "")
    if recipe.get("kind") == "classic":
        depends.pop("budget")  # it is fitted in one go
    return depends


@lru_cache
def _weights_of(checkpoint: str) -> str:
    """A hash of a checkpoint's weights: one that is trained anew under its old name is another start."""
    from mmkp.hub import digest_of, load

    found = load(checkpoint)
    return digest_of(found.model, found.processor)


def _hash(depends: dict[str, Any]) -> str:
    return hashlib.sha1(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
