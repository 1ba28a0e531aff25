"""What a run is made of: data, model, processor, optimizer, from a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mmkp import geometry
from mmkp.configuration_mmkp import MmkpConfig
from mmkp.data import open_dataset
from mmkp.data.sample import KeypointDataset
from mmkp.data.stream import Stream
from mmkp.encoders.weights import load_pretrained_encoders
from mmkp.errors import InputError
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import MmkpProcessor, make_processor
from mmkp.recipe import Recipe, TrainingSection
from mmkp.registration import register
from mmkp.schema import KeypointSchema
from mmkp.training.lora import add_lora
from mmkp.training.start import start_from

WIDER = {"image_backbone": "image", "image_head": "head"}  # a part -> what `freeze` may name for it as well
MEAN_SHAPE_SAMPLES = 500  # the mean of so many shapes is known to a hundredth of their spread or better


@dataclass
class Parts:
    """A recipe, made."""

    recipe: Recipe
    schema: KeypointSchema
    train_set: KeypointDataset | Stream
    validation_set: KeypointDataset
    model: MmkpForKeypointDetection
    processor: MmkpProcessor
    notes: list[str]


def build(recipe: Recipe) -> Parts:
    """Make all parts; the model's weights depend on the recipe's seed alone.

    Raises:
        InputError: a part that does not exist, data that is not there.
    """
    register()
    data = recipe.data
    train_set = open_dataset(data.dataset, "train", **{**data.options, **data.train_options})
    held = {"held": data.validation_samples} if data.options.get("streaming") else {}
    validation_set = open_dataset(data.dataset, "validation", **{**held, **data.options})
    schema = train_set.schema
    torch.manual_seed(recipe.training.seed)
    config = MmkpConfig(**recipe.model_kwargs(), keypoint_schema=schema.model_dump(mode="json"))
    model, processor = make_model(config)
    notes = load_pretrained_encoders(model)
    if recipe.training.start_from:
        notes += start_from(model, recipe.training.start_from, recipe.training.start_parts)
    if recipe.training.lora_rank:
        notes.append(add_lora(model, recipe.training.lora_rank))
    notes += [
        f"{name}: {line}" for name, s in (("train", train_set), ("validation", validation_set)) for line in s.problems
    ]
    notes += _cut_texts(train_set, model, processor)
    if recipe.augment.flip and not schema.flip_pairs:
        notes.append(f"augment.flip is off: the schema {schema.name} names no flip pairs")
    shown = train_set.head(MEAN_SHAPE_SAMPLES) if isinstance(train_set, Stream) else train_set
    model.mean_shape.copy_(mean_shape(shown, config.input_size_hw))
    return Parts(recipe, schema, train_set, validation_set, model, processor, notes)


def _cut_texts(dataset: Any, model: Any, processor: MmkpProcessor) -> list[str]:
    """How many texts of a dataset of rows are longer than the encoder takes."""
    texts = [row.text for row in getattr(dataset, "rows", ()) if row.text and row.text.strip()]
    cut = sum(processor.fitting(text) != text for text in texts) if "text" in model.modalities else 0
    if not cut:
        return []
    return [f"train: {cut} of {len(texts)} texts are longer than the encoder takes: it reads the words around the "
            "cursor |, or the first ones"]  # fmt: skip


def make_model(config: MmkpConfig) -> tuple[Any, MmkpProcessor]:
    """The model and its processor, tried once on blank inputs: parts that do not fit are found before any training.

    Raises:
        InputError: a part that does not exist, or parts that do not fit together.
    """
    try:
        model, processor = MmkpForKeypointDetection(config), make_processor(config)
        blank = np.zeros((*config.input_size_hw, 3), np.uint8)
        inputs = processor(images=blank, text="a|b", audio=np.zeros(config.audio_config.rate_hz, np.float32),
                           sampling_rate=config.audio_config.rate_hz)  # fmt: skip
        with torch.no_grad():
            model.eval()(**inputs, labels=torch.ones(1, model.schema.num_keypoints, 3))
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError, ArithmeticError, LookupError, TypeError) as error:
        got = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            "model", expected="parts that fit together", got=got, remedy="Look at the model section."
        ) from error
    return model, processor


def mean_shape(dataset: KeypointDataset, size_hw: tuple[int, int]) -> torch.Tensor:
    """The mean shape of a dataset within its boxes, (K, 2) in [0, 1] of the input's width and height."""
    count = len(dataset)
    shapes = []
    for i in np.unique(np.linspace(0, count - 1, min(count, MEAN_SHAPE_SAMPLES)).round().astype(int)):
        sample = dataset[int(i)]
        points = geometry.transform(
            sample.keypoints_xy.astype(np.float64), geometry.crop_affine(sample.box_xywh, size_hw)
        )
        shapes.append(np.where(sample.visible[:, None] > 0, points, np.nan))
    stacked = (np.stack(shapes) + 0.5) / np.array(size_hw[::-1])
    known = ~np.isnan(stacked)
    mean = np.where(known, stacked, 0).sum(0) / np.maximum(known.sum(0), 1)
    return torch.from_numpy(np.where(known.any(0), mean, 0.5)).float()


def part_of(parameter: str) -> str:
    """The part of the model that a parameter belongs to, as `lr_scales` and `freeze` name it."""
    if parameter.startswith("encoders.image.backbone"):
        return "image_backbone"
    first, second = parameter.split(".")[:2]
    if first in ("encoders", "lifts"):
        return second
    if first in ("heads", "visibility") and second == "image":
        return "image_head"
    return "head" if first in ("heads", "visibility", "criterion") else "fusion"


def parameter_groups(model: nn.Module, training: TrainingSection) -> list[dict]:
    """Groups for the optimizer: by part; norms and biases without weight decay; frozen parts are switched off."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if is_frozen(part, training):
            parameter.requires_grad_(False)
        elif parameter.requires_grad:
            groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise InputError("training.freeze", expected="a part that is trained", got="all of them frozen")
    scales = {str(part): scale for part, scale in training.lr_scales.items()}
    return [
        {
            "params": members,
            "part": part,
            "lr": training.learning_rate * scales.get(part, scales.get("head", 1.0) if part == "image_head" else 1.0),
            "weight_decay": training.weight_decay if decays else 0.0,
        }
        for (part, decays), members in groups.items()
    ]


def training_mode(model: nn.Module, training: TrainingSection) -> None:
    """As nn.Module.train, but the batch norms of frozen parts keep their statistics."""
    model.train()
    inner = getattr(model, "module", model)
    for name, module in inner.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and is_frozen(part_of(name), training):
            module.eval()


def is_frozen(part: str, training: TrainingSection) -> bool:
    """Whether a part stays as it is, by itself or with the one that it belongs to."""
    return part in training.freeze or WIDER.get(part) in training.freeze


def learning_rate_share(step: int, training: TrainingSection) -> float:
    """Linear warm-up, then a half cosine down to `final_lr_share`."""
    if step < training.warmup_steps:
        return (step + 1) / training.warmup_steps
    progress = (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
    low = training.final_lr_share
    return low + (1 - low) * 0.5 * (1 + float(np.cos(np.pi * min(1.0, progress))))


def trained_parts(model: nn.Module) -> Iterator[str]:
    """The names of the parts that are trained."""
    yield from sorted({part_of(n) for n, p in model.named_parameters() if p.requires_grad})
