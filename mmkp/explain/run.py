"""Explain a model on a dataset: predictions from a file or made now, Shapley values, what the fusion lets through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmkp.data import open_dataset
from mmkp.data.corrupt import conditions_of
from mmkp.data.sample import KeypointDataset
from mmkp.errors import InputError
from mmkp.evaluation.predict import predict_dataset
from mmkp.evaluation.predictions import FILE, Predictions, reuse
from mmkp.evaluation.run import key_of, protocol_of
from mmkp.evaluation.score import DRAWS
from mmkp.explain.modalities import attribute
from mmkp.explain.report import write_report
from mmkp.explain.weights import fusion_weights
from mmkp.hub import Loaded, check_schema

OWN = "explain"  # a folder in `out`, where an evaluation that is of other data or another model lies there
SUMMARY = "summary.json"  # of an evaluation
ASKED = ("clear", "covered")  # the controls of the text's times are the evaluation's matter


def explain_dataset(
    loaded: Loaded, data: str, split: str, out: Path, options: dict[str, Any] | None = None, batch_size: int = 32,
    say: Any = print, progress: Any = iter,
) -> dict[str, Any]:  # fmt: skip
    """What each modality is worth by condition and group of keypoints: explain.json, explain.md and a figure.

    Args:
        loaded: model and processor.
        data: NAME or NAME:PATH.
        split: of the dataset.
        out: made if it is not there; predictions in it, of `mmkp evaluate` too, are used again when model and data are
            the same.
        options: of the dataset.
        say: gets a line for people.
        progress: wraps the iterator over batches.

    Returns:
        What explain.json holds: `n`, `protocol`, `modalities`, `conditions` (`mmkp.explain.modalities.attribute`) and
        `fusion` (`mmkp.explain.weights.fusion_weights`).

    Raises:
        InputError: the data is not there or has other keypoints; a model that tells people apart.
    """
    if loaded.model.finds_people:
        raise InputError(
            f"model {loaded.source}", expected="one that finds the keypoints of one person",
            got=f"the codec {loaded.model.config.codec['name']}",
        )  # fmt: skip
    dataset = open_dataset(data, split, **(options or {}))
    check_schema(loaded, dataset.schema, f"data {data}")
    for line in dataset.problems:
        say(f"{data}: {line}")
    make_folder(out)
    conditions = [c for c in conditions_of(dataset) if c in ASKED]
    predictions = _predictions(loaded, dataset, conditions, out, batch_size, say, progress)
    modalities = loaded.model.modalities
    protocol = {
        **protocol_of(loaded, dataset, data, split, options or {}), "normalizer": dataset.schema.normalizer.name,
        "bootstrap_draws": DRAWS, "bootstrap_over": "groups", "groups": len(set(predictions.groups)),
        "shapley": "exact; v(subset) = -NME of the item, v(nothing) = -NME of the mean shape",
    }  # fmt: skip
    found = {
        "n": len(predictions.ids), "protocol": protocol, "modalities": list(modalities),
        "conditions": attribute(predictions, loaded.model.schema, conditions, modalities),
        "fusion": fusion_weights(loaded, dataset, conditions, batch_size, progress),
    }  # fmt: skip
    write_report(found, out)
    return found


def _predictions(
    loaded: Loaded, dataset: KeypointDataset, conditions: Sequence[str], out: Path, batch_size: int, say: Any,
    progress: Any,
) -> Predictions:  # fmt: skip
    """Those in `out`, whether made by `mmkp evaluate` for every condition or here before; else new ones, saved."""
    key = key_of(loaded, dataset, list(conditions))
    own = out / OWN
    for path in (out / FILE, own / FILE):
        for known in (key, key_of(loaded, dataset, conditions_of(dataset))):
            kept = reuse(Predictions, path, known)
            if kept is not None:
                say(f"{path} is of this model and data: used again")
                return kept
    made = predict_dataset(
        loaded.model, loaded.processor, dataset, conditions, batch_size=batch_size, progress=progress
    )
    made.meta = {"key": key, "model": loaded.source, "digest": loaded.digest}
    home = own if (out / SUMMARY).is_file() else out  # an evaluation's predictions stay what its summary tells of
    home.mkdir(exist_ok=True)
    made.save(home)
    return Predictions.load(home)  # scores come from the file, today as in a year


def make_folder(out: Path) -> None:
    """Make a folder to write into.

    Raises:
        InputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}", expected="a folder that can be written", got=str(error)) from error
