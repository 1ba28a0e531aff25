"""COCO's keypoint AP and AR: pycocotools' numbers, computed for all images, areas and thresholds at once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from torch import Tensor

from mmkp.errors import InputError
from mmkp.metrics.coco_match import match
from mmkp.metrics.grouping import rank_by_image
from mmkp.metrics.similarity import Sigmas, sigma_array

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS_PX2 = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # both ends belong to it
MAX_DETECTIONS = 20


class _Rows:
    """Fields as numpy arrays of equally many rows, lengths in float64."""

    LENGTHS = ("keypoints_xy", "area", "box_xywh", "scores")

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        for name, value in given.items():
            if value is not None:
                if isinstance(value, Tensor):
                    value = (value.double() if value.is_floating_point() else value).detach().cpu().numpy()
                object.__setattr__(self, name, np.asarray(value, np.float64 if name in self.LENGTHS else None))
        rows = {name: len(getattr(self, name)) for name, value in given.items() if value is not None}
        if len(set(rows.values())) > 1:
            raise InputError(type(self).__name__, expected="equally many rows in every field", got=str(rows))

    def require(self, name: str, good: Any, expected: str) -> None:
        """Refuse the field `name` by the first row where `good` (one per row, or one for all) is False."""
        if not np.all(good):
            at = f"row {int(np.argmin(good))}" if np.ndim(good) else f"shape {getattr(self, name).shape}"
            raise InputError(f"{type(self).__name__}.{name}", expected=expected, got=at)


@dataclass(frozen=True)
class GroundTruth(_Rows):
    """The objects of all images, a row each; numpy arrays, torch tensors or lists.

    Args:
        image_ids: (G,) numbers or words.
        keypoints_xy: (G, K, 2) px.
        visible: (G, K) 0 unlabelled, 1 occluded, 2 visible.
        area: (G,) px^2, of the segment.
        box_xywh: (G, 4) px; where no point of an object is labelled, similarity is taken to its box, doubled.
        crowd: (G,) an ignored object that may take any number of detections; None for none.
        ignore: (G,) what is found of it counts neither for nor against; None: where no point is labelled.
    """

    image_ids: Any
    keypoints_xy: Any
    visible: Any
    area: Any
    box_xywh: Any
    crowd: Any = None
    ignore: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        labelled = self.visible > 0
        crowd = np.zeros(len(self.area), bool) if self.crowd is None else self.crowd.astype(bool)
        ignore = ~labelled.any(-1) if self.ignore is None else self.ignore.astype(bool)
        object.__setattr__(self, "crowd", crowd)
        object.__setattr__(self, "ignore", ignore | crowd)
        self.require("keypoints_xy", self.keypoints_xy.shape == (*self.visible.shape, 2), "(rows, K, 2), as visible")
        self.require("box_xywh", self.box_xywh.shape == (len(crowd), 4), "(rows, 4)")
        known = np.isfinite(self.keypoints_xy).all(-1) | ~labelled
        self.require("keypoints_xy", known.all(-1), "numbers where labelled")
        self.require("area", np.isfinite(self.area) & (self.area >= 0), "numbers of at least 0")
        self.require("box_xywh", np.isfinite(self.box_xywh).all(-1), "numbers")


@dataclass(frozen=True)
class Detections(_Rows):
    """What was found in all images, a row each; numpy arrays, torch tensors or lists.

    Args:
        image_ids: (D,) of the same kind as the ground truth's.
        keypoints_xy: (D, K, 2) px; a NaN point is a miss: its similarity is 0.
        scores: (D,) higher is surer.
        area: (D,) px^2, for the medium and large bins; None: of the keypoints' extent, as pycocotools takes it.
    """

    image_ids: Any
    keypoints_xy: Any
    scores: Any
    area: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.keypoints_xy.shape
        self.require("keypoints_xy", len(shape) == 3 and shape[2] == 2, "(rows, K, 2)")
        if self.area is None:
            object.__setattr__(self, "area", _extent(self.keypoints_xy))
        self.require("area", np.isfinite(self.area), "numbers")


def coco_ap(
    truth: GroundTruth, found: Detections, sigmas: Sigmas, max_detections: int = MAX_DETECTIONS
) -> dict[str, float]:
    """Average precision and recall over all images.

    Ties: among equal scores the smaller image id comes first, and within an image the earlier row (pycocotools'
    merge sort of its images in order). A NaN score counts below every number, as there, with a warning. Of equally
    similar objects a detection takes the later row.

    Args:
        truth: the objects.
        found: the detections; images without objects count (every detection there is wrong).
        sigmas: a schema, or (K,) numbers; never silently COCO's 17.
        max_detections: the best of each image that count.

    Returns:
        AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL in [0, 1]; -1.0 where there is no object to find.

    Raises:
        InputError: no sigmas, another K in truth, detections and sigmas.

    Source:
        Lin et al., Microsoft COCO, ECCV 2014; equal to pycocotools 2.0.11, save that an object with the id 0 is one
        like any other (there, what is matched to it counts as wrong).
    """
    spread = sigma_array(sigmas, truth.keypoints_xy.shape[1])
    if found.keypoints_xy.shape[1] != len(spread):
        raise InputError("Detections.keypoints_xy", expected=f"K = {len(spread)}", got=str(found.keypoints_xy.shape))
    if np.isnan(found.scores).any():
        warnings.warn(f"{np.isnan(found.scores).sum()} NaN scores count below every number", stacklevel=2)
    truth_image, found_image = _image_index(truth.image_ids, found.image_ids)
    ranked = rank_by_image(found_image, found.scores, max_detections)
    ranges = np.array(list(AREAS_PX2.values()))
    ignored = truth.ignore | _outside(truth.area, ranges)
    hit, skipped = match(truth, found, spread, ignored, truth_image, found_image[ranked], ranked, THRESHOLDS)
    skipped |= ~hit & _outside(found.area[ranked], ranges)[:, None]
    order = np.argsort(-found.scores[ranked], kind="stable")
    return _table(*precision_recall(hit[..., order], skipped[..., order], (~ignored).sum(-1)))


def precision_recall(hit: np.ndarray, skipped: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolated precision and final recall from detections in falling order of score.

    Args:
        hit: (A, T, D) the detection took an object.
        skipped: (A, T, D) it counts neither for nor against.
        objects: (A,) to be found.

    Returns:
        precision (A, T, 101) at the recalls 0 ... 1, recall (A, T); -1 where there are no objects.
    """
    right = np.cumsum(hit & ~skipped, axis=-1, dtype=np.float64)
    wrong = np.cumsum(~hit & ~skipped, axis=-1, dtype=np.float64)
    recall = right / np.maximum(objects, 1)[:, None, None]
    envelope = right / (wrong + right + np.spacing(1))
    envelope = np.maximum.accumulate(envelope[..., ::-1], axis=-1)[..., ::-1]
    areas, thresholds, count = hit.shape
    precision = np.zeros((areas, thresholds, len(RECALLS)))
    for at in np.ndindex(areas, thresholds):
        place = np.searchsorted(recall[at], RECALLS)
        reached = place < count
        precision[at][reached] = envelope[at][place[reached]]
    last = recall[..., -1] if count else np.zeros((areas, thresholds))
    none = objects == 0
    return np.where(none[:, None, None], -1.0, precision), np.where(none[:, None], -1.0, last)


