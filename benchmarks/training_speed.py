"""What a training step, a forward pass and a batch cost, as ratios within one run, on the embedded talker data.

    python benchmarks/training_speed.py [--recipe FILE] [--out FILE] [--rounds 40] [--only TABLE] [a.b=c ...]

step       mmkp's optimizer step against a bare PyTorch loop: the same model, batches, clipping and AdamW, without
           Accelerate; nothing averaged, nothing written. Rounds take turns, so that a machine that slows down
           slows both; the ratio is that of the medians.
fusion     each rule's share of a forward pass of all modalities at batch 32, at feature and at model level, timed
           within the pass.
processes  items per second of one process and of two (torch.distributed, gloo or nccl), each with its share of the
           machine's threads; 2.00 would be perfect. On two cores two processes of one thread are compared with one
           process of one thread.
memory     largest resident memory while three steps are trained, by batch size, and what that is above all that
           was loaded before.
GPU        where there is one: items per second in float32 and bf16, with and without torch.compile, the share of the
           GPU's peak that the model's FLOPs make up (--peak-tflops, of dense bf16), and how long data was waited for.

For inference beside mediapipe and dlib: benchmarks/faces.py speed. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
HELD, WARM = 8, 4  # batches kept in memory; rounds that do not count
FUSIONS = [(name, level) for level in ("feature", "model") for name in ("average", "weighted", "product")]
MEMORY_BATCHES = (8, 16, 32, 64)
SETTINGS = [
    "training.ema_decay=0",
    "training.log_every=100000",
    "training.evaluate_every=100000",
    "data.validation_samples=4",
]


def trainer_of(options: argparse.Namespace, scratch: str, *more: str) -> Any:
    """A trainer of the recipe that neither averages nor evaluates."""
    from mmkp.recipe import load_recipe
    from mmkp.training.loop import Trainer

    return Trainer(
        load_recipe(options.recipe, [*SETTINGS, *options.overrides, *more]), Path(tempfile.mkdtemp(dir=scratch))
    )


class Quiet:
    """Stands in for the log of a run."""

    waited_s = 0.0


def held_batches(trainer: Any) -> list[dict[str, Any]]:
    """A few batches in memory, on the model's device."""
    source = trainer._batches(Quiet())
    return [dict(next(source)) for _ in range(HELD)]


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - began


class Timed:
    """A function that keeps how long each of its calls took."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call, self.spent = call, list[float]()

    def __call__(self, *given: Any) -> Any:
        synchronize()
        made: list[Any] = []
        self.spent.append(seconds(lambda: made.append(self.call(*given))))
        return made[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.call, name)


def alternating(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; the calls take turns."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM + rounds):
        for name, call in calls.items():
            spent[name].append(seconds(call))
    return {name: float(np.median(values[WARM:])) for name, values in spent.items()}


def step_lines(options: argparse.Namespace, scratch: str) -> Iterator[str]:
    """mmkp's step against a bare one."""
    trainer, bare = trainer_of(options, scratch), trainer_of(options, scratch)
    batches = held_batches(trainer)
    endless = ({**batch, "ids": list(batch["ids"])} for batch in itertools.cycle(batches))
    model, optimizer = bare.parts.model.train(), torch.optim.AdamW(bare.parts.model.parameters(), lr=1e-3)
    again = itertools.cycle(batches)

    def plain_step() -> None:
        batch = {k: v for k, v in next(again).items() if k != "ids"}
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    found = alternating({"mmkp": lambda: trainer._step(endless), "bare": plain_step}, options.rounds)
    yield "| step of the optimizer | ms | of the bare loop |"
    yield "|---|---|---|"
    for name in ("bare", "mmkp"):
        yield f"| {name} | {found[name] * 1e3:.1f} | {found[name] / found['bare']:.3f} |"


def fusion_lines(options: argparse.Namespace, scratch: str) -> Iterator[str]:
    """The rules' share of the forward pass."""
    yield "| rule | level | forward, ms | joining, ms | share |"
    yield "|---|---|---|---|---|"
    for name, level in FUSIONS:
        trainer = trainer_of(options, scratch, f"model.fusion={{name: {name}, level: {level}}}", *WHOLE)
        batch = {k: v for k, v in held_batches(trainer)[0].items() if k not in ("ids", "labels")}
        model = trainer.parts.model.eval()
        name_of = "fusion" if level == "feature" else "_join"
        joined = Timed(getattr(model, name_of))
        model.__dict__[name_of] = joined  # found before the submodule, and before the method
        with torch.inference_mode():
            whole = alternating({"forward": partial(model, **batch)}, options.rounds)["forward"]
        found = {"forward": whole, "join": float(np.median(joined.spent[WARM:]))}
        share = 100 * found["join"] / found["forward"]
        yield f"| {name} | {level} | {found['forward'] * 1e3:.1f} | {found['join'] * 1e3:.2f} | {share:.1f} % |"


WHOLE = ("augment.drop_image=0", "augment.drop_text=0", "augment.drop_audio=0")  # every item has every modality


def process_lines(options: argparse.Namespace) -> Iterator[str]:
    """One process against two."""
    yield "| processes | items / s | times one |"
    yield "|---|---|---|"
    first = None
    for count in (1, 2):
        told = launch(options, "rate", count)["items_per_s"]
        first = first or told
        yield f"| {count} | {told:.1f} | {told / first:.2f} |"


