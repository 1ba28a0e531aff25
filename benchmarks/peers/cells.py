"""One system over one set of samples: computed once, kept in a file, points in the image frame."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jobs
import numpy as np
from jaxtyping import Float
from setup import PEERS, python_of
from views import View, show

from mmkp.data.sample import Sample
from mmkp.errors import InputError, MmkpError
from mmkp.schema import KeypointSchema, load_schema

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Material:
    """Samples held in memory, under a key that names them and changes with them; a dataset for `predict_dataset`."""

    key: str
    samples: Sequence[Sample]
    name: str = "held"
    schema: KeypointSchema = load_schema("face68")
    problems: Sequence[str] = ()

    @property
    def fingerprint(self) -> str:
        return self.key

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    @cached_property
    def true_xy(self) -> Float[np.ndarray, "N 68 2"]:
        """Labels, px of the image frame, NaN where there is none."""
        labels = [np.where(s.visible[:, None] > 0, s.keypoints_xy, np.nan) for s in self.samples]
        return np.stack(labels).astype(np.float64)

    @cached_property
    def groups(self) -> np.ndarray:
        """The group (clip, person) of each sample."""
        return np.array([s.group for s in self.samples])

    def changed(self, what: str, change: Callable[[Sample], Sample]) -> Material:
        """The same samples, each changed; `what` goes into the key."""
        return Material(f"{self.key} {what}", [change(s) for s in self.samples])


@dataclass(frozen=True)
class Cells:
    """The finished cells of a folder, and how to compute others.

    Attributes:
        folder: of the cells' files.
        environments: the peers' virtual environments, as setup.py makes them.
    """

    folder: Path
    environments: Path

    def check(self) -> None:
        """Refuse a folder without the peers' environments before anything is computed.

        Raises:
            InputError: one is missing.
        """
        for peer in PEERS:
            if not python_of(self.environments, peer).exists():
                raise InputError(
                    f"peer {peer}", expected=f"its environment under {self.environments}", got="none",
                    remedy=f"Run `python benchmarks/peers/setup.py {self.environments}`.",
                )  # fmt: skip

    def keep(self, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, np.ndarray]:
        """The arrays of a cell: read if it is finished, else computed and written."""
        told = json.dumps(key, sort_keys=True)
        path = self.folder / f"{key['system']}-{hashlib.sha1(told.encode()).hexdigest()[:12]}.npz"
        if path.is_file():
            with np.load(path) as arrays:
                return dict(arrays)
        made = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half.npz")
        np.savez(half, **made, key=told)
        half.rename(path)
        return made

    def peer(self, peer: str, material: Material, view: View, **options: Any) -> Float[np.ndarray, "N 68 2"]:
        """A peer's points, px of the image frame; NaN for a miss."""

        def compute() -> dict[str, Any]:
            shown = show(material.samples, view)
            begins = np.r_[True, material.groups[1:] != material.groups[:-1]]
            answer = self.ask(peer, jobs.Job(shown.pictures, shown.boxes_xywh, begins), **options)
            return {"xy": shown.back(answer["xy"])}

        key = {"system": peer, "data": material.key, "view": asdict(view), "options": options}
        return self.keep(key, compute)["xy"]

    def ask(self, peer: str, job: jobs.Job, **options: Any) -> dict[str, np.ndarray]:
        """Run a peer's process (`mmkp`: in this environment) and return its answer."""
        python = Path(sys.executable) if peer == "mmkp" else python_of(self.environments, peer)
        with tempfile.TemporaryDirectory() as scratch:
            asked, answer = Path(scratch) / "job.npz", Path(scratch) / "answer.npz"
            jobs.write_job(asked, job)
            command = [str(python), str(HERE / f"run_{peer}.py"), str(asked), str(answer), json.dumps(options)]
            ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            if ended.returncode:
                raise MmkpError(f"peer {peer} failed", got="\n".join(ended.stderr.splitlines()[-5:]))
            with np.load(answer) as arrays:
                return dict(arrays)
