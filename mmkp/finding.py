"""Finding faces in a photograph: a coarse pass over an image pyramid, then the model's own crop, as cascades do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mmkp import geometry
from mmkp.data.face import LEFT_EYE, RIGHT_EYE, face_box
from mmkp.encoders.image import ImageEncoder, has_fixed_input_size
from mmkp.errors import InputError
from mmkp.heads.finder import STRIDE, Finder
from mmkp.modeling_mmkp import Encoded

EYE_NAMES = tuple(f"{side}_eye_{i}" for side in ("right", "left") for i in range(6))
SMALLEST = 1 / 6  # of the picture's width; a face is narrower than its box, so that the promise has room
SLIMMEST = 20  # height over width; smaller faces are left out in slimmer pictures, as the finest level would be huge
LARGEST = 1.5  # of the picture's shorter side: the box of a face that fills it
LEVEL_STEP = math.sqrt(2)  # from level to level of the pyramid; the spotter is fitted for half of it to either side
MARGIN = 0.25  # of a nominal face, around every level
SPOT_THRESHOLD = 0.2  # of the spotter: it may be wrong often, but must not miss
MOST_SPOTS = 16  # that are looked at more closely
OVERLAP = 0.4  # two boxes that share more (intersection over union) are one face
PASSES = 2  # crops of the model's own: one to aim, one to judge
MOST_MOVE = 0.6  # of a box's side: where its own points move it further, they are not those of a face
CROPS_AT_ONCE = 16


@dataclass(frozen=True)
class Found:
    """Faces, best first: boxes xywh (N, 4) px, image frame, and scores (N,) in [0, 1]."""

    boxes_xywh: Float[np.ndarray, "N 4"]
    scores: Float[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.scores)

    def best(self, keep: np.ndarray) -> Found:
        """Those of the given numbers or flags."""
        return Found(self.boxes_xywh[keep], self.scores[keep])


@dataclass(frozen=True)
class Looked:
    """Crops looked at: what the judge saw (N, C, n, n), its logits (N,), and the boxes that the points give (N, 4)."""

    views: Tensor
    logits: Float[np.ndarray, " N"]
    boxes_xywh: Float[np.ndarray, "N 4"]


def can_find(model: Any) -> bool:
    """Whether a model finds faces by itself: it has a finder, and points of the eyes to lay its own crop by."""
    return getattr(model, "finder", None) is not None and _has_eyes(model) and not model.finds_people


def check_finder(model: Any, where: str) -> None:
    """Refuse a model that cannot find faces for another one.

    Raises:
        InputError: so it is.
    """
    if not can_find(model):
        raise InputError(
            where, expected="a model that finds faces, such as face68-wild", got="one without a finder",
            remedy="`mmkp fit-finder` gives a face model one.",
        )  # fmt: skip


def check_findable(model: Any) -> None:
    """Refuse a model that cannot be given a finder.

    Raises:
        InputError: no eyes in its schema, a codec that finds people itself, no image, or an encoder that takes one
            size alone or several scales.
    """
    if not _has_eyes(model):
        raise InputError(
            "finder", expected=f"a schema with the eye points {EYE_NAMES[0]} ... {EYE_NAMES[-1]}, as face68 has",
            got=model.schema.name, remedy="Give the box with --box.",
        )  # fmt: skip
    if model.finds_people:
        raise InputError("finder", expected="a codec of one person", got=model.config.codec["name"])
    encoder = dict(model.encoders.items()).get("image")
    if type(encoder) is not ImageEncoder or has_fixed_input_size(model.config.image_config):
        got = "no image" if encoder is None else model.config.image_config.backbone
        raise InputError("finder", expected="an image encoder of one scale that takes pictures of any size", got=got)


def find(
    model: Any, processor: Any, image: UInt8[np.ndarray, "H W 3"], threshold: float | None = None, most: int = 20
) -> Found:
    """The faces of a picture that cover at least a sixth of its width, and a 120th of its height.

    Args:
        model: one that `can_find`.
        processor: its processor.
        image: RGB.
        threshold: least score; without, the one that was chosen when the finder was fitted.
        most: faces at most.

    Returns:
        Boxes as the model was trained with (`mmkp.data.face.face_box`), best first; none where there is no face.

    Raises:
        InputError: a model that cannot find.
    """
    if not can_find(model):
        raise InputError("find", expected="a model with a finder and eye points", got=f"schema {model.schema.name}")
    least = model.config.finder["threshold"] if threshold is None else threshold
    spotted = spot(model, processor, image)
    boxes, scores = spotted.boxes_xywh, spotted.scores
    for _ in range(PASSES):
        if not len(boxes):
            break
        looked = look(model, processor, image, boxes)
        stays = settled(boxes, looked.boxes_xywh) & (looked.logits > math.log(0.02 / 0.98))
        boxes, scores = looked.boxes_xywh[stays], 1 / (1 + np.exp(-looked.logits[stays]))
    good = scores >= least
    return suppress(Found(boxes[good], scores[good]), most)


@torch.inference_mode()
def spot(model: Any, processor: Any, image: UInt8[np.ndarray, "H W 3"], threshold: float = SPOT_THRESHOLD) -> Found:
    """The coarse pass: candidates over an image pyramid, best first, the same face only once."""
    finder: Finder = model.finder
    boxes, scores = [], []
    for affine, size_hw in pyramid((image.shape[0], image.shape[1]), finder.face_px):
        level = geometry.warp(image, affine, size_hw)
        pixels = processor.image_processor.normalize(level[None]).to(model.device, model.dtype)
        said = finder.spot(finder.gather(model.encoders["image"].stages(pixels), size_hw))[0].float()
        at = (said[0].sigmoid() > threshold).nonzero()
        chosen = said[:, at[:, 0], at[:, 1]].double().cpu().numpy()
        cells = at.flip(-1).double().cpu().numpy()
        middles = geometry.grid_to_input(cells, STRIDE) + chosen[1:3].T * finder.face_px
        sides = finder.face_px * np.exp(chosen[3])[:, None] / affine[0, 0]
        middles = geometry.input_to_image(middles, affine)
        boxes.append(np.concatenate([middles - sides / 2, sides, sides], 1))
        scores.append(1 / (1 + np.exp(-chosen[0])))
    found = Found(np.concatenate(boxes), np.concatenate(scores))
    middles = found.boxes_xywh[:, :2] + found.boxes_xywh[:, 2:] / 2
    inside: Any = ((middles > -0.5) & (middles < np.array(image.shape[1::-1]) - 0.5)).all(1)
    return suppress(found.best(inside), MOST_SPOTS)


def pyramid(image_hw: tuple[int, int], face_px: int) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """The levels, from fine to coarse: an affine from the image frame, and the level's height and width in px.

    Every size between the smallest and the largest face is `face_px` on one of them, within half a `LEVEL_STEP`.
    Around the picture lies some black, so that a face that is cut by its border is not cut by the level's too.
    """
    height, width = image_hw
    smallest, largest = SMALLEST * max(width, height / SLIMMEST), LARGEST * min(image_hw)
    count = max(1, 1 + math.ceil(math.log(max(1, largest / smallest), LEVEL_STEP)))
    levels = []
    for number in range(count):
        scale = face_px / (smallest * LEVEL_STEP**number)
        sides = [
            2 * STRIDE * math.ceil((side * scale + 2 * MARGIN * face_px) / (2 * STRIDE)) for side in (height, width)
        ]
        shift = [(own - 1) / 2 - scale * (side - 1) / 2 for own, side in zip(sides, image_hw, strict=True)]
        levels.append((np.array([[scale, 0, shift[1]], [0, scale, shift[0]]]), (sides[0], sides[1])))
    return levels


@torch.inference_mode()
def look(model: Any, processor: Any, image: UInt8[np.ndarray, "H W 3"], boxes_xywh: Float[np.ndarray, "N 4"]) -> Looked:
    """Look at crops as the network gets them: the judge's view, and where the points say that the face is."""
    parts = [
        _look(model, processor, image, boxes_xywh[i : i + CROPS_AT_ONCE])
        for i in range(0, len(boxes_xywh), CROPS_AT_ONCE)
    ]
    logits, boxes = (np.concatenate([p[i] for p in parts]) for i in (1, 2))
    return Looked(torch.cat([p[0] for p in parts]), logits, boxes)


