"""Evaluation of models that find several people: predict to a file, score from it, report."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from mmkp import geometry
from mmkp.data.augment import AugmentConfig
from mmkp.data.collate import Collator
from mmkp.data.corrupt import CONDITIONS
from mmkp.data.sample import KeypointDataset, Sample
from mmkp.errors import InputError
from mmkp.evaluation.instance_report import write_people_report
from mmkp.evaluation.instance_scores import summarize_people
from mmkp.evaluation.predict import all_subsets, effective_condition, fused_subsets, needed
from mmkp.evaluation.predictions import reuse, write_arrays
from mmkp.hub import Loaded
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import MmkpProcessor

FILE = "instances.npz"
Cell = tuple[str, str]  # condition, subset


class Found(NamedTuple):
    """People found, a row each: the picture's index, points in the image frame (NaN: not found), scores."""

    image: Int[np.ndarray, " D"]
    keypoints_xy: Float[np.ndarray, "D K 2"]
    scores: Float[np.ndarray, "D K"]
    instance_scores: Float[np.ndarray, " D"]


@dataclass
class PeoplePredictions:
    """All people of one evaluation, in the image frame.

    Attributes:
        ids, groups: (N,) of the pictures.
        true_image: (G,) whose picture each true person is in.
        true_xy: (G, K, 2) px, NaN where unlabelled.
        area: (G,) px^2.
        visible: by condition (G, K), COCO's flag.
        found: by (condition, subset).
        meta: what the predictions depend on; a file with another `meta["key"]` is stale.
    """

    ids: np.ndarray
    groups: np.ndarray
    true_image: Int[np.ndarray, " G"]
    true_xy: Float[np.ndarray, "G K 2"]
    area: Float[np.ndarray, " G"]
    visible: dict[str, UInt8[np.ndarray, "G K"]] = field(default_factory=dict)
    found: dict[Cell, Found] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> Path:
        """Write `instances.npz` into a folder, whole or not at all."""
        arrays: dict[str, Any] = {k: getattr(self, k) for k in ("ids", "groups", "true_image", "true_xy", "area")}
        arrays["meta"] = np.array(json.dumps(self.meta))
        arrays |= {f"visible|{c}": v for c, v in self.visible.items()}
        arrays |= {f"found|{c}|{s}|{k}": v for (c, s), f in self.found.items() for k, v in f._asdict().items()}
        return write_arrays(arrays, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> PeoplePredictions:
        """Read them back; nothing is unpickled.

        Raises:
            InputError: no such file, or a broken one.
        """
        path = folder / FILE
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {k: data[k] for k in data.files}
            plain = {k: arrays.pop(k) for k in ("ids", "groups", "true_image", "true_xy", "area")}
            made = cls(**plain, meta=json.loads(str(arrays.pop("meta"))))
            made.visible = {k.split("|")[1]: v for k, v in arrays.items() if k.startswith("visible|")}
            cells = dict.fromkeys((k.split("|")[1], k.split("|")[2]) for k in arrays if k.startswith("found|"))
            made.found = {(c, s): Found(*(arrays[f"found|{c}|{s}|{k}"] for k in Found._fields)) for c, s in cells}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f"instances {path}", expected="a file that `mmkp evaluate` wrote", got=str(error)
            ) from error
        return made


def evaluate_people(
    loaded: Loaded, dataset: KeypointDataset, conditions: list[str], out: Path, key: str, protocol: dict[str, Any],
    batch_size: int = 32, progress: Any = iter,
) -> dict[str, Any]:  # fmt: skip
    """Write predictions, summary and report of all people into `out`.

    Args:
        loaded: model and processor.
        dataset: whose samples know all people; the one of other samples counts as all.
        conditions: names.
        out: there already; predictions in it with the same `key` are used again.
        protocol: what the figures depend on.

    Raises:
        InputError: the schema has no OKS sigmas.
    """
    from mmkp.metrics import schema_sigmas

    schema_sigmas(loaded.model.schema)  # refused before the long part
    made = reuse(PeoplePredictions, out / FILE, key)
    if made is None:
        made = predict_people(
            loaded.model, loaded.processor, dataset, conditions, batch_size=batch_size, progress=progress
        )
        made.meta = {"key": key, "model": loaded.source, "digest": loaded.digest}
        made.save(out)
        made = PeoplePredictions.load(out)
    summary = summarize_people(made, loaded.model.schema, {**protocol, "box": "the sample's; none of any person"})
    part = out / "summary.json.part"
    part.write_text(json.dumps(summary, indent=1))
    part.replace(out / "summary.json")
    write_people_report(summary, made, dataset, loaded.model.schema, out)
    return summary


