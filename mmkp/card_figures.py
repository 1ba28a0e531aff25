"""What a card says in figures: tables, results and cost, read from a run's and its evaluations' own files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkp.errors import InputError
from mmkp.evaluation.report import number

MEAN_SHAPE = "mean_shape"
USUAL_GROUPS = ("eyes", "lips")
DEGRADED = {
    "clear": "as recorded", "covered": "the mouth covered, with an opaque mask or patch",
    "even_times": "control: the text's cursor from evenly spaced words, which carry no timing",
    "covered+even_times": "the mouth covered, and the control of the text",
}  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """A `summary.json` under the title that the card gives it."""

    title: str
    summary: dict[str, Any]

    @property
    def subsets(self) -> list[str]:
        """The subsets of modalities that have figures, the largest first."""
        rows = [row for rows in self.summary["conditions"].values() for row in rows.items()]
        names = {s for s, entry in rows if s != MEAN_SHAPE and entry["nme"]["mean"] is not None}
        return sorted(names, key=lambda s: (-s.count("+"), s))

    def shown_groups(self) -> list[str]:
        """Eyes and lips where the schema has them, or its first two groups."""
        some = next(iter(next(iter(self.summary["conditions"].values())).values()))
        groups = list(some["nme"]["groups"])
        return [g for g in USUAL_GROUPS if g in groups] or groups[:2]


def read_evaluation(title: str, folder: Path) -> Evaluation:
    """An evaluation's folder.

    Raises:
        InputError: no summary.json there, or one without figures.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise InputError(f"evaluation {folder}", expected="summary.json", got="none there",
                         remedy="Evaluate it first: mmkp evaluate --model M --data D --out DIR")  # fmt: skip
    try:
        made = Evaluation(title, json.loads(path.read_text()))
        made.shown_groups(), made.subsets, made.summary["protocol"]["split"]
        made.summary["protocol"]["data"] = without_place(str(made.summary["protocol"]["data"]))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise InputError(f"evaluation {path}", expected="an evaluation's summary", got=type(error).__name__) from error
    return made


def without_place(data: str) -> str:
    """A dataset's name without its place on somebody's disk: a card is read by others."""
    named = data.rstrip("/\\")
    placed = named.startswith(("/", ".", "~", "\\")) or named[1:3] in (":\\", ":/") or named.count("/") > 1
    return re.split(r"[/\\]", named)[-1] if placed else data


def tables(evaluation: Evaluation) -> list[str]:
    """A table per condition: every subset, NME of all points and of the groups that count, PCK or AP beside it."""
    summary, protocol = evaluation.summary, evaluation.summary["protocol"]
    lines = [
        f"Split `{protocol['split']}` of {protocol['data']}, n = {summary['n']} items in {protocol['groups']} groups; "
        f"NME over {protocol['normalizer']}; box {protocol['box']}; 95 % intervals by bootstrap over groups. "
        f"`{MEAN_SHAPE}` is the training set's mean shape in the same box.", "",
    ]  # fmt: skip
    groups = evaluation.shown_groups()
    for condition, rows in summary["conditions"].items():
        about = f": {DEGRADED[condition]}" if condition in DEGRADED else ""
        lines += [f"### {evaluation.title}, {condition}{about}", "", *_table(rows, groups, protocol)]
        lines += [*_ratios(summary.get("comparisons", {}).get(condition), groups), ""]
    return lines


def _table(rows: dict[str, Any], groups: list[str], protocol: dict[str, Any]) -> list[str]:
    some = next(iter(rows.values()))
    extra = next((m for m in ("ap", "pck") if m in some), None)
    title = {"ap": ["AP"], "pck": [f"PCK@{protocol.get('pck_threshold', 0.1)}"], None: []}[extra]
    lines = ["| | NME | " + " | ".join([*groups, *title]) + " |", "|---" * (2 + len(groups) + len(title)) + "|"]
    for subset, entry in rows.items():
        if entry["nme"]["mean"] is None:
            continue
        cells = [subset, number(entry["nme"]), *(number(entry["nme"]["groups"][g]) for g in groups)]
        cells += [number(entry[extra], 3)] if extra in entry else [""] * len(title)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _ratios(rows: dict[str, Any] | None, groups: list[str]) -> list[str]:
    """What the other modalities add to the image, where that was compared."""
    focus = "lips" if "lips" in groups else "all"
    parts = []
    for pair, found in (rows or {}).items():
        entry = found.get(focus)
        if entry and entry.get("ratio") is not None and pair.startswith("image+"):
            span = "" if entry.get("ci95") is None else f" [{entry['ci95'][0]:.3f}, {entry['ci95'][1]:.3f}]"
            parts.append(f"{pair.replace(' / ', ' over ')} {entry['ratio']:.3f}{span}")
    return ["", f"Ratio of errors ({focus}, paired over groups): " + "; ".join(parts) + "."] if parts else []


