"""`mmkp push`: a model or a dataset to the Hub; `mmkp models`: the packaged checkpoints."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from mmkp.commands.data import OptionsArgument, dataset_options
from mmkp.errors import InputError

RepositoryArgument = Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository; made where it is new.")]


def push(
    repository: RepositoryArgument,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A packaged name, a folder or a Hub id.")] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="A folder or NAME:PATH.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, where it is new.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch; main without.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    fp16: Annotated[bool | None, typer.Option("--fp16/--fp32", help="Weights; as they are stored without.")] = None,
    licence: Annotated[str, typer.Option(help="Of the weights or data, for the card; SPDX id.")] = "",
    options: OptionsArgument = None,
) -> None:
    """Push a model (weights, processor, card) or a dataset (Parquet, schema, card) to the Hub.

    The token is the one of `hf auth login`, or of the environment's HF_TOKEN; it is never printed or written.
    """
    if (model is None) == (data is None):
        raise InputError("push", expected="either --model or --data", got="both" if model else "neither")
    if options and data is None:
        raise InputError("push", expected="options of a dataset with --data", got=" ".join(options))
    from mmkp.cli import _quiet_transformers
    from mmkp.push import push_data, push_model

    _quiet_transformers()
    if data is not None:
        address, problems = push_data(data, repository, private, revision, message, licence, dataset_options(options))
        for problem in problems:
            typer.echo(problem, err=True)
        return typer.echo(f"pushed: {address}")
    assert model is not None
    address = push_model(model, repository, private, revision, message, fp16, licence)
    typer.echo(f"pushed: {address}\nload it: mmkp predict --model {repository} --image F --out DIR")
    return None


def models() -> None:
    """List the packaged checkpoints: task, schema, modalities, size, licence, figures."""
    from rich.console import Console

    from mmkp.loading.source import packaged

    found = packaged()
    if not found:
        return typer.echo("no checkpoints are packaged")
    console = Console()
    console.print(_table([_row(name, folder) for name, folder in found.items()], console.width), soft_wrap=False)
    typer.echo("Use: mmkp predict --model NAME --image F --out DIR; the card: README.md in its folder, under "
               f"{next(iter(found.values())).parent}")  # fmt: skip
    return None


def _row(name: str, folder: Any) -> dict[str, str]:
    config = json.loads((folder / "config.json").read_text())
    facts = json.loads((folder / "facts.json").read_text()) if (folder / "facts.json").is_file() else {}
    size_mb = sum(p.stat().st_size for p in folder.iterdir()) / 1e6
    schema = config["keypoint_schema"]
    licence = facts.get("licence", "not stated")
    if not facts.get("open", True):
        licence = f"{licence}: RESEARCH ONLY" if "research" not in licence else licence.upper()
    return {
        "name": name, "task": facts.get("task", "keypoint-detection"),
        "schema": f"{schema['name']} ({len(schema['keypoints'])} points)",
        "modalities": " + ".join(config["modalities"]), "size": f"{size_mb:.1f} MB", "licence": licence,
        "figures": _figures(facts),
    }  # fmt: skip


def _figures(facts: dict[str, Any]) -> str:
    """A line per evaluation and condition: NME of all modalities, over the points that count."""
    lines: dict[tuple[str, str], list[str]] = {}
    for r in facts.get("results", []):
        of_it = (q["subset"] for q in facts["results"] if q["evaluation"] == r["evaluation"])
        full = max(of_it, key=lambda s: s.count("+"))
        if r["subset"] == full and r["condition"] in ("clear", "covered"):
            lines.setdefault((r["evaluation"], r["condition"]), []).append(f"{r['points']} {r['mean']:.4f}")
    made = [f"{title}, {condition}: {', '.join(cells)}" for (title, condition), cells in lines.items()]
    normalizer = next((f"NME / {r['normalizer']}" for r in facts.get("results", [])), "")
    return "\n".join([normalizer, *made]) if made else facts.get("figures", "")


def _table(rows: list[dict[str, str]], width: int) -> Any:
    """A table; in a narrow terminal, or a pipe, a block per checkpoint, so that nothing is cut off."""
    from rich.table import Table
    from rich.text import Text

    columns = list(rows[0])
    if width >= 120:
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row.values())
        return table
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(Text(row["name"], style="bold"), "")
        for column in columns[1:]:
            table.add_row(f"  {column}", Text(row[column], overflow="fold"))
    return table
