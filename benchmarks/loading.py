"""How fast are samples made ready for the model, and does a training step wait for them?

    python benchmarks/loading.py --grid grid:PATH --coco coco:PATH [--clips 8] [--workers 0 2]
    python benchmarks/loading.py --wait grid:PATH [--recipe recipes/grid_talker.yaml] [--steps 12]

The first form compares mmkp's loading (decode, crop, augment, log-mel, tokenise) with what one would write without it:
a PyTorch Dataset that decodes each sample with OpenCV (pictures) or PyAV (video, sound), makes the same tensors of it
item by item with the same augmentation, and lets DataLoader stack them. That both make the same is checked on eight
samples: labels to 1e-4, texts exactly, pictures and spectrograms to 0.05 in the mean (normalised units; decoders and
the JPEG frames of GRID's cache differ), then they are timed. Epoch
one of mmkp starts from an empty cache and includes filling it.

The second trains a recipe for a few steps with the batches made within the step, and made ahead, in turns, and prints
which share of the time the steps waited.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from mmkp.configuration_mmkp import MmkpConfig
from mmkp.data import open_dataset
from mmkp.data.augment import AugmentConfig, Augmenter, rng_for, spec_augment
from mmkp.data.collate import Collator, KeyedDataset, StepSampler, labels_of
from mmkp.data.sample import Sample
from mmkp.processing_mmkp import MmkpProcessor, make_processor
from mmkp.recipe import load_recipe

RATE_HZ, BATCH, SIZE_HW, TEXT_BYTES = 16_000, 32, (112, 112), 128


class PlainItems(Dataset):
    """The peer: every sample decoded and prepared by itself, whole when it leaves __getitem__; `heard`: has sounds."""

    def __init__(
        self, decode: Callable[[int], Sample], processor: MmkpProcessor, schema: Any, augment: AugmentConfig,
        heard: bool,
    ) -> None:  # fmt: skip
        self.decode, self.processor, self.augment, self.heard = decode, processor, augment, heard
        self.augmenter = Augmenter(augment, schema, SIZE_HW)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        rng = rng_for(0, *key)
        sample = self.decode(key[1])
        made = self.augmenter(sample, rng)
        processor, rate = self.processor, self.processor.feature_extractor.sampling_rate
        image = np.zeros((*SIZE_HW, 3), np.uint8) if made.image is None else made.image
        text = processor.tokenizer(made.text or "", padding="max_length", max_length=TEXT_BYTES)
        item = {
            "pixel_values": processor.image_processor.normalize(image[None])[0],
            "input_ids": torch.tensor(text["input_ids"]), "attention_mask": torch.tensor(text["attention_mask"]),
            "labels": labels_of([made])[0], "modality_mask": torch.from_numpy(made.modality_mask),
            "image_to_input": torch.from_numpy(made.image_to_input.astype(np.float32)),
        }  # fmt: skip
        if not self.heard:
            return item
        sound = np.zeros(rate, np.float32) if made.audio is None else made.audio
        time_s = made.audio_time_s if made.audio is not None else None
        heard = processor.feature_extractor(sound, sampling_rate=made.rate_hz, audio_times=[time_s])
        features = heard["input_features"]
        if made.modality_mask[2]:
            features = spec_augment(features, rng, self.augment, 0.0)
        return {**item, "input_features": features[0], "input_features_mask": heard["input_features_mask"][0]}


def grid_decoder(dataset: Any) -> Callable[[int], Sample]:
    """Decode a GRID frame and its clip's sound from the .mpg; labels and texts are at hand."""
    plain = [dataset[i].replace(image=None, audio=None) for i in range(len(dataset))]
    files = [dataset.clips[clip].files.video for clip, _ in dataset._index]
    heard_from = [dataset.clips[clip].sound_start_s for clip, _ in dataset._index]

    def decode(index: int) -> Sample:
        sample, path = plain[index], str(files[index])
        with av.open(path) as video:  # MPEG has no index: a seek does not lead to a frame exactly
            frame = next(islice(video.decode(video=0), sample.info["frame"], None))
            image = frame.to_ndarray(format="rgb24")
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        with av.open(path) as sound:
            parts = [p.to_ndarray()[0] for f in sound.decode(audio=0) for p in resampler.resample(f)]
            parts += [p.to_ndarray()[0] for p in resampler.resample(None)]
        wave = np.concatenate(parts).astype(np.float32) / 32768
        return sample.replace(image=image, audio=wave, audio_time_s=sample.info["time_s"] - (heard_from[index] or 0))

    return decode


