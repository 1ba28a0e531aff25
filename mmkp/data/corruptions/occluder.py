"""Opaque things over a group of keypoints, where the group lies on average: never where its labels say it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from mmkp import geometry
from mmkp.data.corrupt import SUBPIXEL_BITS, can_cover, under
from mmkp.data.corruptions.base import Corruption
from mmkp.data.face import BOX_SIDE, eye_frame
from mmkp.data.sample import Sample
from mmkp.data.talker.mouth import MouthState, landmarks
from mmkp.data.talker.person import draw_person
from mmkp.errors import InputError, nearest
from mmkp.schema import KeypointSchema

# Radius about each point, % of the box's side: 2 leaves parts of a lip in sight, 16 is wider than any mouth opens.
RADII_PERCENT = (2.0, 4.0, 8.0, 12.0, 16.0)
GRAINS = (1, 1, 6, 24)  # cells a side of the filling; 1 is a plain colour
PERSONS = 64  # drawn for the mean face: its points then move by less than 0.003 outer-eye distances


def occluder(schema: KeypointSchema, group: str) -> Corruption:
    """The corruption that hides a keypoint group of a schema.

    On face68 it is placed from the eyes alone, as the protocol asks of a cover; elsewhere in the box, where the
    group's points lie on average in the donors.

    Raises:
        InputError: the schema has no such group.
    """
    if group not in schema.groups:
        raise InputError(
            "occluder", expected=f"a group of {schema.name}", got=repr(group), remedy=nearest(group, schema.groups)
        )
    face = schema.name == "face68"
    change = partial(_occlude, points=schema.group_indices()[group], segments=_segments(schema, group), face=face)
    return Corruption(
        "image", f"occluder over the {group}", "% of box side, radius about each point", RADII_PERCENT, change,
        scope="group", needs_donors=not face,
    )  # fmt: skip


def _segments(schema: KeypointSchema, group: str) -> Int[np.ndarray, "S 2"]:
    """The group's edges, and each of its points by itself, so that one without an edge is hidden too."""
    members = set(schema.groups[group])
    edges = [edge for edge in schema.edges if members.issuperset(edge)]
    return np.array([*edges, *((point, point) for point in sorted(members))])


def _occlude(
    sample: Sample, percent: float, rng: np.random.Generator, donors: Sequence[Sample],
    points: np.ndarray, segments: np.ndarray, face: bool,
) -> Sample | None:  # fmt: skip
    assert sample.image is not None
    placed = _placed_by_eyes(sample) if face else _placed_in_box(sample, donors)
    if placed is None:
        return None
    centres_xy, side_px = placed
    if not np.isfinite(centres_xy[points]).all():
        segments = segments[np.isfinite(centres_xy[segments]).all((1, 2))]  # points that no donor has
    if not len(segments):
        return None
    alpha = _stroke(centres_xy[segments], 2 * percent / 100 * side_px, sample.image.shape[:2])
    image = sample.image.copy()
    cv2.copyTo(_filling(rng, image.shape[:2]), alpha, image)
    changed = sample.replace(image=image, visible=_flags(sample.visible, alpha, sample.keypoints_xy))
    if sample.people_xy is None or sample.people_visible is None:
        return changed
    return changed.replace(people_visible=_flags(sample.people_visible, alpha, sample.people_xy))


def _placed_by_eyes(sample: Sample) -> tuple[Float[np.ndarray, "68 2"], float] | None:
    """The mean face turned and scaled to the sample's eyes, px, and the side of the box that the eyes ask for."""
    if not can_cover(sample.keypoints_xy):
        return None
    middle, distance, roll = eye_frame(sample.keypoints_xy.astype(np.float64))
    cos, sin = distance * np.cos(roll), distance * np.sin(roll)
    return geometry.transform(mean_face(), np.array([[cos, -sin, middle[0]], [sin, cos, middle[1]]])), (
        BOX_SIDE * distance
    )


@lru_cache(maxsize=1)
def mean_face() -> Float[np.ndarray, "68 2"]:
    """A face at rest seen from the front, middle of the eyes at 0, outer-eye distance 1: the mean of drawn persons."""
    faces = [landmarks(draw_person(np.random.default_rng(seed)), MouthState())[:, :2] for seed in range(PERSONS)]
    mean = np.mean(faces, axis=0)
    middle, distance, _ = eye_frame(mean)
    return (mean - middle) / distance


def _placed_in_box(sample: Sample, donors: Sequence[Sample]) -> tuple[Float[np.ndarray, "K 2"], float] | None:
    """The donors' mean shape laid into the sample's box, px, and the box's side; None without donors of its kind."""
    shapes = [
        (donor.keypoints_xy - donor.box_xywh[:2]) / donor.box_xywh[2:]
        for donor in donors
        if donor.keypoints_xy.shape == sample.keypoints_xy.shape
    ]
    if not shapes:
        return None
    known = np.isfinite(shapes).all(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, shapes, 0.0).sum(0) / known.sum(0)
    box = np.asarray(sample.box_xywh, dtype=np.float64)
    return box[:2] + mean * box[2:], float(np.sqrt(box[2] * box[3]))


def _stroke(
    segments_xy: Float[np.ndarray, "S 2 2"], width_px: float, size_hw: tuple[int, ...]
) -> UInt8[np.ndarray, "H W"]:
    """Opacity of segments drawn with round ends, 255 = opaque."""
    alpha = np.zeros(size_hw, np.uint8)
    fixed = np.rint((segments_xy * (1 << SUBPIXEL_BITS)).clip(-1e6, 1e6)).astype(np.int32)
    cv2.polylines(alpha, list(fixed), False, 255, max(1, round(width_px)), cv2.LINE_8, SUBPIXEL_BITS)
    return alpha


def _filling(rng: np.random.Generator, size_hw: tuple[int, ...]) -> UInt8[np.ndarray, "H W 3"]:
    """One colour, or coloured cells, over the whole picture."""
    cells = GRAINS[int(rng.integers(len(GRAINS)))]
    colours = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return cv2.resize(colours, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST)


def _flags(visible: np.ndarray, alpha: np.ndarray, points_xy: np.ndarray) -> np.ndarray:
    """The flags, 1 (hidden) for a visible point that lies under the occluder."""
    hidden = under(alpha, points_xy.reshape(-1, 2)).reshape(visible.shape)
    return np.where(hidden & (visible == 2), 1, visible).astype(visible.dtype)
