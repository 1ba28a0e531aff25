"""How far a study is: a bar over the whole grid on a terminal, a line per finished cell elsewhere; always with the time
that is left."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from mmkp.study.plan import Cell, Folders
from mmkp.study.recipe import Study

OVERHEAD = 1.6  # of a cell over its training: a guess until the first cell is done


class Progress:
    """The course of a study.

    Args:
        cells: all; waiting: those that will be run.
        workers: at a time.
        say: gets a line for people, where there is no terminal.
    """

    def __init__(
        self, study: Study, cells: list[Cell], waiting: list[Cell], workers: int, folders: Folders, say: Any
    ) -> None:
        self.study, self.workers, self.folders, self.say = study, workers, folders, say
        self.left = list(waiting)
        self.spent: dict[str, list[float]] = defaultdict(list)
        self.done, self.total = len(cells) - len(waiting), len(cells)
        console = Console(file=sys.stderr)
        self.live = console.is_terminal and int(os.environ.get("RANK", 0)) == 0
        columns = (TextColumn("study"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        self.bar = Bar(*columns, console=console, disable=not self.live)
        self.task = self.bar.add_task("study", total=self.total, completed=self.done, text="")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def finished(self, cell: Cell, seconds: float | None, state: str) -> None:
        """A cell has ended."""
        self.done += 1
        self.left.remove(cell)
        if seconds is not None and state == "done":
            self.spent[cell.arm].append(seconds)
        took = "" if seconds is None else f", {seconds:.0f} s"
        where = "" if state == "done" else f" (see logs/{cell.name}.log)" if state == "failed" else ""
        self.say(f"{self.done}/{self.total} {cell.name}: {state}{where}{took}; {left_in_words(self.seconds_left({}))}")
        self.bar.update(self.task, completed=self.done)

    def show(self, running: list[tuple[Cell, float]]) -> None:
        """Redraw; `running` are the cells at work and when they began (monotonic, s)."""
        if not self.live:
            return
        now = time.monotonic()
        parts = [f"{cell.name} {self._step(cell)}".strip() for cell, _ in running]
        left = left_in_words(self.seconds_left({cell: now - began for cell, began in running}))
        self.bar.update(self.task, text=f"{', '.join(parts)}; {left}")

    def seconds_left(self, elapsed: dict[Cell, float]) -> float | None:
        """Of the whole grid; None where nothing tells yet.

        Args:
            elapsed: seconds that each cell at work has taken so far.
        """
        total = 0.0
        for cell in self.left:
            expected = self._expected(cell)
            if expected is None:
                return None
            total += max(0.0, expected - elapsed.get(cell, 0.0))
        return total / self.workers

    def _expected(self, cell: Cell) -> float | None:
        every = [s for arm in self.spent.values() for s in arm]
        known = self.spent.get(cell.arm) or every
        if known:
            return sum(known) / len(known)
        budget = self.study.budget.cpu_seconds
        return None if budget is None else budget * OVERHEAD

    def _step(self, cell: Cell) -> str:
        """How far a cell's training is, as its run tells."""
        folder = self.folders.runs / cell.name
        try:
            with (folder / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                last = file.read().decode(errors="ignore").strip().splitlines()[-1]
            steps = json.loads((folder / "cell.json").read_text())["steps"]
            return f"{json.loads(last)['step']}/{steps}"
        except (OSError, ValueError, KeyError, IndexError):
            return ""


def left_in_words(seconds: float | None) -> str:
    """For people."""
    if seconds is None:
        return "time left not known yet"
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"
