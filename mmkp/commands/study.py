"""`mmkp study`: does fusion help, where, by how much, and at what cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def study(
    study: Annotated[Path, typer.Argument(help="A study, a .yaml file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into, and to go on in.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value ... of the study")] = None,
    only: Annotated[str | None, typer.Option(help="Run the cells of this arm alone.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Run nothing; make the report from the cells.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Cells at a time; one per GPU, or one, without.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run cells again that failed.")] = False,
) -> None:
    """Run a study, a grid of arms x seeds at equal budgets, and write report.md with its verdict.

    Cells that are finished are never run again; a study that was stopped goes on where it was. Several processes may
    work on one folder, such as those of `accelerate launch --num_processes N -m mmkp study ...`, one per GPU.
    """
    from mmkp.study.report import VERDICT
    from mmkp.study.run import run_study

    made = run_study(
        study, overrides or [], out, only=only, report_only=report, workers=workers, retry=retry,
        say=lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    if made is not None:
        typer.echo((out / VERDICT).read_text(encoding="utf-8"))
        typer.echo(f"report: {made}")