def _table(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    made: dict[str, float] = {}
    for name, values in (("AP", precision), ("AR", recall)):
        whole, medium, large = values
        half, three_quarters = (int(np.argmin(abs(THRESHOLDS - t))) for t in (0.5, 0.75))
        parts = {"": whole, "50": whole[half], "75": whole[three_quarters], "M": medium, "L": large}
        made |= {name + part: float(np.mean(v)) for part, v in parts.items()}
    return made


def _image_index(truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids as whole numbers in the same order."""
    there = [ids for ids in (truth, found) if len(ids)]
    if len({ids.dtype.kind in "iuf" for ids in there}) > 1:
        raise InputError("image_ids", expected="the same kind in truth and detections", got="numbers and words")
    index = np.unique(np.concatenate(there), return_inverse=True)[1] if there else np.zeros(0, int)
    return index[: len(truth)], index[len(truth) :]


def _outside(area: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    return (area < ranges[:, :1]) | (area > ranges[:, 1:])


def _extent(xy: np.ndarray) -> np.ndarray:
    by_point = np.ascontiguousarray(xy.transpose(1, 2, 0), dtype=np.float64)  # (K, 2, D): minima run along memory
    known = np.isfinite(by_point).all(1, keepdims=True)
    low = np.where(known, by_point, np.inf).min(0, initial=np.inf)
    high = np.where(known, by_point, -np.inf).max(0, initial=-np.inf)
    side = np.where(known.any(0), high, 0.0) - np.where(known.any(0), low, 0.0)
    return side[0] * side[1]
