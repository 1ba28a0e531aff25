"""Run a model over a dataset: every subset of modalities under every condition, one pass of each encoder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from mmkp import geometry
from mmkp.data.augment import AugmentConfig
from mmkp.data.collate import Collator
from mmkp.data.conditions import Conditions, changed_modalities
from mmkp.data.corrupt import CONDITIONS
from mmkp.data.sample import MODALITIES, KeypointDataset, Sample
from mmkp.evaluation.predictions import Predictions
from mmkp.modeling_mmkp import Detected, Encoded, MmkpForKeypointDetection
from mmkp.processing_mmkp import MmkpProcessor


def all_subsets(modalities: Sequence[str]) -> list[str]:
    """Every non-empty subset, as `image+text`, single modalities first."""
    return ["+".join(c) for n in range(1, len(modalities) + 1) for c in itertools.combinations(modalities, n)]


def effective_condition(condition: str, subset: str) -> str:
    """The condition that a subset can notice: covering the picture changes nothing for sound alone."""
    members = set(subset.split("+"))
    parts = [p for p in condition.split("+") if members.intersection(changed_modalities(p))]
    return "+".join(parts) or "clear"


def predict_dataset(
    model: MmkpForKeypointDetection,
    processor: MmkpProcessor,
    dataset: KeypointDataset,
    conditions: Sequence[str],
    subsets: Sequence[str] | None = None,
    indices: Sequence[int] | None = None,
    batch_size: int = 32,
    progress: Any = iter,
) -> Predictions:
    """Predict keypoints for the items of a dataset.

    Args:
        model, processor: as loaded; the model is put into evaluation mode.
        conditions: names as mmkp.data.conditions has them.
        subsets: of the modalities; all of the model's by default.
        indices: which items; all by default.
        progress: wraps the iterator over batches of indices.

    Returns:
        Predictions in the image frame. An item that lacks every modality of a subset gets the mean shape.
    """
    was_training = model.training
    model.eval()
    subsets = list(subsets or all_subsets(model.modalities))
    wanted = list(range(len(dataset))) if indices is None else list(indices)
    collate = Collator(processor, model.schema, AugmentConfig.off(), seed=0, modalities=model.modalities)
    rows: list[dict[Any, np.ndarray]] = []
    named = Conditions(dataset)
    changes = {name: named[name] for name in dict.fromkeys([*conditions, *needed(conditions, subsets)])}
    batches = [wanted[i : i + batch_size] for i in range(0, len(wanted), batch_size)]
    with torch.inference_mode():
        for batch in progress(batches):
            rows.append(_predict_batch(model, collate, [dataset[i] for i in batch], conditions, subsets, changes))
    model.train(was_training)
    made = _join(rows, conditions, subsets)
    has, whole = (np.concatenate([row[key] for row in rows]) for key in ("has", "whole"))
    lacking = [m for i, m in enumerate(MODALITIES) if m in model.modalities and not has[:, i].any()]
    made.meta |= {"lacking": lacking, "whole": float(whole.mean()) if len(whole) else 0.0}
    return made


def _predict_batch(
    model: MmkpForKeypointDetection, collate: Collator, samples: list[Sample], conditions: Sequence[str],
    subsets: Sequence[str], changes: Mapping[str, Callable[[Sample], Sample | None]],
) -> dict[Any, np.ndarray]:  # fmt: skip
    pictures = [s for s in samples if s.image is not None]
    row: dict[Any, np.ndarray] = {
        "has": np.array([s.present for s in samples]), "whole": np.array([_is_whole(s) for s in pictures], bool),
        "ids": np.array([s.id for s in samples]), "groups": np.array([s.group for s in samples]),
        "true_xy": np.stack([np.where(s.visible[:, None] > 0, s.keypoints_xy, np.nan) for s in samples]),
        "boxes": np.stack([s.box_xywh for s in samples]),
    }  # fmt: skip
    clear = collate([((0, i), s) for i, s in enumerate(samples)])
    back, blank = clear["image_to_input"].double(), mean_shape_input(model)
    row["mean_shape_xy"] = geometry.input_to_image(blank.expand(len(samples), -1, -1), back).numpy()
    for condition in conditions:
        changed = [changes[condition](s) for s in samples]
        hidden = np.zeros_like(samples[0].visible)  # an item to which the condition does not apply has no say in it
        row["visible", condition] = np.stack([hidden if s is None else s.visible for s in changed])
    for source in needed(conditions, subsets):
        changed = [changes[source](s) or s for s in samples]
        batch = clear if source == "clear" else collate([((0, i), s) for i, s in enumerate(changed)])
        own = [s for s in subsets if effective_condition(source, s) == source]
        for subset, said, present in detect_subsets(model, batch, own):
            xy = torch.where(present[:, None, None], said.xy.double(), blank)
            row["xy", source, subset] = geometry.input_to_image(xy, back).numpy()
            row["score", source, subset] = (said.scores * present[:, None]).numpy()
            if said.visibility is not None:
                row["seen", source, subset] = torch.where(present[:, None], said.visibility, torch.nan).numpy()
    return row


def _is_whole(sample: Sample) -> bool:
    """Whether a sample's box is all of its picture."""
    return np.array_equal(sample.box_xywh, geometry.whole_image_box(sample.image.shape[:2]))  # type: ignore[union-attr]