def picture_decoder(dataset: Any) -> Callable[[int], Sample]:
    """Decode a row's picture with OpenCV; labels and texts are at hand."""
    plain = [dataset[i].replace(image=None) for i in range(len(dataset))]
    files = [row.image for row in dataset.rows]

    def decode(index: int) -> Sample:
        image = cv2.cvtColor(cv2.imread(str(files[index])), cv2.COLOR_BGR2RGB)
        return plain[index].replace(image=image)

    return decode


def epoch(loader_of: Callable[[int], DataLoader], number: int, count: int) -> float:
    """Samples per second of one pass."""
    started = time.perf_counter()
    for _ in loader_of(number):
        pass
    return count / (time.perf_counter() - started)


def keys(count: int, number: int) -> list[list[tuple[int, int]]]:
    """The batches of one epoch."""
    steps = count // BATCH
    return [[(number, i) for _, i in batch] for batch in StepSampler(count, BATCH, steps, number)]


def compare(name: str, opener: Callable[[], Any], decoder: Callable[[Any], Any], workers: int) -> None:
    """Epochs one and two of both, and their ratios."""
    first = opener()
    config = MmkpConfig(input_size_hw=SIZE_HW, keypoint_schema=first.schema.model_dump(mode="json"), hidden_size=16)
    processor, augment = make_processor(config), AugmentConfig()
    heard = any(first[i].audio is not None for i in range(0, len(first), 50))
    peer = PlainItems(decoder(first), processor, first.schema, augment, heard)
    count = len(first) // BATCH * BATCH
    same(peer, first, processor, augment)

    def peer_loader(number: int) -> DataLoader:
        return DataLoader(peer, batch_sampler=keys(len(first), number), num_workers=workers, collate_fn=default_collate)

    started = time.perf_counter()
    dataset = opener()
    opened_s = time.perf_counter() - started
    collate = Collator(processor, dataset.schema, augment, 0)

    def our_loader(number: int) -> DataLoader:
        sampler = keys(len(dataset), number)
        return DataLoader(KeyedDataset(dataset), batch_sampler=sampler, num_workers=workers, collate_fn=collate)

    rates: dict[str, list[float]] = {"mmkp": [], "plain": []}
    for number in (0, 1):
        rate = epoch(our_loader, number, count)
        rates["mmkp"].append(count / (count / rate + (opened_s if number == 0 else 0)))
        rates["plain"].append(epoch(peer_loader, number, count))
    ratios = [a / b for a, b in zip(rates["mmkp"], rates["plain"], strict=True)]
    for number in (0, 1):
        line = f"{name:<5} workers {workers}  epoch {('one', 'two')[number]}: mmkp {rates['mmkp'][number]:7.1f}"
        print(f"{line}  plain {rates['plain'][number]:7.1f} samples/s  ratio {ratios[number]:.2f}", flush=True)


