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
from mmkp.data.sample import KeypointDataset
from mmkp.evaluation.score import GroupBootstrap
from mmkp.explain.modalities import point_groups
from mmkp.fusion.gated import GatedFusion
from mmkp.fusion.rules import FusionRule
from mmkp.hub import Loaded
from mmkp.modeling_mmkp import Encoded, MmkpForKeypointDetection

Shares = dict[str, Float[Tensor, "B M K"]]
WORDS = {
    "weights": "weight of each modality in the rule; the same for every item that has all modalities",
    "gates": "share that the gate lets through of each modality, where the keypoints of the group lie; they sum to 1",
    "precision": "precision of each expert, 1 / px^2 of the network's input: 1 over the mean variance along x and y",
    "share": "each expert's share of the sum of the precisions: its weight in a product of Gaussians",
}


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
    """What the fusion does, where it says so: all modalities given, by condition and group of keypoints.

    Args:
        conditions: from mmkp.data.corrupt.CONDITIONS; an item to which one does not apply has no say in it.
        progress: wraps the iterator over batches of indices.

    Returns:
        `name` and `level` of the fusion; `weights` by modality for a rule; and for gates and products of experts
        `items`: quantity -> condition -> group -> modality -> mean, ci95, n.
    """
    model, fusion = loaded.model, loaded.model.fusion
    made: dict[str, Any] = {"name": model.config.fusion["name"], "level": model.config.fusion["level"]}
    reader = reader_of(model)
    if isinstance(fusion, FusionRule):
        weights = fusion.weights(torch.ones(1, len(model.modalities), dtype=torch.bool, device=model.device))[0]
        made["weights"] = {m: round(float(w), 6) for m, w in zip(model.modalities, weights, strict=True)}
    if reader is None:
        return made
    groups = point_groups(model.schema)
    names, rows = [], []
    wanted = range(len(dataset))
    for batch in progress([wanted[i : i + batch_size] for i in range(0, len(dataset), batch_size)]):
        samples = [dataset[i] for i in batch]
        names += [s.group for s in samples]
        rows.append({c: _read_batch(loaded, samples, c, reader, groups) for c in conditions})
    draws = GroupBootstrap(np.array(names))
    made["items"] = {
        quantity: {
            c: {
                g: _by_modality(np.concatenate([r[c][quantity][g] for r in rows]), model.modalities, draws)
                for g in groups
            }
            for c in conditions
        }
        for quantity in rows[0][conditions[0]]
    }
    return made


def _by_modality(
    values: Float[np.ndarray, "N M"], modalities: Sequence[str], draws: GroupBootstrap
) -> dict[str, dict[str, Any]]:
    return {m: draws.interval(column) for m, column in zip(modalities, values.T, strict=True)}


@torch.inference_mode()
def _read_batch(
    loaded: Loaded, samples: list, condition: str, reader: Callable, groups: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """quantity -> group -> (B, M), NaN for an item to which the condition does not apply or that lacks a modality."""
    model = loaded.model
    changed = [CONDITIONS[condition](s) for s in samples]
    collate = Collator(loaded.processor, model.schema, AugmentConfig.off(), seed=0, modalities=model.modalities)
    batch: Any = collate([((0, i), c or s) for i, (s, c) in enumerate(zip(samples, changed, strict=True))])
    batch = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    inputs = {
        "image": (batch.get("pixel_values"),), "text": (batch.get("input_ids"), batch.get("attention_mask")),
        "audio": (batch.get("input_features"), batch.get("input_features_mask")),
    }  # fmt: skip
    encoded = model.encode(inputs, batch["modality_mask"])
    whole = encoded.present.all(1).cpu().numpy() & np.array([c is not None for c in changed])
    found = {}
    for quantity, values in reader(model, encoded).items():
        plain = np.where(whole[:, None, None], values.float().cpu().numpy(), np.nan)
        found[quantity] = {group: plain[:, :, points].mean(-1) for group, points in groups.items()}
    return found
