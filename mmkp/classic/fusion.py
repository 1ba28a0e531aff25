"""Joining modalities: on features, one regressor for every combination; or on what each one's expert says.

Both keep the contract of `mmkp.fusion.rules`: weights renormalise over what is there, an absent modality cannot change
the output, one alone is itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from mmkp.classic.experts import FEWEST, Answer, Ask, Expert, Regression, Residuals, Tools, folds_of, residuals
from mmkp.classic.features import View
from mmkp.classic.inputs import Labels
from mmkp.classic.recipe import FitSection, FusionSection
from mmkp.fusion.rules import FusionRule

Pattern = tuple[bool, ...]  # which modalities, in the order of the views
Joined = tuple[np.ndarray, np.ndarray, np.ndarray]  # points (N, K, 2) px, scores (N, K), any modality there (N,)


class ModelLevel:
    """An expert for each modality; their points joined.

    average, weighted: of the points; weights from the recipe, or the inverse of the mean error on unseen items.
    product: of Gaussians over all coordinates at once, each expert's with the covariance of its errors on unseen items,
    divided by the Gaussian of the shapes themselves for every expert but one: what all know before they look counts
    once. An expert has a say only in the directions in which it knows more than that. Source: the Bayesian committee
    machine, Tresp, Neural Computation 2000, equation 5.

    Args:
        views, present: the training items by modality, and which of them have it, (N, M) in the order of `views`.
        labels: theirs.
        method: the picture's expert; the other modalities take `Regression`.
    """

    def __init__(
        self, views: dict[str, View], present: Bool[np.ndarray, "N M"], labels: Labels, method: Expert,
        fusion: FusionSection, fit: FitSection, tools: Tools,
    ) -> None:  # fmt: skip
        self.tools, self.kind = tools, fusion.name
        self.experts: dict[str, Ask] = {}
        self.residuals: dict[str, Residuals] = {}
        for here, (modality, view) in zip(present.T, views.items(), strict=True):
            expert = method if modality == "image" else Regression()
            self.experts[modality], self.residuals[modality] = fitted(
                expert, view.rows(here), labels.rows(here), fit, tools
            )
        self.prior_xy = tools.shape.mean_xy
        prior = Residuals.of(np.broadcast_to(self.prior_xy, labels.xy.shape), labels.xy)
        self.prior_precision = np.linalg.inv(prior.covariance)
        self.evidence = {m: evidence(r.covariance, prior.covariance) for m, r in self.residuals.items()}
        rule = "average" if fusion.name == "product" else fusion.name  # of the scores, and of the points but in product
        self.rule = _rule(rule, tuple(views), fusion, {m: r.mean_px for m, r in self.residuals.items()})

    def see(self, modality: str, view: View) -> Answer:
        """What one modality's expert says; asked once, whatever it is joined with."""
        return self.experts[modality](view)

    def join(self, parts: dict[str, Answer], present: Bool[np.ndarray, "N M"]) -> Joined:
        """Join what the experts said. `present` is (N, M) in the order of the training's views."""
        xy = {m: answer[0] for m, answer in parts.items()}
        size = self.tools.size_px
        sure = {
            m: np.broadcast_to(self.residuals[m].sure(size), xy[m].shape[:2]) if s is None else s
            for m, (_, s) in parts.items()
        }
        points = self._product(xy, present) if self.kind == "product" else _apply(self.rule, xy, present)
        return points, _apply(self.rule, sure, present), np.asarray(present.any(1))

    def _product(self, xy: dict[str, np.ndarray], present: Bool[np.ndarray, "N M"]) -> Float[np.ndarray, "N K 2"]:
        first = next(iter(xy.values()))
        made = np.zeros(first.shape)
        for pattern, rows in _patterns(present):
            there = [m for m, on in zip(xy, pattern, strict=True) if on]
            if len(there) == 1:
                made[rows] = xy[there[0]][rows]
            elif there:
                offsets = {m: (xy[m][rows] - self.prior_xy).reshape(len(rows), -1) for m in there}
                total = self.prior_precision + sum(self.evidence[m][0] for m in there)
                voted = sum(offsets[m] @ self.evidence[m][1] for m in there)
                found = np.linalg.solve(total, np.asarray(voted).T).T
                made[rows] = self.prior_xy + found.reshape(-1, *first.shape[1:])
        return made


def evidence(
    covariance: Float[np.ndarray, "C C"], prior: Float[np.ndarray, "C C"]
) -> tuple[Float[np.ndarray, "C C"], Float[np.ndarray, "C C"]]:
    """What an expert adds to the prior.

    Args:
        covariance: of its errors.
        prior: covariance of the shapes.

    Returns:
        The gain in precision, covariance^-1 - prior^-1 in the directions in which that is positive, else 0; and the
        precision with which its offset from the mean shape enters, covariance^-1 in those directions.
    """
    low = np.linalg.cholesky(prior)
    inverse = np.linalg.inv(low)
    ratios, directions = np.linalg.eigh(inverse @ covariance @ inverse.T)  # of variances: below 1 it knows more
    knows = ratios < 1
    axes = inverse.T @ directions[:, knows]
    weights = 1 / np.maximum(ratios[knows], 1e-9)
    return (axes * (weights - 1)) @ axes.T, (axes * weights) @ axes.T


