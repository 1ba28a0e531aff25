"""The README's commands exist, its files are there, and its two figures of speech are kept."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from mmkp import load_recipe
from mmkp.classic import is_classic
from mmkp.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line.partition("  #")[0])
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("mmkp ")
]


def test_the_readme_shows_commands():
    assert {c[1] for c in COMMANDS} >= {"train", "evaluate", "predict", "env", "models"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_of_the_readme_is_understood(command):
    """Every verb and option exists, every recipe loads with its overrides."""
    verb, words = get_command(app).commands[command[1]], command[2:]
    if hasattr(verb, "commands"):  # `mmkp data check ...`
        verb, words = verb.commands[words[0]], words[1:]
    with verb.make_context("mmkp", [*words], resilient_parsing=True) as context:
        given = context.params
    options = [a for a in command if a.startswith("--")]
    assert all(any(o in p.opts for p in verb.params) for o in options)
    if command[1] == "train" and not is_classic(ROOT / given["recipe"]):
        load_recipe(ROOT / given["recipe"], given["overrides"] or ())


def test_files_that_the_readme_names_are_there():
    named = re.findall(r"\]\(([\w./]+)\)", README) + re.findall(
        r"`((?:recipes|data_cards|benchmarks|docs)/[\w./]*)`", README
    )
    assert named
    assert [n for n in named if not (ROOT / n).exists()] == []


def test_python_of_the_readme_is_python():
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        compile(block, "README.md", "exec")
    assert "make quickstart" in README
    assert "make test" in README


def test_make_test_is_what_ci_runs():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
