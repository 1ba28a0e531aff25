"""A classic run: fit, predict to a file, score from the file, report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import typer

from mmkp.classic.pipeline import fit, predict_dataset
from mmkp.classic.recipe import ClassicRecipe
from mmkp.data import open_dataset
from mmkp.data.corrupt import conditions_of
from mmkp.environment import environment
from mmkp.errors import InputError
from mmkp.evaluation.predictions import Predictions
from mmkp.evaluation.run import score_and_report

VERSION = 1  # raise it when the same recipe and data would give other predictions


def run_recipe(recipe: ClassicRecipe, out: Path, say: Any = None, progress: Any = iter) -> dict[str, Any]:
    """Fit on train, predict test, write recipe.yaml, environment.json, predictions.npz, summary.json and report.md.

    Args:
        out: the run's folder; a run of the same recipe in it is written over, any other refused.
        say: gets a line for people; stderr without.
        progress: wraps the iterator over batches of the test split.

    Returns:
        The summary.

    Raises:
        InputError, MissingExtraError: as `mmkp.classic.run`.
    """
    tell = say or (lambda line: typer.echo(line, err=True))
    _check_folder(out, recipe)
    data = recipe.data
    train_set = open_dataset(data.dataset, "train", **{**data.options, **data.train_options})
    test_set = open_dataset(data.dataset, "test", **data.options)
    _prepare(out)
    for name, dataset in (("train", train_set), ("test", test_set)):
        for line in dataset.problems:
            tell(f"{data.dataset}, {name}: {line}")
    pipeline = fit(recipe, train_set)
    (out / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")  # not before: a fit that fails is no run
    for note in pipeline.notes:
        tell(note)
    predictions = predict_dataset(pipeline, test_set, conditions_of(test_set), progress=progress)
    digest = hashlib.sha1(f"{VERSION} {recipe.to_yaml()} {train_set.fingerprint}".encode()).hexdigest()[:16]
    predictions.meta = {"key": f"{digest}-{test_set.fingerprint}", "model": recipe.name, "digest": digest}
    predictions.save(out)
    predictions = Predictions.load(out)  # scores come from the file, today as in a year
    # what the report wants to know of a model, where there is none
    model = SimpleNamespace(schema=test_set.schema, config=SimpleNamespace(calibration=None))
    told: Any = SimpleNamespace(model=model, source=recipe.name, digest=digest)
    return score_and_report(predictions, test_set, told, data.dataset, "test", out, dict(data.options))


def _check_folder(out: Path, recipe: ClassicRecipe) -> None:
    before = out / "recipe.yaml"
    same = before.is_file() and before.read_text(encoding="utf-8") == recipe.to_yaml()
    if not same and (before.exists() or (out / "checkpoints").exists() or (out / "summary.json").exists()):
        raise InputError(
            f"run folder {out}", expected="a new folder, or one of the same recipe", got="another run",
            remedy="Choose another --out.",
        )  # fmt: skip


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "environment.json").write_text(json.dumps(environment(), indent=2), encoding="utf-8")
    except OSError as error:
        raise InputError(f"run folder {out}", expected="a folder that can be written", got=str(error)) from error
