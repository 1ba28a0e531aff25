"""`mmkp data`: list, check, clean, preview, convert and export datasets."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mmkp.errors import InputError

data_app = typer.Typer(help="List, check, clean, preview, convert and export datasets.", invoke_without_command=True)
DataArgument = Annotated[
    str, typer.Argument(metavar="D", help="A folder, NAME:PATH (`mmkp data` lists the names), or a Hub dataset id.")
]
OptionsArgument = Annotated[list[str] | None, typer.Argument(help="key=value ... of the dataset")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="A new folder; nothing is ever overwritten.")]
CHECK_HELP = """Read, decode and judge every row.

An error costs a row, its picture, its sound, or the worth of the test score: a file that is missing or cannot be
decoded, a name that leads out of the folder, a wrong number of keypoints, coordinates that are no numbers, a box that
makes no sense, a line that cannot be read, a group in two splits, a moment outside the sound.

A warning does not: points outside the picture, duplicates (the same bytes, or the same looks in another group), sound
that is short (under 0.5 s), silent (below -60 dB) or clipped (over 0.5 % of it at full scale), empty text, boxes that
hold few of their keypoints or little of the picture, shapes within 4 px, left and right swapped in a row or in all,
x and y exchanged in all, and shapes that after Procrustes lie 6 robust standard deviations (1.4826 MAD, of the log
residual) further from the mean shape than usual.

Exit code 2 when there is any error, else 0."""
CLEAN_HELP = """Write a cleaned copy in the custom format, and cleaning_log.jsonl: what was dropped or fixed, and why.

Dropped: rows that cannot be read, rows with a wrong number of keypoints, rows of which no picture, sound or text is
left, and copies of an earlier row's picture.

Fixed: a picture or sound that cannot be decoded is left out of its row, and so is a sound whose moment lies outside
it; points outside the picture or without finite coordinates become unlabelled; empty text becomes none; a box that
makes no sense becomes none (the whole picture); a group in two splits goes whole to the split that holds most of it.

Kept and listed: near duplicates; short, silent and clipped sound; outliers and swapped sides unless asked for below.

The source is never touched, and --out must be a new folder outside it."""
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Threads that decode; the machine's cores without.")]


def _flowed(text: str) -> str:
    """Paragraphs on one line each, for the terminal to wrap."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


Format = Literal["folder", "coco", "parquet", "webdataset"]


@data_app.callback()
def list_data(context: typer.Context) -> None:
    """Without a command: the registered datasets and formats, and the page that describes each."""
    if context.invoked_subcommand is not None:
        return
    from mmkp.data import DATASETS, NEEDS_PATH, READERS, card_of

    for title, names in (("datasets", DATASETS), ("formats, each read as NAME:PATH", READERS)):
        typer.echo(f"{title}:")
        for name in names:
            typer.echo(f"  {name + (':PATH' if name in NEEDS_PATH else ''):<18} {card_of(name)}")
    typer.echo("A folder by itself is read as folder:PATH. Next: mmkp data check D")


@data_app.command(help=_flowed(CHECK_HELP))
def check(
    data: DataArgument,
    options: OptionsArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")] = False,
    workers: WorkersOption = None,
) -> None:
    """Read, decode and judge every row."""
    from mmkp.data.check import check as run
    from mmkp.data.check.table import print_report

    try:
        report = run(data, workers, progress=_progress, **dataset_options(options)).report
    except InputError as error:
        if not as_json:
            raise
        typer.echo(json.dumps(unreadable(data, error)))
        raise typer.Exit(error.exit_code) from error
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        from rich.console import Console

        print_report(report, Console())
    raise typer.Exit(2 if report.errors else 0)


@data_app.command(help=_flowed(CLEAN_HELP))
def clean(
    data: DataArgument,
    out: OutOption,
    options: OptionsArgument = None,
    keep_duplicates: Annotated[bool, typer.Option("--keep-duplicates", help="Keep copies of pictures.")] = False,
    drop_outliers: Annotated[bool, typer.Option("--drop-outliers", help="Drop shapes far from the mean.")] = False,
    fix_swapped: Annotated[bool, typer.Option("--fix-swapped", help="Exchange left and right where swapped.")] = False,
    workers: WorkersOption = None,
) -> None:
    """Write a cleaned copy in the custom format, and cleaning_log.jsonl: what was dropped or fixed, and why."""
    from mmkp.data.clean import clean as run

    chosen = {"keep_duplicates": keep_duplicates, "drop_outliers": drop_outliers, "fix_swapped": fix_swapped}
    summary = run(data, out, workers=workers, progress=_progress, options=dataset_options(options), **chosen)
    for line in summary.lines():
        typer.echo(line)