def predict_people(
    model: MmkpForKeypointDetection,
    processor: MmkpProcessor,
    dataset: KeypointDataset,
    conditions: Sequence[str],
    indices: Sequence[int] | None = None,
    batch_size: int = 32,
    progress: Any = iter,
) -> PeoplePredictions:
    """Find all people in the items of a dataset, by every subset of modalities under every condition.

    An item that lacks every modality of a subset has nobody.
    """
    was_training = model.training
    model.eval()
    subsets = all_subsets(model.modalities)
    wanted = list(range(len(dataset))) if indices is None else list(indices)
    collate = Collator(processor, model.schema, AugmentConfig.off(), seed=0, modalities=model.modalities)
    rows: dict[Any, list[np.ndarray]] = {}
    with torch.inference_mode():
        for first in progress(range(0, len(wanted), batch_size)):
            samples = [dataset[i] for i in wanted[first : first + batch_size]]
            for name, value in _predict_batch(model, collate, samples, conditions, subsets, first).items():
                rows.setdefault(name, []).append(value)
    model.train(was_training)
    return _join({k: np.concatenate(v) for k, v in rows.items()}, conditions, subsets)


def _join(whole: dict[Any, np.ndarray], conditions: Sequence[str], subsets: Sequence[str]) -> PeoplePredictions:
    plain: dict[str, Any] = {k: whole[k] for k in ("ids", "groups", "true_image", "true_xy", "area")}
    made = PeoplePredictions(**plain)
    for condition in conditions:
        made.visible[condition] = whole["visible", condition]
        for subset in subsets:
            source = effective_condition(condition, subset)
            if source != condition and "even_times" in condition and "text" not in subset.split("+"):
                continue  # the control is about texts
            made.found[condition, subset] = Found(*(whole[source, subset, k] for k in Found._fields))
    return made


def _predict_batch(
    model: MmkpForKeypointDetection, collate: Collator, samples: list[Sample], conditions: Sequence[str],
    subsets: Sequence[str], first: int,
) -> dict[Any, np.ndarray]:  # fmt: skip
    truth = [true_people(s) for s in samples]
    row: dict[Any, np.ndarray] = {
        "ids": np.array([s.id for s in samples]), "groups": np.array([s.group for s in samples]),
        "true_image": first + np.repeat(np.arange(len(samples)), [len(t[0]) for t in truth]),
        "true_xy": np.concatenate([np.where(v[..., None] > 0, xy, np.nan) for xy, v, _ in truth]),
        "area": np.concatenate([area for _, _, area in truth]),
    }  # fmt: skip
    for condition in conditions:
        changed = [CONDITIONS[condition](s) for s in samples]
        flags = [np.zeros_like(t[1]) if c is None else true_people(c)[1] for c, t in zip(changed, truth, strict=True)]
        row["visible", condition] = np.concatenate(flags)
    for source in needed(conditions, subsets):
        changed = [CONDITIONS[source](s) or s for s in samples]
        batch = collate([((0, i), s) for i, s in enumerate(changed)])
        own = [s for s in subsets if effective_condition(source, s) == source]
        back = batch["image_to_input"].double()
        for subset, detected, present in fused_subsets(model, batch, own):
            people = [] if detected is None else model.people(detected)
            for name, value in _rows(people, present, back, first, model.schema.num_keypoints)._asdict().items():
                row[source, subset, name] = value
    return row


def _rows(people: list[Any], present: torch.Tensor, back: torch.Tensor, first: int, keypoints: int) -> Found:
    """A batch's people of items that have what it takes, in the image frame."""
    parts = [
        Found(
            np.full(len(one.scores), first + i),
            geometry.input_to_image(one.keypoints_xy.double().cpu(), back[i].expand(len(one.scores), -1, -1)).numpy(),
            one.scores.cpu().numpy(),
            one.instance_scores.cpu().numpy(),
        )  # fmt: skip
        for i, one in enumerate(people)
        if present[i] and len(one.scores)
    ]
    none = Found(np.zeros(0, int), np.zeros((0, keypoints, 2)), np.zeros((0, keypoints)), np.zeros(0))
    return Found(*(np.concatenate(v) for v in zip(none, *parts, strict=True)))


def true_people(sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All people of a sample: points (P, K, 2) px, flags (P, K), areas (P,) px^2.

    The area is what the dataset says (`info["people_area"]`), that of the sample's box where it holds one person, or
    of the labelled points' extent.
    """
    if sample.people_xy is None or sample.people_visible is None:
        return sample.keypoints_xy[None], sample.visible[None], np.array([float(np.prod(sample.box_xywh[2:]))])
    said = sample.info.get("people_area")
    if said is not None and len(said) == len(sample.people_xy):
        return sample.people_xy, sample.people_visible, np.asarray(said, float)
    known = (sample.people_visible > 0)[..., None]
    low, high = (np.where(known, sample.people_xy, end) for end in (np.inf, -np.inf))
    side = np.nan_to_num(high.max(1) - low.min(1), neginf=0.0)
    return sample.people_xy, sample.people_visible, side.prod(-1)
