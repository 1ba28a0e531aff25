"""`mmkp fit-finder`: teach a face model where faces are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fit_finder(
    model: Annotated[str, typer.Option("--model", "-m", help="A run's folder, a packaged name or a Hub id.")],
    data: Annotated[list[str], typer.Option("--data", "-d", help="NAME or NAME:PATH; repeat for several.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write into; the model's own without.")
    ] = None,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of photographs without a face.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes and the weights.")] = 0,
) -> None:
    """Fit the part of a face model that finds faces, after its keypoints; all else stays as it is."""
    from transformers.utils import logging

    from mmkp.training.finder import Plan
    from mmkp.training.finder_run import fit_finder as fit

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    record = fit(model, data, out, backgrounds, Plan(seed=seed), lambda line: typer.echo(line, err=True))
    found = record["validation"]
    typer.echo(
        f"finds {found['found']} of {found['faces']} faces of validation people, {found['beside']} boxes beside them; "
        f"{found['false_alarms']} alarms in {found['empty_scenes']} scenes without a face: {out or model}"
    )
