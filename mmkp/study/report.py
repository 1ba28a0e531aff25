"""report.md of a study: verdict, tables, figures and pictures, from the cells' files alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmkp.errors import InputError
from mmkp.study import analysis, pictures, plots, robustness, shapley
from mmkp.study.analysis import Origin, cost, origin_of
from mmkp.study.grid_results import GridResults
from mmkp.study.plan import Folders
from mmkp.study.recipe import Loaded
from mmkp.study.results import ALL, CEILINGS
from mmkp.study.tables import Table
from mmkp.study.verdict import Finding, Judged, best_of, provisional, verdict

VERDICT = "verdict.md"


def write_report(loaded: Loaded, out: Path, say: Any = print) -> Path:
    """Write report.md, tables/ and the figures from what lies in `out`; no cell is run.

    Raises:
        InputError: no cell with results.
    """
    grid = GridResults(loaded, Folders(out).cells)
    origin, others = origin_of(grid), [a for a in grid.arms if a != grid.reference]
    primary_family = analysis.compare(grid, others, [grid.primary])
    rest = [part for part in grid.parts if part != grid.primary]
    parts_family = analysis.compare(grid, others, rest) | primary_family
    judged = analysis.judge(grid, primary_family)
    said = _verdict(grid, judged, origin)
    lines = [f"# Study {loaded.study.name}", "", "## Verdict", "", *said, ""]
    lines += _figure("Error by subset", plots.error_by_subset(grid, out / "error_by_subset.png"))
    lines += _section(*[analysis.error_table(grid, c, origin) for c in grid.conditions], out=out)
    if grid.reference is not None:
        tests = analysis.test_table(grid, primary_family, origin)
        lines += _section(tests, analysis.part_table(grid, parts_family, origin), out=out)
        lines += _figure("Gain by group of keypoints", plots.part_gain(grid, parts_family, out / "part_gain.png"))
    ceilings = _ceilings(grid, out)
    lines += _section(*[analysis.subset_table(grid, c, origin, ceilings) for c in grid.conditions], out=out)
    lines += _added(grid, origin, out)
    lines += _section(analysis.cost_table(grid, origin), out=out)
    lines += _figure("Error against cost", plots.pareto(grid, out / "pareto.png"))
    lines += _robustness(grid, origin, out)
    lines += _section(analysis.confidence_table(grid, origin), out=out)
    lines += _figure("Reliability of the score, all modalities", plots.reliability(grid, out / "reliability.png"))
    lines += _worst(grid, judged, out, say)
    notes = analysis.notes_table(grid, origin)
    lines += _section(notes, out=out) if notes.rows else []
    if grid.failed:
        lines += _section(analysis.failed_table(grid, origin), out=out)
    if grid.unused:
        lines += _section(analysis.unused_table(grid, origin), out=out)
    path = out / "report.md"
    part = path.with_suffix(".part")
    part.write_text("\n".join(lines), encoding="utf-8")
    part.replace(path)
    (out / VERDICT).write_text("\n".join(said), encoding="utf-8")
    (out / "verdict.json").write_text(json.dumps([_plain(j) for j in judged], indent=1), encoding="utf-8")
    return path


def _verdict(grid: GridResults, judged: list[Judged], origin: Origin) -> list[str]:
    lacking = analysis.awaited(grid)
    if grid.reference is None:
        return [
            *([provisional(lacking), ""] if lacking else []),
            f"Cannot tell: the arm {grid.loaded.reference}, which the others are compared with, has no results.",
        ]
    lines = verdict(judged, grid.reference, grid.study.margin, lacking)
    if grid.unjudged:
        lines += ["", f"Not judged, as no item has a known error: {', '.join(grid.unjudged)}."]
    lines += _nothing_known(grid)
    best = winner(judged)
    if best is not None:
        lines += ["", _price(grid, best.arm)]
    text = (
        f"Holm's correction over the paired tests of the table below, alpha {grid.study.alpha}, two-sided; the best is "
        "named after the fact, on the same items."
    )
    return [*lines, "", f"*{origin.caption(text)}*"]


def _nothing_known(grid: GridResults) -> list[str]:
    """What any of it is worth beside a guess."""
    means = {c: grid.guess(c, grid.primary)["mean"] for c in grid.conditions}
    known = [f"{mean:.4f} ({condition})" for condition, mean in means.items() if mean is not None]
    return ["", f"Who knows nothing but the box and guesses the mean shape has {', '.join(known)}."] if known else []


def winner(judged: list[Judged]) -> Judged | None:
    """The fusion that helps most under the first condition in which any helps."""
    first = next((j.condition for j in judged if j.finding is Finding.HELPS), None)
    return best_of([j for j in judged if j.condition == first])


def _price(grid: GridResults, arm: str) -> str:
    """What an arm costs beside the reference."""
    words = []
    for key, name in (
        ("parameters", "parameters"),
        ("flops", "FLOPs"),
        ("ms_32", "time at batch 32 (each measured beside other cells)"),
        ("peak_mb", "memory"),
    ):
        own, base = cost(grid, arm, key), cost(grid, str(grid.reference), key)
        if own and base:
            words.append(f"{own / base:.2f}x {name}")
    return f"What {arm} costs beside {grid.reference}: {', '.join(words) or 'not measured'}."


def _added(grid: GridResults, origin: Origin, out: Path) -> list[str]:
    """Shapley values: of all points and the primary part here, of every group of keypoints in its files."""
    table = shapley.shapley_table(grid, origin)
    if not table.rows:
        return []
    table.write(out / "tables")
    shown = replace(table, rows=[row for row in table.rows if row[2] in (ALL, grid.primary)])
    return [f"## {table.title}", "", shown.markdown(), "", f"Every group of keypoints: tables/{table.name}.csv.", ""]


def _robustness(grid: GridResults, origin: Origin, out: Path) -> list[str]:
    if not robustness.corruption_names(grid):
        return []
    lines = _section(robustness.robustness_table(grid, grid.primary, origin), out=out)
    conflicts = robustness.conflict_table(grid, grid.primary, origin)
    lines += _section(conflicts, out=out) if conflicts.rows else []
    return lines + _figure("Error by severity", plots.robustness(grid, grid.primary, out / "robustness.png"))


def _worst(grid: GridResults, judged: list[Judged], out: Path, say: Any) -> list[str]:
    best = winner(judged)
    fallback = analysis.fusions(grid)[:1]
    arms = [*([grid.reference] if grid.reference else []), *([best.arm] if best else fallback)]
    made, problems = pictures.worst_cases(grid, arms or grid.arms[:1], out)
    for line in problems:
        say(line)
    lines = [line for path, text in made for line in _figure(f"Worst cases, {text}", path)]
    return lines + [f"{line}\n" for line in problems]


def _ceilings(grid: GridResults, out: Path) -> dict[str, Any] | None:
    """What `mmkp ceilings` says, where the study asks for it and the lips are what it is about."""
    path = out / CEILINGS
    if not (path.is_file() and grid.study.ceilings and grid.primary == "lips"):
        return None
    try:
        made = json.loads(path.read_text())
        return {subset: entry for subset, entry in made.items() if {"lip_nme", "ci95"} <= set(entry)}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"study {path}", expected="what `mmkp ceilings` said", got=str(error), remedy="Delete it: it is made anew."
        ) from error


def _section(*tables: Table, out: Path) -> list[str]:
    lines = []
    for table in tables:
        table.write(out / "tables")
        lines += [f"## {table.title}", "", table.markdown(), ""]
    return lines


def _figure(title: str, path: Path | None) -> list[str]:
    return [] if path is None else [f"![{title}]({path.name})", ""]


def _plain(judged: Judged) -> dict[str, Any]:
    return {
        "arm": judged.arm, "condition": judged.condition, "part": judged.part, "finding": str(judged.finding),
        "shared": list(judged.shared), "asked": judged.asked, **vars(judged.found),
    }  # fmt: skip