@data_app.command()
def preview(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for preview.png; an earlier preview is replaced.")],
    options: OptionsArgument = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=400, help="Items, spread evenly.")] = 24,
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "all",
) -> None:
    """Draw a contact sheet: keypoints on each picture, its sound as a spectrogram, its text."""
    from mmkp.data.preview import preview as run

    for path in run(data, out, n, split, **dataset_options(options)):
        typer.echo(f"preview: {path}")


@data_app.command()
def convert(
    data: DataArgument,
    schema: Annotated[str, typer.Option("--schema", "-s", help="A built-in schema's name, or a .yaml file.")],
    out: OutOption,
    options: OptionsArgument = None,
) -> None:
    """Write a copy whose keypoints follow another schema, matched by name; the others become unlabelled."""
    from mmkp.data.check import open_source
    from mmkp.data.convert import convert_table
    from mmkp.data.export import export_folder
    from mmkp.schema import load_schema

    converted = convert_table(open_source(data, **dataset_options(options)), load_schema(schema))
    _say_exported(export_folder(converted, out), schema)


@data_app.command()
def boxes(
    data: DataArgument,
    out: OutOption,
    find_with: Annotated[str, typer.Option(help="A model that finds faces: packaged, a folder or a Hub id.")],
    options: OptionsArgument = None,
) -> None:
    """Write a copy in which rows without a box have that of their face, as a model finds it."""
    from mmkp.data.check import is_table, open_source
    from mmkp.data.clean import check_out
    from mmkp.data.export import export_folder
    from mmkp.finetune.boxes import lay_boxes
    from mmkp.hub import load

    if not is_table(data):
        raise InputError(f"boxes {data}", expected="a dataset in one of the formats", got="one that lays its own boxes")
    table = open_source(data, **dataset_options(options))
    check_out(out, table.root if table.root != Path(".") else None)
    made = lay_boxes(table, load(find_with), _progress)
    for line in made.missed:
        typer.echo(line, err=True)
    _say_exported(export_folder(made.table, out), "folder")
    typer.echo(f"boxes laid: {made.laid}; rows with a picture that have none: {len(made.missed)}")


@data_app.command()
def export(
    data: DataArgument,
    out: OutOption,
    to: Annotated[Format, typer.Option(help="The format to write.")] = "folder",
    options: OptionsArgument = None,
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "all",
) -> None:
    """Write a dataset as the custom folder, as COCO JSON, or as Parquet with features of the `datasets` library."""
    from mmkp.data import open_dataset
    from mmkp.data.check import is_table, open_source
    from mmkp.data.export import EXPORTERS

    module, _, name = EXPORTERS[to].partition(":")
    whole = split == "all" and is_table(data)  # a table's rows keep the splits that they name
    dataset = (
        open_source(data, **dataset_options(options))
        if whole
        else open_dataset(data, split, **dataset_options(options))
    )
    _say_exported(getattr(importlib.import_module(module), name)(dataset, out), to)


def unreadable(data: str, error: InputError) -> dict[str, Any]:
    """The JSON of a dataset of which nothing could be read."""
    finding = {
        "kind": "unreadable",
        "severity": "error",
        "where": error.where,
        "row": 0,
        "id": "",
        "message": str(error),
    }
    counts = {"data": data, "rows": 0, "files": 0, "errors": 1, "warnings": 0, "counts": {"unreadable": 1}}
    return {**counts, "findings": [finding]}


def _say_exported(made: Any, form: str) -> None:
    for problem in made.problems:
        typer.echo(problem, err=True)
    typer.echo(f"{made.rows} rows as {form}: {made.folder}")


def dataset_options(given: list[str] | None) -> dict[str, Any]:
    """`key=value` words as the options of a dataset.

    Raises:
        InputError: a word without `=`.
    """
    from mmkp.recipe import parse_overrides

    return parse_overrides(given or [])


def _progress(jobs: Sequence[Any]) -> Iterable[Any]:
    """A bar on a terminal's stderr; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console(file=sys.stderr)
    return track(jobs, "reading", console=console, disable=not console.is_terminal, transient=True)
