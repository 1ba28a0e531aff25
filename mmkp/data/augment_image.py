"""Augmentation of pictures in the input frame: things in front of the camera first, then what the camera does."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mmkp.data.augment_config import AugmentConfig

Image = UInt8[np.ndarray, "h w 3"]
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as OpenCV's grey
MID_GREY = 127.5  # contrast turns about it, not about the picture's mean, which would tell what lies under a cover
NOISE_UNIT = 32  # levels of the noise table per standard deviation: int16 holds 1000 of them
NOISE_MARGIN_PX = 64  # room for a random offset into the noise table


def camera(image: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Blur, low resolution, colour, noise and JPEG, each as the configuration says. RGB in, RGB out."""
    if config.blur_sigma_px and rng.random() < config.blur:
        sigma = rng.uniform(0.3, max(0.3, config.blur_sigma_px))  # under 0.3 px a blur does nothing
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if rng.random() < config.low_resolution:
        image = _lower(image, rng.uniform(1, config.low_resolution_factor))
    matrix = colour_matrix(config, rng)
    if matrix is not None:
        image = cv2.transform(image, matrix)
    if config.noise_std:
        image = _noisy(image, rng.uniform(0, config.noise_std), rng)
    if rng.random() < config.jpeg:
        quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
        # OpenCV takes these channels for BGR; JPEG's colours are then swapped on the way in and again on the way out.
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image


def colour_matrix(config: AugmentConfig, rng: np.random.Generator) -> Float[np.ndarray, "3 4"] | None:
    """A random change of brightness, contrast, saturation and hue, as one affine map of RGB; None for no change."""
    brightness, contrast, saturation = (
        1 + rng.uniform(-r, r) for r in (config.brightness, config.contrast, config.saturation)
    )
    hue = math.radians(rng.uniform(-config.hue_deg, config.hue_deg))
    if rng.random() < config.grey:
        saturation = 0.0
    if brightness == contrast == saturation == 1 and hue == 0:
        return None
    grey = np.tile(LUMA, (3, 1))
    colour = (saturation * np.eye(3) + (1 - saturation) * grey) @ _turn_about_grey(hue)
    offset = np.full((3, 1), MID_GREY * (1 - contrast))
    return brightness * np.hstack([contrast * colour, offset])


def _turn_about_grey(angle: float) -> Float[np.ndarray, "3 3"]:
    """Turn RGB about its grey axis (Rodrigues' formula), so that greys stay."""
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return cos * np.eye(3) + sin * cross + (1 - cos) / 3


def _lower(image: Image, factor: float) -> Image:
    """Shrink by `factor` and enlarge again."""
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))


def _noisy(image: Image, std: float, rng: np.random.Generator) -> Image:
    """Add Gaussian noise of `std` levels of 255, cut at a random place from a table."""
    height, width = image.shape[:2]
    top, left = rng.integers(NOISE_MARGIN_PX, size=2)
    table = _noise_table(height + NOISE_MARGIN_PX, width + NOISE_MARGIN_PX)
    noise = table[top : top + height, 3 * left : 3 * (left + width)]
    flat = np.ascontiguousarray(image).reshape(height, 3 * width)  # one channel, or OpenCV scales the first alone
    scaled = cv2.multiply(noise, np.array([std / NOISE_UNIT]))
    return np.asarray(cv2.add(flat, scaled, dtype=cv2.CV_8U)).reshape(height, width, 3)


@lru_cache(maxsize=4)
def _noise_table(height: int, width: int) -> np.ndarray:
    """(height, 3 * width) int16 standard normal times `NOISE_UNIT`, the same in every process."""
    values = np.random.default_rng(0).standard_normal((height, 3 * width), dtype=np.float32)
    return np.rint(values * NOISE_UNIT).astype(np.int16)


def occlude(image: Image, config: AugmentConfig, rng: np.random.Generator) -> tuple[Image, UInt8[np.ndarray, "h w"]]:
    """One to three opaque rectangles or ellipses of one colour or noise.

    Returns:
        The picture (a new one) and the opacity of what was laid on it, 255 = opaque.
    """
    height, width = image.shape[:2]
    image, alpha = image.copy(), np.zeros((height, width), dtype=np.uint8)
    for _ in range(rng.integers(1, 4)):
        centre = rng.uniform(0, (width, height))
        half = rng.uniform(0.15, 1, 2) * config.occluder_size * (width, height)  # 0.15: slivers hide nothing
        angle = rng.uniform(0, 180)
        shape = np.zeros((height, width), dtype=np.uint8)
        if rng.random() < 0.5:
            corners = cv2.boxPoints((centre.tolist(), (2 * half).tolist(), angle))
            cv2.fillConvexPoly(shape, np.rint(corners).astype(np.int32), 255)
        else:
            cv2.ellipse(shape, np.rint(centre).astype(int).tolist(), np.rint(half).astype(int).tolist(), angle, 0, 360,
                        255, -1)  # fmt: skip
        cells = int((1, 1, 6, 24)[rng.integers(4)])  # cells a side; 1 is a plain colour
        fill = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        cv2.copyTo(cv2.resize(fill, (width, height), interpolation=cv2.INTER_NEAREST), shape, image)
        cv2.bitwise_or(alpha, shape, alpha)
    return image, alpha
