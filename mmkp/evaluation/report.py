"""report.md: tables, figures and pictures from a summary and its predictions. It never sees a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmkp import metrics
from mmkp.data.corrupt import CONDITIONS
from mmkp.data.sample import KeypointDataset
from mmkp.evaluation import figures
from mmkp.evaluation.draw import TRUE, caption, crop_to_box, draw_keypoints, sheet
from mmkp.evaluation.predictions import Predictions
from mmkp.evaluation.score import HIDDEN, SEEN
from mmkp.schema import KeypointSchema

TILE_PX = 176
PER_GROUP_MOST = 12
VISIBILITY = (
    "Visible recall: of the keypoints that can be seen, the share that the model calls visible (a probability above "
    "0.5); hidden recall: of the hidden ones, the share that it calls hidden."
)


def write_report(
    summary: dict[str, Any], predictions: Predictions, dataset: KeypointDataset, schema: KeypointSchema, out: Path
) -> Path:
    """Write report.md and its pictures into `out`; returns the report's path."""
    focus = "lips" if "lips" in schema.groups else next(iter(schema.groups), None)
    figures.error_by_subset(summary, focus, out / "error_by_subset.png")
    pictures = contact_sheets(predictions, dataset, schema, out)
    has_curves = figures.training_curves(out / "metrics.jsonl", out / "training_curves.png")
    protocol = summary["protocol"]
    lines = [
        f"# {protocol['model']} on {protocol['data']}, split {protocol['split']}", "",
        f"n = {summary['n']} items in {protocol['groups']} groups. NME and PCK over {protocol['normalizer']}; PCK at "
        f"{protocol['pck_threshold']}. Box: {protocol['box']}. Intervals: 95 %, bootstrap over groups, "
        f"{protocol['bootstrap_draws']:,} draws. `mean_shape` is the training set's mean shape in the same box.", "",
        "![error by subset](error_by_subset.png)", "",
    ]  # fmt: skip
    if predictions.visibility:
        lines += [VISIBILITY, ""]
    for condition, rows in summary["conditions"].items():
        lines += [f"## {condition}", "", *_table(rows, schema), ""]
        if condition in summary["comparisons"]:
            lines += [*_comparisons(summary["comparisons"][condition], focus), ""]
    if protocol["groups"] <= PER_GROUP_MOST:
        lines += ["## Group by group", "", *per_group_table(predictions, schema, focus), ""]
    if summary.get("confidence"):
        lines += ["## Confidence", "", *_confidence(summary["confidence"]), "", "![reliability](reliability.png)", ""]
    lines += ["## Predictions (orange) and truth (green)", ""] if pictures else []
    for path, text in pictures:
        lines += [text, "", f"![{path.stem}]({path.name})", ""]
    if has_curves:
        lines += ["## Training", "", "![training curves](training_curves.png)", ""]
    lines += ["## Protocol", "", "```json", json.dumps(protocol, indent=1), "```", ""]
    path = out / "report.md"
    path.write_text("\n".join(lines))
    return path


