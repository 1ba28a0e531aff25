"""The process of one cell: it runs the cell, writes its file whatever happens, and ends with whoever started it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkp.study.plan import Cell, Folders
from mmkp.study.recipe import Loaded

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
PATIENCE_S = 20.0  # for the process of a study that was killed to let go of the run's folder


@dataclass(frozen=True)
class Job:
    """What the process of a cell is told; the study as it was read, whatever becomes of its file."""

    loaded: Loaded
    out: Path
    cell: Cell
    threads: int
    device: int | None
    parent: int
    environment: dict[str, str]
    command: str


def main(job: Job) -> None:
    """Run a cell in a process of its own."""
    os.environ.clear()
    os.environ.update({k: v for k, v in job.environment.items() if k not in LAUNCHER})
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(job.threads)
    if job.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(job.device)
    folders = Folders(job.out)
    log = (folders.logs / f"{job.cell.name}.log").open("a", buffering=1)
    os.dup2(log.fileno(), 1)  # for what libraries print past Python
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    threading.Thread(target=_end_with, args=(job.parent,), daemon=True).start()
    run(job, folders)


def run(job: Job, folders: Folders) -> Path:
    """Run a cell and write its file: its results, or what went wrong."""
    from mmkp.errors import MmkpError
    from mmkp.study.results import CellResults

    began = time.monotonic()
    try:
        made = _attempt(job, folders)
    except MmkpError as error:
        print(error, file=sys.stderr)  # into the cell's log
        made = CellResults({"status": "failed", "error": str(error)})
    except Exception as error:  # whatever else a cell dies of: the rest of the study goes on
        import traceback

        traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        made = CellResults({"status": "failed", "error": f"{type(error).__name__}: {first}"})
    made.meta["wall_s"] = None if made.meta.get("resumed") else time.monotonic() - began
    path = save(made, job, folders)
    if made.done:  # not before: a cell that fails or is killed while it is judged is not trained again
        shutil.rmtree(folders.runs / job.cell.name / "checkpoints", ignore_errors=True)
    return path


def save(made: Any, job: Job, folders: Folders) -> Path:
    """Write a cell's file with all that says where it comes from."""
    import mmkp
    from mmkp.environment import version
    from mmkp.study.origin import commit

    loaded, cell, study = job.loaded, job.cell, job.loaded.study
    versions = {name: version(name) for name in ("torch", "transformers", "timm", "numpy")}
    error = made.meta.get("error")
    if error:
        made.meta["error"] = error.replace(str(job.out), "OUT").replace(str(Path.cwd()), ".")
    made.meta = {
        "status": "done", "study": study.name, "arm": cell.arm, "seed": cell.seed, "key": cell.key,
        "settings": cell.settings, "data": dict(cell.data),
        "modalities": loaded.modalities[cell.arm], "classic": cell.arm in loaded.classic,
        "budget": study.budget.model_dump(exclude_none=True), "threads": job.threads, "command": job.command,
        "commit": commit(), "mmkp": mmkp.__version__, "versions": versions, **made.meta,
    }  # fmt: skip
    return made.save(folders.cell(cell))


def _attempt(job: Job, folders: Folders) -> Any:
    from transformers.utils import logging

    from mmkp.study.cell import run_cell

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    folder = folders.runs / job.cell.name
    _wait_for(folder / ".lock")
    return run_cell(job.loaded, job.cell, folder, job.threads)


def _wait_for(lock: Path) -> None:
    """Give the process of a killed study time to end: it still holds the run's folder."""
    import fcntl

    until = time.monotonic() + PATIENCE_S
    while lock.exists() and time.monotonic() < until:
        with lock.open("a") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                time.sleep(0.5)


def _end_with(parent: int) -> None:
    """End this process when the one that asked for the cell is gone; its last checkpoint stays."""
    starter = os.getppid()  # the fork server, which ends with the parent, even where nobody buries the parent
    while os.getppid() == starter:
        time.sleep(2)
        try:
            os.kill(parent, 0)
        except OSError:
            break
    os._exit(143)
