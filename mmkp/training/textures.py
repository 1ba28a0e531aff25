"""Backgrounds without a face, drawn: noise, stripes, checks, gradients, blobs, letters."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "h w 3"]


def draw_texture(size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    """One of the textures, in random colours; often several joined by a random mask, as things meet in a picture."""
    made = _one(size_hw, rng)
    for _ in range(int(rng.integers(0, 3))):
        mask = (_cloud(size_hw, rng, rng.uniform(1.5, 3)) > rng.uniform(-0.5, 1))[..., None]
        made = np.where(mask, _one(size_hw, rng), made)
    return made


def _one(size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    return TEXTURES[list(TEXTURES)[rng.integers(len(TEXTURES))]](size_hw, rng)


def _noise(size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    """1/f noise of any slope, from sand (0) to clouds (2), grey or with colours that differ from place to place."""
    slope = rng.uniform(0, 2)
    own = np.stack([_cloud(size_hw, rng, slope) for _ in range(3)], -1)
    shared = _cloud(size_hw, rng, slope)[..., None]
    colour = rng.uniform(0, 0.7)
    return _between(_unit(colour * own + (1 - colour) * shared), rng)


def _stripes(size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    """Waves or bars, straight or bent."""
    return _between(_waves(size_hw, rng), rng)


def _checks(size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    """Two sets of waves or bars, crossed: tiles, bricks, cloth."""
    return _between((_waves(size_hw, rng) + _waves(size_hw, rng)) / 2, rng)


def _gradient(size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    """A few soft lights."""
    cells = rng.random((*rng.integers(2, 5, 2), 3)).astype(np.float32)
    soft = cv2.resize(cells, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return _between(np.clip(soft.mean(-1, keepdims=True) if rng.random() < 0.5 else soft, 0, 1), rng)


def _mosaic(size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    """Squares of random colours, sharp or blurred."""
    cells = rng.integers(0, 256, (*rng.integers(3, 40, 2), 3), dtype=np.uint8)
    how = cv2.INTER_NEAREST if rng.random() < 0.5 else cv2.INTER_LINEAR
    return cv2.resize(cells, size_hw[::-1], interpolation=how)


def _blobs(size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    """Ellipses, rings and boxes of all sizes: pebbles, cups, windows, eyes that belong to no face."""
    canvas = np.full((*size_hw, 3), rng.integers(0, 256, 3), np.uint8)
    side = min(size_hw)
    for _ in range(int(rng.integers(5, 80))):
        centre = rng.integers(0, size_hw[::-1]).tolist()
        half = np.maximum(1, side * 0.25 * rng.random() ** 2 * rng.uniform(0.5, 1, 2)).astype(int)
        colour, thick = rng.integers(0, 256, 3).tolist(), int((-1, -1, 2)[rng.integers(3)])
        if rng.random() < 0.7:
            cv2.ellipse(canvas, centre, half.tolist(), rng.uniform(0, 180), 0, 360, colour, thick, cv2.LINE_AA)
            if rng.random() < 0.4:
                inner = np.maximum(1, half // int(rng.integers(2, 5))).tolist()
                cv2.ellipse(canvas, centre, inner, 0, 0, 360, rng.integers(0, 256, 3).tolist(), -1, cv2.LINE_AA)
        else:
            cv2.rectangle(canvas, centre, (np.array(centre) + half).tolist(), colour, thick, cv2.LINE_AA)
    return canvas


def _letters(size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    """Lines of random letters on a plain ground: signs and pages."""
    canvas = np.full((*size_hw, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(int(rng.integers(2, 14))):
        text = "".join(chr(c) for c in rng.integers(33, 127, rng.integers(3, 16)))
        place = (int(rng.integers(-30, size_hw[1])), int(rng.integers(0, size_hw[0])))
        size = float(rng.uniform(0.3, 3))
        cv2.putText(canvas, text, place, int(rng.integers(0, 8)), size, rng.integers(0, 256, 3).tolist(),
                    int(max(1, size * 2)), cv2.LINE_AA)  # fmt: skip
    return canvas


TEXTURES = {
    "noise": _noise, "stripes": _stripes, "checks": _checks, "gradient": _gradient, "mosaic": _mosaic,
    "blobs": _blobs, "letters": _letters,
}  # fmt: skip


def _waves(size_hw: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(h, w, 1) in [0, 1]."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
    angle, period = rng.uniform(0, math.pi), math.exp(rng.uniform(math.log(4), math.log(80)))
    along = x * math.cos(angle) + y * math.sin(angle)
    along = along + rng.uniform(0, 0.6) * period * _cloud(size_hw, rng, 2.5)
    wave = np.sin(2 * math.pi * along / period + rng.uniform(0, 6))
    return np.clip(wave * math.exp(rng.uniform(0, 3)) / 2 + 0.5, 0, 1)[..., None]


def _cloud(size_hw: tuple[int, int], rng: np.random.Generator, slope: float) -> np.ndarray:
    """(h, w) float32 noise of mean 0 and deviation 1, whose amplitude falls with frequency to the power of `slope`."""
    fold = 1 if slope < 1 else 2 if slope < 2 else 4  # what has no fine detail is drawn small, for speed
    small = (-(-size_hw[0] // fold), -(-size_hw[1] // fold))
    made = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(small, dtype=np.float32)) * _falloff(small, slope), small)
    return cv2.resize((made / (made.std() + 1e-9)).astype(np.float32), size_hw[::-1], interpolation=cv2.INTER_LINEAR)


def _falloff(size_hw: tuple[int, int], slope: float) -> np.ndarray:
    """Amplitude by frequency, the mean taken out."""
    frequency = np.hypot(np.fft.fftfreq(size_hw[0])[:, None], np.fft.rfftfreq(size_hw[1])[None])
    frequency[0, 0] = np.inf
    return (frequency ** -max(slope, 1e-6)).astype(np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    return np.clip(values / 4 + 0.5, 0, 1)


def _between(share: np.ndarray, rng: np.random.Generator) -> Image:
    """Two random colours, mixed by `share` (h, w, 1 or 3) in [0, 1]."""
    dark, light = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    return np.rint(dark + (light - dark) * share).clip(0, 255).astype(np.uint8)