def _table(rows: dict[str, Any], schema: KeypointSchema) -> list[str]:
    groups = list(schema.groups)
    told = [name for name in (SEEN, HIDDEN) if any(name in entry for entry in rows.values())]
    head = ["", "NME", *groups, "PCK", *(name.replace("_", " ") for name in told)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for subset, entry in rows.items():
        nme = entry["nme"]
        if not nme["n"]:
            continue
        cells = [subset, number(nme), *(number(nme["groups"][g]) for g in groups), number(entry["pck"], 3)]
        cells += [number(entry[name], 3) if name in entry else "–" for name in told]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def number(entry: dict[str, Any], digits: int = 4) -> str:
    """A mean with its interval, as tables show it."""
    if entry["mean"] is None:
        return "–"
    text = f"{entry['mean']:.{digits}f}"
    return text if entry["ci95"] is None else f"{text} [{entry['ci95'][0]:.{digits}f}, {entry['ci95'][1]:.{digits}f}]"


def _confidence(cells: dict[str, Any]) -> list[str]:
    some = next(iter(next(iter(cells.values())).values()))
    lines = [
        f"A keypoint is right within {some['threshold']} of the normalizer. ECE: expected calibration error, "
        f"{some['ece']['bins']} bins of equal width; n counts keypoints.", "",
        "| condition | subset | ECE | mean score | share right | n |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for condition, rows in cells.items():
        for subset, entry in rows.items():
            ece = number(entry["ece"], 3)
            values = f"{entry['mean_score']:.3f} | {entry['accuracy']:.3f} | {entry['ece']['n']}"
            lines.append(f"| {condition} | {subset} | {ece} | {values} |")
    return lines


def _comparisons(rows: dict[str, Any], focus: str | None) -> list[str]:
    name = focus or "all"
    lines = [f"Against the image alone ({name}), paired over groups:", "", "| | ratio | p | |", "|---|---|---|---|"]
    for pair, parts in rows.items():
        found = parts[name]
        if found["ratio"] is None or found["p"] is None:
            lines.append(f"| {pair} | {found['ratio'] and round(found['ratio'], 3)} | – | {found.get('reason', '')} |")
            continue
        verdict = next((w for w in ("better", "not_worse", "worse") if found[w]), "undecided").replace("_", " ")
        interval = f"{found['ratio']:.3f} [{found['ci95'][0]:.3f}, {found['ci95'][1]:.3f}]"
        lines.append(f"| {pair} | {interval} | {found['p']:.4f} | {verdict} |")
    return lines


def per_group_table(predictions: Predictions, schema: KeypointSchema, focus: str | None) -> list[str]:
    """NME of every group (clip, person) by condition and subset, over all points and over `focus`."""
    length = schema.normalizer(predictions.true_xy, predictions.boxes)
    points = schema.group_indices().get(focus or "")
    lines = [f"| group | condition | subset | NME | {focus or 'all'} | n |", "|---|---|---|---|---|---|"]
    for group in np.unique(predictions.groups):
        here = predictions.groups == group
        for (condition, subset), xy in predictions.keypoints_xy.items():
            labelled = predictions.visible[condition] > 0
            errors = metrics.normalized_errors(xy, predictions.true_xy, labelled, length)[here]
            whole, part = np.nanmean(metrics.nme(errors)), np.nanmean(metrics.nme(errors, points))
            lines.append(f"| {group} | {condition} | {subset} | {whole:.4f} | {part:.4f} | {int(here.sum())} |")
    return lines


def contact_sheets(
    predictions: Predictions, dataset: KeypointDataset, schema: KeypointSchema, out: Path, count: int = 12
) -> list[tuple[Path, str]]:
    """A sheet of evenly spread items and one of the worst, for the clear and the covered picture, all modalities."""
    made = []
    length = schema.normalizer(predictions.true_xy, predictions.boxes)
    where = {str(name): i for i, name in enumerate(predictions.ids)}
    for condition in [c for c in ("clear", "covered") if c in predictions.visible]:
        subset = max((s for c, s in predictions.keypoints_xy if c == condition), key=lambda s: s.count("+"))
        xy = predictions.keypoints_xy[condition, subset]
        errors = metrics.nme(
            metrics.normalized_errors(xy, predictions.true_xy, predictions.visible[condition] > 0, length)
        )
        spread = np.linspace(0, len(errors) - 1, min(count, len(errors))).round().astype(int)
        worst = _worst_by_group(errors, predictions.groups, count)
        for name, chosen in (("spread", spread), ("worst", worst)):
            tiles = [_tile(dataset, where, predictions, condition, xy, errors, int(i), schema) for i in chosen]
            path = out / f"{condition}_{name}.png"
            figures.save_png(sheet(tiles, columns=6), path)
            words = "evenly spread over the set" if name == "spread" else "the worst item of each of the worst groups"
            made.append((path, f"{condition}, {subset}: {words}; below each its id and NME."))
    return made


def _worst_by_group(errors: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """The worst item of each group, worst group first: neighbouring frames would all show the same."""
    order = np.argsort(-np.nan_to_num(errors, nan=-1.0))
    _, first = np.unique(groups[order], return_index=True)
    return order[np.sort(first)][:count]


def _tile(
    dataset: KeypointDataset, where: dict[str, int], predictions: Predictions, condition: str, xy: np.ndarray,
    errors: np.ndarray, index: int, schema: KeypointSchema,
) -> np.ndarray:  # fmt: skip
    sample = dataset[index]
    if where.get(sample.id) != index:
        raise ValueError(f"item {index} of the dataset is {sample.id}, not {predictions.ids[index]}")
    sample = CONDITIONS[condition](sample) or sample
    image = sample.image
    if image is None:
        side = int(np.ceil(sample.box_xywh[2:].max()))
        image = np.full((side, side, 3), 128, np.uint8)
    tile, (true, predicted) = crop_to_box(image, sample.box_xywh, TILE_PX, predictions.true_xy[index], xy[index])
    tile = draw_keypoints(draw_keypoints(tile, true, schema, TRUE), predicted, schema)
    return caption(tile, f"{sample.id}  {errors[index]:.3f}")
