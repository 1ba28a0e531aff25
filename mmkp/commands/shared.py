"""Options that several verbs of the command line share, under one name and with one help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[str, typer.Option("--model", "-m", help="A packaged name, a folder or a Hub id.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")]
ImageOption = Annotated[Path | None, typer.Option("--image", "-i", help="A picture.")]
TextOption = Annotated[str | None, typer.Option("--text", "-t", help="Words, with | at the picture's moment.")]
AudioOption = Annotated[Path | None, typer.Option("--audio", "-a", help="A sound file.")]
AudioTimeOption = Annotated[
    float | None, typer.Option(help="Moment of the picture in the sound, s; the middle without.")
]  # fmt: skip
