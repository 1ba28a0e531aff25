"""Packaging a run: fp16 weights, configuration and processor in the Hub's layout, with a card made from its summary.

python -m mmkp.card RUN OUT --licence apache-2.0 --data "GRID, speaker s1 (CC BY 4.0)" --limits "..."
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from mmkp.errors import InputError
from mmkp.evaluation.report import number

MAX_MB = 12


def card(name: str, run: Path, licence: str, data: str, limits: str) -> str:
    """README.md of a checkpoint, every figure read from the run's own files.

    Args:
        name: of the checkpoint.
        run: a run folder with recipe.yaml and summary.json.
        licence: SPDX id of the weights.
        data: what it was trained on, and that data's licence.
        limits: what it must not be expected to do.
    """
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    summary = json.loads((run / "summary.json").read_text())
    protocol, training = summary["protocol"], recipe["training"]
    front = {
        "license": licence, "library_name": "mmkp", "pipeline_tag": "keypoint-detection",
        "tags": ["keypoint-detection", "multimodal", *recipe["model"]["modalities"]],
    }  # fmt: skip
    lines = ["---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {name}", ""]
    lines += [
        f"{summary['schema']} keypoints from any subset of {', '.join(recipe['model']['modalities'])}; fusion "
        f"`{recipe['model']['fusion']['name']}` at {recipe['model']['fusion']['level']} level.", "",
        f"- **Trained on** {data}", f"- **Licence of the weights** {licence}",
        f"- **Recipe** `recipes/{recipe['name']}.yaml`, seed {training['seed']}, {training['steps']} steps of "
        f"{training['batch_size'] * training['accumulate']} items", f"- **Limits** {limits}", "",
        "```python", "from mmkp.hub import load", "", f'loaded = load("{name}")', "loaded.model, loaded.processor",
        "```", "", "## Figures", "",
        f"Split {protocol['split']}, n = {summary['n']} items in {protocol['groups']} groups, NME over "
        f"{protocol['normalizer']}, one seed; box {protocol['box']}; 95 % intervals over groups. Printed by "
        f"`mmkp evaluate --model {name} --data {protocol['data']}:PATH --out DIR`.", "",
    ]  # fmt: skip
    for condition, rows in summary["conditions"].items():
        groups = list(next(iter(rows.values()))["nme"]["groups"])
        shown = [g for g in ("eyes", "lips") if g in groups] or groups[:2]
        lines += [f"### {condition}", "", "| | NME | " + " | ".join(shown) + " |", "|---" * (2 + len(shown)) + "|"]
        for subset, entry in rows.items():
            cells = [subset, number(entry["nme"]), *(number(entry["nme"]["groups"][g]) for g in shown)]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def package(run: Path, out: Path, licence: str, data: str, limits: str) -> Path:
    """Write a run as a checkpoint to carry: fp16 safetensors, configuration, processor, README.md, facts.json.

    Raises:
        InputError: the run is not whole, or the weights are over 12 MB.
    """
    from mmkp.hub import load

    for file in ("recipe.yaml", "summary.json"):
        if not (run / file).is_file():
            raise InputError(f"run {run}", expected=file, got="none there", remedy="Train and evaluate it first.")
    loaded = load(str(run))
    loaded.model.half().save_pretrained(out)
    loaded.processor.save_pretrained(out)
    size_mb = (out / "model.safetensors").stat().st_size / 1e6
    if size_mb > MAX_MB:
        raise InputError(f"checkpoint {out.name}", expected=f"at most {MAX_MB} MB", got=f"{size_mb:.1f} MB")
    (out / "README.md").write_text(card(out.name, run, licence, data, limits))
    (out / "facts.json").write_text(json.dumps(facts(run, licence, data), indent=1) + "\n")
    return out


def facts(run: Path, licence: str, data: str) -> dict[str, Any]:
    """What `mmkp models` shows in a line."""
    summary = json.loads((run / "summary.json").read_text())
    full = max(summary["conditions"]["clear"], key=lambda s: s.count("+"))
    parts = []
    for condition in ("clear", "covered"):
        if condition in summary["conditions"]:
            entry = summary["conditions"][condition][full]["nme"]
            where = "lips" if "lips" in entry["groups"] else "all points"
            shown = entry["groups"].get("lips", entry)
            parts.append(f"{condition} {where} {number(shown)}")
    return {"licence": licence, "data": data, "figures": f"NME, {full}: {', '.join(parts)}"}


def main(
    run: Annotated[Path, typer.Argument(help="A run folder, trained and evaluated.")],
    out: Annotated[Path, typer.Argument(help="The checkpoint's folder.")],
    licence: Annotated[str, typer.Option(help="SPDX id of the weights.")],
    data: Annotated[str, typer.Option(help="What it was trained on, with licence.")],
    limits: Annotated[str, typer.Option(help="What not to expect of it.")],
) -> None:
    """Package a run as a checkpoint."""
    typer.echo(package(run, out, licence, data, limits))


if __name__ == "__main__":
    typer.run(main)