def memory_lines(options: argparse.Namespace) -> Iterator[str]:
    """Resident memory against the batch size."""
    base = launch(options, "memory", 1, "--batch", "0")["peak_mb"]
    yield "| batch | peak of training, MB | above everything loaded | MB per item |"
    yield "|---|---|---|---|"
    yield f"| none | {base:.0f} | | |"
    for batch in MEMORY_BATCHES:
        peak = launch(options, "memory", 1, "--batch", str(batch))["peak_mb"]
        yield f"| {batch} | {peak:.0f} | {peak - base:.0f} | {(peak - base) / batch:.1f} |"


def launch(options: argparse.Namespace, what: str, processes: int, *more: str) -> dict[str, float]:
    """Run a part of this script in processes of its own; what the first prints."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [*command, __file__] if processes > 1 else [sys.executable, __file__]
    command += ["--part", what, "--recipe", str(options.recipe), "--rounds", str(options.rounds), *more]
    ended = subprocess.run(
        [*command, *options.overrides], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode or not lines:
        sys.exit(f"{what} with {processes} processes failed:\n{ended.stderr[-1500:]}")
    return json.loads(lines[0])


def rate_part(options: argparse.Namespace, scratch: str) -> dict[str, float]:
    """Items per second of all processes together, data and all."""
    trainer = trainer_of(options, scratch, "training.threads=1", f"training.steps={WARM + options.rounds + 2}")
    batches = trainer._batches(Quiet())
    for _ in range(WARM):
        trainer._step(batches)
    trainer.accelerator.wait_for_everyone()
    began = time.perf_counter()
    for _ in range(options.rounds):
        trainer._step(batches)
    trainer.accelerator.wait_for_everyone()
    spent = time.perf_counter() - began
    if not trainer.main:
        return {}
    return {"items_per_s": options.rounds * trainer.samples_per_step / spent}


def memory_part(options: argparse.Namespace, scratch: str) -> dict[str, float]:
    """Peak of three steps, without that of loading; with a batch of 0 what is resident before the first."""
    batch = options.batch or MEMORY_BATCHES[0]
    trainer = trainer_of(options, scratch, "training.threads=1", f"training.batch_size={batch}")
    gc.collect()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from what is resident now
    if options.batch:
        batches = trainer._batches(Quiet())
        for _ in range(3):
            trainer._step(batches)
    return {"peak_mb": peak_mb()}


def peak_mb() -> float:
    """Peak of the resident memory since it was last reset; since the start of the process where it cannot be."""
    from mmkp.study.cost import peak_memory_mb

    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return peak_memory_mb()["peak_mb"]
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def gpu_lines(options: argparse.Namespace, scratch: str) -> Iterator[str]:
    """Throughput on a GPU."""
    from torch.utils.flop_counter import FlopCounterMode

    yield f"{torch.cuda.get_device_name()}, batch {options.batch or 'of the recipe'}"
    yield ""
    yield "| precision | compiled | items / s | model TFLOP/s | of bf16's peak | data wait, share of a step |"
    yield "|---|---|---|---|---|---|"
    size = [f"training.batch_size={options.batch}"] if options.batch else []
    for precision, compiled in itertools.product(("no", "bf16"), (False, True)):
        trainer = trainer_of(options, scratch, f"training.precision={precision}", "training.steps=100000", *size)
        if compiled:
            trainer.model = torch.compile(trainer.model)
        batch = held_batches(trainer)[0]
        with FlopCounterMode(display=False) as counter:
            trainer.parts.model(**{k: v for k, v in batch.items() if k != "ids"}).loss.backward()
        trainer.optimizer.zero_grad()
        log, batches = Quiet(), None
        batches = trainer._batches(log)
        for _ in range(WARM + 6):
            trainer._step(batches)
        log.waited_s = 0.0
        spent = seconds(lambda t=trainer, b=batches: [t._step(b) for _ in range(options.rounds)])
        rate = options.rounds * trainer.samples_per_step / spent
        flops = counter.get_total_flops() * options.rounds / spent / 1e12
        share = f"{100 * flops / options.peak_tflops:.2f} %" if options.peak_tflops and precision == "bf16" else "–"
        yield (f"| {'float32' if precision == 'no' else precision} | {'yes' if compiled else 'no'} | {rate:.0f} | "
               f"{flops:.2f} | {share} | {log.waited_s / spent:.3f} |")  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "quickstart.yaml")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--peak-tflops", type=float, default=0.0)
    parser.add_argument("--only", choices=["step", "fusion", "processes", "memory"], help="one of the tables")
    parser.add_argument("--part", choices=["rate", "memory"], help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if options.part:
            told = (rate_part if options.part == "rate" else memory_part)(options, scratch)
            if told:
                print(json.dumps(told), flush=True)
            return
        tables = {
            "step": partial(step_lines, options, scratch), "fusion": partial(fusion_lines, options, scratch),
            "processes": partial(process_lines, options), "memory": partial(memory_lines, options),
        }  # fmt: skip
        made = [line for name, table in tables.items() if options.only in (None, name) for line in (*table(), "")]
        if torch.cuda.is_available() and options.only is None:
            made += gpu_lines(options, scratch)
    print("\n".join(made))
    if options.out:
        options.out.write_text("\n".join(made) + "\n")


if __name__ == "__main__":
    main()
