"""Bounds of dependencies, and what `mmkp env` says when they are not kept."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mmkp import environment

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = {r.name: r for r in map(Requirement, PROJECT["dependencies"])}


@pytest.mark.parametrize("version", ["2.15.0", "2.15.1", "3.0.0", "2.10.2"])
def test_a_torch_that_torchaudio_does_not_follow_is_outside_the_bound(version):
    """torch 2.15 is built for another CUDA line than the last torchaudio: `import torchaudio` fails beside it."""
    assert version not in CORE["torch"].specifier


def test_the_installed_pair_is_inside_the_bound_and_works():
    for name in ("torch", "torchaudio"):
        assert importlib.metadata.version(name).partition("+")[0] in CORE[name].specifier
    import torch
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(16_000, n_mels=8, n_fft=400)(torch.ones(1, 1600))
    assert torch.isfinite(mel).all()


def test_every_core_dependency_is_bounded_above():
    assert len(CORE) <= 13
    assert [n for n, r in CORE.items() if "<" not in str(r.specifier)] == []


def test_env_explains_a_wrong_pair(monkeypatch):
    def refuse(name, *args):
        if name == "torchaudio":
            raise OSError("libc10_cuda.so: cannot open shared object file")
        return real(name, *args)

    real = environment.importlib.import_module
    monkeypatch.setattr(environment.importlib, "import_module", refuse)
    fault = next(line for line in environment.problems() if "torchaudio" in line)
    assert "libc10_cuda" in fault
    assert "pip install 'torch>=2.11,<2.15'" in fault


def test_env_names_the_extra_of_what_is_missing(monkeypatch):
    monkeypatch.setitem(environment.EXTRAS, "talker", {"no_such_module_at_all": "speech"})
    assert any("pip install 'mmkp[talker]'" in line for line in environment.problems())


def test_the_version_is_one():
    import mmkp

    assert mmkp.__version__ == PROJECT["version"]
    assert sys.version_info >= (3, 11)
