"""The figures of a report, with matplotlib."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {
    "image": "#4c78a8", "text": "#f58518", "audio": "#54a24b", "mean_shape": "#bab0ac",
    "image+text": "#b279a2", "image+audio": "#72b7b2", "text+audio": "#eeca3b", "image+text+audio": "#7f4fa8",
}  # fmt: skip


def save_png(image: np.ndarray, path: Path) -> None:
    """Write an RGB picture.

    Raises:
        OSError: it could not be written.
    """
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"cannot write {path}")


def error_by_subset(summary: dict[str, Any], focus: str | None, path: Path) -> None:
    """NME of every subset with its interval, a panel per condition; of the group `focus` if there is one."""
    conditions = summary["conditions"]
    figure, axes = plt.subplots(1, len(conditions), figsize=(4.2 * len(conditions), 3.6), sharey=True, squeeze=False)
    for axis, (condition, rows) in zip(axes[0], conditions.items(), strict=True):
        names = [name for name, entry in rows.items() if entry["nme"]["n"]]
        entries = [rows[n]["nme"]["groups"][focus] if focus else rows[n]["nme"] for n in names]
        means = [e["mean"] or 0.0 for e in entries]
        spans = [e["ci95"] or [m, m] for e, m in zip(entries, means, strict=True)]
        errors = np.abs(np.array([[m - s[0], s[1] - m] for m, s in zip(means, spans, strict=True)]).T)
        colours = [COLOURS.get(n, "#9d8ec7") for n in names]
        axis.bar(range(len(names)), means, yerr=errors, color=colours, capsize=2)
        axis.set_xticks(range(len(names)), names, fontsize=7, rotation=45, ha="right")
        axis.set_title(condition, fontsize=10)
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel(f"NME, {focus or 'all points'} / {summary['protocol']['normalizer']}", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def reliability(tables: dict[Any, Any], path: Path) -> None:
    """Accuracy over confidence by condition and subset, beside the diagonal; the marker's area tells the share."""
    conditions = list(dict.fromkeys(condition for condition, _ in tables))
    figure, axes = plt.subplots(1, len(conditions), figsize=(3.6 * len(conditions), 3.6), sharey=True, squeeze=False)
    for axis, condition in zip(axes[0], conditions, strict=True):
        axis.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":")
        for (of, subset), table in tables.items():
            if of == condition:
                size = 120 * table.count / max(table.count.sum(), 1) + 2
                colour = COLOURS.get(subset, "#7f4fa8")
                axis.plot(table.confidence, table.accuracy, color=colour, linewidth=1, label=subset)
                axis.scatter(table.confidence, table.accuracy, s=size, color=colour)
        axis.set(xlabel="score", title=condition, xlim=(0, 1), ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("share of right keypoints")
    figure.tight_layout()
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="lower center", ncol=7, bbox_to_anchor=(0.5, -0.06))
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def training_curves(log: Path, path: Path) -> bool:
    """Loss and validation error over steps from metrics.jsonl; False where there is no such file."""
    if not log.is_file():
        return False
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
    losses = [(r["step"], r["loss"]) for r in rows if "loss" in r]
    checks = [(r["step"], r["validation"]["cells"]) for r in rows if "validation" in r]
    if not losses:
        return False
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    left.plot(*zip(*losses, strict=True), color="#4c78a8", linewidth=1, marker="." if len(losses) < 20 else "")
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    for condition, style in (("clear", "-"), ("covered", "--")):
        for subset in checks[0][1].get(condition, {}) if checks else {}:
            curve = [(step, cells[condition][subset]["nme"]) for step, cells in checks]
            right.plot(*zip(*curve, strict=True), style, linewidth=1, label=f"{condition} {subset}")
    right.set(xlabel="step", ylabel="validation NME", yscale="log")
    if checks:
        right.legend(fontsize=6, ncol=2)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True
