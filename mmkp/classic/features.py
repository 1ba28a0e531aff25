"""Features by modality: described, scaled, and brought to few dimensions by PCA; all fitted on train alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mmkp.classic import DESCRIPTORS
from mmkp.classic.inputs import RATE_HZ, Items
from mmkp.classic.recipe import AudioSection, FeaturesSection, TextSection, make_part
from mmkp.data.sample import MODALITIES

PCA_DIMENSIONS = {"image": 96, "text": 64, "audio": 64}  # where a recipe does not say
FRAME, HOP = 400, 160  # samples: 25 ms every 10 ms, as in mmkp.features
DELTA_FRAMES = 5  # torchaudio's default window of the regression that gives deltas
LOUDEST = 1e4  # of a feature after scaling: constant columns of train may be anything later


@dataclass(frozen=True)
class View:
    """One modality of a batch: its features, and the crops for methods that look for themselves."""

    features: Float[np.ndarray, "N d"]
    crops: UInt8[np.ndarray, "N S S 3"]

    def rows(self, index: np.ndarray) -> View:
        """Some of the items."""
        return View(self.features[index], self.crops[index])


class FeatureSpace:
    """The way from items to features, fitted on the items of train.

    Args:
        section: which descriptors, what scale, how many dimensions.
        modalities: which to describe; one that no training item has is left out, with a note.
        items: of the train split.
        seed: of the PCA.

    Attributes:
        notes: what a user should know about the fit.
    """

    def __init__(self, section: FeaturesSection, modalities: Sequence[str], items: Items, seed: int) -> None:
        self.notes: list[str] = []
        self._ways: dict[str, tuple[Callable[[Items], np.ndarray], Reduction]] = {}
        for modality in modalities:
            here = np.flatnonzero(items.present[:, MODALITIES.index(modality)])
            if len(here) < 2:
                self.notes.append(f"{modality}: {len(here)} training items have it; it is left out")
                continue
            describe = _describer(section, modality, items, here)
            wanted = section.pca.get(modality, PCA_DIMENSIONS[modality])  # type: ignore[call-overload]
            reduction = Reduction(describe(items)[here], section.scale, wanted, seed)
            if reduction.dimension < wanted:
                self.notes.append(
                    f"{modality}: {wanted} PCA dimensions asked for, {reduction.dimension} taken "
                    f"({len(here)} training items)"
                )
            self._ways[modality] = (describe, reduction)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that were fitted."""
        return tuple(self._ways)

    def see(self, modality: str, items: Items) -> View:
        """Describe one modality; the rows of items that lack it hold what an empty input gives."""
        describe, reduction = self._ways[modality]
        return View(reduction(describe(items)), items.crops)


def _describer(
    section: FeaturesSection, modality: str, items: Items, here: np.ndarray
) -> Callable[[Items], np.ndarray]:
    if modality == "image":
        descriptor = make_part("features.image", section.image, DESCRIPTORS)
        return lambda batch: descriptor(batch.crops)
    if modality == "audio":
        return lambda batch: mfcc_statistics(batch.waves, batch.real, section.audio)
    tfidf = fit_tfidf([items.texts[i] for i in here], section.text)
    return lambda batch: tfidf.transform(batch.texts).toarray()


class Reduction:
    """Scaling, then PCA, then one factor that makes the mean squared length 1, so that modalities weigh alike.

    Args:
        raw: features of train.
        scale: `zscore` or `unit`.
        wanted: dimensions; fewer where there are fewer items or features.
        seed: of the randomised PCA.
    """

    def __init__(self, raw: Float[np.ndarray, "N D"], scale: str, wanted: int, seed: int) -> None:
        self._scaler: Any = StandardScaler() if scale == "zscore" else MinMaxScaler(clip=True)
        scaled = self._scaler.fit_transform(raw.astype(np.float64))
        self.dimension = min(wanted, len(raw) - 1, raw.shape[1])
        self._pca = PCA(self.dimension, random_state=seed).fit(scaled)
        total = float(self._pca.explained_variance_.sum())
        self._factor = 1 / np.sqrt(total) if total > 1e-12 else 0.0

    def __call__(self, raw: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N d"]:
        """Features of any items."""
        scaled = np.clip(self._scaler.transform(raw.astype(np.float64)), -LOUDEST, LOUDEST)
        return self._pca.transform(scaled) * self._factor


def fit_tfidf(texts: list[str], section: TextSection) -> TfidfVectorizer:
    """TF-IDF; words keep the cursor `|` and single letters, as the picture's moment is told by them."""
    return TfidfVectorizer(
        analyzer=section.analyzer, ngram_range=section.ngrams, max_features=section.max_features, sublinear_tf=True,
        token_pattern=r"[^\s|]+|\|" if section.analyzer == "word" else None,
    ).fit(texts)  # fmt: skip


def mfcc_statistics(
    waves: Float32[np.ndarray, "N T"], real: np.ndarray, section: AudioSection
) -> Float32[np.ndarray, "N D"]:
    """Mean, deviation, minimum and maximum of MFCC and of their deltas, over each span about the middle.

    Frames outside the recording are left out; a span without a frame inside gives zeros.

    Args:
        waves: mono in [-1, 1], 16 kHz.
        real: (N, 2) half-open ranges of recorded samples.
    """
    import torchaudio

    transform = torchaudio.transforms.MFCC(
        RATE_HZ, section.coefficients, log_mels=True,  # decibels would be cut at the loudest of the batch
        melkwargs={"n_fft": FRAME, "hop_length": HOP, "n_mels": section.mel_bins, "f_min": 20.0},
    )  # fmt: skip
    with torch.inference_mode():
        static = transform(torch.from_numpy(waves))
        frames = torch.cat([static, torchaudio.functional.compute_deltas(static, DELTA_FRAMES)], 1).numpy()
    centre = np.arange(frames.shape[-1]) * HOP
    recorded = (centre >= real[:, :1]) & (centre <= real[:, 1:])
    recorded &= (real[:, 1] > real[:, 0])[:, None]
    parts = []
    for span_s in section.spans_s:
        near = np.abs(centre - waves.shape[1] / 2) <= span_s / 2 * RATE_HZ
        parts.append(_statistics(frames, (recorded & near)[:, None]))
    return np.concatenate(parts, -1)


def _statistics(frames: Float32[np.ndarray, "N C F"], kept: Bool[np.ndarray, "N 1 F"]) -> Float32[np.ndarray, "N 4*C"]:
    count = np.maximum(kept.sum(-1), 1)
    mean = np.where(kept, frames, 0).sum(-1) / count
    deviation = np.sqrt(np.where(kept, (frames - mean[..., None]) ** 2, 0).sum(-1) / count)
    low, high = np.where(kept, frames, np.inf).min(-1), np.where(kept, frames, -np.inf).max(-1)
    made = np.concatenate([mean, deviation, low, high], -1)
    return np.where(kept.any(-1), made, 0).astype(np.float32)
