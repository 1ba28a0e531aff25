"""Object keypoint similarity, and the suppression of detections of one and the same object by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mmkp.errors import InputError
from mmkp.metrics.arrays import Array, as_double, distances, known_mean, namespace
from mmkp.metrics.grouping import PairTable, chunks, rank_by_image
from mmkp.schema import KeypointSchema

Sigmas = KeypointSchema | Sequence[float] | np.ndarray | Tensor | None


def schema_sigmas(schema: KeypointSchema) -> Float[np.ndarray, " K"]:
    """The schema's OKS sigmas.

    Raises:
        InputError: it has none. Those of COCO's 17 body points mean nothing for other points.
    """
    if schema.sigmas is None:
        raise InputError(
            f"OKS with schema {schema.name}", expected="sigmas, one per keypoint", got="a schema without sigmas",
            remedy="Add `sigmas` to the schema, or use NME or PCK.",
        )  # fmt: skip
    return np.asarray(schema.sigmas, dtype=np.float64)


def sigma_array(sigmas: Sigmas, keypoints: int) -> Float[np.ndarray, " K"]:
    """Sigmas of `keypoints` points from a schema or from numbers.

    Raises:
        InputError: none are there, another number of them than of keypoints, or one that is not above 0.
    """
    if isinstance(sigmas, KeypointSchema):
        found = schema_sigmas(sigmas)
    elif sigmas is None:
        raise InputError("OKS", expected="sigmas, one per keypoint", got="none", remedy="Give the schema's.")
    else:
        found = np.asarray(sigmas.cpu() if isinstance(sigmas, Tensor) else sigmas, dtype=np.float64)
    if found.shape != (keypoints,):
        raise InputError("OKS sigmas", expected=f"{keypoints}, one per keypoint", got=f"shape {found.shape}")
    if not (np.isfinite(found) & (found > 0)).all():
        raise InputError("OKS sigmas", expected="lengths above 0", got=str(found.min()))
    return found


def oks(
    predicted_xy: Float[Array, "N K 2"],
    true_xy: Float[Array, "N K 2"],
    labelled: Bool[Array, "N K"],
    area: Float[Array, " N"],
    sigmas: Sigmas,
) -> Float[Array, " N"]:
    """OKS of each prediction with its own truth: the mean over labelled points of exp(-d^2 / (2 area (2 sigma)^2)).

    Args:
        predicted_xy: px; NaN is a miss and adds 0.
        true_xy: px.
        labelled: False leaves the point out.
        area: of the object, px^2; COCO's is the segment's, which is about half of the box's.
        sigmas: a schema, or (K,) numbers.

    Returns:
        (N,) in [0, 1]; NaN where no point is labelled, or the area is not a number of at least 0.

    Raises:
        InputError: the schema has no sigmas.

    Source:
        COCO keypoint evaluation (cocodataset.org), pycocotools 2.0.
    """
    xp = namespace(predicted_xy, true_xy, labelled, area)
    spread = (2 * sigma_array(sigmas, predicted_xy.shape[1])) ** 2
    if xp is torch:
        spread = as_double(torch.from_numpy(spread).to(area.device))
    usable = xp.isfinite(area) & (area >= 0)
    size = xp.where(usable, as_double(area), 0.0) + np.spacing(1)
    similarity = xp.exp(-(distances(predicted_xy, true_xy) ** 2) / spread / size[:, None] / 2)
    similarity = xp.where(xp.isfinite(predicted_xy).all(-1), similarity, 0.0)
    return known_mean(xp.where(labelled & usable[:, None], similarity, np.nan))


def oks_nms(
    keypoints_xy: Float[np.ndarray, "D K 2"],
    scores: Float[np.ndarray, " D"],
    area: Float[np.ndarray, " D"],
    sigmas: Sigmas,
    threshold: float = 0.9,
    image_ids: Shaped[np.ndarray, " D"] | None = None,
) -> Int[np.ndarray, " kept"]:
    """Greedy suppression: a detection falls to a better one of its image with an OKS above the threshold.

    Args:
        keypoints_xy: px; a NaN point has similarity 0 to any other.
        scores: equal ones keep their input order; NaN comes last.
        area: px^2; a pair takes the mean of its two.
        sigmas: a schema, or (K,) numbers.
        threshold: of OKS.
        image_ids: None where all are of one image.

    Returns:
        The indices that stay: by image in ascending order of its id, then by falling score.

    Source:
        Papandreou et al., Towards Accurate Multi-person Pose Estimation in the Wild, CVPR 2017.
    """
    spread = sigma_array(sigmas, keypoints_xy.shape[1])
    image = np.zeros(len(scores), int) if image_ids is None else np.unique(image_ids, return_inverse=True)[1]
    order = rank_by_image(image, scores, len(scores))
    kept = np.ones(len(order), bool)
    for table in PairTable.batches(image[order], image[order]):
        first, second, at = table.pairs()
        close = np.zeros(table.shape, bool)
        close[at] = _pair_similarity(keypoints_xy, area, spread, order[first], order[second]) > threshold
        alive = _suppress(close, table.row_there)
        kept[table.rows[table.row_there]] = alive[table.row_there]
    return order[kept]


def _pair_similarity(xy: Any, area: Any, sigmas: Any, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """OKS of pairs of detections by all their points; 0 where the area is not known."""
    result = np.zeros(len(first))
    target = np.where(np.isfinite(xy), xy, 1e30)  # a point that was not found lies far from any other
    for part in chunks(np.arange(len(first)), len(sigmas)):
        a, b = first[part], second[part]
        everywhere = np.ones((len(part), len(sigmas)), bool)
        result[part] = oks(xy[a], target[b], everywhere, (area[a] + area[b]) / 2, sigmas)
    return np.nan_to_num(result)


def _suppress(close: Bool[np.ndarray, "I D D"], there: Bool[np.ndarray, "I D"]) -> Bool[np.ndarray, "I D"]:
    """Which of each image's detections, best first, no kept better one is close to."""
    alive = there.copy()
    places = np.arange(there.shape[1])
    for rank in places:
        falls = alive[:, rank, None] & close[:, rank] & (places > rank)
        alive &= ~falls
    return alive
