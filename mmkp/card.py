"""Packaging a run: fp16 weights, configuration and processor in the Hub's layout, with a card made from its files.

python -m mmkp.card RUN OUT --licence apache-2.0 --data "GRID, speaker s1 (CC BY 4.0)" --limits "..."
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from mmkp.card_figures import Evaluation, confidence, cost, read_evaluation, results, tables
from mmkp.errors import InputError
from mmkp.evaluation.report import number
from mmkp.loading.weights import WEIGHTS, tensors_in
from mmkp.schema import KeypointSchema, parse_schema

MAX_MB = 12
TASK = "keypoint-detection"
# Licences under which anybody may use the weights, by the Hub's own identifiers; the rest is said loudly.
OPEN = {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "unlicense"}
OTHERS = {"cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "openrail", "other"}
# Where an encoder started from, as the Hub names it.
PARENTS = {
    "package:efficientnet-lite0": "timm/tf_efficientnet_lite0.in1k",
    "package:minilm": "sentence-transformers/all-MiniLM-L6-v2",
}
USE = "Research on multimodal keypoint detection: as a starting point for fine-tuning, and to study what fusion adds."


@dataclass(frozen=True)
class More:
    """What only people know beside the licence, data and limits; all of it may be left out.

    Attributes:
        licence_name, licence_link: of a licence that the Hub does not list.
        use: what it is meant for.
        started_from: the model it was trained on from, in words or by name; the recipe's own `start_from` without.
        recipe: where its recipe comes from, in words; `recipes/NAME.yaml` without.
        base_models: Hub ids, added to those that the configuration tells.
        sections: Markdown files that are put at the end, each with a heading of its own.
        evaluations: more evaluation folders by title.
    """

    licence_name: str = ""
    licence_link: str = ""
    use: str = USE
    started_from: str = ""
    recipe: str = ""
    base_models: tuple[str, ...] = ()
    sections: tuple[Path, ...] = ()
    evaluations: dict[str, Path] | None = None


def card(name: str, run: Path, licence: str, data: str, limits: str, more: More | None = None) -> str:
    """README.md of a checkpoint, every figure read from the run's own files.

    Args:
        name: of the checkpoint, as `mmkp.hub.load` takes it.
        run: a folder with config.json and the weights; recipe.yaml, summary.json, metrics.jsonl and environment.json
            are told of where they are there.
        licence: SPDX id of the weights, or a name of its own.
        data: what it was trained on, and that data's licence.
        limits: what it must not be expected to do.
        more: see More.

    Raises:
        InputError: no config.json, or an evaluation or section that is not there.
    """
    more = more or More()
    config = _json(run / "config.json")
    schema = parse_schema(config.get("keypoint_schema"), f"of {run}")
    evaluations = _evaluations(run, more)
    started = _started_from(config, _recipe(run), more)
    lines = [
        "---", metadata(name, config, licence, more, evaluations).strip(), "---", "", f"# {name}", "",
        *_notice(licence, more), *_summary(config, schema), "", "## Use", "", *_use(name, config), "",
        "## What it is", "", *_facts_list(run, config, schema), f"- **Trained on** {data or _dataset(run)}",
        f"- **Licence of the weights** {_licence_line(licence, more)}", *started,
        *_training(run, more), f"- **Intended use** {more.use}", f"- **Limits** {limits or 'not stated'}", "",
        "## Confidence", "", *confidence(evaluations, config.get("calibration")), "",
    ]  # fmt: skip
    if evaluations:
        lines += ["## Figures", "", f"Printed by `mmkp evaluate --model {name} --data D --out DIR`.", ""]
    for evaluation in evaluations:
        lines += tables(evaluation)
    for section in more.sections:
        lines += [_section(section), ""]
    return "\n".join(lines)


def metadata(name: str, config: dict[str, Any], licence: str, more: More, evaluations: list[Evaluation]) -> str:
    """The card's YAML, with the results as the Hub's `model-index`."""
    from huggingface_hub import EvalResult, ModelCardData

    listed_results = results(evaluations)
    configs = _configs(listed_results)
    found = [
        EvalResult(
            task_type=TASK, task_name="Keypoint detection", dataset_type=str(r["data"]).split(":")[0],
            dataset_name=f"{r['data']}, {r['evaluation']}, {r['condition']}",
            dataset_config=configs[r["evaluation"], r["data"], r["split"], r["condition"]],
            dataset_split=r["split"], metric_type=r["metric"], metric_value=round(r["mean"], 6),
            metric_name=f"NME ({r['normalizer']}), {r['points']}, {r['subset']}",
        )
        for r in listed_results
    ]  # fmt: skip
    listed = licence in OPEN | OTHERS
    known: dict[str, Any] = {"license": (licence if listed else "other") if licence else None}
    if licence and (not listed or licence == "other"):
        known["license_name"] = _slug(more.licence_name or licence)
        known["license_link"] = more.licence_link or None
    parents = list(dict.fromkeys([*more.base_models, *_parents(config)]))
    made = ModelCardData(
        **known, library_name="mmkp", pipeline_tag=TASK, base_model=parents or None,
        tags=[TASK, "multimodal", *config["modalities"], str(config["keypoint_schema"]["name"])],
        model_name=name.split("/")[-1], eval_results=found or None,
    )  # fmt: skip
    return made.to_yaml()


def _configs(found: list[dict[str, Any]]) -> dict[tuple[str, ...], str]:
    """A name for each evaluation's condition. The Hub joins results of the same data, split and config: where a second
    evaluation would share one, its title stands before it."""
    made: dict[tuple[str, ...], str] = {}
    taken: set[tuple[str, ...]] = set()
    for r in found:
        place = (r["data"], r["split"], r["condition"])
        if (r["evaluation"], *place) not in made:
            made[r["evaluation"], *place] = f"{r['evaluation']}, {r['condition']}" if place in taken else r["condition"]
            taken.add(place)
    return made


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() or c == "." else " " for c in text.lower()).split())


def _parents(config: dict[str, Any]) -> list[str]:
    """Hub ids of what the encoders' weights were, from the configuration."""
    made = []
    for part, key in (("image_config", "backbone"), ("text_config", "encoder"), ("audio_config", "encoder")):
        own = config.get(part) or {}
        weights, name = own.get("weights", "none"), own.get(key)
        if part.split("_")[0] in config["modalities"] and weights != "none":
            hub = name if "/" in str(name) else f"timm/{name}" if part == "image_config" else None
            made.append(PARENTS.get(weights, hub if weights == "hub" else None))
    return [m for m in made if m]


