"""Run a study: every cell that is not finished in a process of its own, some at a time, with progress over the grid."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mmkp.errors import InputError, MmkpError
from mmkp.study.origin import command
from mmkp.study.plan import Cell, Folders, plan, put_aside, state
from mmkp.study.progress import Progress
from mmkp.study.recipe import Loaded, load_study
from mmkp.study.results import CEILINGS, CellResults, is_whole, read_meta
from mmkp.study.worker import Job, main, save

POLL_S = 0.25


@dataclass
class Running:
    """A cell at work."""

    job: Job
    process: Any
    lock: IO[str]
    slot: int
    began: float = field(default_factory=time.monotonic)


class Grid:
    """The cells of a study that are left, and the processes that run them.

    Several of these may work on one folder at once (the processes of Accelerate's launcher, or two machines that share
    it): a cell belongs to whoever holds its lock.

    Args:
        loaded: the study; study: its file; overrides: as given.
        workers: processes at a time; as many as there are GPUs, or one, without.
        retry: run cells again that failed.
        method: how processes are started, as `multiprocessing` names it.
    """

    def __init__(
        self, loaded: Loaded, study: Path, overrides: list[str], out: Path, *, workers: int | None = None,
        retry: bool = False, say: Any = print, method: str = "forkserver",
    ) -> None:  # fmt: skip
        self.loaded, self.command = loaded, command(study, overrides)
        self.folders, self.retry, self.say = Folders(out), retry, say
        self._failed: set[str] = set()  # cells that had failed before
        self.devices = devices()
        self.workers = workers or max(1, len(self.devices))
        self.threads = max(1, cores() // self.workers // _ranks())
        self.context: Any = multiprocessing.get_context(method)
        if method == "forkserver":  # a clean process for each cell, and torch imported once
            self.context.set_forkserver_preload(["mmkp.study.cell", "mmkp.study.cost", "mmkp.hub"])

    def run(self, only: str | None = None) -> dict[str, str]:
        """Run what is left.

        Args:
            only: an arm.

        Returns:
            The state of every cell by name: done or failed.

        Raises:
            InputError: the data or the folder is not fit, an arm that does not exist.
        """
        self.folders.make()
        cells = plan(self.loaded, only)
        self._failed = {c.name for c in cells if state(self.folders.cell(c), c) == "failed"}
        waiting = [c for c in cells if self._is_open(c)]
        if len(waiting) < len(cells):
            self.say(f"{len(cells) - len(waiting)} of {len(cells)} cells are finished and not run again")
        progress = Progress(self.loaded.study, cells, waiting, self.workers * _ranks(), self.folders, self.say)
        running: list[Running] = []
        with progress:
            try:
                while waiting or running:
                    self._start(waiting, running, progress)
                    time.sleep(POLL_S)
                    for done in [r for r in running if not r.process.is_alive()]:
                        running.remove(done)
                        self._finish(done, progress)
                    progress.show([(r.job.cell, r.began) for r in running])
            except KeyboardInterrupt:
                self.say("stopped; the same command goes on where it was")
                raise
            finally:
                for left in running:
                    left.process.terminate()
                    left.process.join()
        found = {c.name: state(self.folders.cell(c), c) for c in cells}
        failed = [name for name, how in found.items() if how == "failed"]
        if failed:
            self.say(f"without results: {', '.join(failed)}; logs/ tells why, `--retry` runs them again")
        return found

    def _is_open(self, cell: Cell) -> bool:
        path = self.folders.cell(cell)
        found = state(path, cell, self.retry)
        if found == "stale":
            why = "of other settings" if is_whole(path) else "damaged"
            self.say(f"{cell.name} is {why}: moved to {put_aside(path).relative_to(self.folders.out)}")
        return found in ("stale", "open")

    def _start(self, waiting: list[Cell], running: list[Running], progress: Progress) -> None:
        """Fill the free slots with cells that nobody else works on or has finished."""
        for cell in list(waiting):
            if len(running) >= self.workers:
                return
            lock = (self.folders.runs / f"{cell.name}.lock").open("a")
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            waiting.remove(cell)
            found = state(self.folders.cell(cell), cell)
            if found == "done" or (found == "failed" and cell.name not in self._failed):
                lock.close()  # another process has run it since this one looked
                progress.finished(cell, None, f"{found} elsewhere")
                continue
            if found == "stale":  # finished meanwhile by a process of other settings
                put_aside(self.folders.cell(cell))
            self.folders.cell(cell).unlink(missing_ok=True)  # a failure that is tried again
            slot = next(i for i in range(self.workers) if i not in [r.slot for r in running])
            running.append(self._launch(cell, lock, slot))

    def _launch(self, cell: Cell, lock: IO[str], slot: int) -> Running:
        device = self.devices[slot % len(self.devices)] if self.devices else None
        job = Job(
            self.loaded, self.folders.out.resolve(), cell, self.threads, device, os.getpid(), dict(os.environ),
            self.command,
        )  # fmt: skip
        process = self.context.Process(target=main, args=(job,), name=cell.name)
        process.start()
        return Running(job, process, lock, slot)

    def _finish(self, done: Running, progress: Progress) -> None:
        cell, path = done.job.cell, self.folders.cell(done.job.cell)
        found = state(path, cell)
        code = done.process.exitcode
        if code != 0 and found not in ("done", "failed"):
            reason = f"killed by signal {-code}" if code and code < 0 else f"ended with code {code}"
            error = f"the cell's process was {reason}; see logs/{cell.name}.log"
            save(CellResults({"status": "failed", "error": error}), done.job, self.folders)
            found = "failed"
        done.lock.close()
        progress.finished(cell, time.monotonic() - done.began, found)


def devices() -> list[int]:
    """The GPUs that this process may use: under a launcher its own, else all; none on a CPU."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        return []
    own = os.environ.get("LOCAL_RANK")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    numbers = [int(v) for v in visible.split(",") if v.isdigit()] or list(range(count))
    return [numbers[int(own) % len(numbers)]] if own is not None else numbers


