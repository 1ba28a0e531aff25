"""The command line: one verb, one function. Exit codes: 0 done, 1 the run failed, 2 the user's input is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from mmkp.commands.data import data_app
from mmkp.commands.explain import explain
from mmkp.commands.finder import fit_finder
from mmkp.commands.finetune import finetune
from mmkp.commands.push import models, push
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
from mmkp.commands.study import study
from mmkp.errors import InputError, MmkpError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Multimodal keypoint detection: image, text and audio, fused.",
)  # fmt: skip
app.add_typer(data_app, name="data")
app.command()(explain)
app.command("fit-finder")(fit_finder)
app.command()(finetune)
app.command()(models)
app.command()(push)
app.command()(study)

# typer brings its own click; its base class of wrong arguments has no public name in every version
CLICK_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, a .yaml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value ...")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder; runs/NAME without.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's last good checkpoint.")] = False,
) -> None:
    """Train a recipe, then evaluate the best model on the test split."""
    from mmkp.classic import is_classic
    from mmkp.recipe import load_recipe

    if is_classic(recipe):
        return _train_classic(recipe, overrides or [], out or Path("runs") / recipe.stem, resume)
    loaded_recipe = load_recipe(recipe, overrides or [])
    folder = out or Path("runs") / loaded_recipe.name
    _quiet_transformers()
    from mmkp.data import open_dataset
    from mmkp.training import run

    open_dataset(loaded_recipe.data.dataset, "test", **loaded_recipe.data.options)  # better missed now than at the end

    trainer = run(loaded_recipe, folder, resume)
    if trainer.main:
        options = dict(loaded_recipe.data.options)
        _calibrate(str(folder), loaded_recipe.data.dataset, "validation", options)
        _evaluate(str(folder), loaded_recipe.data.dataset, "test", folder, options)
        other = "product" if loaded_recipe.model.fusion.name != "product" else "average"
        again = " ".join(["mmkp train", str(recipe), *(overrides or []), f"model.fusion.name={other}"])
        typer.echo(f"done: open {folder / 'report.md'}. Then try another fusion: {again} --out {folder}-{other}")
    return None


def _train_classic(recipe: Path, overrides: list[str], folder: Path, resume: bool) -> None:
    from mmkp import classic

    if resume:
        raise InputError("--resume", expected="a network's recipe", got="a classic one, which is fitted in one go")
    _print_summary(classic.run(recipe, overrides, folder), folder)


@app.command()
def evaluate(
    model: ModelOption,
    data: Annotated[str, typer.Option("--data", "-d", help="NAME or NAME:PATH, such as grid:PATH.")],
    out: OutOption,
    options: Annotated[list[str] | None, typer.Argument(help="key=value ... of the dataset")] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset; `all` takes everything found.")] = "test",
    condition: Annotated[
        list[str] | None,
        typer.Option(
            help="covered, audio_noise:3 (a corruption and how strong), covered+audio_noise:3; may be repeated."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Items per batch.")] = 32,
) -> None:
    """Evaluate every subset of modalities under every condition: summary.json, report.md, pictures."""
    from mmkp.recipe import parse_overrides

    _evaluate(model, data, split, out, parse_overrides(options or []), condition, batch_size)


@app.command()
def calibrate(
    model: Annotated[str, typer.Option("--model", "-m", help="A run's folder; its config.json is changed.")],
    data: Annotated[str, typer.Option("--data", "-d", help="NAME or NAME:PATH, such as grid:PATH.")],
    options: Annotated[list[str] | None, typer.Argument(help="key=value ... of the dataset")] = None,
    split: Annotated[str, typer.Option(help="Split to fit on; never the one that is reported.")] = "validation",
) -> None:
    """Fit the temperature of a model's scores, so that they are probabilities; training does it by itself."""
    from mmkp.recipe import parse_overrides

    _calibrate(model, data, split, parse_overrides(options or []))


@app.command()
def predict(
    model: ModelOption,
    out: OutOption,
    image: ImageOption = None,
    text: TextOption = None,
    audio: AudioOption = None,
    audio_time: AudioTimeOption = None,
    box: Annotated[
        str | None, typer.Option(help="x,y,width,height in px; without, what the model finds, or the whole picture.")
    ] = None,
    whole: WholeOption = False,
    find_with: FindWithOption = None,
) -> None:
    """Predict keypoints from a picture, a text, a sound or any of them together."""
    from mmkp.media import from_cli, load_audio, load_image

    if image is None and text is None and audio is None:
        raise InputError("predict", expected="at least one of --image, --text, --audio", got="none")
    box_xywh = _parse_box(box)
    picture = None if image is None else load_image(from_cli(image))
    sound = None if audio is None else load_audio(from_cli(audio))
    _quiet_transformers()
    from mmkp.evaluation.single import predict_one, write_prediction
    from mmkp.hub import load

    loaded = load(model)
    finder = None if find_with is None else load(find_with)
    if picture is not None:
        tell_where_it_looks(loaded, box_xywh is not None, whole, finder, _say)
    text = fitting(loaded, text, _say)
    result = predict_one(loaded, picture, text, sound, audio_time, box_xywh, whole, finder)
    paths = write_prediction(result, picture, loaded, out)
    if not result["instances"]:
        return typer.echo(
            f"no face found that covers a sixth of the picture's width (--box says where one is): {paths[0]} {paths[1]}"
        )
    counted = f"{len(result['instances'])} instance(s) from {'+'.join(result['modalities'])}"
    return typer.echo(f"{counted}: {paths[0]} {paths[1]}")


