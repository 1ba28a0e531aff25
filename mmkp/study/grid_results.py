"""All finished cells of a study, read from their files and laid beside each other item by item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.errors import InputError
from mmkp.evaluation.score import GroupBootstrap
from mmkp.study.plan import settings_key
from mmkp.study.recipe import Loaded
from mmkp.study.results import ALL, VERSION, Block, CellResults, read_meta
from mmkp.study.statistics import over_seeds

MEAN_SHAPE = "mean_shape"  # in the place of a subset: what is guessed of nothing


class GridResults:
    """The cells of a study's folder.

    Args:
        loaded: the study; cells of arms and seeds that it does not name are left out.
        folder: that holds the cells.

    Attributes:
        cells: (arm, seed) -> results; failed: the same for those without.
        unused: (arm, seed) -> why a file that is there is left out: of other settings, of another form, not readable.
        ids, groups: (N,) the items of all cells, sorted.
        conditions: of the study, the primary ones first; `unjudged`: those left out, as no item has a known error.

    Raises:
        InputError: no cell with results, or cells that were judged on other data.
    """

    def __init__(self, loaded: Loaded, folder: Path) -> None:
        self.loaded, self.study = loaded, loaded.study
        self.cells: dict[tuple[str, int], CellResults] = {}
        self.failed: dict[tuple[str, int], dict[str, Any]] = {}
        self.unused: dict[tuple[str, int], str] = {}
        for arm in (a.name for a in self.study.arms):
            for seed in self.study.seeds:
                path = folder / f"{arm}-{seed}.parquet"
                if path.is_file():
                    self._take(arm, seed, path)
        if not self.cells:
            raise InputError(f"study {self.study.name}", expected="cells with results", got=self._found(folder))
        self._check_data()
        pairs = np.concatenate([np.stack([i.id, i.group], 1) for c in self.cells.values() for i in c.blocks.values()])
        self.ids, first = np.unique(pairs[:, 0].astype(str), return_index=True)
        self.groups = pairs[first, 1].astype(str)
        self.draws = GroupBootstrap(self.groups)
        self.conditions, self.unjudged = self._conditions()
        self._cache: dict[Any, np.ndarray] = {}

    def _take(self, arm: str, seed: int, path: Path) -> None:
        """Read a cell, if it belongs to this study."""
        form = (read_meta(path) or {}).get("version", VERSION)
        if form != VERSION:
            self.unused[arm, seed] = f"its file is of form {form}, and form {VERSION} is read"
            return
        try:
            cell = CellResults.load(path)
        except InputError as error:
            self.unused[arm, seed] = f"not readable: {error.got.replace(str(path), path.name)}"
            return
        if cell.meta.get("settings") != settings_key(self.loaded, arm, seed):
            self.unused[arm, seed] = "of other settings than the study's"
        elif cell.done:
            self.cells[arm, seed] = cell
        else:
            self.failed[arm, seed] = cell.meta

    def _found(self, folder: Path) -> str:
        reasons = [f"{arm}-{seed} is {why}" for (arm, seed), why in self.unused.items()]
        return f"none in {folder}" + (f"; {reasons[0]}" if reasons else "")

    def _check_data(self) -> None:
        """All cells were judged on the same items, and those of one data section trained on the same ones."""
        split, seen = self.study.evaluate.split, dict[Any, tuple[str, Any]]()
        for (arm, seed), cell in self.cells.items():
            section = json.dumps(self.loaded.recipe(arm, seed, 1).model_dump(mode="json")["data"], sort_keys=True)
            for name, found in cell.meta.get("data", {}).items():
                place = name if name == split else (name, section)
                first = seen.setdefault(place, (f"{arm}-{seed}", found))
                if found != first[1]:
                    did = "judged" if name == split else "trained"
                    raise InputError(
                        f"study {self.study.name}", expected=f"cells {did} on the same data ({name})",
                        got=f"{first[0]} on {first[1]}, {arm}-{seed} on {found}", remedy="Run the study again: it "
                        "moves cells of other data aside.",
                    )  # fmt: skip

    def _conditions(self) -> tuple[list[str], list[str]]:
        asked, primary = self.study.evaluate.conditions, self.study.evaluate.primary.conditions
        order = sorted(asked, key=lambda c: primary.index(c) if c in primary else len(primary))
        known = {
            c for cell in self.cells.values() for (c, severity, _, _), items in cell.blocks.items()
            if severity == 0 and not np.isnan(items.error).all()
        }  # fmt: skip
        return [c for c in order if c in known] or order, [c for c in order if known and c not in known]

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

    def shared(self, arm: str, base: str | None) -> list[int]:
        """The seeds that both have."""
        return [s for s in self.seeds(arm) if base is not None and (base, s) in self.cells]

    def lacking(self) -> dict[str, tuple[int, int]]:
        """Arm -> seeds with results, seeds asked for; of the arms where these differ."""
        asked = len(self.study.seeds)
        have = {a.name: len(self.seeds(a.name)) for a in self.study.arms}
        return {arm: (count, asked) for arm, count in have.items() if count < asked}

    def fullest(self) -> list[str]:
        """The arms that have the largest set of seeds, the same for all of them: what may be ranked."""
        sets = {arm: frozenset(self.seeds(arm)) for arm in self.arms}
        most = max(sets.values(), key=lambda s: (len(s), list(sets.values()).count(s)))
        return [arm for arm in self.arms if sets[arm] == most]

    def holds(self, arm: str, block: Block) -> bool:
        """Whether any of an arm's cells has the block itself."""
        return any(block in self.cells[arm, seed].blocks for seed in self.seeds(arm))

    def noticed(self, arm: str, condition: str, subset: str) -> str:
        """The condition under which an arm's cells hold a subset.

        The one asked for, or without what the subset cannot notice: other words change nothing for the image alone.
        """
        from mmkp.evaluation.predict import effective_condition

        if self.holds(arm, (condition, 0, subset, ALL)) or condition not in self.study.evaluate.conditions:
            return condition
        return effective_condition(condition, subset)

    def subsets(self, condition: str) -> list[str]:
        """Of modalities, that any arm was judged by under a condition, single ones first."""
        held = {(a, s) for (a, _), cell in self.cells.items() for (_, v, s, _) in cell.blocks if v == 0}
        found = {s for a, s in held if self.holds(a, (self.noticed(a, condition, s), 0, s, ALL))} - {MEAN_SHAPE}
        return sorted(found, key=lambda s: (s.count("+"), s))

    def values(self, arm: str, block: Block, column: str = "error") -> np.ndarray:
        """(S, N) of every finished seed and item, NaN where it is not known."""
        key = (arm, block, column)
        if key not in self._cache:
            condition, severity, subset, part = block
            held = block if severity else (self.noticed(arm, condition, subset), severity, subset, part)
            made = np.full((len(self.seeds(arm)), len(self.ids)), np.nan)
            for row, seed in enumerate(self.seeds(arm)):
                items = self.cells[arm, seed].blocks.get(held)
                if items is not None:
                    made[row, np.searchsorted(self.ids, items.id.astype(str))] = getattr(items, column)
            if held[0] != condition:
                made[:, ~self._applies(condition, part)] = np.nan
            self._cache[key] = made
        return self._cache[key]

    def _applies(self, condition: str, part: str) -> np.ndarray:
        """(N,) whether any cell knows an item's error under a condition."""
        key = ("applies", condition, part)
        if key not in self._cache:
            made = np.zeros(len(self.ids), bool)
            for cell in self.cells.values():
                for (c, severity, _, p), items in cell.blocks.items():
                    if (c, severity, p) == (condition, 0, part):
                        made[np.searchsorted(self.ids, items.id[~np.isnan(items.error)].astype(str))] = True
            self._cache[key] = made
        return self._cache[key]

    def guess(self, condition: str, part: str) -> dict[str, Any]:
        """As `mean`, of who knows nothing but the box: the training's mean shape in it."""
        block = (condition, 0, MEAN_SHAPE, part)
        asked = (self.noticed(arm, condition, MEAN_SHAPE) for arm in self.arms)
        holder = next((a for a, c in zip(self.arms, asked, strict=True) if self.holds(a, (c, *block[1:]))), None)
        if holder is None:
            return {"mean": None, "ci95": None, "n": 0}
        return {**self.mean(holder, block), "spread": None}  # one guess, whatever the seed

    def of_seeds(self, arm: str, block: Block, seeds: list[int]) -> np.ndarray:
        """(len(seeds), N) errors of these of an arm's seeds."""
        return self.values(arm, block)[[self.seeds(arm).index(s) for s in seeds]]

    def paired(self, arm: str, block: Block, base: str, base_block: Block) -> tuple[np.ndarray, np.ndarray]:
        """(S, N) errors of an arm and of another, of the seeds that both have; none, where they share none."""
        seeds = self.shared(arm, base)
        return self.of_seeds(arm, block, seeds), self.of_seeds(base, base_block, seeds)

    def mean(self, arm: str, block: Block, column: str = "error") -> dict[str, Any]:
        """Mean over seeds and items, 95 % interval over groups, and `spread`: the standard deviation over seeds."""
        values = self.values(arm, block, column)
        found = self.draws.interval(over_seeds(values)) if len(values) else {"mean": None, "ci95": None, "n": 0}
        each = [np.nanmean(v) for v in values if not np.isnan(v).all()]
        return {**found, "spread": float(np.std(each, ddof=1)) if len(each) > 1 else None}