def needed(conditions: Sequence[str], subsets: Sequence[str]) -> list[str]:
    """The conditions under which something must be predicted, so that every asked cell has its figures."""
    found = {effective_condition(c, s) for c in conditions for s in subsets}
    return [name for name in dict.fromkeys([*CONDITIONS, *sorted(found)]) if name in found]


class Said(NamedTuple):
    """What a model says of a batch, on the CPU: keypoints (B, K, 2) px in the input frame, scores (B, K), and (B, K)
    the probability that each can be seen, where the model tells."""

    xy: torch.Tensor
    scores: torch.Tensor
    visibility: torch.Tensor | None


def detect_subsets(
    model: MmkpForKeypointDetection, batch: dict[str, Any], subsets: Sequence[str]
) -> Iterator[tuple[str, Said, torch.Tensor]]:
    """Encode once, then fuse and read for each subset.

    Yields:
        subset, what is said, and (B,) whether the item has any of the subset's modalities.
    """
    for subset, detected, present in fused_subsets(model, batch, subsets):
        if detected is None:
            blank = torch.zeros(len(present), model.schema.num_keypoints, 2)
            yield subset, Said(blank, blank[..., 0], blank[..., 0] if len(model.visibility) else None), present
        else:
            xy, scores = model.read(detected)
            seen = None if detected.visibility is None else detected.visibility.float().sigmoid().cpu()
            yield subset, Said(xy.float().cpu(), scores.float().cpu(), seen), present


def fused_subsets(
    model: MmkpForKeypointDetection, batch: dict[str, Any], subsets: Sequence[str]
) -> Iterator[tuple[str, Detected | None, torch.Tensor]]:
    """Encode once, then fuse for each subset.

    Yields:
        subset, what the heads say (None where no item has any of its modalities), and (B,) whether the item has any,
        on the CPU.
    """
    device = model.device
    batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    inputs = {
        "image": (batch.get("pixel_values"),), "text": (batch.get("input_ids"), batch.get("attention_mask")),
        "audio": (batch.get("input_features"), batch.get("input_features_mask")),
    }  # fmt: skip
    if all(inputs[m][0] is None for m in model.modalities):
        absent = torch.zeros(len(batch["modality_mask"]), dtype=torch.bool)
        yield from ((subset, None, absent) for subset in subsets)
        return
    encoded = model.encode(inputs, batch["modality_mask"])
    for subset in subsets:
        members = subset.split("+")
        chosen = torch.tensor([m in members for m in model.modalities], device=device)
        present = encoded.present & chosen
        kept = [m for m in members if m in encoded.tokens]
        if not kept:
            yield subset, None, torch.zeros(len(present), dtype=torch.bool)
            continue
        part = Encoded({m: encoded.tokens[m] for m in kept}, {m: encoded.masks[m] for m in kept}, present)
        yield subset, model.detect(part), present.any(1).cpu()


def mean_shape_input(model: MmkpForKeypointDetection) -> torch.Tensor:
    """The training's mean shape in the input frame, (K, 2) px, float64."""
    height, width = model.config.input_size_hw
    shape: Any = model.mean_shape
    return shape.double().cpu() * torch.tensor([width, height], dtype=torch.float64) - 0.5


def _join(rows: list[dict[Any, np.ndarray]], conditions: Sequence[str], subsets: Sequence[str]) -> Predictions:
    def whole(key: Any) -> np.ndarray:
        return np.concatenate([row[key] for row in rows])

    plain: dict[str, Any] = {k: whole(k) for k in ("ids", "groups", "true_xy", "boxes", "mean_shape_xy")}
    made = Predictions(**plain)
    for condition in conditions:
        made.visible[condition] = whole(("visible", condition))
        for subset in subsets:
            source = effective_condition(condition, subset)
            if source != condition and "even_times" in condition and "text" not in subset.split("+"):
                continue  # the control is about texts; without one there is nothing to control
            made.keypoints_xy[condition, subset] = whole(("xy", source, subset))
            made.scores[condition, subset] = whole(("score", source, subset))
            if ("seen", source, subset) in rows[0]:
                made.visibility[condition, subset] = whole(("seen", source, subset))
    return made
