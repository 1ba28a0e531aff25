"""From samples to the model's inputs: augment, normalise, tokenise, hear; the same whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from mmkp.data.augment import AugmentConfig, Augmented, Augmenter, rng_for, spec_augment
from mmkp.data.augment_conflict import tell_lies
from mmkp.data.sample import KeypointDataset, Sample
from mmkp.processing_mmkp import MmkpProcessor
from mmkp.schema import KeypointSchema

Key = tuple[int, int]  # epoch, index
DROPS = ("drop_image", "drop_text", "drop_audio")


class KeyedDataset(Dataset):
    """A dataset addressed by (epoch, index), so that a worker knows the epoch without being told."""

    def __init__(self, dataset: KeypointDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[Key, Sample]:
        return key, self.dataset[key[1]]


class StepSampler(Sampler):
    """The keys of every step's batch: a pure function of (seed, step), so that a run continues at any step.

    Every epoch is a permutation of its own; a batch may straddle two epochs. With several processes each takes its
    contiguous share of the global batch.

    Args:
        length: items in the dataset.
        batch_size: items per process and step.
        steps: how many batches there are in all.
        seed: of the permutations.
        first_step: where to begin.
        rank, world: this process and how many there are.
    """

    def __init__(
        self, length: int, batch_size: int, steps: int, seed: int, first_step: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.length, self.batch_size, self.steps, self.seed = length, batch_size, steps, seed
        self.first_step, self.rank, self.world = first_step, rank, world

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[Key]]:
        orders: dict[int, np.ndarray] = {}
        for step in range(self.first_step, self.steps):
            begin = (step * self.world + self.rank) * self.batch_size
            batch = []
            for position in range(begin, begin + self.batch_size):
                epoch, place = divmod(position, self.length)
                if epoch not in orders:
                    orders = {e: o for e, o in orders.items() if e >= epoch - 1}
                    orders[epoch] = np.random.default_rng([self.seed, epoch, 0]).permutation(self.length)
                batch.append((epoch, int(orders[epoch][place])))
            yield batch


class Collator:
    """Samples by key -> a batch of tensors.

    Args:
        processor: of the model.
        schema: of the keypoints.
        augment: what may happen to a sample; `AugmentConfig.off()` for evaluation.
        seed: of the augmentation.
        modalities: the model's; the others count as absent.
        subsets: 0: the augmentation drops modalities before the encoders. S > 0: all are encoded, and what the encoders
            say is dropped with the same chances, S times for each item (`subset_mask`).
    """

    def __init__(
        self, processor: MmkpProcessor, schema: KeypointSchema, augment: AugmentConfig, seed: int,
        modalities: tuple[str, ...] = ("image", "text", "audio"), subsets: int = 0,
    ) -> None:  # fmt: skip
        self.processor, self.augment, self.seed, self.subsets = processor, augment, seed, subsets
        kept = augment.model_copy(update=dict.fromkeys(DROPS, 0.0)) if subsets else augment
        self.augmenter = Augmenter(kept, schema, processor.image_processor.size_hw)
        self.plain = Augmenter(AugmentConfig.off(), schema, processor.image_processor.size_hw)
        self.keep = np.array([m in modalities for m in ("image", "text", "audio")])

    def __call__(self, items: list[tuple[Key, Sample]]) -> dict[str, Any]:
        """The batch: the model's inputs, `labels` in the input frame (see `labels_of`), and `ids`.

        With subsets, also `subset_mask` (B, S, 3) and `blind_targets`, the labels in the plain crop.
        """
        rngs = [rng_for(self.seed, epoch, index) for (epoch, index), _ in items]
        samples = [self._keep(sample) for _, sample in items]
        made = [self.augmenter(s, rng) for s, rng in zip(samples, rngs, strict=True)]
        lies = np.zeros(len(made), bool)
        if self.augment.conflict:
            made, lies = tell_lies(made, [s.group for s in samples], self.augment.conflict, rngs)
        batch = {**self.inputs(made, rngs), "labels": labels_of(made), "ids": [s.id for s in samples]}
        if self.subsets:
            chosen = self._subset_mask(np.stack([a.modality_mask for a in made]), rngs)
            chosen[torch.from_numpy(lies), :, 0] = True  # without the picture nobody could tell
            batch["subset_mask"] = chosen
            batch["blind_targets"] = labels_of([self.plain(s.replace(image=None), rng_for(0, 0, 0)) for s in samples])
        return batch

    def _subset_mask(self, present: np.ndarray, rngs: list[np.random.Generator]) -> torch.Tensor:
        """(B, S, 3): what is left when each modality goes with its chance; one drawn at random stays."""
        chances = [getattr(self.augment, name) for name in DROPS]
        drawn = np.stack([rng.random((self.subsets, len(DROPS) + 1)) for rng in rngs])
        here = np.broadcast_to(present[:, None], drawn[..., :-1].shape)
        kept = here & (drawn[..., :-1] >= chances)
        count = here.sum(-1, keepdims=True)
        nth = np.cumsum(here, -1) - 1 == np.floor(drawn[..., -1:] * count)
        return torch.from_numpy(np.where(kept.any(-1, keepdims=True), kept, here & nth))

    def _keep(self, sample: Sample) -> Sample:
        absent = [m for m, keep in zip(("image", "text", "audio"), self.keep, strict=True) if not keep]
        return sample.replace(**dict.fromkeys(absent)) if absent else sample

    def inputs(self, made: list[Augmented], rngs: list[np.random.Generator]) -> dict[str, torch.Tensor]:
        """The model's inputs from augmented samples."""
        mask = np.stack([a.modality_mask for a in made])
        batch: dict[str, torch.Tensor] = {
            "modality_mask": torch.from_numpy(mask),
            "image_to_input": torch.from_numpy(np.stack([a.image_to_input for a in made]).astype(np.float32)),
        }
        processor = self.processor
        if mask[:, 0].any():
            blank = np.zeros((*processor.image_processor.size_hw, 3), np.uint8)
            batch["pixel_values"] = processor.image_processor.normalize(
                np.stack([blank if a.image is None else a.image for a in made])
            )
        if mask[:, 1].any():
            batch |= processor.texts([processor.fitting(a.text) if a.text else None for a in made])
        if mask[:, 2].any():
            rate = processor.feature_extractor.sampling_rate
            blank = np.zeros(rate, np.float32)
            batch |= processor.sounds(
                [blank if a.audio is None else a.audio for a in made], [a.rate_hz for a in made],
                [a.audio_time_s if a.audio is not None else None for a in made],
            )  # fmt: skip
            if "input_features_mask" in batch:  # frames of ours; a named encoder's features may have other axes
                self._mask_spectrograms(batch["input_features"], mask[:, 2], rngs)
        return batch

    def _mask_spectrograms(self, features: torch.Tensor, here: np.ndarray, rngs: list[np.random.Generator]) -> None:
        if self.augment.time_masks or self.augment.freq_masks:
            for i in np.flatnonzero(here):
                features[i] = spec_augment(features[i : i + 1], rngs[i], self.augment, 0.0)[0]