def is_open(licence: str) -> bool:
    """Whether anybody may use what is under it, for any purpose."""
    return licence in OPEN


def _licence_line(licence: str, more: More) -> str:
    link = f" ({more.licence_link})" if more.licence_link else ""
    return f"{more.licence_name or licence or 'not stated'}{link}"


def _notice(licence: str, more: More) -> list[str]:
    if not licence:
        return ["> [!WARNING]", "> **No licence is stated.** Ask its author before you use it.", ""]
    if is_open(licence):
        return []
    return [
        "> [!WARNING]",
        f"> **RESEARCH ONLY: NOT FOR COMMERCIAL USE.** Licence: {_licence_line(licence, more)}. The data that it was "
        "trained on may be used for research alone, and so may these weights and what is fine-tuned from them.", "",
    ]  # fmt: skip


def _summary(config: dict[str, Any], schema: KeypointSchema) -> list[str]:
    own = list(config["modalities"])
    source = own[0] + " alone" if len(own) == 1 else f"any subset of {', '.join(own[:-1])} and {own[-1]}"
    fusion = f"; fusion `{config['fusion']['name']}` at {config['fusion']['level']} level" if len(own) > 1 else ""
    return [f"{schema.num_keypoints} keypoints of the schema `{schema.name}` from {source}{fusion}."]


