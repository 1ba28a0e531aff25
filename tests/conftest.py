"""What all tests share: one thread, no network, checked shapes, and a small corpus made on the spot."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "200"

from jaxtyping import install_import_hook

# Shapes in signatures are checked while the tests run.
CHECKED = [f"mmkp.{name}" for name in ("geometry", "experts", "losses", "criteria", "metrics", "codecs")]
CHECKED += [f"mmkp.{name}" for name in ("fusion", "encoders", "heads")]
install_import_hook(CHECKED, "beartype.beartype")

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from corpus import make_grid
from small_finder import blind, finder, scene  # noqa: F401

torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def grid_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in GRID's layout: synthetic faces that speak, clips in all three splits."""
    return make_grid(tmp_path_factory.mktemp("corpus") / "grid")


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory):
    """The tests' own cache: nothing is read from or left in the user's."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("MMKP_CACHE")
    os.environ["MMKP_CACHE"] = str(folder)
    yield folder
    if before is None:
        os.environ.pop("MMKP_CACHE")
    else:
        os.environ["MMKP_CACHE"] = before


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def mmkp(capsys, monkeypatch):
    """Run the command line in this process: exit code, what it printed, what it complained."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from mmkp import cli

        monkeypatch.setattr(sys, "argv", ["mmkp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return run
