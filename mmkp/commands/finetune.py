"""`mmkp finetune`: a checkpoint made to fit one's own data, with baselines beside the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def finetune(
    data: Annotated[str, typer.Argument(metavar="D", help="A folder, NAME or NAME:PATH, or a Hub dataset id.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A packaged name, a folder or a Hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder: new or empty.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="finetune.mode=auto|head|lora|full, section.key=value ...")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's last good checkpoint.")] = False,
) -> None:
    """Fine-tune a checkpoint on your data, whatever its keypoints, and measure it beside baselines.

    Learning rate, steps, batch and augmentation are chosen for the number of labelled items, and each choice is printed
    with its reason. Baselines: the mean shape, and on the same budget the same network from scratch and from what the
    checkpoint once began from.
    """
    from mmkp.cli import _quiet_transformers, _say
    from mmkp.finetune.run import finetune as run

    _quiet_transformers()
    found = run(data, model, out, overrides or [], resume, say=_say)
    from mmkp.finetune.report import table

    for condition, rows in found.rows.items():
        typer.echo(f"{condition}: NME / {found.normalizer}, {found.subset}, n = {found.n} in {found.groups} groups")
        for line in table(rows):
            typer.echo(f"  {line}")
    typer.echo(f"done: open {out / 'report.md'}; use it: mmkp predict --model {out} --image F --out DIR")
