"""From a study's cells to its tables: errors, paired tests, parts, subsets, cost, confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmkp.study.grid_results import GridResults
from mmkp.study.results import SCORE_STEPS
from mmkp.study.statistics import Comparison, compare_family
from mmkp.study.tables import Estimate, Table, p_value
from mmkp.study.verdict import Judged, find

Family = dict[tuple[str, str, str], Comparison]  # (arm, condition, part)


@dataclass
class Origin:
    """What every caption names."""

    command: str
    commit: str
    seeds: str
    items: str

    def caption(self, text: str, items: bool = True) -> str:
        """`text`, and where its numbers come from; without the study's items where a table says its own."""
        origin = f"{self.items}; {self.seeds}" if items else self.seeds.capitalize()
        return f"{text} {origin}; `{self.command}`, commit {self.commit}."


def origin_of(grid: GridResults) -> Origin:
    """Command, commit, seeds and items of the cells; several where they differ."""
    metas = [c.meta for c in grid.cells.values()]
    commands, commits = (list(dict.fromkeys(m[k] for m in metas)) for k in ("command", "commit"))
    finished = sorted({seed for _, seed in grid.cells})
    lacking = len(grid.study.arms) * len(grid.study.seeds) - len(grid.cells)
    seeds = f"seed{'s' * (len(finished) > 1)} {', '.join(map(str, finished))}"
    seeds += f" ({lacking} cell{'s' * (lacking > 1)} without results)" if lacking else ""
    items = f"{len(grid.ids)} items in {grid.draws.count} groups"
    commands = list(dict.fromkeys(c if " --out " in c else c.replace(".yaml", ".yaml --out OUT", 1) for c in commands))
    return Origin("`, `".join(commands), ", ".join(commits), seeds, items)


def fusions(grid: GridResults) -> list[str]:
    """The arms that the verdict is about: networks that join several modalities."""
    joined = [a for a in grid.arms if len(grid.loaded.modalities[a]) > 1 and a not in grid.loaded.classic]
    return [a for a in joined if a != grid.reference]


def compare(grid: GridResults, arms: list[str], parts: list[str]) -> Family:
    """Every arm with all its modalities against the reference with all of its, as one family."""
    if grid.reference is None:
        return {}
    base, names, pairs = grid.reference, [], []
    for arm in arms:
        for condition in grid.conditions:
            for part in parts:
                names.append((arm, condition, part))
                own, other = (condition, 0, grid.whole(arm), part), (condition, 0, grid.whole(base), part)
                pairs.append(grid.paired(arm, own, base, other))
    return dict(zip(names, compare_family(grid.groups, pairs, grid.study.alpha), strict=True))


def judge(grid: GridResults, family: Family) -> list[Judged]:
    """The fusions for the primary part, the primary conditions first."""
    part, study, made = grid.primary, grid.study, []
    for condition in grid.conditions:
        for arm in fusions(grid):
            found = family.get((arm, condition, part))
            if found is not None:
                finding, shared = find(found, study.alpha, study.margin), tuple(grid.shared(arm, grid.reference))
                made.append(Judged(arm, condition, part, found, finding, shared, len(study.seeds)))
    return made


def awaited(grid: GridResults) -> dict[str, tuple[int, int]]:
    """What keeps the verdict provisional: `GridResults.lacking`, where the reference or a fusion is among them."""
    lacking, loaded = grid.lacking(), grid.loaded
    joined = {arm for arm, own in loaded.modalities.items() if len(own) > 1 and arm not in loaded.classic}
    return lacking if (joined | {loaded.reference}) & set(lacking) else {}


def label(grid: GridResults, arm: str) -> str:
    """An arm's name in tables, with the seeds that it lacks."""
    text, have, asked = grid.study.arm(arm).label or arm, len(grid.seeds(arm)), len(grid.study.seeds)
    return text if have == asked else f"{text} ({have} of {asked} seeds)"


def error_table(grid: GridResults, condition: str, origin: Origin) -> Table:
    """Mean error of every arm with all its modalities, of all points and of every group of them.

    The lowest error of the arms that have most seeds, the same ones, stands out.
    """
    head = ["arm", "modalities", *grid.parts]
    rows: list[list[Any]] = []
    for arm in grid.arms:
        subset = grid.whole(arm)
        cells = [estimate(grid.mean(arm, (condition, 0, subset, part))) for part in grid.parts]
        rows.append([label(grid, arm), subset, *cells])
    guess = [estimate(grid.guess(condition, part)) for part in grid.parts]
    means = [r[2 + grid.parts.index(grid.primary)].mean for r in rows]
    ranked = grid.fullest()
    known = [(v, i) for i, (arm, v) in enumerate(zip(grid.arms, means, strict=True)) if v is not None and arm in ranked]
    text = f"NME / {grid.normalizer}, {condition}: mean [95 % interval over groups] ± standard deviation over seeds."
    bold = {min(known)[1]} if len(known) > 1 else set()
    if any(cell.mean is not None for cell in guess):
        rows.append(["mean shape", "none", *guess])
        text += " Mean shape: the training's, placed in each item's box."
    return Table(f"error_{condition}", f"Error, {condition}", origin.caption(text), head, rows, bold)