def cores() -> int:
    """CPU cores that this process may use; OMP_NUM_THREADS may say fewer."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(asked)) if asked.isdigit() and int(asked) > 0 else there


def is_main() -> bool:
    """Whether this process writes the report: under a launcher the first of its processes."""
    return int(os.environ.get("RANK", 0)) == 0


def _ranks() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", 1)))


def run_study(
    study: Path, overrides: list[str], out: Path, *, only: str | None = None, report_only: bool = False,
    workers: int | None = None, retry: bool = False, say: Any = print,
) -> Path | None:  # fmt: skip
    """Run what is left of a study and write its report.

    Returns:
        report.md; None in a launcher's other processes.

    Raises:
        InputError: the study, its data or the folder is not fit; a report of no cells.
        MmkpError: no cell at all has results.
    """
    from mmkp.study.report import write_report

    loaded = load_study(study, overrides)
    if only is not None:
        loaded.study.arm(only)
    if report_only:
        if not any(Folders(out).cells.glob("*.parquet")):
            raise InputError(f"--report {out}", expected="finished cells in its folder cells/", got="none there")
        _measure_ceilings(loaded, out)
        return write_report(loaded, out, say)
    grid = Grid(loaded, study, overrides, out, workers=workers, retry=retry, say=say)
    found = grid.run(only)
    if "done" not in found.values():
        raise MmkpError(f"study {loaded.study.name}", expected="a cell that ends well", got=_first_error(grid, found))
    if not is_main():
        return None
    _measure_ceilings(loaded, out)
    return write_report(loaded, out, say)


def _first_error(grid: Grid, found: dict[str, str]) -> str:
    metas = (read_meta(grid.folders.cells / f"{name}.parquet") or {} for name in found)
    return next((f"{m['arm']}-{m['seed']}: {m['error']}" for m in metas if m.get("error")), "none")


def _measure_ceilings(loaded: Loaded, out: Path) -> None:
    """What `mmkp ceilings` says, once, where the study asks for it."""
    path = out / CEILINGS
    if loaded.study.ceilings and not path.is_file() and loaded.data.dataset == "talker":
        from mmkp.data.talker.ceilings import ceilings

        part = path.with_suffix(".part")
        part.write_text(json.dumps(ceilings(), indent=1), encoding="utf-8")
        part.replace(path)
