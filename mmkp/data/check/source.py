"""Where the rows come from: a reader's table, or samples made into one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmkp.data import READERS, card_of, open_dataset, open_table, split_spec
from mmkp.data.check.probe import Probes, Progress, audio_key, heard_of, image_key, picture_of
from mmkp.data.rows import Fault, Row, RowTable
from mmkp.data.sample import Sample
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema

SPLITS = ("train", "validation", "test", "others")  # others: GRID's


def named(spec: str) -> tuple[str, str]:
    """`split_spec`, whose refusal names the data card.

    Raises:
        InputError: neither a folder nor a dataset.
    """
    try:
        return split_spec(spec)
    except InputError as error:
        raise _with_card(error, "folder", spec) from error


def is_table(spec: str) -> bool:
    """Whether a reader makes rows of it.

    Raises:
        InputError: as `named`.
    """
    return named(spec)[0] in READERS


def open_source(spec: str, **options: Any) -> RowTable:
    """`open_table`, whose refusal names the data card when the folder is missing.

    Raises:
        InputError: as `open_table`.
    """
    try:
        return open_table(spec, **options)
    except InputError as error:
        raise _with_card(error, *named(spec)) from error


def sample_table(spec: str, progress: Progress = lambda jobs: jobs, **options: Any) -> tuple[RowTable, Probes]:
    """A dataset with its own reader as a table: each sample a row, its facts taken while it is at hand.

    Its groups stand for files, so that the frames of a clip are no duplicates of each other.

    Raises:
        InputError: no split of it can be opened.
    """
    name, path = named(spec)
    probes, rows, faults = Probes(), list[Row](), list[Fault]()
    schema: KeypointSchema | None = None
    refusal = InputError(f"dataset {name}", expected="at least one split")
    for split in SPLITS:
        try:
            dataset = open_dataset(spec, split, **options)
        except InputError as error:  # a split that it has not, or not a single clip in it
            refusal = refusal if split == "others" else error
            continue
        schema = dataset.schema
        for index in progress(range(len(dataset))):
            where = f"{split} {index + 1}"
            try:
                rows.append(_row_of(dataset[index], index, where, split, probes))
            except InputError as error:
                faults.append(Fault("bad row", where, str(error), row=index + 1))
        faults += [Fault("noted by the reader", split, str(problem)) for problem in dataset.problems]
    if schema is None:
        raise _with_card(refusal, name, path) from refusal
    return RowTable(name, schema, rows, list(dict.fromkeys(faults)), Path(path)), probes


def _row_of(sample: Sample, index: int, where: str, split: str, probes: Probes) -> Row:
    row = Row(
        id=sample.id, group=sample.group, where=where, keypoints_xy=sample.keypoints_xy, visible=sample.visible,
        box_xywh=sample.box_xywh, image=None if sample.image is None else Path(sample.group), frame=index,
        audio=None if sample.audio is None else Path(where), audio_time_s=sample.audio_time_s, text=sample.text,
        split=split, info=sample.info,
    )  # fmt: skip
    if sample.image is not None:
        probes.pictures[image_key(row)] = picture_of(sample.image)
    if sample.audio is not None:
        probes.sounds[audio_key(row)] = heard_of(sample.audio, sample.rate_hz, sample.audio_time_s)
    return row


def _with_card(error: InputError, name: str, path: str) -> InputError:
    """The refusal, with the page that says how the data must lie where there is no such path."""
    if "data_cards/" in str(error) or not path or Path(path).expanduser().exists():
        return error
    remedy = f"{error.remedy} {card_of(name)} says how to get the data and how it must lie."
    return InputError(error.where, expected=error.expected, got=error.got, remedy=remedy.strip())
