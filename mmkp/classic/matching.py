"""Keypoints by matching: SIFT features of a picture to those of annotated exemplars, their points carried over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np
from jaxtyping import Float
from pydantic import Field
from sklearn.cluster import KMeans

from mmkp.classic.descriptors import grey, root
from mmkp.classic.experts import Answer, Ask, Tools
from mmkp.classic.features import View
from mmkp.classic.inputs import Labels
from mmkp.errors import InputError
from mmkp.geometry import input_to_grid, transform
from mmkp.recipe import Positive, Section

POINTS_OF = {"similarity": 2, "homography": 4}  # that fix a transform: as many matches agree always
LARGEST_SCALE = 2.0  # boxes hold the object at about one size; a transform beyond it is a wrong one
SEED_OF_RANSAC = 0


@dataclass(frozen=True)
class Exemplar:
    """An annotated picture: where its features lie, (F, 2) px, input frame; their descriptors; its keypoints."""

    places_xy: np.ndarray
    descriptors: np.ndarray
    xy: Float[np.ndarray, "K 2"]


class Matching(Section):
    """Lowe's ratio test, then RANSAC for each exemplar; the transform with most inliers carries that one's points.

    With fewer than `min_inliers` the mean shape is the answer, and its score 0; else the score is the inliers' share
    of the matches. Crops are enlarged `enlarge` times before features are sought.

    Source: Lowe, IJCV 2004, section 7; RANSAC by OpenCV.
    """

    exemplars: Annotated[int, Field(ge=1)] = 16
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    transform: Literal["similarity", "homography"] = "similarity"
    threshold_px: Positive = 2.0
    min_inliers: Annotated[int, Field(ge=3)] = 6
    enlarge: Annotated[int, Field(ge=1, le=8)] = 2

    def fit(self, view: View, labels: Labels, tools: Tools) -> Ask:
        """Choose exemplars: the whole, visible shapes nearest to the centres of as many clusters.

        Raises:
            InputError: no training item has all keypoints labelled.
        """
        whole = np.flatnonzero(np.isfinite(labels.xy).all((1, 2)))
        seen = whole[(labels.visible[whole] == 2).all(1)]
        chosen = seen if len(seen) >= self.exemplars or not len(whole) else whole
        if not len(chosen):
            raise InputError(
                "method matching", expected="training items with all keypoints labelled", got="none",
                remedy="Take the method regression.",
            )  # fmt: skip
        codes = tools.shape.encode(labels.xy[chosen])
        count = min(self.exemplars, len(chosen))
        distances = KMeans(count, n_init=1, random_state=tools.seed).fit_transform(codes)
        nearest = np.unique(distances.argmin(0))
        exemplars = [
            Exemplar(*self._features(crop), xy)
            for crop, xy in zip(grey(view.crops[chosen[nearest]]), labels.xy[chosen[nearest]], strict=True)
        ]
        return lambda new: self._answer(new, exemplars, tools)

    def _features(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (F, 2) px, input frame, and RootSIFT (F, 128) of a grey crop."""
        large = cv2.resize(picture, None, fx=self.enlarge, fy=self.enlarge, interpolation=cv2.INTER_CUBIC)
        sift = cv2.SIFT.create(contrastThreshold=0.02, enable_precise_upscale=True)
        keypoints, descriptors = sift.detectAndCompute(large, None)
        if descriptors is None:
            return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
        return input_to_grid(np.array([k.pt for k in keypoints]), self.enlarge), root(descriptors)

    def _answer(self, view: View, exemplars: list[Exemplar], tools: Tools) -> Answer:
        points = np.tile(tools.shape.mean_xy, (len(view.crops), 1, 1))
        sure = np.zeros(points.shape[:2])
        for i, picture in enumerate(grey(view.crops)):
            places, descriptors = self._features(picture)
            found = [self._carry(e, places, descriptors) for e in exemplars]
            inliers, share, best = max(found, key=lambda f: f[:2])
            if inliers >= self.min_inliers and best is not None:
                points[i], sure[i] = best, share
        return points, sure

    def _carry(
        self, exemplar: Exemplar, places_xy: np.ndarray, descriptors: np.ndarray
    ) -> tuple[int, float, np.ndarray | None]:
        """Inliers, their share of the matches, and the exemplar's keypoints in the crop."""
        if min(len(descriptors), len(exemplar.descriptors)) < 2:
            return 0, 0.0, None
        pairs = cv2.BFMatcher().knnMatch(exemplar.descriptors, descriptors, k=2)
        kept = [a for a, b in pairs if a.distance < self.ratio * b.distance]
        if len(kept) < max(self.min_inliers, POINTS_OF[self.transform]):
            return 0, 0.0, None
        source = exemplar.places_xy[[m.queryIdx for m in kept]].astype(np.float32)
        target = places_xy[[m.trainIdx for m in kept]].astype(np.float32)
        cv2.setRNGSeed(SEED_OF_RANSAC)
        if self.transform == "homography":
            matrix, mask = cv2.findHomography(source, target, cv2.RANSAC, self.threshold_px)
        else:
            matrix, mask = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=self.threshold_px)
        if matrix is None:
            return 0, 0.0, None
        carried = _map(exemplar.xy, matrix)
        grown = np.ptp(carried, 0).max() / max(np.ptp(exemplar.xy, 0).max(), 1e-6)
        if len(exemplar.xy) > 1 and not 1 / LARGEST_SCALE <= grown <= LARGEST_SCALE:
            return 0, 0.0, None
        count = int(mask.sum())
        return count, count / len(kept), carried


def _map(points_xy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points through a (2, 3) affine or a (3, 3) homography."""
    if len(matrix) == 2:
        return transform(points_xy, matrix)
    lifted = np.column_stack([points_xy, np.ones(len(points_xy))]) @ matrix.T
    return lifted[:, :2] / lifted[:, 2:]