def same(peer: PlainItems, dataset: Any, processor: MmkpProcessor, augment: AugmentConfig) -> None:
    """Both must make the same of the same samples."""
    batch = [(0, i) for i in range(0, len(dataset), max(1, len(dataset) // 8))]
    ours = Collator(processor, dataset.schema, augment, 0)([(key, dataset[key[1]]) for key in batch])
    theirs = default_collate([peer[key] for key in batch])
    np.testing.assert_allclose(ours["labels"], theirs["labels"], atol=1e-4)
    near = float((ours["pixel_values"] - theirs["pixel_values"]).abs().mean())
    assert near < 0.05, f"pictures differ by {near}"
    length = ours["input_ids"].shape[1] if "input_ids" in ours else 0
    assert not length or torch.equal(ours["input_ids"], theirs["input_ids"][:, :length])
    if "input_features" in ours:
        near = float((ours["input_features"] - theirs["input_features"])[ours["modality_mask"][:, 2]].abs().mean())
        assert near < 0.05, f"spectrograms differ by {near}"


@contextmanager
def some_clips(spec: str, clips: int) -> Iterator[str]:
    """The first clips of a GRID corpus that are trained on, as a corpus of their own."""
    from mmkp.data.grid_files import find_clips

    root = Path(spec.partition(":")[2])
    chosen = [c for c in find_clips(root)[0] if c.split == "train"][:clips]
    with tempfile.TemporaryDirectory() as folder:
        for clip in chosen:
            for path in (clip.video, clip.align, clip.landmarks):
                if path is not None:
                    target = Path(folder) / path.relative_to(root)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
        yield f"grid:{folder}"


def grid_opener(spec: str) -> Callable[[], Any]:
    """Opens the corpus with a cache that is empty each time."""

    def opener() -> Any:
        shutil.rmtree(os.environ["MMKP_CACHE"], ignore_errors=True)
        return open_dataset(spec, "train")

    return opener


def waits(spec: str, recipe: str, steps: int, workers: int) -> None:
    """The share of a training step that is spent waiting for its batch: made within the step, and made ahead."""
    import mmkp.training.loop as loop
    from mmkp.training.log import RunLog

    chosen = load_recipe(recipe, [f"data.dataset={spec}", f"training.workers={workers}"])
    shares: dict[str, list[float]] = {"within the step": [], "ahead": []}
    speeds: dict[str, list[float]] = {name: [] for name in shares}
    ahead = loop.prefetched
    with tempfile.TemporaryDirectory() as folder:
        trainer = loop.Trainer(chosen, Path(folder) / "run")
        for name in list(shares) * 3:
            loop.prefetched = ahead if name == "ahead" else (lambda source: source)
            with RunLog(Path(folder) / "log", 10**6, 0, 1, active=False) as log:
                batches = trainer._batches(log)
                for _ in range(2):
                    trainer._step(batches)
                log.waited_s, started = 0.0, time.perf_counter()
                for _ in range(steps):
                    trainer._step(batches)
                seconds = time.perf_counter() - started
                shares[name].append(log.waited_s / seconds)
                speeds[name].append(steps * chosen.training.batch_size / seconds)
                batches.close()
        loop.prefetched = ahead
    for name, values in shares.items():
        print(
            f"batches made {name:<16} waited {100 * np.median(values):5.1f} % "
            f"({', '.join(f'{100 * v:.1f}' for v in values)}), {np.median(speeds[name]):.1f} samples/s "
            f"({', '.join(f'{v:.1f}' for v in speeds[name])})", flush=True
        )  # fmt: skip


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", help="grid:PATH")
    parser.add_argument("--coco", help="coco:PATH")
    parser.add_argument("--wait", help="grid:PATH")
    parser.add_argument("--recipe", default="recipes/grid_talker.yaml")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        if options.wait:
            waits(options.wait, options.recipe, options.steps, options.workers[0])
        os.environ["MMKP_CACHE"] = cache
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        for workers in options.workers * options.repeats:
            if options.grid:
                with some_clips(options.grid, options.clips) as spec:
                    compare("GRID", grid_opener(spec), grid_decoder, workers)
            if options.coco:
                compare("COCO", lambda: open_dataset(options.coco, "all"), picture_decoder, workers)


if __name__ == "__main__":
    main()