def estimate(found: dict[str, Any], digits: int = 4) -> Estimate:
    """A mean of `GridResults.mean` for a table."""
    return Estimate(found["mean"], found["ci95"], found.get("spread"), digits)


def test_table(grid: GridResults, family: Family, origin: Origin) -> Table:
    """Paired tests of every arm against the reference, corrected over the whole table."""
    head = [
        "arm", "condition", "keypoints", "ratio", "difference", "dz", "p", "p (Holm)", "seeds lower", "seeds", "finding"
    ]  # fmt: skip
    rows: list[list[Any]] = []
    for (arm, condition, part), c in family.items():
        finding = str(find(c, grid.study.alpha, grid.study.margin)) if arm in fusions(grid) else ""
        rows.append([
            label(grid, arm), condition, part, Estimate(c.ratio, c.ratio_ci95, digits=3),
            Estimate(c.difference, c.difference_ci95), c.dz, p_value(c.p), p_value(c.p_holm),
            c.seeds_better, c.seeds, c.reason or finding,
        ])  # fmt: skip
    text = (
        f"Each arm against {grid.reference}, paired over groups (bootstrap, two-sided), Holm's correction over "
        f"these {len(family)} tests; difference and dz (Cohen's, of the groups' differences): below 0 where it falls. "
        f"Seeds: of {len(grid.study.seeds)} asked those that both have; lower: with a lower error."
    )
    return Table("tests", "Paired tests", origin.caption(text), head, rows)


def part_table(grid: GridResults, family: Family, origin: Origin) -> Table:
    """Where it helps: the ratio to the reference by group of keypoints, with a star where it is significant."""
    head = ["arm", "condition", *grid.parts]
    rows: list[list[Any]] = []
    for arm in dict.fromkeys(a for a, _, _ in family):
        for condition in grid.conditions:
            cells = []
            for part in grid.parts:
                c = family[arm, condition, part]
                star = "*" if c.p_holm is not None and c.p_holm < grid.study.alpha else ""
                cells.append(Estimate(c.ratio, c.ratio_ci95, digits=3, mark=star))
            rows.append([label(grid, arm), condition, *cells])
    primary = sum(part == grid.primary for _, _, part in family)
    text = (
        f"Error as a ratio to {grid.reference}'s, by group of keypoints; a star: p < {grid.study.alpha} after Holm's "
        f"correction, for {grid.primary} over the {primary} tests of the table above, for the others, which "
        f"nobody asked about beforehand, over their {len(family) - primary}."
    )
    return Table("parts", "Where: by group of keypoints", origin.caption(text), head, rows)


def subset_table(grid: GridResults, condition: str, origin: Origin, ceilings: dict[str, Any] | None) -> Table:
    """Error of the primary part by arm and subset; the ceilings of `mmkp ceilings` below, where they apply."""
    part, subsets = grid.primary, grid.subsets(condition)
    rows: list[list[Any]] = []
    ranked: list[list[Any]] = []
    for arm in grid.arms:
        means = [grid.mean(arm, (condition, 0, s, part)) for s in subsets]
        if any(m["mean"] is not None for m in means):
            rows.append([label(grid, arm), *(estimate(m) for m in means)])
            ranked += [rows[-1]] if arm in grid.fullest() else []
    text = f"NME / {grid.normalizer} of {part} by subset of modalities, {condition}."
    if ceilings is not None and (condition == "covered" or not any("image" in s for s in subsets)):
        known = [e and e.get("in_box", e) for e in map(ceilings.get, subsets)]
        rows.append(["ceiling", *(None if k is None else Estimate(k["lip_nme"], k["ci95"]) for k in known)])
        columns = list(zip(*(row[1:] for row in ranked), strict=True)) or [()] * len(subsets)
        best = [min((e.mean for e in column if e.mean is not None), default=None) for column in columns]
        both = zip(known, best, strict=True)
        ratios = [None if k is None or b is None else round(b / k["lip_nme"], 3) for k, b in both]
        rows.append(["lowest / ceiling", *ratios])
        text += (
            " Ceiling: the best guess from what a subset can know, by Monte Carlo (`mmkp ceilings`); without the "
            "image that is where the face's box lies, not how the head is rolled."
        )
    return Table(f"subsets_{condition}", f"Subsets, {condition}", origin.caption(text), ["arm", *subsets], rows)


