"""What goes wrong with a part of the training samples: the picture, the sound, or a whole modality."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

# Shares chosen so that about 45 % of all samples stay clean: (1 - .42) * (1 - .15) * (1 - .10) = .44
_PICTURE = {"none": 0.58, "cover": 0.22, "blur": 0.07, "dark": 0.065, "low_resolution": 0.065}
_NOISY_SHARE, _LACKING_SHARE = 0.15, 0.10
SNR_DB = (-5.0, 20.0)


@dataclass(frozen=True)
class Plan:
    """What happens to one sample. `noise_db` is a signal-to-noise ratio; `lacking` a modality that is not there."""

    picture: str = "none"
    noise_db: float | None = None
    lacking: str | None = None

    @property
    def name(self) -> str:
        """All of it in one word; "none" for a clean sample."""
        parts = [self.picture] * (self.picture != "none") + ["noise"] * (self.noise_db is not None)
        return "+".join(parts + ([f"no_{self.lacking}"] if self.lacking else [])) or "none"


def draw_plan(rng: np.random.Generator) -> Plan:
    """The picture, the sound and what is lacking are drawn apart from one another."""
    picture = str(rng.choice(list(_PICTURE), p=list(_PICTURE.values())))
    noisy, lacking = rng.random() < _NOISY_SHARE, rng.random() < _LACKING_SHARE
    noise_db, which = float(rng.uniform(*SNR_DB)), str(rng.choice(["image", "text", "audio"]))
    return Plan(picture, noise_db if noisy else None, which if lacking else None)


def spoil_picture(image: UInt8[np.ndarray, "S S 3"], name: str, rng: np.random.Generator) -> UInt8[np.ndarray, "S S 3"]:
    """Blur, darken or coarsen a picture about as a poor camera would; keypoints stay where they are."""
    size = image.shape[0]
    if name == "blur":
        return cv2.GaussianBlur(image, (0, 0), size * rng.uniform(0.012, 0.03))
    if name == "dark":
        return (image * rng.uniform(0.08, 0.3)).astype(np.uint8)
    if name == "low_resolution":
        small = max(8, round(size / rng.uniform(3.0, 6.0)))
        coarse = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    return image


def sensor_noise(
    image: UInt8[np.ndarray, "S S 3"], sigma: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "S S 3"]:
    """Gaussian noise of `sigma` grey levels."""
    noise = rng.standard_normal(image.shape, np.float32) * sigma
    return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)


def add_noise(sound: Float32[np.ndarray, " T"], snr_db: float, rng: np.random.Generator) -> Float32[np.ndarray, " T"]:
    """Noise with a spectrum between white and a crowd's, at a ratio of mean powers over the whole of `sound`.

    Where the sum would leave [-1, 1] both are turned down together, so that the ratio holds.
    """
    spectrum = np.fft.rfft(rng.standard_normal(len(sound)))
    slope = rng.uniform(0.0, 0.8)  # of the amplitude against frequency; speech itself falls by about 0.75
    noise = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 20) ** slope, len(sound))
    power = float(np.mean(sound.astype(np.float64) ** 2))
    wanted = max(power, 1e-8) / 10 ** (snr_db / 10)
    noisy = sound + noise * np.sqrt(wanted / np.mean(noise**2))
    return (noisy / max(1.0, float(np.abs(noisy).max()) / 0.99)).astype(np.float32)
