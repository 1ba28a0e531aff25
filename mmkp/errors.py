"""The errors a user meets: where it happened, what was expected, what came, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MmkpError(Exception):
    """A failure that has a plain explanation. `exit_code` is what the command line returns for it."""

    exit_code = 1

    def __init__(self, where: str, *, expected: str = "", got: str = "", remedy: str = "") -> None:
        self.where, self.expected, self.got, self.remedy = where, expected, got, remedy
        parts = [where]
        if expected:
            parts.append(f"expected {expected}")
        if got:
            parts.append(f"got {got}")
        text = ": ".join([parts[0], ", ".join(parts[1:])]) if len(parts) > 1 else where
        super().__init__(" ".join(f"{text}. {remedy}".split()) if remedy else " ".join(text.split()))


class InputError(MmkpError, ValueError):
    """The user's input is wrong; the command line prints one line and returns 2."""

    exit_code = 2


class MissingExtraError(InputError):
    """A package that an option needs is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            what, expected=f"the package {package}", got="none installed", remedy=f"pip install 'mmkp[{extra}]'"
        )


def nearest(word: str, choices: Iterable[str]) -> str:
    """A remedy that names the choice nearest to `word`, or lists them all."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Choose one of: {', '.join(choices)}."


def choose(kind: str, name: str, registry: dict) -> object:
    """Look `name` up in a registry.

    Raises:
        InputError: when the registry has no such name; it names the nearest one.
    """
    if name not in registry:
        raise InputError(kind, expected="a registered name", got=repr(name), remedy=nearest(name, registry))
    return registry[name]
