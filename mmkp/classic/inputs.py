"""What the classic methods see of samples: crops, texts, windows of sound; and what they learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from mmkp import geometry
from mmkp.data.corrupt import can_cover, cover
from mmkp.data.sample import MODALITIES, KeypointDataset, Sample
from mmkp.features import MmkpFeatureExtractor

RATE_HZ = 16_000


@dataclass(frozen=True)
class Items:
    """A batch of items.

    Attributes:
        crops: RGB, input frame; black where there is no picture.
        texts: "" where there is none.
        waves: 0.5 s at 16 kHz about the picture's moment, 0 where there is no sound.
        real: half-open range of a wave's samples that were recorded.
        present: in the order of `MODALITIES`.
        image_to_input: affines.
    """

    crops: UInt8[np.ndarray, "N S S 3"]
    texts: list[str]
    waves: Float32[np.ndarray, "N T"]
    real: np.ndarray
    present: Bool[np.ndarray, "N 3"]
    image_to_input: Float[np.ndarray, "N 2 3"]


@dataclass(frozen=True)
class Labels:
    """What is to be learnt: points in px of the input frame, NaN where unlabelled; COCO's flag; groups."""

    xy: Float[np.ndarray, "N K 2"]
    visible: UInt8[np.ndarray, "N K"]
    groups: np.ndarray

    def rows(self, index: np.ndarray) -> Labels:
        """Some of the items."""
        return Labels(self.xy[index], self.visible[index], self.groups[index])


def read_items(samples: Sequence[Sample], size_px: int) -> Items:
    """Crop the boxes to squares of `size_px`, and cut the windows.

    Raises:
        InputError: a sound that cannot be used (mmkp.features).
    """
    size_hw = (size_px, size_px)
    affines = np.stack([geometry.crop_affine(s.box_xywh, size_hw) for s in samples])
    crops = np.zeros((len(samples), size_px, size_px, 3), np.uint8)
    extractor = MmkpFeatureExtractor(sampling_rate=RATE_HZ)
    waves = np.zeros((len(samples), round(extractor.window_s * RATE_HZ)), np.float32)
    real = np.zeros((len(samples), 2), np.int64)
    for i, sample in enumerate(samples):
        if sample.image is not None:
            crops[i] = geometry.warp(sample.image, affines[i], size_hw)
        if sample.audio is not None:
            waves[i], real[i] = extractor.cut(sample.audio, sample.rate_hz, sample.audio_time_s)
    return Items(
        crops, [s.text or "" for s in samples], waves, real, np.array([s.present for s in samples]), affines
    )  # fmt: skip


def read_labels(samples: Sequence[Sample], image_to_input: Float[np.ndarray, "N 2 3"]) -> Labels:
    """The labels of samples, in the input frame."""
    points = np.stack([np.where(s.visible[:, None] > 0, s.keypoints_xy, np.nan) for s in samples])
    xy = geometry.transform(points.astype(np.float64), image_to_input)
    visible = np.stack([s.visible for s in samples]) * np.isfinite(xy).all(-1)
    return Labels(xy, visible.astype(np.uint8), np.array([s.group for s in samples]))


def training_samples(dataset: KeypointDataset, most: int, cover_share: float, seed: int) -> list[Sample]:
    """At most `most` labelled items, drawn without repetition, a share of their pictures covered."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(dataset))[:most])
    samples = [s for s in (dataset[int(i)] for i in chosen) if (s.visible > 0).any()]
    return [_maybe_covered(s, rng, cover_share) for s in samples]


def _maybe_covered(sample: Sample, rng: np.random.Generator, share: float) -> Sample:
    if rng.random() >= share or sample.image is None or not can_cover(sample.keypoints_xy):
        return sample
    image, hidden = cover(sample.image, sample.keypoints_xy, rng)
    visible = np.where(hidden & (sample.visible == 2), 1, sample.visible).astype(sample.visible.dtype)
    return sample.replace(image=image, visible=visible)


def members(modalities: Sequence[str]) -> list[int]:
    """Columns of `Items.present`."""
    return [MODALITIES.index(m) for m in modalities]
