"""The worst cases of a study as pictures: points from the cells' files, pictures from the data, where it is at hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.data import open_dataset
from mmkp.data.corrupt import CONDITIONS
from mmkp.data.sample import KeypointDataset
from mmkp.errors import InputError
from mmkp.evaluation.draw import TRUE, caption, crop_to_box, draw_keypoints, sheet
from mmkp.evaluation.figures import save_png
from mmkp.study.cell import read_points, spread
from mmkp.study.grid_results import GridResults

TILE_PX = 160


def worst_cases(grid: GridResults, arms: list[str], out: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """A sheet per condition, a row per arm: the worst item of each of its worst groups, first seed.

    Returns:
        The pictures with a line each, and what went wrong.
    """
    data, judged = grid.loaded.data, grid.study.evaluate
    wanted = {i for a in arms for e in _entries(grid, a).values() for i in e["ids"]}
    if not wanted:
        return [], []
    try:
        dataset = open_dataset(data.dataset, judged.split, **data.options)
    except InputError as error:
        return [], [f"no pictures of the worst cases: they are drawn from the data. {error}"]
    count = len(dataset) if judged.items is None else judged.items
    where = _places(dataset, wanted, spread(len(dataset), count))
    made = []
    for condition in grid.conditions:
        rows = []
        for arm in arms:
            entry = _entry(grid, arm, condition)
            if entry is not None:
                found = [item for item in _items(entry) if item[0] in where]
                rows.append([_tile(dataset, where[i], condition, xy, f"{arm} {i} {e:.3f}") for i, e, xy in found])
        rows = [row for row in rows if row]
        if rows:
            columns, blank = max(map(len, rows)), np.full_like(rows[0][0], 255)
            flat = [t for row in rows for t in (*row, *[blank] * (columns - len(row)))]
            path = out / f"worst_{condition}.png"
            save_png(sheet(flat, columns), path)
            made.append((path, f"{condition}: below each its arm, id and NME; prediction orange, truth green."))
    missing = len(wanted) - len(where)
    return made, [f"{missing} of the worst items are not in this data"] if missing else []


def _entries(grid: GridResults, arm: str) -> dict[str, Any]:
    return grid.metas(arm)[0].get("worst", {})


def _entry(grid: GridResults, arm: str, condition: str) -> dict[str, Any] | None:
    return _entries(grid, arm).get(grid.noticed(arm, condition, grid.whole(arm)))


def _items(entry: dict[str, Any]) -> list[tuple[str, float, np.ndarray]]:
    return list(zip(entry["ids"], entry["errors"], read_points(entry), strict=True))


def _places(dataset: KeypointDataset, wanted: set[str], indices: Iterable[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for index in indices:
        name = dataset[index].id
        if name in wanted:
            found[name] = index
            if len(found) == len(wanted):
                break
    return found


def _tile(dataset: KeypointDataset, index: int, condition: str, xy: np.ndarray, text: str) -> np.ndarray:
    sample = dataset[index]
    sample = CONDITIONS[condition](sample) or sample
    image = sample.image
    if image is None:
        side = int(np.ceil(sample.box_xywh[2:].max()))
        image = np.full((side, side, 3), 128, np.uint8)
    true = np.where(sample.visible[:, None] > 0, sample.keypoints_xy, np.nan)
    tile, (shown, predicted) = crop_to_box(image, sample.box_xywh, TILE_PX, true, xy)
    tile = draw_keypoints(draw_keypoints(tile, shown, dataset.schema, TRUE), predicted, dataset.schema)
    return caption(tile, text)
