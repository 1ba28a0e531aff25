"""Evaluation during a run, on a fixed part of the validation split: all subsets, clear and covered."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmkp import metrics
from mmkp.data.corrupt import conditions_of
from mmkp.errors import InputError, choose
from mmkp.evaluation.instance_scores import summarize_people
from mmkp.evaluation.instances import predict_people
from mmkp.evaluation.predict import all_subsets, predict_dataset
from mmkp.evaluation.predictions import Predictions
from mmkp.recipe import Recipe
from mmkp.training.build import Parts


class Validator:
    """Scores a model on up to `data.validation_samples` items, evenly spread over the validation split.

    The score by which the best checkpoint is chosen is the mean NME over the conditions clear and covered (where it
    applies) and the recipe's `data.validation_subsets`, all of the model's without.
    """

    def __init__(self, parts: Parts, recipe: Recipe) -> None:
        self.parts = parts
        count = len(parts.validation_set)
        wanted = min(count, recipe.data.validation_samples)
        self.indices = np.unique(np.linspace(0, count - 1, wanted).round().astype(int)).tolist()
        known = all_subsets(parts.model.modalities)
        self.subsets = [str(choose("data.validation_subsets", s, {k: k for k in known})) for s in
                        recipe.data.validation_subsets] or known  # fmt: skip
        applies = conditions_of(parts.validation_set)
        self.conditions = [c for c in ("clear", "covered") if c in applies]

    def __call__(self, model: Any) -> dict[str, Any]:
        """`nme`, the mean over all cells, and `cells`: condition -> subset -> NME, by the schema's groups as well."""
        if getattr(model, "finds_people", False):
            return self._summed(self._people(model))
        made = predict_dataset(
            model, self.parts.processor, self.parts.validation_set, self.conditions, self.subsets, self.indices
        )
        return self._summed(self._cells(made))

    def _cells(self, made: Predictions) -> dict[str, dict[str, Any]]:
        schema = self.parts.schema
        length = schema.normalizer(made.true_xy, made.boxes)
        cells: dict[str, dict[str, Any]] = {}
        for (condition, subset), xy in made.keypoints_xy.items():
            errors = metrics.normalized_errors(xy, made.true_xy, made.visible[condition] > 0, length)
            groups = {g: metrics.summary(metrics.nme(errors, p)) for g, p in schema.group_indices().items()}
            cells.setdefault(condition, {})[subset] = {"nme": metrics.summary(metrics.nme(errors)), **groups}
        return cells

    def _people(self, model: Any) -> dict[str, dict[str, Any]]:
        """NME of everybody in the pictures, a miss counting 1.0 of the normalizer, and AP."""
        parts = self.parts
        made = predict_people(model, parts.processor, parts.validation_set, self.conditions, indices=self.indices)
        cells: dict[str, dict[str, Any]] = {}
        for condition, row in summarize_people(made, parts.schema, {})["conditions"].items():
            for subset, entry in row.items():
                groups = {g: s["mean"] for g, s in entry["nme"]["groups"].items()}
                cells.setdefault(condition, {})[subset] = {
                    "nme": entry["nme"]["mean"], "ap": entry["ap"]["mean"], **groups
                }  # fmt: skip
        return cells

    @staticmethod
    def _summed(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
        values = [cell["nme"] for row in cells.values() for cell in row.values() if cell["nme"] is not None]
        if not values:
            raise InputError(
                "data validation", expected="labelled keypoints and a normalizer above 0", got="none in the split",
                remedy="`mmkp data check` shows the labels; data.validation_samples may be too small.",
            )  # fmt: skip
        return {"nme": float(np.mean(values)), "cells": cells}

    def line(self, found: dict[str, Any]) -> str:
        """The lips' NME (of all points, where there are none) by condition and subset, in one line for people."""
        focus = "lips" if "lips" in self.parts.schema.groups else "nme"
        words = [f"{'lips' if focus == 'lips' else 'all points'}, i = image, t = text, a = audio"]
        for condition, row in found["cells"].items():
            cells = " ".join(f"{'+'.join(m[0] for m in s.split('+'))} {_shown(c[focus])}" for s, c in row.items())
            words.append(f"{condition}: {cells}")
        return "; ".join(words)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
