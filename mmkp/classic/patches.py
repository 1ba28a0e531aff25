"""Keypoints by classifying patches: which keypoint, if any, lies in the middle of each patch of a lattice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Float32
from pydantic import Field
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier

from mmkp.classic.descriptors import grey, l2_hys, lattice, orientation_maps
from mmkp.classic.experts import Answer, Ask, Tools
from mmkp.classic.features import View
from mmkp.classic.inputs import Labels
from mmkp.classic.shape import ShapeModel
from mmkp.errors import InputError
from mmkp.recipe import Positive, Section

Count = Annotated[int, Field(ge=1)]
CELLS, BINS = 4, 8  # of a patch's descriptor, as in SIFT
RARE = 1e-4  # a class is never less likely than this: one patch cannot veto a keypoint
FEWEST = 3  # patches of a keypoint: with fewer it has no class of its own, and the shape alone places it
CHUNK = 32  # items whose score maps are held at once
Classify = Callable[[np.ndarray], np.ndarray]  # descriptors (P, D) -> likelihoods (P, K), up to a factor for each k


class Patches(Section):
    """What both classifiers share.

    A patch of `patch_px` is described by 4 x 4 cells of oriented gradients; the places are `step_px` apart. A patch
    within `near_px` of a visible keypoint belongs to it, `backgrounds` patches for each picture to none. The maps of
    likelihood are weighted with a Gaussian about the mean shape; the mean and the variance that each map then has go
    to the shape model, which says where the points are. `passes`: how often, each time about the shape found before,
    with half the deviation.

    Source: constrained local models with a Gaussian for each map: Saragih et al., IJCV 2011, section 3.2.
    """

    patch_px: Annotated[int, Field(ge=4)] = 16
    step_px: Count = 2
    near_px: Positive = 1.5
    backgrounds: Count = 12
    patches: Count = 30_000
    dimension: Count = 48
    passes: Count = 3

    @abstractmethod
    def classifier(self, x: np.ndarray, y: np.ndarray, tools: Tools) -> Any:
        """A fitted scikit-learn classifier of descriptors (P, D) into classes (P,), the last one background."""

    def fit(self, view: View, labels: Labels, tools: Tools) -> Ask:
        """Draw patches from the crops and fit the classifier."""
        x, y = self._training_patches(view.crops, labels, tools)
        pca = PCA(min(self.dimension, len(x) - 1, x.shape[1]), random_state=tools.seed).fit(x)
        keypoints = tools.shape.num_keypoints
        model = self.classifier(pca.transform(x), y, tools)
        known = np.array([c for c in model.classes_ if c < keypoints], dtype=int)
        prior = np.bincount(y, minlength=keypoints + 1)[known] / len(y)

        def classify(descriptors: np.ndarray) -> np.ndarray:
            found = np.ones((len(descriptors), keypoints))  # a keypoint that train never shows: flat, the shape tells
            probability = model.predict_proba(pca.transform(descriptors))[:, np.searchsorted(model.classes_, known)]
            found[:, known] = np.maximum(probability, RARE) / prior
            return found

        deviation = np.maximum(tools.shape.deviation_px, self.step_px)
        return lambda new: self._answer(new.crops, classify, tools, deviation)

    def _training_patches(
        self, crops: np.ndarray, labels: Labels, tools: Tools
    ) -> tuple[Float[np.ndarray, "P D"], np.ndarray]:
        rng = np.random.default_rng(tools.seed)
        keypoints, side = labels.xy.shape[1], crops.shape[1]
        inside = ((labels.xy >= 0) & (labels.xy <= side - 1)).all(-1)
        items, points = np.nonzero((labels.visible == 2) & inside)
        at = labels.xy[items, points] + rng.uniform(-1, 1, (len(items), 2)) * self.near_px
        other = np.repeat(np.arange(len(crops)), self.backgrounds)
        places = rng.uniform(0, side - 1, (len(other), 2))
        with np.errstate(invalid="ignore"):
            gap = np.linalg.norm(np.nan_to_num(labels.xy[other], nan=1e6) - places[:, None], axis=-1).min(1)
        free = gap > 2 * self.near_px
        items, at = np.concatenate([items, other[free]]), np.concatenate([at, places[free]])
        classes = np.concatenate([points, np.full(free.sum(), keypoints)])
        kept = rng.permutation(len(items))[: self.patches]
        kept = kept[np.bincount(classes[kept], minlength=keypoints + 1)[classes[kept]] >= FEWEST]
        if len(np.unique(classes[kept])) < 2:
            raise InputError(
                "method", expected=f"visible keypoints in at least {FEWEST} training pictures, and background",
                got=f"{len(items)} patches", remedy="Take the method regression.",
            )  # fmt: skip
        kept = kept[np.argsort(items[kept], kind="stable")]
        return self._describe(crops, items[kept], at[kept]), classes[kept]

    def _describe(self, crops: np.ndarray, items: np.ndarray, at_xy: np.ndarray) -> Float[np.ndarray, "P D"]:
        """Descriptors of patches about points (P, 2) px, to the nearest pixel, of the crops `items` (P,), ascending."""
        made = np.zeros((len(items), CELLS * CELLS * BINS), np.float32)
        for first in range(0, len(crops), 8 * CHUNK):
            rows = slice(*np.searchsorted(items, [first, first + 8 * CHUNK]))
            cells = self._cells(crops[first : first + 8 * CHUNK])
            made[rows] = self._gather(cells, items[rows] - first, at_xy[rows])
        return made

    def _cells(self, crops: np.ndarray) -> np.ndarray:
        """(n, S + patch_px, S + patch_px, BINS): orientation maps summed over the cell that begins at each pixel."""
        margin, cell = self.patch_px // 2, max(1, self.patch_px // CELLS)
        maps = orientation_maps(grey(crops), BINS)
        padded = np.pad(maps, ((0, 0), (margin + 1, margin + cell), (margin + 1, margin + cell), (0, 0)))
        total = padded.cumsum(1, dtype=np.float64).cumsum(2)
        summed = total[:, cell:, cell:] - total[:, :-cell, cell:] - total[:, cell:, :-cell] + total[:, :-cell, :-cell]
        return summed.astype(np.float32)

    def _gather(self, cells: np.ndarray, items: np.ndarray, at_xy: np.ndarray) -> np.ndarray:
        cell = max(1, self.patch_px // CELLS)
        corner = np.rint(at_xy).astype(int)  # in the padded frame, half a patch up and left of the point
        steps = np.arange(CELLS) * cell
        rows = (corner[:, 1, None] + steps).clip(0, cells.shape[1] - 1)
        columns = (corner[:, 0, None] + steps).clip(0, cells.shape[2] - 1)
        found = cells[items[:, None, None], rows[:, :, None], columns[:, None, :]]
        return l2_hys(found.reshape(len(items), CELLS * CELLS * BINS))

    def _answer(self, crops: np.ndarray, classify: Classify, tools: Tools, deviation: np.ndarray) -> Answer:
        places = lattice(crops.shape[1], self.step_px)
        shape = tools.shape
        points, sure = np.zeros((len(crops), shape.num_keypoints, 2)), np.zeros((len(crops), shape.num_keypoints))
        for first in range(0, len(crops), CHUNK):
            part = crops[first : first + CHUNK]
            items = np.repeat(np.arange(len(part)), len(places))
            descriptors = self._gather(self._cells(part), items, np.tile(places, (len(part), 1)))
            maps = np.log(classify(descriptors)).astype(np.float32).reshape(len(part), len(places), -1)
            rows = slice(first, first + len(part))
            points[rows], sure[rows] = self._settle(maps, places, shape, deviation)
        return points, sure

    def _settle(
        self, maps: Float[np.ndarray, "N P K"], places: Float[np.ndarray, "P 2"], shape: ShapeModel,
        deviation: Float[np.ndarray, " K"],
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Log-likelihood maps -> points (N, K, 2) px and the share of each map's weight within `near_px` of them."""
        about = np.broadcast_to(shape.mean_xy, (len(maps), *shape.mean_xy.shape))
        weight, moments = maps, np.column_stack([places, (places**2).sum(1)]).astype(np.float32)
        for _ in range(self.passes):
            logs = maps - _squared(places, about) / (2 * deviation**2).astype(np.float32)
            weight = np.exp(logs - logs.max(1, keepdims=True))
            weight /= weight.sum(1, keepdims=True)
            found = weight.transpose(0, 2, 1) @ moments
            mean, variance = found[..., :2].astype(np.float64), found[..., 2] - (found[..., :2] ** 2).sum(-1)
            # a Gaussian divided by the prior's is the map's own: what the prior knew is not counted twice
            own = 1 / np.maximum(2 / np.maximum(variance, self.step_px**2 / 6) - 1 / deviation**2, 1e-6)
            about = shape.decode(shape.encode(mean, own))
            deviation = np.maximum(deviation / 2, self.step_px)
        near = _squared(places, about) <= (2 * self.near_px) ** 2
        return about, (weight * near).sum(1)


