"""What a fine-tuning tells: a table in report.md and summary.json, and the model's card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmkp.card import More, card, is_open
from mmkp.data import card_of, split_spec
from mmkp.evaluation.report import number
from mmkp.finetune.compare import Comparison
from mmkp.finetune.look import DataFacts
from mmkp.finetune.plan import Plan
from mmkp.hub import Loaded, find
from mmkp.loading.source import is_hub_id

LIMITS = "Fine-tuned on {items} of {groups}: on pictures unlike those it may err much more."
UNKNOWN = "not stated"


def write_comparison(out: Path, found: Comparison, plan: Plan, facts: DataFacts, base: Loaded) -> None:
    """Put the comparison at the top of report.md and into summary.json."""
    report = out / "report.md"
    title, _, rest = report.read_text().partition("\n")
    section = comparison_section(found, plan, facts, base)
    report.write_text("\n".join([title, "", *section, *_reasons(plan), "", "## Evaluation", rest]))
    summary = json.loads((out / "summary.json").read_text())
    summary["finetune"] = {"base": base.source, "base_weights": base.digest, "notes": list(facts.notes),
                           "baselines": plan.notes, **found.plain()}  # fmt: skip
    (out / "summary.json").write_text(json.dumps(summary, indent=1))


def comparison_section(found: Comparison, plan: Plan, facts: DataFacts, base: Loaded) -> list[str]:
    """The table as Markdown, with what must be known to read it."""
    lines = [
        "## Fine-tuning", "",
        f"Started from `{base.source}`; {counted(facts.items['train'], 'training item')} of "
        f"{counted(facts.groups['train'], 'group')}. "
        f"NME over {found.normalizer}, from {found.subset}, n = {counted(found.n, 'item')} of "
        f"{counted(found.groups, 'group')}"
        f"{' held out' if facts.held_out else ', THE TRAINING ITEMS THEMSELVES'}. One seed, "
        f"{plan.recipe.training.seed}. The ratio is the fine-tuned model's error to that of the row, paired over "
        "groups; below 1 is better.", "",
    ]  # fmt: skip
    lines += [f"> {note}" for note in facts.notes] + ([""] if facts.notes else [])
    for condition, rows in found.rows.items():
        lines += [*([f"### {condition}", ""] if len(found.rows) > 1 else []), *table(rows), ""]
    lines += [
        f"- {name}: the same network and steps without the checkpoint; {note}." for name, note in plan.notes.items()
    ]
    return [*lines, ""] if plan.notes else lines


def counted(number_of: int, what: str) -> str:
    """1 item, 2 items."""
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """A row per network: error with interval, n, ratio, p, and why there is no interval."""
    lines = ["| | NME | n | ratio | p | |", "|---|---|---|---|---|---|"]
    for name, entry in rows.items():
        nme, ratio = entry["nme"], entry.get("ratio")
        cells = [name, number(nme), str(nme["n"]), *_ratio_cells(ratio)]
        reason = nme.get("reason") or (ratio or {}).get("reason") or ""
        lines.append("| " + " | ".join([*cells, f"no interval: {reason}" if reason else ""]) + " |")
    return lines


def _ratio_cells(ratio: dict[str, Any] | None) -> list[str]:
    if ratio is None or ratio["ratio"] is None:
        return ["", ""]
    text = f"{ratio['ratio']:.3f}"
    if ratio["ci95"] is None:
        return [text, ""]
    return [f"{text} [{ratio['ci95'][0]:.3f}, {ratio['ci95'][1]:.3f}]", f"{ratio['p']:.4f}"]


def _reasons(plan: Plan) -> list[str]:
    return ["### What was chosen, and why", "", *(f"- `{choice}`: {reason}" for choice, reason in plan.choices())]


def write_card(out: Path, found: Comparison, plan: Plan, facts: DataFacts, base: Loaded) -> None:
    """README.md and facts.json: what it was fine-tuned from, on what, and the licence that it inherits."""
    parent = parent_facts(base)
    section = out / "comparison.md"
    section.write_text("\n".join(comparison_section(found, plan, facts, base)))
    where = split_spec(plan.recipe.data.dataset.removeprefix("divided:"))[0]
    own = "own data" if where in ("folder", "hub") else f"{where} ({card_of(where)})"
    data = f"{own}, {counted(facts.items['train'], 'item')}; before that, as {base.source}: {parent['data']}"
    on_hub = is_hub_id(base.source) and not Path(base.source).is_dir()
    more = More(
        licence_name=parent["licence"] if not parent["open"] else "", started_from=base.source,
        base_models=(base.source,) if on_hub else (), sections=(section,),
        recipe="`recipe.yaml` of the run, made by `mmkp finetune`",
    )  # fmt: skip
    limits = LIMITS.format(items=counted(facts.items["train"], "item"), groups=counted(facts.groups["train"], "group"))
    (out / "README.md").write_text(card(out.name, out, parent["licence"], data, limits, more))
    told = {"licence": parent["licence"], "open": parent["open"], "data": data, "base_model": base.source,
            "boxes": "whole pictures" if facts.unboxed == 1 else "some" if facts.unboxed else "given"}  # fmt: skip
    (out / "facts.json").write_text(json.dumps(told, indent=1) + "\n")


def parent_facts(base: Loaded) -> dict[str, Any]:
    """Licence and data of the checkpoint as its facts.json says; where it says nothing, nothing is promised."""
    path = find(base.source) / "facts.json"
    try:
        plain = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:
        plain = {}
    licence = str(plain.get("licence") or "")
    return {"licence": licence, "open": is_open(licence), "data": str(plain.get("data") or UNKNOWN)}
