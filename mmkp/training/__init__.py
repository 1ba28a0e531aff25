"""Training: from a recipe to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmkp.recipe import Recipe
    from mmkp.training.loop import Trainer


def run(recipe: Recipe, out: Path, resume: bool = False) -> Trainer:
    """Train a recipe; where memory runs out, halve the batch, double the accumulation, and go on.

    The items of every optimizer step stay the same, and so, but for batch norm, does its gradient.

    Args:
        recipe: what to train.
        out: the run's folder.
        resume: continue from the folder's last good checkpoint.

    Returns:
        The trainer, done.

    Raises:
        InputError: the recipe cannot be made, or the folder is not fit.
        MmkpError: a loss that is not finite, or not even one item fits into memory.
    """
    import typer
    from accelerate.utils import find_executable_batch_size

    from mmkp.errors import MmkpError
    from mmkp.training.loop import Trainer

    size = recipe.training.batch_size
    tried: list[int] = []

    def halve() -> int:
        return tried[-1] // 2 if tried[-1] % 2 == 0 else 0

    @find_executable_batch_size(starting_batch_size=size, reduce_batch_size_fn=halve)
    def attempt(batch_size: int) -> Trainer:
        if tried:
            typer.echo(
                f"out of memory with {tried[-1]} items: now {batch_size} items, {size // batch_size} times a step",
                err=True,
            )
        tried.append(batch_size)
        trainer = Trainer(recipe, out, resume or len(tried) > 1, split=size // batch_size)
        trainer.train()
        return trainer

    try:
        return attempt()
    except RuntimeError as error:
        if "No executable batch size" not in str(error):
            raise
        raise MmkpError(
            "training", expected="memory for at least one part of a batch", got=f"none with {tried[-1]} items",
            remedy="Lower model.input_size_hw or model.hidden_size.",
        ) from error  # fmt: skip
