"""Where a number comes from: the command, the commit and the versions, as captions and files name them."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path

import mmkp


@lru_cache(maxsize=1)
def commit() -> str:
    """The short hash of the source's commit, `+` behind it where files differ; the version where there is no git."""
    root = Path(mmkp.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return f"mmkp {mmkp.__version__}"
    try:
        head = _git(root, "rev-parse", "--short", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return f"mmkp {mmkp.__version__}"
    return head + ("+" if changed else "")


def command(study: Path, overrides: list[str]) -> str:
    """The command, without where things lie on this machine."""
    path = study.resolve()
    here = Path.cwd().resolve()
    shown = path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name
    return " ".join(["mmkp study", shown, "--out OUT", *map(_without_path, overrides)])


def _without_path(override: str) -> str:
    key, _, value = override.partition("=")
    name, colon, _ = value.partition(":")
    return f"{key}={name}:PATH" if key == "data.dataset" and colon else override


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