def labels_of(made: list[Augmented]) -> torch.Tensor:
    """(B, K, 3): x, y px in the input frame (0 where unlabelled) and COCO's visibility.

    (B, P, K, 3) where a sample knows of several people: P is the largest number of them, visibility 0 fills up.
    """
    if any(a.people_xy is not None for a in made):
        points, flags = _padded(made)
    else:
        points, flags = np.stack([a.keypoints_xy for a in made]), np.stack([a.visible for a in made])
    known = np.isfinite(points).all(-1)
    visible = flags * known
    return torch.from_numpy(np.concatenate([np.where(known[..., None], points, 0.0), visible[..., None]], -1)).float()


def _padded(made: list[Augmented]) -> tuple[np.ndarray, np.ndarray]:
    """All people's points (B, P, K, 2) and flags (B, P, K), at least one row each, filled up with flags 0."""
    people = [a.keypoints_xy[None] if a.people_xy is None else a.people_xy for a in made]
    seen = [a.visible[None] if a.people_visible is None else a.people_visible for a in made]
    most = max(1, *(len(p) for p in people)) if people else 1
    points = np.full((len(made), most, *made[0].keypoints_xy.shape), np.nan, np.float32)
    flags = np.zeros(points.shape[:-1], np.uint8)
    for i, (xy, visible) in enumerate(zip(people, seen, strict=True)):
        points[i, : len(xy)], flags[i, : len(xy)] = xy, visible
    return points, flags
