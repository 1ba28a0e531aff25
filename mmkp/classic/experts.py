"""Experts: one modality in, keypoints out. What fits one, and how wrong it was on items that it had not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int
from sklearn.covariance import LedoitWolf

from mmkp.classic.features import View
from mmkp.classic.inputs import Labels
from mmkp.classic.shape import ShapeModel
from mmkp.recipe import Section

# Points (N, K, 2), px, input frame; and how sure of each, (N, K) in [0, 1], or None for "as sure as on unseen items".
Answer = tuple[np.ndarray, np.ndarray | None]
Ask = Callable[[View], Answer]
FEWEST = 4  # items that an expert is fitted to
SURE_SHARE = 0.05  # of the crop's side: a deviation of so much makes a score of exp(-1/2)


@dataclass(frozen=True)
class Tools:
    """What every fit needs: the shape model, the regressor (a part), the crop's side, the seed, threads."""

    shape: ShapeModel
    regressor: Any
    size_px: int
    seed: int
    workers: int


class Expert(Protocol):
    """A method, as a recipe's part."""

    def fit(self, view: View, labels: Labels, tools: Tools) -> Ask: ...


class Regression(Section):
    """Features -> coefficients of the point distribution model -> points: few outputs, and always a shape."""

    def fit(self, view: View, labels: Labels, tools: Tools) -> Ask:
        """Fit the recipe's regressor."""
        targets = tools.shape.encode(labels.xy)
        predict = tools.regressor.fit(view.features, targets, tools.seed, tools.workers)
        return lambda new: (tools.shape.decode(predict(new.features)), None)


@dataclass(frozen=True)
class Residuals:
    """Errors on items not seen in the fit.

    Attributes:
        mean_px: mean distance.
        sigma_px: (K,) deviation of a coordinate.
        covariance: (2K, 2K) px^2, shrunk, about zero, so that a bias counts as an error.
    """

    mean_px: float
    sigma_px: Float[np.ndarray, " K"]
    covariance: Float[np.ndarray, "C C"]

    @classmethod
    def of(cls, predicted_xy: Float[np.ndarray, "N K 2"], true_xy: Float[np.ndarray, "N K 2"]) -> Residuals:
        """From predictions and truth, NaN where unlabelled; a point that is never labelled gets the others' mean.

        Source: Ledoit and Wolf, 2004, by scikit-learn.
        """
        errors = predicted_xy - true_xy
        known = np.isfinite(errors).all(-1)
        squared = np.where(known, (np.nan_to_num(errors) ** 2).sum(-1), 0.0)
        count = known.sum(0)
        variance = squared.sum(0) / np.maximum(2 * count, 1)
        variance = np.maximum(np.where(count > 0, variance, variance[count > 0].mean()), 1e-6)
        flat = np.where(known[..., None], errors, 0.0).reshape(len(errors), -1)
        covariance = LedoitWolf(assume_centered=True).fit(flat).covariance_
        covariance += 1e-6 * np.eye(len(covariance))
        return cls(float(np.sqrt(squared[known]).mean()), np.sqrt(variance), covariance)

    def sure(self, size_px: int) -> Float[np.ndarray, " K"]:
        """Scores in (0, 1] that fall with the deviation."""
        return np.exp(-0.5 * (self.sigma_px / (SURE_SHARE * size_px)) ** 2)


def folds_of(groups: np.ndarray, folds: int, seed: int) -> Int[np.ndarray, " N"]:
    """The fold of each item: whole groups, dealt out at random; single items where there is but one group."""
    names, index = np.unique(groups, return_inverse=True)
    if len(names) == 1:
        names, index = groups, np.arange(len(groups))
    return (np.random.default_rng(seed).permutation(len(names)) % folds)[index]


def residuals(expert: Expert, view: View, labels: Labels, folds: Int[np.ndarray, " N"], tools: Tools) -> Residuals:
    """Errors of an expert on items of which its fit saw nothing: each fold by a fit to the others.

    With fewer than two folds, or too few items in the others, they are the errors on the items of the fit itself.
    """
    found = np.zeros(labels.xy.shape)
    for fold in np.unique(folds):
        others, asked = folds != fold, folds == fold
        if others.sum() < FEWEST:
            others = np.ones(len(folds), bool)
        ask = expert.fit(view.rows(others), labels.rows(others), tools)
        found[asked] = ask(view.rows(asked))[0]
    return Residuals.of(found, labels.xy)
