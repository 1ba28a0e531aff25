"""A fitted classic pipeline: from samples to points, every subset of modalities under every condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmkp import geometry
from mmkp.classic import METHODS, REGRESSORS
from mmkp.classic.experts import Tools
from mmkp.classic.features import FeatureSpace
from mmkp.classic.fusion import FeatureLevel, ModelLevel, System
from mmkp.classic.inputs import Items, members, read_items, read_labels, training_samples
from mmkp.classic.recipe import ClassicRecipe, make_part
from mmkp.classic.shape import ShapeModel
from mmkp.data.corrupt import CONDITIONS
from mmkp.data.sample import KeypointDataset, Sample
from mmkp.errors import InputError
from mmkp.evaluation.predict import _join as join_rows
from mmkp.evaluation.predict import all_subsets, effective_condition, needed
from mmkp.evaluation.predictions import Predictions
from mmkp.training.build import mean_shape


@dataclass(frozen=True)
class Pipeline:
    """All that was fitted.

    Attributes:
        modalities: those that the training items have.
        mean_xy: (K, 2) px, input frame: the mean shape that stands beside the subsets in a summary.
        notes: what a user should know about the fit.
    """

    size_px: int
    modalities: tuple[str, ...]
    space: FeatureSpace
    system: System
    mean_xy: np.ndarray
    notes: list[str]


def fit(recipe: ClassicRecipe, dataset: KeypointDataset) -> Pipeline:
    """Fit a recipe's pipeline to a train split.

    Raises:
        InputError: no labelled items, no modality that the recipe names, parts that the data does not allow.
        MissingExtraError: a descriptor's package is not installed.
    """
    training, size = recipe.training, recipe.features.size_px
    samples = training_samples(dataset, training.items, training.cover, training.seed)
    if len(samples) < 2:
        raise InputError(
            f"data {recipe.data.dataset}", expected="at least 2 labelled training items", got=f"{len(samples)}"
        )
    items = read_items(samples, size)
    labels = read_labels(samples, items.image_to_input)
    space = FeatureSpace(recipe.features, recipe.modalities, items, training.seed)
    if not space.modalities:
        raise InputError(
            f"data {recipe.data.dataset}", expected=f"items with {' or '.join(recipe.modalities)}", got="none"
        )
    shape = ShapeModel(labels.xy, recipe.shape_components, training.seed)
    regressor = make_part("regressor", recipe.regressor, REGRESSORS)
    tools = Tools(shape, regressor, size, training.seed, training.workers)
    views = {m: space.see(m, items) for m in space.modalities}
    present = items.present[:, members(space.modalities)]
    system: System
    if recipe.fusion.level == "feature":
        system = FeatureLevel(views, present, labels, recipe.fusion, training, tools)
    else:
        method = make_part("method", recipe.method, METHODS)
        system = ModelLevel(views, present, labels, method, recipe.fusion, training, tools)
    mean_xy = mean_shape(dataset, (size, size)).double().numpy() * size - 0.5
    return Pipeline(size, space.modalities, space, system, mean_xy, space.notes + shape.notes)


def predict_dataset(
    pipeline: Pipeline, dataset: KeypointDataset, conditions: Sequence[str], batch_size: int = 240,
    progress: Any = iter, subsets: Sequence[str] | None = None,
) -> Predictions:  # fmt: skip
    """Predict every item, as `mmkp.evaluation.predict.predict_dataset` does with a network.

    Args:
        conditions: names from mmkp.data.corrupt.CONDITIONS.
        progress: wraps the iterator over batches of indices.
        subsets: of the modalities; all of the pipeline's by default.

    Returns:
        Predictions in the image frame. An item that lacks every modality of a subset gets the mean shape, score 0.
    """
    subsets = list(subsets or all_subsets(pipeline.modalities))
    batches = [range(i, min(i + batch_size, len(dataset))) for i in range(0, len(dataset), batch_size)]
    rows = [_predict_batch(pipeline, [dataset[i] for i in batch], conditions, subsets) for batch in progress(batches)]
    return join_rows(rows, conditions, subsets)


def _predict_batch(
    pipeline: Pipeline, samples: list[Sample], conditions: Sequence[str], subsets: Sequence[str]
) -> dict[Any, np.ndarray]:
    looked = _Looked(pipeline, samples)
    back = looked.items("clear").image_to_input
    row: dict[Any, np.ndarray] = {
        "ids": np.array([s.id for s in samples]), "groups": np.array([s.group for s in samples]),
        "true_xy": np.stack([np.where(s.visible[:, None] > 0, s.keypoints_xy, np.nan) for s in samples]),
        "boxes": np.stack([s.box_xywh for s in samples]),
        "mean_shape_xy": geometry.input_to_image(np.tile(pipeline.mean_xy, (len(samples), 1, 1)), back),
    }  # fmt: skip
    hidden = np.zeros_like(samples[0].visible)  # an item to which the condition does not apply has no say in it
    for condition in conditions:
        changed = [CONDITIONS[condition](s) for s in samples]
        row["visible", condition] = np.stack([hidden if s is None else s.visible for s in changed])
    for source in needed(conditions, subsets):
        for subset in (s for s in subsets if effective_condition(source, s) == source):
            xy, scores, answered = looked.join(source, subset)
            xy = np.where(answered[:, None, None], xy, pipeline.mean_xy)
            row["xy", source, subset] = geometry.input_to_image(xy, back)
            row["score", source, subset] = scores * answered[:, None]
    return row


class _Looked:
    """A batch, looked at once for each modality and each condition that changes it."""

    def __init__(self, pipeline: Pipeline, samples: list[Sample]) -> None:
        self.pipeline, self.samples = pipeline, samples
        self._items: dict[str, Items] = {}
        self._parts: dict[tuple[str, str], Any] = {}

    def items(self, condition: str) -> Items:
        if condition not in self._items:
            changed = [CONDITIONS[condition](s) or s for s in self.samples]
            self._items[condition] = read_items(changed, self.pipeline.size_px)
        return self._items[condition]

    def part(self, modality: str, condition: str) -> Any:
        key = (modality, effective_condition(condition, modality))
        if key not in self._parts:
            view = self.pipeline.space.see(modality, self.items(key[1]))
            self._parts[key] = self.pipeline.system.see(modality, view)
        return self._parts[key]

    def join(self, condition: str, subset: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        modalities = self.pipeline.modalities
        chosen = np.array([m in subset.split("+") for m in modalities])
        present = self.items("clear").present[:, members(modalities)] & chosen
        return self.pipeline.system.join({m: self.part(m, condition) for m in modalities}, present)
