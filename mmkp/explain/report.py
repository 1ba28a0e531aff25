"""explain.md, explain.json and the bar figure of what each modality is worth. It never sees a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mmkp.evaluation.figures import COLOURS
from mmkp.evaluation.report import number

FIGURE = "shapley.png"
QUANTITIES = {
    "gates": (
        "Gates",
        "The share that the gate lets through of each modality at the cells where the keypoints of the group lie; the "
        "mean over the gate's groups of channels. Shares sum to 1.",
    ),
    "precision": (
        "Precision of each expert",
        "1 / px^2 of the network's input: one over the variance of what the modality's own head declares, the mean "
        "along x and y.",
    ),
    "share": (
        "Share of the precision",
        "Each expert's precision over the sum of all: its weight in a product of Gaussians. Shares sum to 1.",
    ),
}


def write_report(found: dict[str, Any], out: Path) -> Path:
    """Write explain.json, the figure and explain.md into `out`; returns the last one's path."""
    (out / "explain.json").write_text(json.dumps(found, indent=1))
    bars(found, out / FIGURE)
    path = out / "explain.md"
    path.write_text("\n".join([*_head(found), *_shapley(found), *_fusion(found), *_protocol(found)]))
    return path


def _head(found: dict[str, Any]) -> list[str]:
    protocol = found["protocol"]
    return [
        f"# What each modality is worth to {protocol['model']} on {protocol['data']}, split {protocol['split']}", "",
        f"n = {found['n']} items in {protocol['groups']} groups. Exact Shapley values: the error (NME over "
        f"{protocol['normalizer']}) that a modality takes away, averaged over all orders in which the modalities could "
        "join, from the mean shape, where nothing is known, to all of them. The values of a row sum to its gain. Below "
        "0: it adds error. Intervals: 95 %, bootstrap over groups, "
        f"{protocol['bootstrap_draws']:,} draws.", "",
        f"![Shapley values]({FIGURE})", "",
    ]  # fmt: skip


def _shapley(found: dict[str, Any]) -> list[str]:
    lines = []
    modalities = found["modalities"]
    for condition, groups in found["conditions"].items():
        head = ["", *modalities, "gain, their sum", "mean shape", "all modalities"]
        lines += [f"## {condition}", "", *_rule(head)]
        for group, row in groups.items():
            cells = [*(number(row["shapley"][m]) for m in modalities), number(row["gain"])]
            lines.append(_line([group, *cells, number(row["prior"]), number(row["error"])]))
        lines.append("")
    return lines


def _fusion(found: dict[str, Any]) -> list[str]:
    fusion, modalities = found["fusion"], found["modalities"]
    lines = [f"## The fusion: {fusion['name']}, {fusion['level']} level", ""]
    if "weights" in fusion:
        lines += ["The rule's weights, the same for every item that has all modalities:", "", *_rule(modalities)]
        lines += [_line([f"{fusion['weights'][m]:.4f}" for m in modalities]), ""]
    for quantity, conditions in fusion.get("items", {}).items():
        title, words = QUANTITIES[quantity]
        lines += [f"### {title}", "", f"{words} On items that have all modalities.", ""]
        lines += _rule(["condition", "group", *modalities, "n"])
        for condition, groups in conditions.items():
            for group, row in groups.items():
                cells = [number(row[m]) for m in modalities]
                lines.append(_line([condition, group, *cells, str(row[modalities[0]]["n"])]))
        lines.append("")
    if "weights" not in fusion and "items" not in fusion:
        lines += ["This fusion has no weights to report: it mixes what the modalities say in learned layers.", ""]
    return lines


def _protocol(found: dict[str, Any]) -> list[str]:
    return ["## Protocol", "", "```json", json.dumps(found["protocol"], indent=1), "```", ""]


def _rule(head: list[str]) -> list[str]:
    return [_line(head), "|" + "---|" * len(head)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def bars(found: dict[str, Any], path: Path) -> None:
    """Shapley values with their intervals: a panel per condition, a cluster of bars per group of keypoints."""
    conditions, modalities = found["conditions"], found["modalities"]
    groups = list(next(iter(conditions.values())))
    width = 0.8 / len(modalities)
    size = (max(3.2, 0.4 + 0.28 * len(groups) * (len(modalities) + 1)) * len(conditions), 3.4)
    figure, axes = plt.subplots(1, len(conditions), figsize=size, sharey=True, squeeze=False)
    for axis, (condition, rows) in zip(axes[0], conditions.items(), strict=True):
        for i, modality in enumerate(modalities):
            entries = [rows[g]["shapley"][modality] for g in groups]
            means = np.array([e["mean"] or 0.0 for e in entries])
            spans = np.array([e["ci95"] or [m, m] for e, m in zip(entries, means, strict=True)])
            errors = np.abs(spans.T - means)
            at = np.arange(len(groups)) + (i - (len(modalities) - 1) / 2) * width
            axis.bar(at, means, width, yerr=errors, color=COLOURS[modality], capsize=2, label=modality)
        axis.axhline(0, color="#444444", linewidth=0.8)
        axis.set_xticks(range(len(groups)), groups, fontsize=8)
        axis.set_title(condition, fontsize=10)
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel(f"NME / {found['protocol']['normalizer']} taken away", fontsize=8)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
