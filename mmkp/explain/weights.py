"""What a fusion lets through: a rule's weights, a gate's shares, and how sure each expert of a product is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmkp import geometry
from mmkp.codecs.rle import RleCodec
from mmkp.codecs.simcc import SimccCodec
from mmkp.data.augment import AugmentConfig
from mmkp.data.collate import Collator
from mmkp.data.corrupt import CONDITIONS
from mmkp.data.sample import MODALITIES, KeypointDataset, Sample
from mmkp.evaluation.score import GroupBootstrap
from mmkp.explain.modalities import point_groups
from mmkp.fusion.gated import GatedFusion
from mmkp.fusion.rules import FusionRule
from mmkp.hub import Loaded
from mmkp.modeling_mmkp import Encoded, MmkpForKeypointDetection

Shares = dict[str, Float[Tensor, "B M K"]]


def gate_shares(model: MmkpForKeypointDetection, encoded: Encoded) -> Shares:
    """The mean gate of each modality at the grid cell of each keypoint, where all modalities put it."""
    fusion: Any = model.fusion
    stacked, present = fusion.stack(model.lift(encoded), encoded.present)
    logits = fusion.gate(stacked.flatten(1, 2)).unflatten(1, (stacked.shape[1], fusion.groups)).float()
    here = present[:, :, None, None, None]
    gates = torch.softmax(logits.masked_fill(~here, torch.finfo(torch.float32).min), 1).mean(2) * here[:, :, 0]
    xy, _ = model.read(model.detect(encoded))
    height, width = gates.shape[-2:]
    cell = geometry.input_to_grid(xy.float(), model.config.image_config.stride).round().long()
    at = cell[..., 1].clamp(0, height - 1) * width + cell[..., 0].clamp(0, width - 1)
    return {"gates": gates.flatten(2).gather(2, at[:, None].expand(-1, gates.shape[1], -1))}


def expert_precisions(model: MmkpForKeypointDetection, encoded: Encoded) -> Shares:
    """The precision of each modality's own head for each keypoint, 1 / px^2 of the input; 0 where it is absent."""
    grids = model.lift(encoded)
    blank = torch.zeros(len(encoded.present), model.schema.num_keypoints, device=encoded.present.device)
    rows = []
    for m in model.modalities:
        if m in grids:
            stages = model.heads[m](grids[m])
            raw = stages[-1] if isinstance(stages, tuple) else stages
        rows.append(1 / variance_px(model.codec, raw).clamp_min(1e-6) if m in grids else blank)
    precision = torch.stack(rows, 1) * encoded.present[..., None]
    return {"precision": precision, "share": precision / precision.sum(1, keepdim=True).clamp_min(1e-12)}


def variance_px(codec: Any, raw: Tensor) -> Float[Tensor, "B K"]:
    """The mean of the variances along x and y of what a head's output declares, px^2 of the input."""
    if isinstance(codec, RleCodec):
        return (codec.sigma(raw) * codec.unit_px).square().mean(-1)
    logs = codec.log_density(raw)
    if isinstance(codec, SimccCodec):
        spreads = [_variance(part.exp()) for part in logs.split(codec.bins_xy, -1)]
        return torch.stack(spreads, -1).mean(-1) / codec.split_ratio**2
    density = logs.exp()
    return (_variance(density.sum(-2)) + _variance(density.sum(-1))) / 2 * codec.stride**2


def _variance(density: Float[Tensor, "B K N"]) -> Float[Tensor, "B K"]:
    at = torch.arange(density.shape[-1], device=density.device, dtype=density.dtype)
    mean = (density * at).sum(-1, keepdim=True)
    return (density * (at - mean).square()).sum(-1)


def reader_of(model: MmkpForKeypointDetection) -> Callable[[MmkpForKeypointDetection, Encoded], Shares] | None:
    """What reads a model's fusion item by item; None where it has nothing that depends on the item."""
    if isinstance(model.fusion, GatedFusion):
        return gate_shares
    experts = model.at_model_level and getattr(model.fusion, "kind", None) == "product"
    return expert_precisions if experts else None


def fusion_weights(
    loaded: Loaded, dataset: KeypointDataset, conditions: Sequence[str], batch_size: int = 32, progress: Any = iter
) -> dict[str, Any]:
    """What the fusion does, where it says so: by condition and group of keypoints, on items with all modalities.

    Args:
        conditions: from mmkp.data.corrupt.CONDITIONS; an item to which one does not apply has no say in it.
        progress: wraps the iterator over batches of indices.

    Returns:
        `name` and `level` of the fusion; `weights` by modality for a rule; and for gates and products of experts
        `items`: quantity -> condition -> group -> modality -> mean, ci95, n.
    """
    model, fusion = loaded.model, loaded.model.fusion
    made: dict[str, Any] = {"name": model.config.fusion["name"], "level": model.config.fusion["level"]}
    if isinstance(fusion, FusionRule):
        weights = fusion.weights(torch.ones(1, len(model.modalities), dtype=torch.bool, device=model.device))[0]
        made["weights"] = {m: round(float(w), 6) for m, w in zip(model.modalities, weights, strict=True)}
    reader = reader_of(model)
    if reader is None:
        return made
    items: dict[str, Any] = {}
    for condition in conditions:
        names, found = _read(loaded, dataset, condition, reader, batch_size, progress)
        if not len(names):
            continue  # no item has all modalities under this condition
        draws = GroupBootstrap(names)
        for quantity, values in found.items():
            items.setdefault(quantity, {})[condition] = {
                group: {m: draws.interval(values[:, i, points].mean(-1)) for i, m in enumerate(model.modalities)}
                for group, points in point_groups(model.schema).items()
            }  # fmt: skip
    return {**made, "items": items}


@torch.inference_mode()
def _read(
    loaded: Loaded, dataset: KeypointDataset, condition: str, reader: Callable, batch_size: int, progress: Any
) -> tuple[np.ndarray, dict[str, Float[np.ndarray, "N M K"]]]:
    """The group of every item that has a say, and its shares by quantity."""
    model, change = loaded.model, CONDITIONS[condition]
    needs = [MODALITIES.index(m) for m in model.modalities]
    collate = Collator(loaded.processor, model.schema, AugmentConfig.off(), seed=0, modalities=model.modalities)
    names: list[str] = []
    found: dict[str, list[np.ndarray]] = {}
    wanted = range(len(dataset))
    for indices in progress([wanted[i : i + batch_size] for i in range(0, len(dataset), batch_size)]):
        changed = [change(dataset[i]) for i in indices]
        samples = [s for s in changed if s is not None and all(s.present[i] for i in needs)]
        if samples:
            names += [s.group for s in samples]
            for quantity, values in reader(model, _encode(model, collate, samples)).items():
                found.setdefault(quantity, []).append(values.float().cpu().numpy())
    return np.array(names), {q: np.concatenate(v) for q, v in found.items()}


def _encode(model: MmkpForKeypointDetection, collate: Collator, samples: list[Sample]) -> Encoded:
    batch: Any = collate([((0, i), s) for i, s in enumerate(samples)])
    batch = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    inputs = {
        "image": (batch.get("pixel_values"),), "text": (batch.get("input_ids"), batch.get("attention_mask")),
        "audio": (batch.get("input_features"), batch.get("input_features_mask")),
    }  # fmt: skip
    return model.encode(inputs, batch["modality_mask"])