def _use(name: str, config: dict[str, Any]) -> list[str]:
    given = {"image": "--image photo.jpg", "text": '--text "bin bl|ue"', "audio": "--audio speech.wav"}
    return [
        "```python", "from mmkp.hub import load", "", f'loaded = load("{name}")', "loaded.model, loaded.processor",
        "```", "", "```bash",
        f"mmkp predict --model {name} {' '.join(given[m] for m in config['modalities'])} --out DIR", "```",
    ]  # fmt: skip


def _facts_list(run: Path, config: dict[str, Any], schema: KeypointSchema) -> list[str]:
    normalizer = schema.normalizer
    where = f", the distance from {' to '.join(schema.keypoints[i] for i in normalizer.points)}"
    groups = ", ".join(f"{g} ({len(members)})" for g, members in schema.groups.items())
    height, width = config["input_size_hw"]
    sizes = [_count(shape) for shape in tensors_in(run).values()]
    return [
        f"- **Task** {TASK}; schema `{schema.name}`, {schema.num_keypoints} points{': ' + groups if groups else ''}",
        f"- **Normalizer of errors** {normalizer.name}{where if normalizer.kind == 'distance' else ''}",
        f"- **Network** {sum(sizes) / 1e6:.2f} M parameters, input {height} x {width} px, image encoder "
        f"`{config['image_config']['backbone']}`, head `{config['head']['name']}`, codec `{config['codec']['name']}`",
    ]  # fmt: skip


def _count(shape: tuple[int, ...]) -> int:
    made = 1
    for side in shape:
        made *= side
    return made


def _started_from(config: dict[str, Any], recipe: dict[str, Any], more: More) -> list[str]:
    parent = more.started_from or (recipe.get("training") or {}).get("start_from") or ""
    begun = []
    for part in ("image", "text", "audio"):
        weights = (config.get(f"{part}_config") or {}).get("weights", "none")
        if part in config["modalities"] and weights != "none":
            begun.append(f"{part} encoder from {PARENTS.get(weights, 'its own pretrained weights')}")
    words = [f"`{parent}`"] if parent and " " not in parent else [parent] if parent else []
    return [f"- **Started from** {'; '.join([*words, *begun])}"] if words or begun else []


def _training(run: Path, more: More) -> list[str]:
    recipe, lines = _recipe(run), []
    if recipe.get("training"):
        training = recipe["training"]
        batch = training.get("batch_size", 0) * training.get("accumulate", 1)
        made = more.recipe or f"`recipes/{recipe.get('name')}.yaml`"
        lines.append(
            f"- **Recipe** {made}, {training.get('steps')} steps of {batch} items; one "
            f"seed, {training.get('seed')}, so that the intervals hold the test items' spread, not the seeds'"
        )
    spent = cost(run)
    return [*lines, f"- **Training cost** {spent}"] if spent else lines


def _recipe(run: Path) -> dict[str, Any]:
    path = run / "recipe.yaml"
    plain = yaml.safe_load(path.read_text()) if path.is_file() else {}
    return plain if isinstance(plain, dict) else {}


def _dataset(run: Path) -> str:
    """The recipe's dataset by name, without its place on somebody's disk."""
    named = str((_recipe(run).get("data") or {}).get("dataset") or "").split(":")[0]
    return f"the dataset `{named.rstrip('/').split('/')[-1]}`" if named else "not stated"


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"run {path.parent}", expected=path.name, got="none there")
    return json.loads(path.read_text())


def _evaluations(run: Path, more: More) -> list[Evaluation]:
    own = {"test": run} if (run / "summary.json").is_file() else {}
    return [read_evaluation(title, folder) for title, folder in {**own, **(more.evaluations or {})}.items()]


def _section(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"section {path}", expected="a Markdown file", got=str(error)) from error


