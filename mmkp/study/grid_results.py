"""All finished cells of a study, read from their files and laid beside each other item by item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmkp.errors import InputError
from mmkp.evaluation.score import GroupBootstrap
from mmkp.study.recipe import Loaded
from mmkp.study.results import ALL, Block, CellResults
from mmkp.study.statistics import over_seeds


class GridResults:
    """The cells of a study's folder.

    Args:
        loaded: the study; cells of arms and seeds that it does not name are left out.
        folder: that holds the cells.

    Attributes:
        cells: (arm, seed) -> results; failed: the same for those without.
        ids, groups: (N,) the items of all cells, sorted.

    Raises:
        InputError: no cell with results, or cells that were judged on other data.
    """

    def __init__(self, loaded: Loaded, folder: Path) -> None:
        self.loaded, self.study = loaded, loaded.study
        self.cells: dict[tuple[str, int], CellResults] = {}
        self.failed: dict[tuple[str, int], dict[str, Any]] = {}
        for arm in (a.name for a in self.study.arms):
            for seed in self.study.seeds:
                path = folder / f"{arm}-{seed}.parquet"
                if path.is_file():
                    cell = CellResults.load(path)
                    if cell.done:
                        self.cells[arm, seed] = cell
                    else:
                        self.failed[arm, seed] = cell.meta
        if not self.cells:
            raise InputError(f"study {self.study.name}", expected="cells with results", got=f"none in {folder}")
        pairs = np.concatenate([np.stack([i.id, i.group], 1) for c in self.cells.values() for i in c.blocks.values()])
        self.ids, first = np.unique(pairs[:, 0].astype(str), return_index=True)
        self.groups = pairs[first, 1].astype(str)
        self.draws = GroupBootstrap(self.groups)
        self._cache: dict[Any, np.ndarray] = {}

    @property
    def arms(self) -> list[str]:
        """Arms with at least one finished cell, in the study's order."""
        return [a.name for a in self.study.arms if any(arm == a.name for arm, _ in self.cells)]

    @property
    def reference(self) -> str | None:
        """The arm to compare with; None where it has no finished cell."""
        return self.loaded.reference if self.loaded.reference in self.arms else None

    @property
    def parts(self) -> list[str]:
        """`all` and the schema's groups."""
        return [ALL, *next(iter(self.cells.values())).meta["groups"]]

    @property
    def primary(self) -> str:
        """The part that the verdict is about."""
        part = self.study.evaluate.primary.part
        return part if part in self.parts else ALL

    @property
    def conditions(self) -> list[str]:
        """Those of the study, the primary ones first."""
        first = [c for c in self.study.evaluate.primary.conditions if c in self.study.evaluate.conditions]
        return first + [c for c in self.study.evaluate.conditions if c not in first]

    @property
    def normalizer(self) -> str:
        """That errors are divided by."""
        return next(iter(self.cells.values())).meta["normalizer"]

    def whole(self, arm: str) -> str:
        """The subset of all of an arm's modalities."""
        return "+".join(self.loaded.modalities[arm])

    def seeds(self, arm: str) -> list[int]:
        """Of an arm's finished cells."""
        return [seed for a, seed in self.cells if a == arm]

    def metas(self, arm: str) -> list[dict[str, Any]]:
        """Of an arm's finished cells."""
        return [self.cells[arm, s].meta for s in self.seeds(arm)]

    def values(self, arm: str, block: Block, column: str = "error") -> np.ndarray:
        """(S, N) of every finished seed and item, NaN where it is not known."""
        key = (arm, block, column)
        if key not in self._cache:
            made = np.full((len(self.seeds(arm)), len(self.ids)), np.nan)
            for row, seed in enumerate(self.seeds(arm)):
                items = self.cells[arm, seed].blocks.get(block)
                if items is not None:
                    made[row, np.searchsorted(self.ids, items.id.astype(str))] = getattr(items, column)
            self._cache[key] = made
        return self._cache[key]

    def paired(self, arm: str, block: Block, base: str, base_block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Errors of an arm and of another by seed; where both have them, of the same seeds."""
        own, other = self.seeds(arm), self.seeds(base)
        shared = [s for s in own if s in other]
        a, b = self.values(arm, block), self.values(base, base_block)
        if not shared:
            return a, b
        return a[[own.index(s) for s in shared]], b[[other.index(s) for s in shared]]

    def mean(self, arm: str, block: Block, column: str = "error") -> dict[str, Any]:
        """Mean over seeds and items, 95 % interval over groups, and `spread`: the standard deviation over seeds."""
        values = self.values(arm, block, column)
        found = self.draws.interval(over_seeds(values)) if len(values) else {"mean": None, "ci95": None, "n": 0}
        each = [np.nanmean(v) for v in values if not np.isnan(v).all()]
        return {**found, "spread": float(np.std(each, ddof=1)) if len(each) > 1 else None}
