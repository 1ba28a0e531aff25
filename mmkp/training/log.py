"""What a run says while it runs: metrics.jsonl for programs, a progress bar or plain lines for people."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class RunLog:
    """Appends to metrics.jsonl and shows the course of the run on stderr; silent on all but the main process.

    Args:
        path: metrics.jsonl.
        steps: of the whole run.
        first_step: where this process began.
        samples_per_step: the global batch.
    """

    def __init__(self, path: Path, steps: int, first_step: int, samples_per_step: int, active: bool = True) -> None:
        self.active, self.samples_per_step = active, samples_per_step
        self.console = Console(file=sys.stderr, quiet=not active)
        self.file: TextIO | None = path.open("a") if active else None
        self.last, self.last_step, self.waited_s, self.began = time.monotonic(), first_step, 0.0, time.monotonic()
        self.live = active and self.console.is_terminal
        self.progress = Progress(
            TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(), console=self.console, disable=not self.live,
        )  # fmt: skip
        self.task = self.progress.add_task("train", total=steps, completed=first_step, text="")
        self.steps = steps

    def __enter__(self) -> RunLog:
        self.progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.progress.stop()
        if self.file:
            self.file.close()

    def say(self, line: str) -> None:
        """A line for people."""
        if self.active:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def write(self, row: dict[str, Any]) -> None:
        """A row for programs."""
        if self.file:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()

    def step(self, step: int, values: dict[str, float]) -> None:
        """Record an interval of steps that ends at `step`."""
        now = time.monotonic()
        seconds = max(now - self.last, 1e-9)
        rate = (step - self.last_step) * self.samples_per_step / seconds
        row = {"step": step, **values, "samples_per_s": round(rate, 1), "data_wait": round(self.waited_s / seconds, 4)}
        self.write({**row, "elapsed_s": round(now - self.began, 1)})
        text = f"loss {values['loss']:.3f}  {rate:.0f} samples/s"
        self.progress.update(self.task, completed=step, text=text)
        if not self.live and (step % (10 * max(1, step - self.last_step)) == 0 or step == self.steps):
            left = (self.steps - step) * self.samples_per_step / max(rate, 1e-9)
            self.say(f"step {step}/{self.steps}  {text}  {left / 60:.1f} min left")
        self.last, self.last_step, self.waited_s = now, step, 0.0

    def restart_clock(self) -> None:
        """Leave what has passed since the last interval (an evaluation) out of the throughput."""
        self.last = time.monotonic()
