"""The training loop, on Accelerate: one explicit pass from the recipe to a run folder."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from mmkp.data.collate import Collator, KeyedDataset, StepSampler
from mmkp.data.prefetch import prefetched
from mmkp.data.stream import Stream, StreamBatches, StreamItems
from mmkp.errors import InputError, MissingExtraError, MmkpError, choose
from mmkp.recipe import Recipe
from mmkp.training import checkpoint
from mmkp.training.build import Parts, build, learning_rate_share, parameter_groups, training_mode
from mmkp.training.cpu import prepare_cpu
from mmkp.training.log import RunLog
from mmkp.training.lora import merged
from mmkp.training.run_folder import RunFolder
from mmkp.training.validate import Validator

ADAM_EPSILON = 1e-6  # RoBERTa's; at 1e-8 the rounding of a gradient near 0 is scaled up to a visible step
TRACKERS = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}  # Accelerate's name -> package


class Trainer:
    """A run: its parts, its state, and the loop.

    Args:
        recipe: what to train.
        out: the run's folder.
        resume: continue from the folder's last good checkpoint.
        split: read each batch in so many parts (a power of two), where memory is short.

    Raises:
        InputError: the recipe cannot be made, or the folder holds a run of another recipe.
    """

    def __init__(self, recipe: Recipe, out: Path, resume: bool = False, split: int = 1) -> None:
        self.recipe, self.settings = recipe, recipe.training
        self.batch_size, self.accumulate = recipe.training.batch_size // split, recipe.training.accumulate * split
        self.accelerator = make_accelerator(recipe, out, self.accumulate)
        prepare_cpu()
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        self.folder = RunFolder(out, recipe, resume, main=self.accelerator.is_main_process)
        self.parts: Parts = build(recipe)
        model = self.parts.model
        optimizer = torch.optim.AdamW(parameter_groups(model, self.settings), betas=(0.9, 0.99), eps=ADAM_EPSILON)
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.average = make_average(model, self.settings.ema_decay)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.average = self.average.to(self.accelerator.device) if self.average is not None else None
        self.samples_per_step = self.batch_size * self.accumulate * self.accelerator.num_processes
        self.state = checkpoint.RunState(
            model, self.average, optimizer, scaler=self.accelerator.scaler, samples_per_step=self.samples_per_step
        )
        self.validator = Validator(self.parts, self.recipe)
        self.folder.prepare()
        self.accelerator.wait_for_everyone()

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.accelerator.is_main_process

    def train(self) -> Path:
        """Run all steps that are left. Returns the run's folder, which holds the best model.

        Raises:
            MmkpError: the loss is not finite; the message names the items of the batch.
        """
        notes = self._restore()
        settings = self.settings
        if self.state.step == 0:
            torch.manual_seed(settings.seed + self.accelerator.process_index)
        self._start_trackers()
        with RunLog(self.folder.metrics, settings.steps, self.state.step, self.samples_per_step, self.main) as log:
            for line in [*self.parts.notes, *notes]:
                log.say(line)
            batches = self._batches(log)
            while self.state.step < settings.steps and not self._done_early():
                values = self._step(batches)
                self._after_step(values, log)
            if self.state.step < settings.steps:
                log.say(f"stopped at step {self.state.step}: no better model since step {self.state.best_step}")
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()  # also ends the process group: from here on each process is alone
        return self.folder.path

    def _start_trackers(self) -> None:
        if self.settings.trackers:
            self.accelerator.init_trackers("mmkp", {"recipe": self.recipe.name, "yaml": self.recipe.to_yaml()})

    def _restore(self) -> list[str]:
        if not self.folder.resumed:
            return []
        rank = self.accelerator.process_index
        manifest, lines = checkpoint.load_latest(self.state, self.folder.checkpoints, rank)
        if manifest and manifest["samples_per_step"] != self.samples_per_step:
            raise InputError(
                f"resume {self.folder.path}", expected=f"a global batch of {manifest['samples_per_step']} items",
                got=f"{self.samples_per_step} on {self.accelerator.num_processes} processes",
                remedy="Change training.batch_size or training.accumulate, which a resume may.",
            )  # fmt: skip
        if self.main:
            self.folder.cut_metrics(self.state.step)
        self.accelerator.wait_for_everyone()
        return [*lines, f"resumed at step {self.state.step}" if manifest else "no good checkpoint: started from step 0"]

    def _batches(self, log: RunLog) -> Iterator[dict[str, Any]]:
        settings, parts = self.settings, self.parts
        items, self.sampler = self._items()
        collate = Collator(
            parts.processor, parts.schema, self.recipe.augment, settings.seed, parts.model.modalities, settings.subsets
        )
        loader = DataLoader(
            items, batch_sampler=self.sampler, collate_fn=collate, num_workers=settings.workers,
            pin_memory=self.accelerator.device.type == "cuda", generator=torch.Generator(),
        )  # fmt: skip
        source = iter(loader) if settings.workers else prefetched(iter(loader))
        while True:
            began = time.monotonic()
            batch = next(source, None)
            if batch is None:
                return
            log.waited_s += time.monotonic() - began
            yield {k: v.to(self.accelerator.device, non_blocking=True) if torch.is_tensor(v) else v
                   for k, v in batch.items()}  # fmt: skip

    def _items(self) -> tuple[Dataset, StepSampler | StreamBatches]:
        """The items that are left of the run, and their order."""
        train_set, seed, first = self.parts.train_set, self.settings.seed, self.state.step * self.accumulate
        rank, world, last = (
            self.accelerator.process_index, self.accelerator.num_processes, self.settings.steps * self.accumulate
        )  # fmt: skip
        if isinstance(train_set, Stream):
            place = self._stream_place()
            return StreamItems(train_set), StreamBatches(
                train_set, self.batch_size, last, seed, first, place, rank, world
            )
        sampler = StepSampler(len(train_set), self.batch_size, last, seed, first, rank, world)
        return KeyedDataset(train_set), sampler

    def _stream_place(self) -> tuple[int, int]:
        """Where the checkpoint that was loaded left the stream."""
        if self.state.step == 0:
            return 0, 0
        stored = (
            self.folder.checkpoints
            / f"step-{self.state.step:06d}"
            / f"rng-{self.accelerator.process_index}.safetensors"
        )
        epoch, taken, world = load_file(stored)["stream"].tolist() if stored.exists() else (0, 0, 0)
        if world != self.accelerator.num_processes:
            raise InputError(
                f"resume {self.folder.path}", expected="as many processes as before: they divide the stream",
                got=f"{self.accelerator.num_processes}", remedy="Start as many as the run began with.",
            )  # fmt: skip
        return epoch, taken

    def _step(self, batches: Iterator[dict[str, Any]]) -> dict[str, float]:
        training_mode(self.model, self.settings)
        share = learning_rate_share(self.state.step, self.settings)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * share
        total, norm, seen = 0.0, 0.0, []
        for _ in range(self.accumulate):
            batch = next(batches)
            seen += batch.pop("ids")
            with self.accelerator.accumulate(self.model):
                loss = self.model(**batch).loss
                self._check("loss", float(loss.detach()), seen)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm))
                    if self.accelerator.scaler is None:  # the scaler of fp16 skips such a step by itself
                        self._check("gradient", norm, seen)
                self.optimizer.step()
                self.optimizer.zero_grad()
            total += loss.detach().item() / self.accumulate
        self.state.step += 1
        if self.average is not None:
            self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        return {"loss": total, "grad_norm": norm, "lr": self.settings.learning_rate * share}

    def _check(self, what: str, value: float, ids: list[str]) -> None:
        if not math.isfinite(value):
            raise MmkpError(
                f"training step {self.state.step + 1}", expected=f"a finite {what}",
                got=f"{value} for the items {', '.join(ids)}",
                remedy="The last good checkpoint is kept. Look at these items, or lower training.learning_rate.",
            )  # fmt: skip

    def _after_step(self, values: dict[str, float], log: RunLog) -> None:
        step, last = self.state.step, self.state.step == self.settings.steps
        if step % self.settings.log_every == 0 or last:
            log.step(step, {k: round(v, 6) for k, v in values.items()})
            self.accelerator.log(values, step=step)
        if step % self.settings.evaluate_every == 0 or last:
            self._validate_and_save(log)
            log.restart_clock()

    def _validate_and_save(self, log: RunLog) -> None:
        model = self.average.module if self.average is not None else self.accelerator.unwrap_model(self.model)
        if self.main:
            found = self.validator(model)
            log.write({"step": self.state.step, "validation": found})
            self.accelerator.log({"validation_nme": found["nme"]}, step=self.state.step)
            log.say(f"step {self.state.step}  validation NME {found['nme']:.4f}  {self.validator.line(found)}")
        rngs = gather_rngs(self.accelerator, self._stream_state())
        if self.main:
            try:
                self._keep_the_best(merged(model), found["nme"])
                checkpoint.save(self.state, self.folder.checkpoints, rngs)
            except (OSError, SafetensorError) as error:
                log.say(f"warning: {error}; what was saved before is kept and training goes on")
        self.accelerator.wait_for_everyone()

    def _done_early(self) -> bool:
        """Whether `patience` evaluations went by without a better model; all processes hear it from the main one."""
        patience, step = self.settings.patience, self.state.step
        if patience is None or step == 0 or step % self.settings.evaluate_every:
            return False
        since = step - (self.state.best_step or 0)
        done = [self.main and since >= patience * self.settings.evaluate_every]
        return bool(broadcast_object_list(done)[0] if self.accelerator.num_processes > 1 else done[0])

    def _stream_state(self) -> dict[str, torch.Tensor]:
        if not isinstance(self.sampler, StreamBatches):
            return {}
        place = self.sampler.place_after(self.state.step * self.accumulate)
        return {"stream": torch.tensor([*place, self.accelerator.num_processes])}

    def _keep_the_best(self, model: Any, nme: float) -> None:
        best = self.state.best
        if best is None or not math.isfinite(best) or nme < best:
            self.folder.save_model(model, self.parts.processor)
            self.state.best, self.state.best_step = nme, self.state.step


def make_accelerator(recipe: Recipe, out: Path, accumulate: int) -> Accelerator:
    """The Accelerator for a recipe: mixed precision, accumulation, trackers.

    Raises:
        InputError: fp16 without a GPU, a tracker that does not exist or is not installed.
    """
    settings = recipe.training
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    precision = launched if settings.precision == "auto" else settings.precision
    check_trackers(settings.trackers)
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError("training.precision", expected="no or bf16 on a CPU", got="fp16", remedy="fp16 needs a GPU.")
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        AcceleratorState._reset_state()  # an earlier run of this process had another precision
    return Accelerator(
        mixed_precision=precision, gradient_accumulation_steps=accumulate,
        cpu=not torch.cuda.is_available(),
        log_with=list(settings.trackers) or None,
        project_dir=out,
        # a batch in which nobody has a text leaves the text encoder without a gradient
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )  # fmt: skip


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuse a tracker that does not exist or whose package is missing.

    Raises:
        InputError: an unknown name.
        MissingExtraError: a known one that is not installed.
    """
    for name in names:
        package = choose("training.trackers", name, TRACKERS)
        if find_spec(str(package)) is None:
            raise MissingExtraError("training.trackers", str(package), name)


def make_average(model: torch.nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of weights and buffers, which is what gets saved; None for a decay of 0.

    The decay warms up as (1 + n) / (10 + n), so that a short run is not held at its start (as TensorFlow's
    ExponentialMovingAverage does).
    """
    if not decay:
        return None

    def blend(averages: Any, currents: Any, count: Any) -> None:
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current, 1 - keep)
            else:
                average.copy_(current)

    return AveragedModel(model, multi_avg_fn=blend, use_buffers=True)


def gather_rngs(accelerator: Accelerator, more: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """The random states of all processes, by rank, and what else each has of its own."""
    own = [{**checkpoint.get_rng(), **more}]
    if accelerator.num_processes == 1:
        return own
    from accelerate.utils import gather_object

    return gather_object(own)
