"""Evaluate: predictions to a file, scores from the file, a report from the scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmkp
from mmkp.data import open_dataset
from mmkp.data.conditions import Conditions, check_condition
from mmkp.data.corrupt import CONDITIONS, conditions_of
from mmkp.data.sample import KeypointDataset
from mmkp.errors import InputError, nearest
from mmkp.evaluation import figures
from mmkp.evaluation.confidence import summarize_confidence
from mmkp.evaluation.instances import evaluate_people
from mmkp.evaluation.predict import all_subsets, predict_dataset
from mmkp.evaluation.predictions import FILE, Predictions, reuse
from mmkp.evaluation.report import write_report
from mmkp.evaluation.score import GroupBootstrap, summarize
from mmkp.evaluation.single import learned_from, learned_whole
from mmkp.hub import Loaded, check_schema

LOOKED = 16  # items at which it is tried whether a corruption applies to a dataset
PREDICT_VERSION = 2  # raise it when the same model and data would give other predictions


def evaluate(
    loaded: Loaded, data: str, split: str, out: Path, options: dict[str, Any] | None = None,
    conditions: list[str] | None = None, batch_size: int = 32, say: Any = print, progress: Any = iter,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate a model on a dataset and write predictions, summary and report into `out`.

    Args:
        loaded: model and processor.
        data: NAME or NAME:PATH.
        split: of the dataset.
        out: made if it is not there; predictions in it are used again when model, data and conditions are the same.
        options: of the dataset.
        conditions: of the protocol, or corruptions as NAME:SEVERITY, or several joined by `+`; all of the protocol
            that apply to the data by default.
        say: gets a line for people.
        progress: wraps the iterator over batches.

    Returns:
        The summary (DESIGN, section 4).

    Raises:
        InputError: the data is not there or has other keypoints; a condition that does not exist or apply.
    """
    dataset = open_dataset(data, split, **(options or {}))
    check_schema(loaded, dataset.schema, f"data {data}")
    for line in dataset.problems:
        say(f"{data}: {line}")
    finds_people = getattr(loaded.model, "finds_people", False)
    chosen = _conditions(dataset, conditions, finds_people)
    key = key_of(loaded, dataset, chosen)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}", expected="a folder that can be written", got=str(error)) from error
    if finds_people:
        options = options or {}
        return evaluate_people(loaded, dataset, chosen, out, key, protocol_of(loaded, dataset, data, split, options),
                               batch_size=batch_size, progress=progress)  # fmt: skip
    predictions = reuse(Predictions, out / FILE, key)
    if predictions is None:
        predictions = predict_dataset(
            loaded.model, loaded.processor, dataset, chosen, batch_size=batch_size, progress=progress
        )
        predictions.meta |= {"key": key, "model": loaded.source, "digest": loaded.digest}
        predictions.save(out)
        predictions = Predictions.load(out)  # scores come from the file, today as in a year
    else:
        say(f"{out / FILE} is of this model and data: used again")
    for line in notes(predictions, loaded, data):
        say(line)
    return score_and_report(predictions, dataset, loaded, data, split, out, options or {})


def untold(modalities: Sequence[str], lacking: Sequence[str]) -> dict[str, str]:
    """The subsets of a model's modalities that no item can tell of, and why."""
    named = {s: [m for m in lacking if m in s.split("+")] for s in all_subsets(modalities)}
    return {s: f"no item has {' or '.join(gone)}" for s, gone in named.items() if gone}


def notes(predictions: Predictions, loaded: Loaded, data: str) -> list[str]:
    """What a reader of the figures must know of the data, in lines for people."""
    lines, whole = [], predictions.meta.get("whole", 0.0)
    if whole and not learned_whole(loaded) and learned_from(loaded) != data:
        lines.append(
            f"note: {whole:.0%} of the pictures of {data} have no box and are taken whole, which is not what a model "
            "that learned from crops expects; `mmkp data boxes` lays the boxes of faces"
        )
    lacking = predictions.meta.get("lacking")
    if lacking:
        lines.append(f"note: no item of {data} has {' or '.join(lacking)}: subsets with it have no figures")
    return lines


def score_and_report(
    predictions: Predictions, dataset: KeypointDataset, loaded: Loaded, data: str, split: str, out: Path,
    options: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """summary.json and report.md from predictions."""
    protocol = protocol_of(loaded, dataset, data, split, options)
    whole = predictions.meta.get("whole", 0.0)
    if whole:
        protocol["box"] = "whole picture" if whole == 1 else f"truth; whole picture for {whole:.0%}"
    schema, lacking = loaded.model.schema, predictions.meta.get("lacking", ())
    predictions = predictions.without(lacking)
    summary = summarize(predictions, schema, protocol, untold(loaded.model.modalities, lacking) if lacking else {})
    summary["confidence"], tables = summarize_confidence(predictions, schema, GroupBootstrap(predictions.groups))
    if tables:
        figures.reliability(tables, out / "reliability.png")
    part = out / "summary.json.part"
    part.write_text(json.dumps(summary, indent=1))
    part.replace(out / "summary.json")
    write_report(summary, predictions, dataset, schema, out)
    return summary


def protocol_of(
    loaded: Loaded, dataset: KeypointDataset, data: str, split: str, options: dict[str, Any]
) -> dict[str, Any]:
    """What the figures depend on (DESIGN, section 6)."""
    return {
        "data": data.partition(":")[0], "split": split, "fingerprint": dataset.fingerprint, "box": "truth",
        "model": loaded.source, "weights": loaded.digest, "mmkp": mmkp.__version__,
        "calibration": loaded.model.config.calibration,
        "options": options, "cover": "drawn once per group, seed = group id",
        "text": f"times: {options.get('text_times', 'those of the dataset')}",
        "even_times": "control: cursor from evenly spaced words",
    }  # fmt: skip


def _conditions(dataset: KeypointDataset, asked: list[str] | None, finds_people: bool) -> list[str]:
    applies = conditions_of(dataset)
    for name in asked or []:
        if name in CONDITIONS and name not in applies:
            raise InputError(
                "--condition", expected="one that applies to this data", got=repr(name), remedy=nearest(name, applies)
            )
        check_condition("--condition", name, dataset.schema)
        if name not in CONDITIONS and finds_people:
            raise InputError("--condition", expected=f"one of {', '.join(applies)} for several people", got=repr(name))
        if name not in CONDITIONS and not _applies(dataset, name):
            raise InputError("--condition", expected="one that applies to this data", got=repr(name))
    return asked or applies


def _applies(dataset: KeypointDataset, name: str) -> bool:
    """Whether a condition applies to at least one of a few items, evenly spread over a dataset."""
    change, looked = Conditions(dataset)[name], {round(i * (len(dataset) - 1) / (LOOKED - 1)) for i in range(LOOKED)}
    return any(change(dataset[i]) is not None for i in looked)


def key_of(loaded: Loaded, dataset: KeypointDataset, conditions: list[str]) -> str:
    parts = (
        PREDICT_VERSION,
        loaded.digest,
        dataset.name,
        dataset.fingerprint,
        conditions,
        all_subsets(loaded.model.modalities),
    )
    return hashlib.sha1(repr(parts).encode()).hexdigest()[:16]