def _look(model: Any, processor: Any, image: np.ndarray, boxes: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
    made = processor.image_processor.preprocess([image] * len(boxes), boxes=list(boxes))
    pixels = made["pixel_values"].to(model.device, model.dtype)
    size_hw = model.config.input_size_hw
    stages = model.encoders["image"].stages(pixels)
    view = model.finder.view(model.finder.gather(stages, size_hw))
    tokens = model.encoders["image"].neck(stages, model.config.grid_hw).flatten(2).transpose(1, 2)
    present = torch.tensor([m == "image" for m in model.modalities], device=tokens.device).expand(len(boxes), -1)
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    keypoints_xy, _ = model.read(model.detect(Encoded({"image": tokens}, {"image": mask}, present)))
    points = geometry.input_to_image(keypoints_xy.double().cpu(), made["image_to_input"].double()).numpy()
    again = np.stack([_box_of(p[_eye_index(model)]) for p in points])
    return view, model.finder.verdict(view).float().cpu().numpy(), again


def suppress(found: Found, most: int) -> Found:
    """The best of every heap of boxes that overlap, best first, `most` at most."""
    order = np.argsort(-found.scores, kind="stable")
    kept: list[int] = []
    for i in order:
        if len(kept) == most:
            break
        if not kept or overlap(found.boxes_xywh[[i]], found.boxes_xywh[kept]).max() <= OVERLAP:
            kept.append(int(i))
    return found.best(np.array(kept, dtype=int))


def overlap(one: Float[np.ndarray, "N 4"], other: Float[np.ndarray, "M 4"]) -> Float[np.ndarray, "N M"]:
    """Intersection over union of boxes xywh, of every one with every other."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum((one[:, :2] + one[:, 2:])[:, None], (other[:, :2] + other[:, 2:])[None])
    shared = np.clip(high - low, 0, None).prod(-1)
    return shared / (one[:, 2:].prod(-1)[:, None] + other[:, 2:].prod(-1)[None] - shared)


def settled(before: Float[np.ndarray, "N 4"], after: Float[np.ndarray, "N 4"]) -> Bool[np.ndarray, " N"]:
    """Which boxes their own points leave about where they are: the aim settles on a face, elsewhere it wanders."""
    move = np.abs((after[:, :2] + after[:, 2:] / 2) - (before[:, :2] + before[:, 2:] / 2)).max(1) / before[:, 2]
    grow = after[:, 2] / before[:, 2]
    return (move < MOST_MOVE) & (grow > 1 - MOST_MOVE) & (grow < 1 / (1 - MOST_MOVE))


def _box_of(eyes_xy: Float[np.ndarray, "12 2"]) -> Float[np.ndarray, " 4"]:
    points = np.full((LEFT_EYE.stop, 2), np.nan)
    points[RIGHT_EYE.start :] = eyes_xy
    box = face_box(points)
    box[2:] = np.maximum(box[2:], 1e-3)  # eyes that coincide: a box without area is one that no face has
    return box


def _has_eyes(model: Any) -> bool:
    return set(EYE_NAMES) <= set(model.schema.keypoints)


def _eye_index(model: Any) -> list[int]:
    return [model.schema.keypoints.index(name) for name in EYE_NAMES]
