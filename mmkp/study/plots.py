"""The figures of a study, with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mmkp.study import analysis
from mmkp.study.analysis import Family, cost
from mmkp.study.grid_results import GridResults
from mmkp.study.robustness import corruption_names, curve

# Okabe and Ito's palette, and three more for studies of many arms: told apart by most colour-blind readers.
PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f4fa8", "#999999", "#8c564b", "#bcbd22",
    "#17becf",
)  # fmt: skip
DPI = 110


def colour(grid: GridResults, arm: str) -> str:
    """Of an arm, the same in every figure."""
    return PALETTE[[a.name for a in grid.study.arms].index(arm) % len(PALETTE)]


def error_by_subset(grid: GridResults, path: Path) -> Path:
    """Error of the primary part by subset of modalities, a bar per arm with its interval, a panel per condition.

    The dotted line is the reference's.
    """
    panels = [(c, grid.subsets(c)) for c in grid.conditions]
    figure, axes = plt.subplots(len(panels), 1, figsize=(9.5, 3.1 * len(panels)), squeeze=False)
    for axis, (condition, subsets) in zip(axes[:, 0], panels, strict=True):
        width = 0.84 / len(grid.arms)
        for number, arm in enumerate(grid.arms):
            found = [grid.mean(arm, (condition, 0, s, grid.primary)) for s in subsets]
            at = [i for i, f in enumerate(found) if f["mean"] is not None]
            means = np.array([found[i]["mean"] for i in at])
            spans = np.array([found[i]["ci95"] or [found[i]["mean"]] * 2 for i in at]).reshape(-1, 2)
            places = np.array(at) - 0.42 + (number + 0.5) * width
            error = np.abs(spans.T - means)
            looks = {"color": colour(grid, arm), "label": label(grid, arm), "error_kw": {"lw": 0.8}}
            axis.bar(places, means, width, yerr=error, **looks)
        base = grid.reference and grid.mean(grid.reference, (condition, 0, grid.whole(grid.reference), grid.primary))
        if base and base["mean"] is not None:
            axis.axhline(base["mean"], color=colour(grid, str(grid.reference)), linewidth=1, linestyle=":")
        axis.set_xticks(range(len(subsets)), subsets, fontsize=8)
        axis.set_title(condition, fontsize=10)
        axis.set_ylabel(_error_label(grid), fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    _legend(figure, axes[0, 0])
    return _save(figure, path)


def pareto(grid: GridResults, path: Path) -> Path:
    """Error of the primary part against time per item; the line joins the arms that no other beats in both, of those
    that have most seeds, the same ones."""
    conditions = grid.conditions
    figure, axes = plt.subplots(1, len(conditions), figsize=(4.6 * len(conditions), 3.6), squeeze=False)
    for axis, condition in zip(axes[0], conditions, strict=True):
        points = []
        for arm in grid.arms:
            found, price = grid.mean(arm, (condition, 0, grid.whole(arm), grid.primary)), cost(grid, arm, "ms_32")
            if found["mean"] is None or price is None:
                continue
            low, high = found["ci95"] or (found["mean"], found["mean"])
            bars = [[found["mean"] - low], [high - found["mean"]]]
            axis.errorbar(price, found["mean"], bars, fmt="o", color=colour(grid, arm), label=label(grid, arm))
            points += [(price, found["mean"])] if arm in grid.fullest() else []
        front = [p for p in sorted(points) if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
        axis.plot(*np.array(front).T.reshape(2, -1), color="#999999", linewidth=1, linestyle=":", zorder=0)
        axis.set(xscale="log", xlabel="ms per item, batch 32", title=condition)
        _plain_numbers(axis.xaxis)
        axis.grid(alpha=0.3, which="both")
    axes[0, 0].set_ylabel(_error_label(grid), fontsize=8)
    _legend(figure, axes[0, 0])
    return _save(figure, path)


def _plain_numbers(axis: Any) -> None:
    """1, 2 and 5 times the powers of ten on a logarithmic axis, written out."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def part_gain(grid: GridResults, family: Family, path: Path) -> Path | None:
    """Ratio to the reference by group of keypoints, with intervals, a panel per condition."""
    arms = list(dict.fromkeys(a for a, _, _ in family))
    if not arms:
        return None
    figure, axes = plt.subplots(
        1, len(grid.conditions), figsize=(4.8 * len(grid.conditions), 3.6), sharey=True, squeeze=False
    )
    for axis, condition in zip(axes[0], grid.conditions, strict=True):
        axis.axhline(1, color="#555555", linewidth=1)
        for number, arm in enumerate(arms):
            shift = (number - (len(arms) - 1) / 2) * 0.8 / len(arms)
            for place, part in enumerate(grid.parts):
                c = family[arm, condition, part]
                if c.ratio is not None:
                    low, high = c.ratio_ci95 or (c.ratio, c.ratio)
                    axis.errorbar(
                        place + shift, c.ratio, [[c.ratio - low], [high - c.ratio]], fmt="o", ms=3, lw=1,
                        color=colour(grid, arm), label=label(grid, arm) if place == 0 else None,
                    )  # fmt: skip
        axis.set_xticks(range(len(grid.parts)), grid.parts, fontsize=8)
        axis.set_title(condition, fontsize=10)
        axis.grid(axis="y", alpha=0.3)
    axes[0, 0].set_ylabel(f"error / {grid.reference}'s", fontsize=8)
    _legend(figure, axes[0, 0])
    return _save(figure, path)