def package(run: Path, out: Path, licence: str, data: str, limits: str, more: More | None = None) -> Path:
    """Write a run as a checkpoint to carry: fp16 safetensors, configuration, processor, README.md, facts.json.

    Raises:
        InputError: the run is not whole, weights that fp16 does not hold, or over 12 MB. `out` stays as it was.
    """
    from mmkp.hub import load

    for file in ("recipe.yaml", "summary.json"):
        if not (run / file).is_file():
            raise InputError(f"run {run}", expected=file, got="none there", remedy="Train and evaluate it first.")
    loaded = load(str(run))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".card-") as made:
        staged = Path(made)
        halve(loaded.model).save_pretrained(staged)
        loaded.processor.save_pretrained(staged)
        size_mb = (staged / WEIGHTS).stat().st_size / 1e6
        if size_mb > MAX_MB:
            raise InputError(f"checkpoint {out.name}", expected=f"at most {MAX_MB} MB", got=f"{size_mb:.1f} MB")
        (staged / "README.md").write_text(card(out.name, run, licence, data, limits, more))
        (staged / "facts.json").write_text(json.dumps(facts(run, licence, data, more), indent=1) + "\n")
        out.mkdir(exist_ok=True)
        for path in staged.iterdir():
            os.replace(path, out / path.name)
            (out / path.name).chmod(0o644)
    return out


def halve(model: Any) -> Any:
    """The model in fp16, in place.

    Raises:
        InputError: a weight that is no finite number, or is none any more in fp16.
    """
    model.half()
    bad = [k for k, v in model.state_dict().items() if v.is_floating_point() and not bool(v.isfinite().all())]
    if bad:
        raise InputError("weights in fp16", expected="finite numbers", got=f"{len(bad)} tensors with others, first "
                         f"{bad[0]}", remedy="The training diverged, or the weights exceed 65504.")  # fmt: skip
    return model


def facts(run: Path, licence: str, data: str, more: More | None = None) -> dict[str, Any]:
    """What `mmkp models` shows of a checkpoint, and programs may read: facts.json."""
    more = more or More()
    config, evaluations = _json(run / "config.json"), _evaluations(run, more)
    found, schema = results(evaluations), parse_schema(config.get("keypoint_schema"), f"of {run}")
    return {
        "task": TASK, "schema": schema.name, "keypoints": schema.num_keypoints,
        "modalities": list(config["modalities"]), "licence": more.licence_name or licence, "open": is_open(licence),
        "data": data, "figures": _headline(evaluations), "results": found,
    }  # fmt: skip


def _headline(evaluations: list[Evaluation]) -> str:
    """The run's own evaluation in a line: all modalities, clear and covered, lips where there are any."""
    if not evaluations:
        return ""
    first, parts = evaluations[0], []
    full = first.subsets[0]
    for condition in ("clear", "covered"):
        if full in first.summary["conditions"].get(condition, {}):
            entry = first.summary["conditions"][condition][full]["nme"]
            where = "lips" if "lips" in entry["groups"] else "all points"
            parts.append(f"{condition} {where} {number(entry['groups'].get('lips', entry))}")
    return f"NME, {full}: {', '.join(parts)}"


def _named_folders(pairs: list[str] | None) -> dict[str, Path]:
    made = {}
    for pair in pairs or []:
        title, equals, folder = pair.partition("=")
        if not equals or not title.strip():
            raise InputError("--evaluation", expected="NAME=FOLDER", got=repr(pair))
        made[title.strip()] = Path(folder)
    return made


def main(
    run: Annotated[Path, typer.Argument(help="A run folder, trained and evaluated.")],
    out: Annotated[Path, typer.Argument(help="The checkpoint's folder.")],
    licence: Annotated[str, typer.Option(help="SPDX id of the weights, or a name such as research-only.")],
    data: Annotated[str, typer.Option(help="What it was trained on, with licence.")],
    limits: Annotated[str, typer.Option(help="What not to expect of it.")],
    licence_link: Annotated[str, typer.Option(help="Where a licence of its own can be read.")] = "",
    section: Annotated[list[Path] | None, typer.Option(help="A Markdown file for the end; repeat.")] = None,
    evaluation: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER of one more evaluation; repeat.")] = None,
) -> None:
    """Package a run as a checkpoint."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        more = More(licence_link=licence_link, sections=tuple(section or ()), evaluations=_named_folders(evaluation))
        typer.echo(package(run, out, licence, data, limits, more))
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    typer.run(main)