def _squared(places: Float[np.ndarray, "P 2"], about: Float[np.ndarray, "N K 2"]) -> Float32[np.ndarray, "N P K"]:
    """Squared distances, px^2."""
    across, down = (places[:, None, i].astype(np.float32) - about[:, None, :, i].astype(np.float32) for i in (0, 1))
    return across**2 + down**2


class PatchForest(Patches):
    """Patches by a random forest."""

    trees: Count = 24
    depth: Count = 14
    leaf_patches: Count = 4

    def classifier(self, x: np.ndarray, y: np.ndarray, tools: Tools) -> Any:
        """By scikit-learn."""
        model = RandomForestClassifier(
            self.trees, max_depth=self.depth, min_samples_leaf=self.leaf_patches, n_jobs=tools.workers,
            random_state=tools.seed,
        ).fit(x, y)  # fmt: skip
        model.n_jobs = 1
        return model


class PatchSvm(Patches):
    """Patches by linear support vectors, one class against the rest, their margins calibrated by Platt's sigmoid.

    Source: Pegasos, Shalev-Shwartz et al., ICML 2007: the hinge by stochastic gradient.
    """

    alpha: Positive = 1e-4
    epochs: Count = 10

    def classifier(self, x: np.ndarray, y: np.ndarray, tools: Tools) -> Any:
        """By scikit-learn."""
        machine = SGDClassifier(
            loss="hinge", alpha=self.alpha, max_iter=self.epochs, tol=None, average=True, n_jobs=tools.workers,
            random_state=tools.seed,
        )  # fmt: skip
        return CalibratedClassifierCV(machine, cv=FEWEST, ensemble=False).fit(x, y)
