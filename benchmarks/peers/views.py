"""The pictures that a peer is given, each with the affine that brings its points back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mmkp import geometry
from mmkp.data.sample import Sample


@dataclass(frozen=True)
class View:
    """How a peer sees a sample: resampled by cubic interpolation, the picture's edge repeated beyond it.

    Attributes:
        margin: what is shown, in sides of the box, about the box's middle; 0 shows the whole picture, without the box.
        side_px: of the square shown; with margin 0 of the picture's longer side. 0 leaves the size as it is.
        input_px: the box is first reduced to a square of so many px, as a network of that input sees it, and nothing
            beyond it is known; 0 does without.
    """

    margin: float = 0.0
    side_px: int = 0
    input_px: int = 0

    @property
    def name(self) -> str:
        """For tables."""
        shown = f"box x {self.margin:g}" if self.margin else "whole picture"
        return f"{shown} at {self.side_px} px" if self.side_px else shown


@dataclass(frozen=True)
class Shown:
    """Pictures (H, W, 3) with (2, 3) image frame -> their frame, and the samples' boxes in their frame, (N, 4) px."""

    pictures: list[UInt8[np.ndarray, "H W 3"]]
    affines: Float[np.ndarray, "N 2 3"]
    boxes_xywh: Float[np.ndarray, "N 4"]

    def back(self, points_xy: Float[np.ndarray, "N K 2"]) -> Float[np.ndarray, "N K 2"]:
        """Points in the pictures' frames -> image frame."""
        return geometry.input_to_image(points_xy, self.affines)


def reduced(sample: Sample, input_px: int) -> Sample:
    """The sample as a network of a small input sees it: its box alone, at that size."""
    affine = geometry.crop_affine(geometry.square_box(sample.box_xywh), (input_px, input_px))
    assert sample.image is not None
    points = geometry.transform(sample.keypoints_xy.astype(np.float64), affine).astype(np.float32)
    return sample.replace(
        image=geometry.warp(sample.image, affine, (input_px, input_px)), keypoints_xy=points,
        box_xywh=geometry.whole_image_box((input_px, input_px)),
    )  # fmt: skip


def show(samples: Sequence[Sample], view: View) -> Shown:
    """The samples through a view; the boxes are the samples' own."""
    made = [_show_one(sample, view) for sample in samples]
    pictures, affines, boxes = zip(*made, strict=True)
    return Shown(list(pictures), np.stack(affines), np.stack(boxes))


def _show_one(sample: Sample, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first = geometry.identity()
    box = geometry.square_box(sample.box_xywh)
    if view.input_px:
        first = geometry.crop_affine(box, (view.input_px, view.input_px))
        sample = reduced(sample, view.input_px)
        box = sample.box_xywh
    assert sample.image is not None
    picture, affine = _resample(sample.image, box, view)
    shown_box = np.array([*geometry.transform(box[None, :2], affine)[0], *(box[2:] * affine[0, 0])])
    return picture, geometry.compose(affine, first), shown_box


def _resample(image: np.ndarray, box_xywh: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    height, width = image.shape[:2]
    if view.margin:
        middle, side = box_xywh[:2] + box_xywh[2:] / 2, box_xywh[2] * view.margin
        region = np.array([*(middle - side / 2), side, side])
        size = (view.side_px or round(side), view.side_px or round(side))
    elif view.side_px:
        region = geometry.whole_image_box((height, width))
        scale = view.side_px / max(height, width)
        size = (round(height * scale), round(width * scale))
    else:
        return image, geometry.identity()
    affine = geometry.crop_affine(region, size)
    shape, border = (size[1], size[0]), cv2.BORDER_REPLICATE
    method = cv2.INTER_CUBIC if affine[0, 0] > 0.7 else cv2.INTER_AREA
    if method == cv2.INTER_AREA:
        return geometry.warp(image, affine, size), affine
    return cv2.warpAffine(image, affine, shape, flags=method, borderMode=border), affine
