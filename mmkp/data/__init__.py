"""Datasets: each hands out Samples. `open_dataset` understands NAME, NAME:PATH."""

from __future__ import annotations

import importlib
from typing import Any

from mmkp.data.sample import KeypointDataset
from mmkp.errors import InputError, nearest

DATASETS: dict[str, str] = {
    "grid": "mmkp.data.grid:GridDataset",
    "talker": "mmkp.data.talker:TalkerDataset",
}
NEEDS_PATH = ("grid",)
CARDS = {name: f"data_cards/{name}.md" for name in DATASETS}


def open_dataset(spec: str, split: str, **options: Any) -> KeypointDataset:
    """A dataset from NAME or NAME:PATH.

    Raises:
        InputError: no such dataset, no path where one is needed, an option that it does not have.
    """
    name, _, path = spec.partition(":")
    if name not in DATASETS:
        raise InputError(
            f"dataset {spec!r}", expected="a registered dataset, NAME or NAME:PATH", got=repr(name),
            remedy=nearest(name, DATASETS),
        )  # fmt: skip
    if name in NEEDS_PATH and not path:
        raise InputError(
            f"dataset {name}", expected=f"{name}:PATH", got="no path", remedy=f"{CARDS[name]} says how to get the data."
        )
    module, _, attribute = DATASETS[name].partition(":")
    factory = getattr(importlib.import_module(module), attribute)
    try:
        return factory(path, split=split, **options) if path else factory(split=split, **options)
    except TypeError as error:  # an option that it does not have, or one of a wrong type
        raise InputError(f"dataset {name}", expected="options that it has", got=f"{options}: {error}") from error