@app.command()
def ceilings(
    samples: Annotated[int, typer.Option(min=2400, help="How many to draw.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """What each subset of modalities can know at best of a hidden mouth, on the embedded talker data."""
    from mmkp.data.talker.ceilings import ceilings as measure

    found = measure(samples, seed)
    gate = found.pop("gate")
    typer.echo("lips, NME / outer_eye_distance, of the best guess that knows only what the subset can know:")
    for subset, row in found.items():
        low, high = row["ci95"]
        line = f"  {subset:<18} {row['lip_nme']:.4f} [{low:.4f}, {high:.4f}]  n = {row['n']}"
        boxed = row.get("in_box")
        typer.echo(line + (f"  {boxed['lip_nme']:.4f} where the head's roll is not told" if boxed else ""))
    told = f"all three have {gate['ratio']:.2f} of the error of {gate['best_single']}, the best single one"
    typer.echo(f"{told}; the data should allow {gate['limit']:.2f} or less")
    if not gate["passed"]:
        raise MmkpError("ceilings", expected=f"a share of at most {gate['limit']:.2f}", got=told)


@app.command()
def env() -> None:
    """Versions, devices, what is missing and how to get it."""
    from mmkp.environment import report

    typer.echo(report())


def _calibrate(model: str, data: str, split: str, options: dict) -> None:
    _quiet_transformers()
    from mmkp.data import open_dataset
    from mmkp.evaluation.calibrate import calibrate as run
    from mmkp.evaluation.calibrate import save_calibrated
    from mmkp.hub import check_schema, load

    if not (Path(model) / "config.json").is_file():
        raise InputError(f"--model {model}", expected="a folder with a checkpoint", got="none there")
    loaded, dataset = load(model), open_dataset(data, split, **options)
    check_schema(loaded, dataset.schema, f"data {data}")
    try:
        found = run(loaded, dataset, progress=_progress)
    except InputError as error:
        return _say(f"scores stay as they are: {error}")
    save_calibrated(loaded, Path(model))
    return _say(
        f"scores calibrated on {found['n']} keypoints of {split}: temperature {found['temperature']:.3f}, bias "
        f"{found['bias']:.3f}; right is within {found['threshold']} of {found['normalizer']}; negative log-likelihood "
        f"{found['nll_before']:.3f} -> {found['nll']:.3f} nats"
    )


def _evaluate(
    model: str,
    data: str,
    split: str,
    out: Path,
    options: dict,
    conditions: list[str] | None = None,
    batch_size: int = 32,
) -> None:
    _quiet_transformers()
    from mmkp.evaluation.run import evaluate as run
    from mmkp.hub import load

    summary = run(load(model), data, split, out, options, conditions, batch_size, say=_say, progress=_progress)
    _print_summary(summary, out)


def _print_summary(summary: dict, out: Path) -> None:
    from mmkp.evaluation.report import number

    for condition, rows in summary["conditions"].items():
        typer.echo(f"{condition}: NME / {summary['protocol']['normalizer']}, n = {summary['n']}")
        for subset, entry in rows.items():
            if not entry["nme"]["n"]:
                continue
            groups = "  ".join(f"{g} {number(e)}" for g, e in entry["nme"]["groups"].items() if g in ("lips", "eyes"))
            typer.echo(f"  {subset:<18} {number(entry['nme'])}  {groups}")
    typer.echo(f"report: {out / 'report.md'}")


def _parse_box(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4 or not all(abs(v) < 1e6 for v in values):
        raise InputError("--box", expected="x,y,width,height in px", got=repr(text))
    return values


def _progress(batches: list) -> Iterable:
    from rich.console import Console
    from rich.progress import track

    console = Console(file=sys.stderr)
    return track(batches, "evaluate", console=console, disable=not console.is_terminal)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _quiet_transformers() -> None:
    """Keep the progress bars of loading and saving out of the way of ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def main() -> None:
    """Run a command; turn what the user can mend into one line and an exit code."""
    try:
        code = app(standalone_mode=False)
    except CLICK_ERROR as error:
        error.show()
        sys.exit(2)
    except MmkpError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("stopped", err=True)
        sys.exit(130)
    except OSError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
