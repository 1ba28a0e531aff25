"""`mmkp finetune`: plan, train, train the baseline, measure all on the same items, report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mmkp import hub
from mmkp.classic import is_classic
from mmkp.data import open_dataset
from mmkp.errors import InputError
from mmkp.evaluation.calibrate import calibrate, save_calibrated
from mmkp.evaluation.run import evaluate
from mmkp.finetune.compare import Comparison, compare
from mmkp.finetune.look import DataFacts, look
from mmkp.finetune.options import FinetuneOptions, split_overrides
from mmkp.finetune.plan import Plan, make_plan
from mmkp.finetune.report import counted, write_card, write_comparison
from mmkp.recipe import parse_recipe

PLAN = "plan.json"
FAULTS_SHOWN = 5
Say = Callable[[str], None]


def finetune(
    data: str, model: str, out: Path, overrides: list[str] | None = None, resume: bool = False, say: Say = print
) -> Comparison:
    """Fine-tune a checkpoint on data of any schema, and measure what it brought.

    Args:
        data: as `mmkp.data.open_dataset` takes it; its keypoints may be others than the checkpoint's.
        model: as `mmkp.hub.load` takes it.
        out: a new or empty folder; it becomes a run folder with the baseline's in it.
        overrides: `finetune.key=value`, and any key of a recipe.
        resume: continue what lies in `out`.
        say: gets lines for people.

    Returns:
        The result beside its baselines.

    Raises:
        InputError: data or model that cannot be used, an unknown key, a folder that is not fit.
        MmkpError: the training failed.
    """
    from mmkp.training import run

    options, asked = split_overrides(overrides or [])
    check_out(out, model, resume)
    loaded = load_base(model)
    facts = look(data, (asked.get("data") or {}).get("options") or {})
    plan = _read_plan(out) if resume and (out / PLAN).is_file() else make_plan(facts, loaded, options, asked)
    for line in [*describe(facts, loaded), *plan.lines()]:
        say(line)
    out.mkdir(parents=True, exist_ok=True)
    _write_plan(out, plan)
    run(plan.recipe, out, resume)
    folders = {"fine-tuned": out}
    for name, note in plan.notes.items():
        say(f"baseline {name}: the same network without the checkpoint, as many steps; {note}")
        if name in plan.baselines:
            folders[name] = out / name
            run(plan.baselines[name], folders[name], resume)
    return _measure(plan, folders, facts, loaded, options, say)


def _measure(
    plan: Plan, folders: dict[str, Path], facts: DataFacts, base: hub.Loaded, options: FinetuneOptions, say: Say
) -> Comparison:
    """Evaluate every network on the same items, then compare, report and describe."""
    out, data = folders["fine-tuned"], plan.recipe.data
    for folder in folders.values():
        loaded = hub.load(str(folder))
        if facts.validated:
            _calibrate(loaded, folder, data.dataset, dict(data.options), say)
        evaluate(loaded, data.dataset, "test", folder, dict(data.options), say=say)
    same = (base.model.schema.name, base.model.schema.keypoints) == (facts.schema.name, facts.schema.keypoints)
    if "unchanged" in options.baselines and same:
        folders["unchanged"] = out / "unchanged"
        evaluate(base, data.dataset, "test", folders["unchanged"], dict(data.options), say=say)
    subset = "+".join(m for m in base.model.modalities if m in facts.modalities)
    found = compare(folders, facts.schema, subset, "mean_shape" in options.baselines)
    write_comparison(out, found, plan, facts, base)
    write_card(out, found, plan, facts, base)
    for line in left_out(facts):
        say(line)
    return found


def left_out(facts: DataFacts) -> list[str]:
    """The rows that nothing was learned from, in lines for people: a training's own words about them are far up."""
    if not facts.problems:
        return []
    more = len(facts.problems) - FAULTS_SHOWN
    lines = [f"{counted(len(facts.problems), 'fault')} in the data (`mmkp data check` lists them):"]
    return [*lines, *facts.problems[:FAULTS_SHOWN], *([f"... and {more} more"] if more > 0 else [])]


