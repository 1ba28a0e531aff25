"""File names that a dataset gives, held inside its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal


class PathFault(ValueError):
    """A name that leads out of the folder, or to nothing.

    Attributes:
        kind: the fault's kind, `path escape` or `missing file`.
    """

    def __init__(self, kind: Literal["path escape", "missing file"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


def inside(root: Path, name: str) -> Path:
    """The file that a dataset names, found within the dataset's folder.

    Nothing outside `root` is opened. An escape is told from the name alone where it can be, so that the answer never
    says whether a file outside exists.

    Args:
        root: the dataset's folder; may itself be reached through a symlink.
        name: relative to `root`, with `/` (or `\\`, as Windows writes it) between folders.

    Returns:
        An existing file below `root`.

    Raises:
        PathFault: `path escape` for an absolute name, `..` or a symlink that leads out; `missing file` otherwise.
    """
    if not name.strip() or "\0" in name:
        raise PathFault("missing file", f"{name!r} is no file name")
    if _leaves(name):
        absolute = "is absolute; names are relative to" if ".." not in name else "leads out of"
        raise PathFault("path escape", f"{name!r} {absolute} the dataset's folder")
    base = os.path.realpath(root)
    try:
        path = os.path.join(base, name)
        if "\\" in name and not os.path.exists(path):
            path = os.path.join(base, name.replace("\\", "/"))
        resolved = os.path.realpath(path)
        if not resolved.startswith(os.path.join(base, "")):
            if resolved == base:
                raise PathFault("missing file", f"{name!r} is the dataset's folder")
            raise PathFault("path escape", f"{name!r} leads out of the dataset's folder through a link")
        found = os.path.isfile(resolved)
    except OSError as error:  # a name too long for the file system
        raise PathFault("missing file", f"{name[:80]!r} cannot be looked up: {error}") from error
    if not found:
        raise PathFault("missing file", f"no file {name!r} in the dataset's folder{_other_case(path)}")
    return Path(path)


def _other_case(path: str) -> str:
    """A hint where the file is there under other capitals, which some systems do not tell apart."""
    folder, wanted = os.path.split(path)
    try:
        found = next((entry for entry in os.listdir(folder) if entry.lower() == wanted.lower()), None)
    except OSError:
        return ""
    return f", but {found!r}" if found else ""


def _leaves(name: str) -> bool:
    """Whether the name leads out under the rules of POSIX or of Windows."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or name[1:2] == ":"