class FeatureLevel:
    """Features joined, then one regressor; a regressor for each combination of modalities that train has.

    concat: side by side. average, weighted, product: the rules of `mmkp.fusion.rules` on as many leading principal
    components as all modalities have. A combination that train lacks is answered by the largest one within it.
    """

    def __init__(
        self, views: dict[str, View], present: Bool[np.ndarray, "N M"], labels: Labels, fusion: FusionSection,
        fit: FitSection, tools: Tools,
    ) -> None:  # fmt: skip
        self.tools = tools
        features = {m: view.features for m, view in views.items()}
        self.common = min(f.shape[1] for f in features.values())
        self.rule: FusionRule | None = None
        if fusion.name != "concat":
            errors: dict[str, float] = {}
            if fusion.name == "weighted" and not fusion.weights:
                for here, (modality, view) in zip(present.T, views.items(), strict=True):
                    found = fitted(Regression(), view.rows(here), labels.rows(here), fit, tools)[1]
                    errors[modality] = found.mean_px
            self.rule = _rule(fusion.name, tuple(views), fusion, errors)
        self.experts: dict[Pattern, Ask] = {}
        self.sure: dict[Pattern, np.ndarray] = {}
        for pattern in np.ndindex(*(2,) * len(views)):
            chosen = np.array(pattern, bool)
            here = (present | ~chosen).all(1)
            if chosen.any() and here.sum() >= FEWEST:
                key = tuple(chosen.tolist())
                rows = {m: f[here] for m, f in features.items()}
                view = self._joined(rows, np.broadcast_to(chosen, (here.sum(), len(chosen))))
                self.experts[key], found = fitted(Regression(), view, labels.rows(here), fit, tools)
                self.sure[key] = found.sure(tools.size_px)

    def see(self, modality: str, view: View) -> View:
        """The features as they are."""
        return view

    def join(self, parts: dict[str, View], present: Bool[np.ndarray, "N M"]) -> Joined:
        """Join features and regress. `present` is (N, M) in the order of the training's views."""
        features = {m: view.features for m, view in parts.items()}
        keypoints = self.tools.shape.num_keypoints
        points, scores = np.zeros((len(present), keypoints, 2)), np.zeros((len(present), keypoints))
        answered = np.zeros(len(present), bool)
        for pattern, rows in _patterns(present):
            within = [p for p in self.experts if all(on or not asked for on, asked in zip(pattern, p, strict=True))]
            if not within:
                continue
            best = max(within, key=sum)
            mask = np.broadcast_to(np.array(best), present[rows].shape)
            view = self._joined({m: f[rows] for m, f in features.items()}, mask)
            points[rows], scores[rows], answered[rows] = self.experts[best](view)[0], self.sure[best], True
        return points, scores, answered

    def _joined(self, features: dict[str, np.ndarray], mask: Bool[np.ndarray, "N M"]) -> View:
        """One row of features for each item, of the modalities in `mask` (the same ones for all items)."""
        crops = np.empty((len(mask), 0, 0, 3), np.uint8)  # a regression does not look
        if self.rule is None:
            kept = [f for f, on in zip(features.values(), mask[0], strict=True) if on]
            return View(np.concatenate(kept, 1), crops)
        leading = {m: f[:, : self.common] * np.sqrt(self.common) for m, f in features.items()}
        return View(_apply(self.rule, leading, mask), crops)


def fitted(expert: Expert, view: View, labels: Labels, fit: FitSection, tools: Tools) -> tuple[Ask, Residuals]:
    """An expert fitted to all items, and the errors of its like on items that they had not seen."""
    folds = folds_of(labels.groups, fit.folds, fit.seed)
    return expert.fit(view, labels, tools), residuals(expert, view, labels, folds, tools)


System = ModelLevel | FeatureLevel


def _rule(kind: str, members: Sequence[str], fusion: FusionSection, errors_px: dict[str, float]) -> FusionRule:
    """A rule; `weighted` takes the recipe's weights, or the inverse of the errors."""
    given = {m: w for m, w in fusion.weights.items() if m in members}
    weights = given or {m: 1 / max(error, 1e-6) for m, error in errors_px.items()}
    return FusionRule(tuple(members), kind, weights if kind == "weighted" else None)  # type: ignore[arg-type]


def _apply(rule: FusionRule, parts: dict[str, np.ndarray], present: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        tensors = {m: torch.from_numpy(np.ascontiguousarray(part, dtype=np.float64)) for m, part in parts.items()}
        return rule(tensors, torch.from_numpy(np.ascontiguousarray(present))).double().numpy()


def _patterns(present: Bool[np.ndarray, "N M"]) -> list[tuple[Pattern, np.ndarray]]:
    """The combinations of modalities that occur, each with the items that have it."""
    found, index = np.unique(present, axis=0, return_inverse=True)
    return [(tuple(bool(on) for on in p), np.flatnonzero(index.ravel() == i)) for i, p in enumerate(found)]
