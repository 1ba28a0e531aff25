"""Faults of the picture. Lengths are shares of the box's side, so that a severity is as hard at any resolution."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from jaxtyping import UInt8

from mmkp import geometry
from mmkp.data.augment_config import AugmentConfig
from mmkp.data.augment_image import camera
from mmkp.data.corruptions.base import Change
from mmkp.data.sample import Sample
from mmkp.data.talker.degrade import sensor_noise

Image = UInt8[np.ndarray, "H W 3"]
Pixels = Callable[[Image, float, float, np.random.Generator], Image]  # picture, parameter, box side px, rng
GAMMA = 2.2  # of sRGB, near enough
WHITE_ELECTRONS = 4000  # that white gathers when well lit: the pixel of a phone's camera
READ_ELECTRONS = 2.0  # standard deviation of the noise of reading them out


def picture(pixels: Pixels) -> Change:
    """A corruption of pixels alone, from the function that makes it."""
    return partial(_change, pixels)


def _change(pixels: Pixels, sample: Sample, value: float, rng: np.random.Generator, _: object) -> Sample:
    assert sample.image is not None
    return sample.replace(image=pixels(sample.image, value, box_side(sample), rng))


def box_side(sample: Sample) -> float:
    """Px, the side of a square as large as the box."""
    return float(np.sqrt(np.prod(np.asarray(sample.box_xywh, dtype=np.float64)[2:])))


def blur(image: Image, percent: float, side_px: float, rng: np.random.Generator) -> Image:
    """Gaussian blur whose sigma is `percent` of the box's side."""
    return cv2.GaussianBlur(image, (0, 0), max(1e-3, percent / 100 * side_px))


def gaussian_noise(image: Image, std: float, side_px: float, rng: np.random.Generator) -> Image:
    """Gaussian noise of `std` grey levels, drawn afresh: not from the table that training uses."""
    return sensor_noise(image, std, rng)


def jpeg(image: Image, quality: float, side_px: float, rng: np.random.Generator) -> Image:
    """JPEG at a quality of 1 to 100."""
    config = AugmentConfig.off().model_copy(update={"jpeg": 1.0, "jpeg_quality": (int(quality), int(quality))})
    return camera(image, config, rng)


def darkness(image: Image, stops: float, side_px: float, rng: np.random.Generator) -> Image:
    """The same scene with 2^-`stops` of the light: shot and read noise stay where the signal goes.

    Source: the linear camera model of EMVA standard 1288 (Poisson electrons, here by their normal approximation, and
    a normal read noise).
    """
    table = (np.arange(256, dtype=np.float32) / 255) ** GAMMA * (WHITE_ELECTRONS / 2**stops)
    electrons = cv2.LUT(image, table)
    spread = np.sqrt(electrons + np.float32(READ_ELECTRONS**2))
    electrons += spread * rng.standard_normal(image.shape, np.float32)
    grey = (electrons.clip(0) / WHITE_ELECTRONS) ** (1 / GAMMA)
    return np.rint(255 * grey).clip(0, 255).astype(np.uint8)


def low_resolution(image: Image, side: float, side_px: float, rng: np.random.Generator) -> Image:
    """As if the box had been `side` px wide; a box that is smaller stays as it is."""
    factor = side_px / side
    if factor <= 1:
        return image
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    coarse = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def rotation(sample: Sample, degrees: float, rng: np.random.Generator, _: object) -> Sample:
    """Turn the picture about the middle of the box, to either side; the labels turn with it, the box stays.

    What leaves the picture is no longer visible.
    """
    assert sample.image is not None
    x, y, width, height = (float(v) for v in sample.box_xywh)
    signed = degrees if rng.random() < 0.5 else -degrees
    affine = cv2.getRotationMatrix2D((x + width / 2, y + height / 2), signed, 1.0)
    size_hw = (sample.image.shape[0], sample.image.shape[1])
    turned = partial(_turned, affine=affine, size_hw=size_hw)
    keypoints_xy, visible = turned(sample.keypoints_xy, sample.visible)
    changed = sample.replace(
        image=geometry.warp(sample.image, affine, size_hw), keypoints_xy=keypoints_xy, visible=visible
    )
    if sample.people_xy is None or sample.people_visible is None:
        return changed
    people_xy, people_visible = turned(sample.people_xy, sample.people_visible)
    return changed.replace(people_xy=people_xy, people_visible=people_visible)


def _turned(
    points_xy: np.ndarray, visible: np.ndarray, affine: np.ndarray, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Points and flags, (..., K, 2) and (..., K), after the turn."""
    moved = geometry.transform(points_xy.astype(np.float64), affine)
    outside = ((moved < -0.5) | (moved > (size_hw[1] - 0.5, size_hw[0] - 0.5))).any(-1)
    return moved.astype(points_xy.dtype), np.where(outside & (visible == 2), 1, visible).astype(visible.dtype)
