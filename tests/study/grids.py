"""Studies whose numbers are made up: cells written by hand, so that a report can be read against them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmkp.study.plan import settings_key
from mmkp.study.recipe import Loaded, load_study
from mmkp.study.results import CellResults, Items

ROOT = Path(__file__).parents[2]
PARTS = ("all", "jaw", "brows", "nose", "eyes", "lips")
SUBSETS = {"image": ["image"], "gated": ["image", "image+text+audio"]}
ALL_SUBSETS = ["+".join(c) for n in (1, 2, 3) for c in combinations(("image", "text", "audio"), n)]


def made_study(folder: Path, **changes: Any) -> tuple[Path, Loaded]:
    """A study file of the arms image and gated, and the study."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        "kind": "study", "name": "made", "recipe": str(ROOT / "recipes" / "quickstart.yaml"), "seeds": [0, 1],
        "arms": [{"name": "image", "modalities": ["image"]}, {"name": "gated", "fusion": {"name": "gated"}}],
        "budget": {"steps": 4}, "evaluate": {"primary": {"part": "lips"}},
        "data": {"dataset": "csv:gone", "options": {}}, **changes,
    }  # fmt: skip
    path = folder / "made.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path, load_study(path)


def items(error: float, groups: int, seed: int, score: float = 0.5) -> Items:
    """Four items a group, whose errors spread by a tenth around `error`, the same in every arm but for a little."""
    rng = np.random.default_rng(3)
    shared = rng.normal(1, 0.1, 4 * groups)
    own = np.random.default_rng([seed, round(error * 1e5)]).normal(0, 0.003, 4 * groups)
    names = np.array([f"g{i // 4}/{i % 4}" for i in range(4 * groups)])
    owner = np.array([n.split("/")[0] for n in names])
    return Items(names, owner, error * (shared + own), np.full(len(names), score), np.ones(len(names)))


def write_cells(folder: Path, loaded: Loaded, ratios: dict[str, float], groups: int = 20, **more: Any) -> None:
    """Cells of all arms and seeds: the image's error is 0.05, the other's a ratio of it by condition.

    Args:
        ratios: of the arm gated with all modalities, by condition.
        more: blocks (corruption, severity) -> ratio, of gated.
    """
    for arm in SUBSETS:
        for seed in loaded.study.seeds:
            meta = {
                "status": "done", "study": "made", "arm": arm, "seed": seed, "key": "k", "commit": "abc1234",
                "settings": settings_key(loaded, arm, seed), "data": {"test": "d"},
                "command": "mmkp study made.yaml", "groups": list(PARTS[1:]), "normalizer": "outer_eye_distance",
                "classic": False, "budget": {"steps": 4}, "parameters": 1e6 if arm == "image" else 1.5e6, "flops": 2e6,
                "ms_1": 2.0, "ms_32": 1.0, "peak_mb": 500.0, "reliability": [],
                "worst": {"clear": {"ids": ["g0/0"], "errors": [0.1], "xy": "", "subset": "image"}},
                "confidence": {c: {SUBSETS[arm][-1]: {"ece": {"mean": 0.1}, "mean_score": 0.5, "accuracy": 0.6}}
                               for c in ratios},
            }  # fmt: skip
            cell = CellResults(meta)
            for condition, ratio in ratios.items():
                for subset in SUBSETS[arm]:
                    value = 0.05 * (ratio if subset != "image" else 1.0)
                    score = 0.4 if condition == "covered" else 0.5
                    for part in PARTS:
                        cell.blocks[condition, 0, subset, part] = items(value, groups, seed, score)
            if arm == "gated":
                for (name, severity), ratio in more.get("corrupted", {}).items():
                    for part in ("all", "lips"):
                        cell.blocks[name, severity, SUBSETS[arm][-1], part] = items(0.05 * ratio, groups, seed)
            cell.save(folder / "cells" / f"{arm}-{seed}.parquet")


def edit_cell(folder: Path, name: str, edit: Callable[[CellResults], None]) -> None:
    """Change a cell that was written."""
    path = folder / "cells" / f"{name}.parquet"
    cell = CellResults.load(path)
    edit(cell)
    cell.save(path)


def constant(like: Items, error: float | np.ndarray) -> Items:
    """The same items with errors that are as said."""
    return Items(like.id, like.group, np.broadcast_to(error, like.error.shape).copy(), like.score, like.right)
