"""`mmkp explain`: what each modality is worth on a dataset, or what one answer went by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmkp.commands.shared import (
    AudioOption,
    AudioTimeOption,
    FindWithOption,
    ImageOption,
    ModelOption,
    OutOption,
    TextOption,
    WholeOption,
    fitting,
    tell_where_it_looks,
)
from mmkp.errors import InputError

Inputs = dict[str, Any]


def explain(
    model: ModelOption,
    out: OutOption,
    options: Annotated[list[str] | None, typer.Argument(help="key=value ... of the dataset")] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="NAME or NAME:PATH, such as grid:PATH.")] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset; `all` takes everything found.")] = "test",
    image: ImageOption = None,
    text: TextOption = None,
    audio: AudioOption = None,
    audio_time: AudioTimeOption = None,
    box: Annotated[
        str | None, typer.Option(help="x,y,width,height in px; without, the best face found, or the whole picture.")
    ] = None,
    whole: WholeOption = False,
    find_with: FindWithOption = None,
    group: Annotated[str | None, typer.Option(help="Keypoint group to explain; lips, or all, without.")] = None,
    target: Annotated[str, typer.Option(help="What of the group: score, x, y or height.")] = "score",
) -> None:
    """Explain a model: with --data what each modality is worth, with --image, --text, --audio what one answer went by.

    With --data: exact Shapley values of the modalities by condition and keypoint group, and what the fusion lets
    through. Predictions that `mmkp evaluate` left in --out are used again.

    With --image, --text, --audio: Grad-CAM and integrated gradients of pixels, words and sound in one figure.
    """
    inputs = {"--image": image, "--text": text, "--audio": audio}
    given = [name for name, value in inputs.items() if value is not None]
    if bool(given) == (data is not None):
        got = "neither" if data is None else f"--data beside {', '.join(given)}"
        raise InputError("explain", expected="either --data, or any of --image, --text, --audio", got=got)
    where = {"--box": box, "--whole": whole or None, "--find-with": find_with}
    placed = [name for name, value in where.items() if value is not None]
    if placed and image is None:
        raise InputError("explain", expected=f"{placed[0]} only beside --image", got="no --image")
    if data is not None:
        return _dataset(model, data, split, out, options or [])
    if options:
        raise InputError("explain", expected="key=value only beside --data", got=" ".join(options))
    return _item(model, inputs, audio_time, where, group, target, out)


def _dataset(model: str, data: str, split: str, out: Path, options: list[str]) -> None:
    from mmkp.cli import _progress, _quiet_transformers, _say
    from mmkp.evaluation.report import number
    from mmkp.recipe import parse_overrides

    plain = parse_overrides(options)
    _quiet_transformers()
    from mmkp.explain.run import explain_dataset
    from mmkp.hub import load

    found = explain_dataset(load(model), data, split, out, plain, say=_say, progress=_progress)
    for condition, groups in found["conditions"].items():
        typer.echo(f"{condition}: NME / {found['protocol']['normalizer']} that each takes away, n = {found['n']}")
        for group in [g for g in ("all", "lips", "eyes") if g in groups]:
            values = "  ".join(f"{m} {number(entry)}" for m, entry in groups[group]["shapley"].items())
            typer.echo(f"  {group:<6} {values}")
    typer.echo(f"report: {out / 'explain.md'}")


def _item(
    model: str, inputs: Inputs, audio_time: float | None, where: Inputs, group: str | None, target: str, out: Path
) -> None:
    from mmkp.cli import _parse_box, _quiet_transformers, _say
    from mmkp.media import from_cli, load_audio, load_image

    box_xywh, whole = _parse_box(where["--box"]), bool(where["--whole"])
    picture = None if inputs["--image"] is None else load_image(from_cli(inputs["--image"]))
    sound = None if inputs["--audio"] is None else load_audio(from_cli(inputs["--audio"]))
    _quiet_transformers()
    from mmkp.explain.item import Given, explain_item
    from mmkp.hub import load

    loaded = load(model)
    finder = None if where["--find-with"] is None else load(where["--find-with"])
    if picture is not None and "image" in loaded.model.modalities:
        tell_where_it_looks(loaded, box_xywh is not None, whole, finder, _say)
    given = Given(picture, fitting(loaded, inputs["--text"], _say), sound, audio_time, box_xywh, whole)
    found = explain_item(loaded, given, out, group, target, finder=finder)
    shares = ", ".join(f"{m} {value:+.3g}" for m, value in found["modalities"].items())
    unit = f" {found['unit']}" if found["unit"] else ""
    typer.echo(
        f"{found['target']} of {found['group']}: {found['value']:.4f}{unit}, from nothing "
        f"{found['baseline_value']:.4f}: {shares}"
    )
    missed = found["completeness_error"]["relative"]
    if missed is not None:
        typer.echo(f"the contributions miss {100 * missed:.2f} % of the change")
    typer.echo(f"{out / 'explain.png'} {out / 'explain.json'}")
