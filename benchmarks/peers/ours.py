"""mmkp's own cells: any subset, with the true box or the one that it finds."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from cells import Cells, Material
from jaxtyping import Bool

from mmkp.evaluation.predict import predict_dataset
from mmkp.hub import Loaded


def points(cells: Cells, loaded: Loaded, material: Material, subsets: list[str], box: str) -> dict[str, np.ndarray]:
    """A model's points by subset, (N, 68, 2) px of the image frame; NaN where it finds no face.

    Args:
        box: `truth`, the samples' own, or `detect`, the best that the model finds in the picture.
    """
    made: dict[str, np.ndarray] = {}

    def compute(subset: str) -> dict[str, Any]:
        if not made:
            made.update(_predict(loaded, material, subsets, box))
        return {"xy": made[subset]}

    found = {}
    for subset in [*subsets, "mean_shape"]:
        key = {"system": "mmkp", "model": loaded.digest, "data": material.key, "subset": subset, "box": box}
        found[subset] = cells.keep(key, partial(compute, subset))["xy"]
    return found


def _predict(loaded: Loaded, material: Material, subsets: list[str], box: str) -> dict[str, np.ndarray]:
    placed, there = (material, np.ones(len(material), bool)) if box == "truth" else _placed(loaded, material)
    dataset: Any = placed  # frozen, which the protocol does not ask for
    said = predict_dataset(loaded.model, loaded.processor, dataset, ["clear"], subsets)
    made = {subset: said.keypoints_xy["clear", subset] for subset in subsets} | {"mean_shape": said.mean_shape_xy}
    return {subset: np.where(there[:, None, None], xy, np.nan) for subset, xy in made.items()}


def _placed(loaded: Loaded, material: Material) -> tuple[Material, Bool[np.ndarray, " N"]]:
    """The samples with the best box that the model finds, and whether it found one."""
    from mmkp.finding import find

    samples, there = [], []
    for sample in material.samples:
        assert sample.image is not None
        boxes = find(loaded.model, loaded.processor, sample.image).boxes_xywh
        there.append(len(boxes) > 0)
        samples.append(sample.replace(box_xywh=boxes[0]) if len(boxes) else sample)
    return Material(f"{material.key} detect", samples), np.array(there)


def boxes_of(loaded: Loaded) -> list[str]:
    """`truth`, and `detect` where the model can find faces by itself."""
    try:
        from mmkp.finding import can_find
    except ImportError:  # no such part in this version
        return ["truth"]
    return ["truth", "detect"] if can_find(loaded.model) else ["truth"]