def _calibrate(loaded: hub.Loaded, folder: Path, data: str, options: dict[str, Any], say: Say) -> None:
    try:
        calibrate(loaded, open_dataset(data, "validation", **options))
        save_calibrated(loaded, folder)
    except InputError as error:
        say(f"{folder.name}: scores stay as they are: {error}")


def load_base(model: str) -> hub.Loaded:
    """The checkpoint to start from.

    Raises:
        InputError: none, a classic run, or a model that finds several people.
    """
    recipe = Path(model) / "recipe.yaml"
    if recipe.is_file() and not (Path(model) / "config.json").is_file() and is_classic(recipe):
        raise InputError(
            f"--model {model}", expected="a network", got="the run of a classic recipe, which keeps no model",
            remedy="Run the classic recipe on the new data: `mmkp train RECIPE data.dataset=D`.",
        )  # fmt: skip
    loaded = hub.load(model)
    if loaded.model.finds_people:
        raise InputError(
            f"--model {model}", expected="a model of one person a picture", got="one that finds several",
            remedy="Train its recipe on the new data with training.start_from instead.",
        )  # fmt: skip
    if not loaded.model.modalities:
        raise InputError(f"--model {model}", expected="a model with a modality", got="none")
    return loaded


def check_out(out: Path, model: str, resume: bool) -> None:
    """Refuse a folder in which something would be lost.

    Raises:
        InputError: the model's own folder, a file, or one with content and no resume.
    """
    if Path(model).is_dir() and out.resolve() == Path(model).resolve():
        raise InputError(f"--out {out}", expected="another folder than the model's own", got="the model's")
    if out.is_file():
        raise InputError(f"--out {out}", expected="a folder", got="a file")
    if resume or not out.is_dir() or not any(out.iterdir()):
        return
    is_run = (out / PLAN).is_file()
    raise InputError(
        f"--out {out}", expected="a new or empty folder", got="a fine-tuning" if is_run else "one with content",
        remedy="Continue it with --resume, or choose another." if is_run else "Choose another.",
    )  # fmt: skip


def describe(facts: DataFacts, loaded: hub.Loaded) -> list[str]:
    """What the data is, in lines for people."""
    least = "at least " if facts.sampled else ""
    counts = ", ".join(f"{facts.items[s]} {s} ({least}{facts.groups[s]} groups)" for s in facts.items)
    lines = [f"data: schema {facts.schema.name}, {facts.schema.num_keypoints} keypoints; labelled items: {counts}"]
    ignored = [m for m in facts.modalities if m not in loaded.model.modalities]
    if ignored:
        lines.append(f"data: {', '.join(ignored)} not used: {loaded.source} does not take it")
    if facts.unboxed:
        lines.append(f"data: {facts.unboxed:.0%} of the training pictures have no box and are taken whole, so in use "
                     "give whole pictures too: a crop (--box, --find-with) is not what it learns from. Where they are "
                     "faces, `mmkp data boxes D --find-with face68-wild --out DIR` lays boxes")  # fmt: skip
    return [*lines, *(f"data: {note}" for note in facts.notes)]


def _write_plan(out: Path, plan: Plan) -> None:
    plain = {"recipe": yaml.safe_load(plan.recipe.to_yaml()), "reasons": plan.reasons, "notes": plan.notes,
             "baselines": {n: yaml.safe_load(r.to_yaml()) for n, r in plan.baselines.items()}}  # fmt: skip
    part = out / f"{PLAN}.part"
    part.write_text(json.dumps(plain, indent=1))
    part.replace(out / PLAN)


def _read_plan(out: Path) -> Plan:
    """The plan that a run began with: on a slower day, other steps would be chosen."""
    try:
        plain = json.loads((out / PLAN).read_text())
        baselines = {name: parse_recipe(recipe, f"of {out}") for name, recipe in plain["baselines"].items()}
        return Plan(parse_recipe(plain["recipe"], f"of {out}"), baselines, plain["reasons"], plain["notes"])
    except (ValueError, KeyError) as error:
        raise InputError(f"resume {out}", expected=f"the run's {PLAN}, whole", got=str(error)) from error
