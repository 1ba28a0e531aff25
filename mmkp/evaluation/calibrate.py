"""Fit a model's confidence on validation data, and judge it on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmkp import calibration
from mmkp.data.corrupt import conditions_of
from mmkp.data.sample import KeypointDataset
from mmkp.errors import InputError
from mmkp.evaluation.confidence import judged
from mmkp.evaluation.predict import predict_dataset
from mmkp.evaluation.score import PCK_MAIN
from mmkp.hub import Loaded, digest_of

MOST_ITEMS = 400
RARE = 1e-3  # a kind of answer, right or wrong, of which there are fewer is not known well enough to fit a chance to


def calibrate(loaded: Loaded, dataset: KeypointDataset, progress: Any = iter) -> dict[str, Any]:
    """Fit temperature and bias on a dataset that the model was not trained on; the loaded model then uses them.

    Args:
        loaded: model and processor.
        dataset: the validation split; up to 400 items, evenly spread, under all conditions, by all subsets.
        progress: wraps the iterator over batches.

    Returns:
        What `mmkp.calibration.fit` found, with the threshold that "right" means.

    Raises:
        InputError: a codec whose scores say nothing, no labelled point, or fewer than one in a thousand that is wrong
            (or right).
    """
    config = loaded.model.config
    if loaded.model.finds_people:
        raise InputError("calibrate", expected="a codec of one person", got=config.codec["name"])
    config.calibration = None
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST_ITEMS)).round().astype(int)).tolist()
    conditions = [c for c in conditions_of(dataset) if "even_times" not in c]
    made = predict_dataset(loaded.model, loaded.processor, dataset, conditions, indices=chosen, progress=progress)
    parts = [judged(made, loaded.model.schema, *cell)[:2] for cell in made.keypoints_xy]
    scores, right = (np.concatenate(v) for v in zip(*parts, strict=True))
    if not len(scores) or np.ptp(scores) == 0:
        raise InputError(
            "calibrate", expected="scores that differ and labelled points",
            got=f"{len(scores)} points, all of one score" if len(scores) else "no labelled point",
            remedy=f"The codec {config.codec['name']} declares no confidence." if len(scores) else "",
        )  # fmt: skip
    wrong = int((~right).sum())
    if min(wrong, len(right) - wrong) < RARE * len(right):
        raise InputError(
            "calibrate", expected="keypoints both right and wrong, at least one in a thousand of each",
            got=f"{wrong} of {len(right)} wrong, more than {PCK_MAIN} of {loaded.model.schema.normalizer.name} off",
            remedy="Data as hard as what the model will meet tells more.",
        )  # fmt: skip
    found = {**calibration.fit(scores, right), "threshold": PCK_MAIN, "normalizer": loaded.model.schema.normalizer.name}
    config.calibration = {k: found[k] for k in ("temperature", "bias", "threshold", "normalizer", "n")}
    loaded.digest = digest_of(loaded.model, loaded.processor)  # other scores: predictions made before are stale
    return found


def save_calibrated(loaded: Loaded, folder: Path) -> None:
    """Write the model's configuration, calibration included, into its folder."""
    if not (folder / "config.json").is_file():
        raise InputError(f"model {folder}", expected="a folder with config.json", got="none there")
    loaded.model.config.save_pretrained(folder)
