"""Datasets: each hands out Samples. `open_dataset` understands NAME, NAME:PATH, a folder, and a Hub dataset id."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from mmkp.data.sample import KeypointDataset
from mmkp.errors import InputError, nearest

DATASETS: dict[str, str] = {
    "grid": "mmkp.data.grid:GridDataset",
    "talker": "mmkp.data.talker:TalkerDataset",
    "crowd": "mmkp.data.talker.crowd:CrowdDataset",
    "people": "mmkp.data.people:PeopleDataset",
    "mix": "mmkp.data.mix:MixDataset",
    "divided": "mmkp.finetune.divided:open_divided",
}
# Formats: a reader makes a table of rows from a path, and RowDataset hands them out.
READERS: dict[str, str] = {
    "folder": "mmkp.data.folder:read_folder",
    "coco": "mmkp.data.readers.coco:read_coco",
    "wholebody": "mmkp.data.readers.coco:read_wholebody",
    "crowdpose": "mmkp.data.readers.coco:read_crowdpose",
    "ap10k": "mmkp.data.readers.coco:read_ap10k",
    "mpii": "mmkp.data.readers.mpii:read_mpii",
    "300w": "mmkp.data.readers.faces:read_300w",
    "wflw": "mmkp.data.readers.faces:read_wflw",
    "aflw": "mmkp.data.readers.faces:read_aflw",
    "cofw": "mmkp.data.readers.faces:read_cofw",
    "csv": "mmkp.data.readers.csv_points:read_csv_points",
    "icdar": "mmkp.data.readers.icdar:read_icdar",
    "deeplabcut": "mmkp.data.readers.deeplabcut:read_deeplabcut",
    "labelstudio": "mmkp.data.readers.labelstudio:read_labelstudio",
    "cvat": "mmkp.data.readers.cvat:read_cvat",
    "parquet": "mmkp.data.shards:read_parquet",
    "webdataset": "mmkp.data.shards:read_webdataset",
    "hub": "mmkp.data.hub_dataset:read_hub",
    "boxes": "mmkp.data.boxes:read_boxes",
}
# Formats that can be read in passing: (path, split) -> mmkp.data.stream.Stream.
STREAMS: dict[str, str] = {
    "parquet": "mmkp.data.stream:parquet_stream",
    "webdataset": "mmkp.data.stream:webdataset_stream",
    "hub": "mmkp.data.hub_dataset:hub_stream",
}
HELD = 1000  # rows of a stream's validation or test split that are held
NEEDS_PATH = ("grid", "people", "divided", *READERS)
CARDS = {
    "grid": "grid", "talker": "talker", "coco": "coco", "wholebody": "coco", "mpii": "mpii", "300w": "300w",
    "crowd": "talker", "people": "coco", "boxes": "coco",
    "aflw": "300w", "cofw": "300w", "crowdpose": "coco", "ap10k": "coco", "wflw": "wflw", "csv": "youtube_faces",
    "icdar": "icdar2015",
}  # fmt: skip


def card_of(name: str) -> str:
    """The page that says how to get a dataset and how it must lie."""
    return f"data_cards/{CARDS.get(name, 'template')}.md"


def split_spec(spec: str) -> tuple[str, str]:
    """Name and path of NAME, NAME:PATH, a folder (the custom format) or ORG/NAME (a Hub dataset id).

    Raises:
        InputError: a word that is none of them.
    """
    name, _, path = spec.partition(":")
    if name in DATASETS or name in READERS:
        return name, path
    if Path(spec).expanduser().exists():
        return "folder", spec
    if spec.count("/") == 1 and not spec.startswith((".", "/", "~")) and ":" not in spec:
        return "hub", spec
    raise InputError(
        f"dataset {spec!r}", expected="a folder, a registered dataset (NAME or NAME:PATH) or a Hub id",
        got="none of them", remedy=nearest(name, [*DATASETS, *READERS]),
    )  # fmt: skip


def open_table(spec: str, **options: Any) -> Any:
    """The rows and faults of a dataset in one of the formats (`RowTable`), nothing decoded.

    Raises:
        InputError: no such data, a dataset that is not made of rows (grid, talker), an option that it does not have.
    """
    name, path = split_spec(spec)
    if name not in READERS:
        raise InputError(f"dataset {name}", expected="a dataset in one of the formats", got="one with its own reader")
    _need_path(name, path)
    return _call(name, READERS[name], (path,), options)


def open_dataset(spec: str, split: str, **options: Any) -> KeypointDataset:
    """A dataset's split.

    Args:
        spec: see `split_spec`.
        split: train, validation, test or all.
        options: of the dataset. Those in one of the formats also have `cache_mb`, the memory for what was decoded (MiB,
            0 for none); Parquet, WebDataset and Hub datasets `streaming` with `buffer` and `held` (mmkp.data.stream).

    Raises:
        InputError: no such dataset, no path where one is needed, an option that it does not have.
    """
    name, path = split_spec(spec)
    _need_path(name, path)
    if options.get("streaming"):
        return _open_stream(name, path, split, **options)
    if name in READERS:
        from mmkp.data.cache import DEFAULT_MB
        from mmkp.data.rows import RowDataset

        options.pop("streaming", None)
        cache_mb = _whole(options.pop("cache_mb", DEFAULT_MB), "cache_mb", 0)
        return RowDataset(open_table(spec, **options), split, cache_mb)
    return _call(name, DATASETS[name], (path,) if path else (), {"split": split, **options})


def _open_stream(name: str, path: str, split: str, **options: Any) -> Any:
    """A stream for the split train, up to `held` rows of a stream for the others: they are asked for by index."""
    if name not in STREAMS:
        raise InputError(
            f"dataset {name}", expected=f"one of {', '.join(STREAMS)} for streaming", got="another format",
            remedy="`mmkp data export --to parquet` writes shards of any dataset.",
        )  # fmt: skip
    options.pop("streaming")
    options.pop("cache_mb", None)
    held = _whole(options.pop("held", HELD), "held", 1)
    stream = _call(name, STREAMS[name], (path, split), options)
    return stream if split == "train" else stream.head(held)


def _whole(value: Any, option: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"option {option}", expected=f"a whole number from {least} on", got=repr(value))
    return value


def _need_path(name: str, path: str) -> None:
    if name in NEEDS_PATH and not path:
        raise InputError(
            f"dataset {name}", expected=f"{name}:PATH", got="no path", remedy=f"{card_of(name)} says how to get it."
        )


def _check_options(name: str, factory: Any, options: dict[str, Any]) -> None:
    """Refuse an option that the dataset does not have, by its own name."""
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return  # what it does with them it knows itself
    known = [p.name for p in list(parameters)[1 if name in NEEDS_PATH else 0 :]]
    for option in options:
        if option not in known:
            raise InputError(
                f"dataset {name}", expected=f"options that it has: {', '.join(known) or 'none'}", got=repr(option),
                remedy=nearest(option, known),
            )  # fmt: skip


def _call(name: str, target: str, arguments: tuple, options: dict[str, Any]) -> Any:
    module, _, attribute = target.partition(":")
    factory = getattr(importlib.import_module(module), attribute)
    _check_options(name, factory, options)
    try:
        return factory(*arguments, **options)
    except TypeError as error:  # an option that it does not have, or one of a wrong type
        raise InputError(f"dataset {name}", expected="options that it has", got=f"{options}: {error}") from error
