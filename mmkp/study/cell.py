"""One cell of a study: an arm and a seed, trained (or continued), predicted, and written as one Parquet file."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmkp import metrics
from mmkp.data import open_dataset
from mmkp.data.corruptions import corruptions_for, donor_pool
from mmkp.data.sample import KeypointDataset, Sample
from mmkp.errors import InputError
from mmkp.evaluation.confidence import summarize_confidence
from mmkp.evaluation.predictions import Predictions
from mmkp.evaluation.report import _worst_by_group as worst_by_group
from mmkp.evaluation.score import GroupBootstrap
from mmkp.loading.weights import WEIGHTS
from mmkp.study.corruptions import spoiled
from mmkp.study.plan import Cell, Folders, settings_key, training_key
from mmkp.study.recipe import Loaded
from mmkp.study.results import ALL, CellResults, blocks_of, read_meta

NOTE = "cell.json"  # in a cell's run: what it is of, its steps, and what they cost
WORST = 6  # pictures of each cell and condition
LEAST_OVER = 1.2  # times the budget: beyond it a cell says that it got more
Predict = Callable[[KeypointDataset, Sequence[str], Sequence[str]], Predictions]


@dataclass
class Listed:
    """Samples as a dataset."""

    samples: Sequence[Sample]
    schema: Any
    name: str = "samples"
    fingerprint: str = ""
    problems: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


@dataclass(frozen=True)
class Chosen(Sequence[Sample]):
    """Some of a dataset's samples, read when they are asked for."""

    dataset: KeypointDataset
    indices: list[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[self.indices[index]]


def run_cell(loaded: Loaded, cell: Cell, folder: Path, threads: int) -> CellResults:
    """Train or fit a cell's arm, judge it on the study's items.

    Args:
        folder: of the cell's run; what lies there is continued when it belongs to the same cell.
        threads: of this process.

    Returns:
        The results, without what `mmkp.study.run` knows beside them.

    Raises:
        MmkpError: as training and evaluation do; a loss that is not finite among them.
    """
    classic, dataset = cell.arm in loaded.classic, evaluation_items(loaded)
    predict, meta = (_fit if classic else _train)(loaded, cell, folder, threads)
    judged = loaded.study.evaluate
    began = time.process_time()
    made = predict(dataset, judged.conditions, subsets_of(loaded, cell.arm))
    lacking = made.meta.get("lacking", ())
    if lacking:  # a figure of what no item has would be that of the mean shape, or of the rest
        made = made.without(lacking)
        meta["notes"] += [f"no item has {' or '.join(lacking)}: subsets with it have no figures"]
    if classic:
        meta["ms_32"] = (time.process_time() - began) * 1000 / len(dataset) / len(judged.conditions)
    confidence, tables = summarize_confidence(made, dataset.schema, GroupBootstrap(made.groups))
    results = CellResults({
        **meta, "confidence": confidence, "reliability": [[*k, *_plain(t)] for k, t in tables.items()],
        "worst": worst_items(made, dataset.schema, "+".join(loaded.modalities[cell.arm])),
        "normalizer": dataset.schema.normalizer.name, "groups": list(dataset.schema.groups),
    })  # fmt: skip
    for condition in judged.conditions:
        results.blocks |= blocks_of(made, dataset.schema, condition)
    results.blocks |= _corrupted(loaded, cell.arm, dataset, predict)
    if cell.arm == loaded.reference:
        results.blocks |= _mean_shape(made, dataset.schema)
    return results


def evaluation_items(loaded: Loaded) -> KeypointDataset:
    """The items that every arm is judged on.

    Raises:
        InputError: the data is not there.
    """
    judged, data = loaded.study.evaluate, loaded.data
    dataset = open_dataset(data.dataset, judged.split, **data.options)
    if judged.items is None or judged.items >= len(dataset):
        return dataset
    return Listed(Chosen(dataset, spread(len(dataset), judged.items)), dataset.schema, dataset.name)


def spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` indices, evenly spread over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


def subsets_of(loaded: Loaded, arm: str, asked: tuple[str, ...] | None = None) -> list[str]:
    """The subsets that an arm is judged by: those asked for that it has and all of its modalities; all without."""
    from mmkp.evaluation.predict import all_subsets

    own = all_subsets(loaded.modalities[arm])
    asked = asked or loaded.study.evaluate.subsets
    return [s for s in own if asked is None or s in asked or s == own[-1]]


def _train(loaded: Loaded, cell: Cell, folder: Path, threads: int) -> tuple[Predict, dict[str, Any]]:
    import torch

    from mmkp.evaluation.calibrate import calibrate, save_calibrated
    from mmkp.evaluation.predict import predict_dataset
    from mmkp.hub import load
    from mmkp.study.cost import cost_of, peak_memory_mb
    from mmkp.training import run

    torch.set_num_threads(threads)
    steps, meta = _steps(loaded, cell, folder, threads)
    resumed, began = (folder / "metrics.jsonl").is_file(), time.process_time()
    note = _read(folder / NOTE)
    if "spent" not in note or not (folder / WEIGHTS).is_file():  # else: trained before, and judged otherwise now
        run(with_threads(loaded.recipe(cell.arm, cell.seed, steps), threads), folder, resume=True)
        note["spent"] = {"cpu_s": None if resumed else time.process_time() - began, **peak_memory_mb()}
        _write(folder / NOTE, note)
    meta |= {**note["spent"], "steps": steps}
    model, judged, data = load(str(folder)), loaded.study.evaluate, loaded.data
    model.model.config.calibration = None  # that of an earlier judgement
    if torch.cuda.is_available():
        network: Any = model.model
        network.to("cuda")
    if judged.calibrate:
        try:
            found = calibrate(model, open_dataset(data.dataset, "validation", **data.options))
            save_calibrated(model, folder)
            meta["calibration"] = {k: found[k] for k in ("temperature", "bias", "n")}
        except InputError as error:
            meta["notes"] += [f"scores stay as they are: {error}"]
    meta |= cost_of(model.model, model.processor, loaded.modalities[cell.arm])
    meta["resumed"] = resumed

    def predict(dataset: KeypointDataset, conditions: Sequence[str], subsets: Sequence[str]) -> Predictions:
        return predict_dataset(
            model.model, model.processor, dataset, conditions, subsets, batch_size=judged.batch_size
        )  # fmt: skip

    return predict, meta


def _steps(loaded: Loaded, cell: Cell, folder: Path, threads: int) -> tuple[int, dict[str, Any]]:
    """The steps of a cell: the budget's, or those that were found to fit when the arm was first begun."""
    note = folder / NOTE
    before = _read(note)
    if before.get("trained") != cell.trained:
        shutil.rmtree(folder, ignore_errors=True)
        steps, each = loaded.study.budget.steps, None
        if steps is None:
            steps, each = _steps_of_arm(loaded, cell, folder.parent, threads)
        before = {"trained": cell.trained, "steps": steps, "cpu_s_per_step": each}
        folder.mkdir(parents=True, exist_ok=True)
        _write(note, before)
    each, budget, notes = before["cpu_s_per_step"], loaded.study.budget.cpu_seconds, []
    if each and budget and before["steps"] * each > LEAST_OVER * budget:
        notes.append(f"{before['steps']} steps, the fewest there are, need {before['steps'] * each:.0f} CPU-s, the "
                     f"budget is {budget:g}")  # fmt: skip
    return before["steps"], {"cpu_s_per_step": each, "notes": notes}


def _steps_of_arm(loaded: Loaded, cell: Cell, runs: Path, threads: int) -> tuple[int, float]:
    """The steps that fit into an arm's budget, and the CPU-seconds of one, the same for all its seeds: what a finished
    cell or the run of another seed has found, else by a probe; who comes second waits for the first's."""
    from mmkp.study.cost import PROBE_STEPS, steps_within

    seconds, first = loaded.study.budget.cpu_seconds, 0  # whichever seeds are asked for: the same steps
    assert seconds is not None  # the study was checked: it has steps or seconds
    settings = training_key(loaded, cell.arm, first)
    note = runs / f"{cell.arm}.steps.json"
    with (runs / f"{cell.arm}.steps.lock").open("a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        found = _read(note)
        if found.get("settings") != settings:
            found = _steps_of_cells(loaded, cell.arm, Folders(runs.parent)) or {}
        if not found:
            scratch = runs / f"{cell.arm}.probe"
            shutil.rmtree(scratch, ignore_errors=True)
            recipe = with_threads(loaded.recipe(cell.arm, first, PROBE_STEPS), threads)
            steps, each = steps_within(seconds, recipe, scratch)
            shutil.rmtree(scratch, ignore_errors=True)
            found = {"steps": steps, "cpu_s_per_step": each}
        _write(note, {**found, "settings": settings})
    return found["steps"], found["cpu_s_per_step"]


def _steps_of_cells(loaded: Loaded, arm: str, folders: Folders) -> dict[str, Any] | None:
    """What the arm's finished cells of these settings took."""
    for seed in loaded.study.seeds:
        meta = read_meta(folders.cells / f"{arm}-{seed}.parquet") or {}
        if meta.get("status") == "done" and meta.get("settings") == settings_key(loaded, arm, seed):
            return {k: meta[k] for k in ("steps", "cpu_s_per_step")}
    return None


def _read(path: Path) -> dict[str, Any]:
    """What `_write` has written; empty where there is nothing or, after a machine died, only a part."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, plain: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(plain))
    os.replace(part, path)


def with_threads(recipe: Any, threads: int) -> Any:
    """A recipe on so many threads."""
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"threads": threads})})


def _fit(loaded: Loaded, cell: Cell, folder: Path, threads: int) -> tuple[Predict, dict[str, Any]]:
    from mmkp.classic.pipeline import fit, predict_dataset
    from mmkp.study.cost import peak_memory_mb

    recipe: Any = loaded.recipe(cell.arm, cell.seed, 1)
    data = recipe.data
    train_set = open_dataset(data.dataset, "train", **{**data.options, **data.train_options})
    began = time.process_time()
    pipeline = fit(recipe, train_set)
    meta = {"cpu_s": time.process_time() - began, **peak_memory_mb(), "notes": pipeline.notes, "device": "cpu"}

    def predict(dataset: KeypointDataset, conditions: Sequence[str], subsets: Sequence[str]) -> Predictions:
        return predict_dataset(pipeline, dataset, conditions, subsets=subsets)

    return predict, meta


def _corrupted(loaded: Loaded, arm: str, dataset: KeypointDataset, predict: Predict) -> dict[Any, Any]:
    """Blocks of every corruption that the arm is put through and can notice; all points and the primary part.

    A severity that leaves an item without any of the arm's modalities is not for this arm: there is nothing to judge.
    """
    made: dict[Any, Any] = {}
    primary = loaded.study.evaluate.primary.part
    parts = [ALL, *([primary] if primary in dataset.schema.groups else [])]
    sections = loaded.study.corruptions_of(arm)
    registry, donors = corruptions_for(dataset.schema), donor_pool(dataset) if sections else ()
    for section in sections:
        samples = [dataset[i] for i in spread(len(dataset), section.items)]
        own = loaded.modalities[arm]
        wanted = subsets_of(loaded, arm, section.subsets or ("+".join(own),))
        for name in section.names:
            touched = [s for s in wanted if registry[name].touches(s)]
            for severity in section.severities if touched else ():
                changed = spoiled(name, severity, samples, donors, registry)
                if changed and all(any(getattr(s, m) is not None for m in own) for s in changed):
                    predictions = predict(Listed(changed, dataset.schema), ["clear"], touched)
                    made |= blocks_of(predictions, dataset.schema, name, severity, parts)
    return made


def _mean_shape(made: Predictions, schema: Any) -> dict[Any, Any]:
    blank = {c: np.zeros(made.true_xy.shape[:2], np.float32) for c in made.visible}
    cells = {(c, "mean_shape"): made.mean_shape_xy for c in made.visible}
    scores = {(c, "mean_shape"): v for c, v in blank.items()}
    of = Predictions(made.ids, made.groups, made.true_xy, made.boxes, made.mean_shape_xy, made.visible, cells, scores)
    return {k: v for c in made.visible for k, v in blocks_of(of, schema, c).items()}


def worst_items(made: Predictions, schema: Any, subset: str) -> dict[str, Any]:
    """The worst item of each of the worst groups by condition: id, NME and predicted points (base64, float16, zlib)."""
    length, found = schema.normalizer(made.true_xy, made.boxes), {}
    for condition in made.visible:
        xy = made.keypoints_xy.get((condition, subset))
        if xy is None:
            continue
        errors = metrics.nme(metrics.normalized_errors(xy, made.true_xy, made.visible[condition] > 0, length))
        if np.isnan(errors).all():
            continue
        chosen = [i for i in worst_by_group(errors, made.groups, WORST) if np.isfinite(errors[i])]
        points = zlib.compress(xy[chosen].astype(np.float16).tobytes())
        found[condition] = {
            "ids": [str(made.ids[i]) for i in chosen], "errors": [round(float(errors[i]), 4) for i in chosen],
            "xy": base64.b64encode(points).decode(), "subset": subset,
        }  # fmt: skip
    return found


def read_points(entry: dict[str, Any]) -> np.ndarray:
    """The (n, K, 2) px points of `worst_items`."""
    flat = np.frombuffer(zlib.decompress(base64.b64decode(entry["xy"])), np.float16).astype(np.float64)
    return flat.reshape(len(entry["ids"]), -1, 2)


def _plain(table: Any) -> list[list[float | None]]:
    return [[None if not np.isfinite(v) else round(float(v), 4) for v in np.asarray(column)] for column in table]