def cost_table(grid: GridResults, origin: Origin) -> Table:
    """Parameters, FLOPs, time, memory and what the budget bought."""
    columns = {
        "M parameters": ("parameters", 1e6), "MFLOPs": ("flops", 1e6), "ms (batch 1)": ("ms_1", 1),
        "ms (batch 32)": ("ms_32", 1), "peak MB": ("peak_mb", 1), "peak GPU MB": ("peak_gpu_mb", 1),
        "steps": ("steps", 1), "CPU-s": ("cpu_s", 1), "wall s": ("wall_s", 1),
    }  # fmt: skip
    rows: list[list[Any]] = [
        [label(grid, arm), *(cost(grid, arm, key, unit) for key, unit in columns.values())] for arm in grid.arms
    ]
    used = [i for i in range(len(columns)) if any(row[i + 1] is not None for row in rows)]
    head = ["arm", *(list(columns)[i] for i in used)]
    budgets = [c.meta["budget"] for c in grid.cells.values() if not c.meta["classic"]]
    words = [f"{b['steps']} steps" if b.get("steps") else f"{b['cpu_seconds']:g} CPU-seconds" for b in budgets]
    given = " or ".join(dict.fromkeys(words)) or "none"
    text = (
        f"Means over seeds. Budget of training of every network: {given}{_spent(grid)}; tuning: {grid.study.tuning}. "
        "ms: of the forward pass per item (CPU time on a CPU, beside the cells that ran then; for the classic arm its "
        "whole prediction). Peak memory: of the cell's process."
    )
    return Table("cost", "Cost", origin.caption(text), head, [[r[0], *(r[i + 1] for i in used)] for r in rows])


def _spent(grid: GridResults) -> str:
    """What the networks' cells took of it, those that trained in one go."""
    metas = [c.meta for c in grid.cells.values() if not c.meta["classic"]]
    taken = [m["cpu_s"] for m in metas if m.get("cpu_s") is not None]
    if not taken or all(m["budget"].get("steps") for m in metas):
        return ""
    span = f" (taken: {min(taken):.0f} to {max(taken):.0f} by cell"
    return (
        f"{span}; not known of {len(metas) - len(taken)}, which were resumed)"
        if len(taken) < len(metas)
        else f"{span})"
    )


def cost(grid: GridResults, arm: str, key: str, unit: float = 1) -> float | None:
    """The mean of a cost over an arm's seeds."""
    values = [m[key] for m in grid.metas(arm) if m.get(key) is not None]
    return float(np.mean(values)) / unit if values else None


def confidence_table(grid: GridResults, origin: Origin) -> Table:
    """Calibration by condition, and whether the confidence falls with the condition, paired over groups."""
    head = ["arm", "condition", "ECE", "mean score", "share right", "score against clear", "p (Holm)"]
    rows: list[list[Any]] = []
    pairs, tested = [], []
    for arm in grid.arms:
        subset = grid.whole(arm)
        for condition in grid.conditions:
            held = grid.noticed(arm, condition, subset)
            entries = [m["confidence"].get(held, {}).get(subset) for m in grid.metas(arm)]
            known = [e for e in entries if e]
            if not known:
                continue
            parts = (
                [e["ece"]["mean"] for e in known],
                [e["mean_score"] for e in known],
                [e["accuracy"] for e in known],
            )
            means = [Estimate(float(np.mean(values)), digits=3) for values in parts]
            rows.append([label(grid, arm), condition, *means, None, None])
            if condition != "clear" and "clear" in grid.conditions:
                blocks = [(c, 0, subset, grid.primary) for c in (condition, "clear")]
                spoiled, clear = (grid.values(arm, b, "score") for b in blocks)
                pairs.append((spoiled, clear))
                tested.append(len(rows) - 1)
    for at, found in zip(tested, compare_family(grid.groups, pairs, grid.study.alpha), strict=True):
        change = Estimate(found.difference, found.difference_ci95, digits=3)
        fine = found.difference is None or abs(found.difference) >= 0.5 / SCORE_STEPS
        rows[at][-2:] = [change, (p_value(found.p_holm) or found.reason) if fine else "too small to tell"]
    text = (
        "ECE: expected calibration error over keypoints, 15 bins, right within 0.1 of the normalizer. Score against "
        f"clear: mean confidence of {grid.primary} less that of the clear items, paired over groups; below 0, it "
        f"falls. Scores are kept in steps of 1/{SCORE_STEPS}: a change below half of that is too small to tell."
    )
    return Table("confidence", "Confidence", origin.caption(text), head, rows)


def notes_table(grid: GridResults, origin: Origin) -> Table:
    """What went otherwise than a study asks in cells that have results."""
    rows: list[list[Any]] = [
        [arm, seed, note] for (arm, seed), cell in grid.cells.items() for note in cell.meta.get("notes") or ()
    ]
    return Table("notes", "Notes of cells", origin.caption("Said while they ran."), ["arm", "seed", "note"], rows)


def failed_table(grid: GridResults, origin: Origin) -> Table:
    """The cells without results, and why."""
    rows: list[list[Any]] = [[arm, seed, meta.get("error", "")] for (arm, seed), meta in grid.failed.items()]
    text = "Cells that failed; `mmkp study ... --retry` runs them again."
    return Table("failed", "Cells that failed", origin.caption(text), ["arm", "seed", "error"], rows)


def unused_table(grid: GridResults, origin: Origin) -> Table:
    """The cells whose files are there but do not belong to this study, and why."""
    rows: list[list[Any]] = [[arm, seed, reason] for (arm, seed), reason in grid.unused.items()]
    text = "Files of cells that no number here comes from; `mmkp study ...` runs these cells again."
    return Table("unused", "Cells that are not used", origin.caption(text), ["arm", "seed", "reason"], rows)