def robustness(grid: GridResults, part: str, path: Path) -> Path | None:
    """Error over severity, a panel per corruption, a line per arm, of the seeds that the reference has too."""
    names = corruption_names(grid)
    if not names:
        return None
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.1 * rows), sharey=True, squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for arm in grid.arms:
            made = curve(grid, arm, name, part)
            if made:
                axis.plot(list(made), list(made.values()), marker=".", color=colour(grid, arm), label=label(grid, arm))
        axis.set_title(name, fontsize=8)
        axis.set_yscale("log")  # a fault that ruins everything would press the others flat
        _plain_numbers(axis.yaxis)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.tick_params(labelsize=7, which="both")
        axis.grid(alpha=0.3, which="both")
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    axes[0, 0].set_ylabel(f"NME, {part}", fontsize=8)
    _legend(figure, *axes.flat)
    return _save(figure, path)


def reliability(grid: GridResults, path: Path) -> Path:
    """Share of right keypoints over the score, a panel per arm, a line per condition; the seeds' bins are pooled."""
    figure, axes = plt.subplots(1, len(grid.arms), figsize=(2.6 * len(grid.arms), 2.8), sharey=True, squeeze=False)
    for axis, arm in zip(axes[0], grid.arms, strict=True):
        axis.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":")
        for number, condition in enumerate(grid.conditions):
            tables = [
                np.array(columns, float)
                for m in grid.metas(arm)
                for (c, s, *columns) in m["reliability"]
                if (c, s) == (grid.noticed(arm, condition, grid.whole(arm)), grid.whole(arm))
            ]
            if tables:
                confidence, right, count = np.moveaxis(np.stack(tables), 1, 0)
                weight = count.sum(0)
                x, y = (np.nansum(v * count, 0) / np.where(weight > 0, weight, np.nan) for v in (confidence, right))
                axis.plot(x, y, marker=".", color=PALETTE[number % len(PALETTE)], label=condition)
        axis.set(xlim=(0, 1), ylim=(0, 1))
        axis.set_title(label(grid, arm), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("share right", fontsize=8)
    _legend(figure, axes[0, 0])
    return _save(figure, path)


def label(grid: GridResults, arm: str) -> str:
    """As in tables; a dollar sign is a dollar sign and begins no formula."""
    return analysis.label(grid, arm).replace("$", r"\$")


def _error_label(grid: GridResults) -> str:
    return f"NME, {'all points' if grid.primary == 'all' else grid.primary} / {grid.normalizer}"


def _legend(figure: plt.Figure, *axes: plt.Axes) -> None:
    found = {text: handle for axis in axes for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.tight_layout()
    if found:
        figure.legend(found.values(), found, fontsize=7, loc="upper center", ncol=6, bbox_to_anchor=(0.5, 0.0))


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    return path
