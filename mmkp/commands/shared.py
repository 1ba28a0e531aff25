"""Options that several verbs of the command line share, under one name and with one help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmkp.hub import Loaded

ModelOption = Annotated[str, typer.Option("--model", "-m", help="A packaged name, a folder or a Hub id.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")]
ImageOption = Annotated[Path | None, typer.Option("--image", "-i", help="A picture.")]
TextOption = Annotated[str | None, typer.Option("--text", "-t", help="Words, with | at the picture's moment.")]
AudioOption = Annotated[Path | None, typer.Option("--audio", "-a", help="A sound file.")]
AudioTimeOption = Annotated[
    float | None, typer.Option(help="Moment of the picture in the sound, s; the middle without.")
]  # fmt: skip
WholeOption = Annotated[bool, typer.Option("--whole", help="Take the whole picture; find nothing.")]
FindWithOption = Annotated[
    str | None, typer.Option(help="Another model that finds the faces, where this one cannot (a fine-tuned one).")
]


def tell_where_it_looks(
    loaded: Loaded, boxed: bool, whole: bool, finder: Loaded | None, say: Callable[[str], None]
) -> None:
    """Say so where a model is given another part of a picture than it learned from: the whole one, or a crop."""
    from mmkp.evaluation.single import learned_whole
    from mmkp.finding import can_find

    crop = boxed or finder is not None
    if crop and learned_whole(loaded):
        say(f"note: {loaded.source} was fine-tuned on whole pictures; a crop is not what it learned from (--whole)")
    if not (crop or whole or can_find(loaded.model) or learned_whole(loaded) or loaded.model.finds_people):
        say(
            f"note: {loaded.source} does not find what it marks, and is given the whole picture, which may not be what "
            "it learned from (--box says where to look, --find-with face68-wild finds faces, --whole that it is meant)"
        )


def fitting(loaded: Loaded, text: str | None, say: Callable[[str], None]) -> str | None:
    """The text, cut around the cursor where it is longer than the model reads, and that said."""
    if text is None or "text" not in loaded.model.modalities or (part := loaded.processor.fitting(text)) == text:
        return text
    say(f"note: the text is longer than the model reads; it is given {part!r}")
    return part
