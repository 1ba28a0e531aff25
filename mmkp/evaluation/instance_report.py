"""report.md of models that find several people. It never sees a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import UInt8

from mmkp import geometry
from mmkp.data.sample import KeypointDataset
from mmkp.evaluation import figures
from mmkp.evaluation.draw import TRUE, caption, draw_keypoints, person_colour, sheet
from mmkp.evaluation.report import number
from mmkp.schema import KeypointSchema

if TYPE_CHECKING:
    from mmkp.evaluation.instances import PeoplePredictions

TILE_PX = 256
COLUMNS = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR", "recall": "people found", "precision": "of the found, true",
    "nme": "NME, misses 1.0", "nme_matched": "NME of the found",
}  # fmt: skip


def write_people_report(
    summary: dict[str, Any], predictions: PeoplePredictions, dataset: KeypointDataset, schema: KeypointSchema, out: Path
) -> Path:
    """Write report.md and its pictures into `out`; returns the report's path."""
    protocol = summary["protocol"]
    lines = [
        f"# {protocol['model']} on {protocol['data']}, split {protocol['split']}", "",
        f"n = {summary['n']} pictures with {protocol['people']} people in {protocol['groups']} groups. AP and AR are "
        f"COCO's, by OKS. Found: OKS of at least {protocol['oks_found']}. NME over {protocol['normalizer']}. No boxes "
        "of people are given. Intervals: 95 %, bootstrap over groups.", "",
    ]  # fmt: skip
    for condition, rows in summary["conditions"].items():
        head = "| | " + " | ".join(COLUMNS.values()) + " |"
        lines += [f"## {condition}", "", head, "|---" * (len(COLUMNS) + 1) + "|"]
        lines += [f"| {s} | " + " | ".join(number(e[k], 3) for k in COLUMNS) + " |" for s, e in rows.items()]
        lines.append("")
    subset = max((s for _, s in predictions.found), key=lambda s: s.count("+"))
    picture = people_sheet(predictions, dataset, schema, subset, out / "people.png")
    lines += [
        f"## People found, by {subset}", "",
        "A colour for each person; truth in green, thin. Evenly spread over the set.", "",
        f"![people]({picture.name})", "",
    ]  # fmt: skip
    if figures.training_curves(out / "metrics.jsonl", out / "training_curves.png"):
        lines += ["## Training", "", "![training curves](training_curves.png)", ""]
    lines += ["## Protocol", "", "```json", json.dumps(protocol, indent=1), "```", ""]
    path = out / "report.md"
    path.write_text("\n".join(lines))
    return path


def people_sheet(
    predictions: PeoplePredictions, dataset: KeypointDataset, schema: KeypointSchema, subset: str, path: Path,
    count: int = 12,
) -> Path:  # fmt: skip
    """Pictures, evenly spread, with everybody who was found."""
    images = len(predictions.ids)
    chosen = np.unique(np.linspace(0, images - 1, min(count, images)).round().astype(int))
    figures.save_png(sheet([_tile(predictions, dataset, schema, subset, int(i)) for i in chosen], columns=4), path)
    return path


def _tile(
    predictions: PeoplePredictions, dataset: KeypointDataset, schema: KeypointSchema, subset: str, index: int
) -> UInt8[np.ndarray, "H W 3"]:
    sample = dataset[index]
    if sample.id != predictions.ids[index]:
        raise ValueError(f"item {index} of the dataset is {sample.id}, not {predictions.ids[index]}")
    image = np.full((TILE_PX, TILE_PX, 3), 128, np.uint8) if sample.image is None else sample.image
    affine = geometry.crop_affine(geometry.whole_image_box((image.shape[0], image.shape[1])), (TILE_PX, TILE_PX))
    tile = geometry.warp(image, affine, (TILE_PX, TILE_PX), border=255)
    true = predictions.true_xy[predictions.true_image == index]
    for points in geometry.transform(true.astype(float), affine):
        for x, y in points[np.isfinite(points).all(-1)]:
            cv2.circle(tile, (round(x), round(y)), 4, TRUE, 1, cv2.LINE_AA)
    found = predictions.found["clear" if "clear" in predictions.visible else next(iter(predictions.visible)), subset]
    here = np.flatnonzero(found.image == index)
    for rank, points in enumerate(geometry.transform(found.keypoints_xy[here].astype(float), affine)):
        tile = draw_keypoints(tile, points, schema, person_colour(rank))
    return caption(tile, f"{sample.id}  {len(here)} of {len(true)}")