def results(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    """A record per evaluation, condition, subset and group of points: what facts.json and the metadata hold.

    Of the subsets, all modalities together and the image alone.
    """
    made = []
    for evaluation in evaluations:
        protocol = evaluation.summary["protocol"]
        chosen = list(dict.fromkeys([*evaluation.subsets[:1], *(s for s in evaluation.subsets if s == "image")]))
        for condition, rows in evaluation.summary["conditions"].items():
            for subset in (s for s in chosen if s in rows):
                entry = rows[subset]["nme"]
                for points, cell in (("all", entry), *((g, entry["groups"][g]) for g in evaluation.shown_groups())):
                    if cell["mean"] is not None:
                        made.append(
                            {
                                "evaluation": evaluation.title, "data": protocol["data"], "split": protocol["split"],
                                "n": cell["n"], "groups": protocol["groups"], "condition": condition,
                                "subset": subset, "metric": "nme", "normalizer": protocol["normalizer"],
                                "points": points, "mean": cell["mean"], "ci95": cell["ci95"],
                            }
                        )  # fmt: skip
    return made


def confidence(evaluations: list[Evaluation], calibration: dict[str, Any] | None) -> list[str]:
    """What a score means, and how well it is kept, for all modalities together."""
    if calibration:
        known = f"temperature {calibration['temperature']:.3f}, bias {calibration['bias']:.3f}"
        lines = [f"Scores are probabilities that the keypoint is right, calibrated on validation ({known})."]
    else:
        lines = ["Scores are not calibrated: they rank keypoints, they are no probabilities."]
    rows = []
    for evaluation in evaluations:
        for condition, cells in (evaluation.summary.get("confidence") or {}).items():
            subset = next((s for s in evaluation.subsets if s in cells), None)
            if subset is not None:
                cell = cells[subset]
                shown = f"{cell['mean_score']:.3f} | {cell['accuracy']:.3f} | within {cell['threshold']}"
                rows.append(f"| {evaluation.title} | {condition} | {number(cell['ece'], 3)} | {shown} |")
    head = ["| | condition | expected calibration error | mean score | share right | right means |", "|---" * 6 + "|"]
    return [*lines, "", *head, *rows] if rows else lines


def cost(run: Path) -> str:
    """What training took, from metrics.jsonl and environment.json; empty where they are not there."""
    minutes = minutes_of(run / "metrics.jsonl")
    if minutes is None:
        return ""
    machine = ""
    if (run / "environment.json").is_file():
        known = json.loads((run / "environment.json").read_text())
        gpus, count = known.get("gpus") or [], known.get("threads")
        threads = f"{count} thread{'' if count == 1 else 's'} of a CPU with {known.get('cpus')} cores"
        machine = f" on {gpus[0]}" if gpus else f" on {threads}"
        if known.get("processes", 1) > 1:
            machine += f", {known['processes']} processes"
    return f"{minutes:.0f} minutes{machine}" if minutes >= 10 else f"{minutes:.1f} minutes{machine}"


def minutes_of(log: Path) -> float | None:
    """Minutes of training in a metrics.jsonl, over all its parts: the clock starts anew when a run is resumed."""
    if not log.is_file():
        return None
    total, last = 0.0, 0.0
    for line in log.read_text().splitlines():
        try:
            elapsed = float(json.loads(line).get("elapsed_s", last))
        except (ValueError, AttributeError, TypeError):
            continue  # a line that was cut off
        if elapsed < last:
            total += last
        last = elapsed
    return (total + last) / 60 if total + last > 0 else None
