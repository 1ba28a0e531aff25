"""The recipe of a fine-tuning, chosen by how much data there is, each choice with its reason."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mmkp.data.augment_config import AugmentConfig
from mmkp.evaluation.predict import all_subsets
from mmkp.finetune.look import DataFacts
from mmkp.finetune.options import FinetuneOptions
from mmkp.hub import Loaded
from mmkp.recipe import Recipe, parse_recipe
from mmkp.training.build import parameter_groups, training_mode

FEW, SOME = 20, 400  # labelled training items: below, the encoders stay; from there on, all weights are free
EPOCHS, LEAST_STEPS, MOST_STEPS = 120, 100, 2000
LEARNING_RATES = {"head": 2e-3, "lora": 2e-3, "full": 1e-3}
EVALUATIONS = 10
PATIENCE = 4  # evaluations
VALIDATED = 100  # items, so that an evaluation takes seconds
WHOLE_STEP = 1.6  # times a pass forth and back: augmentation, the optimizer, the averaged weights, validation
SMALL_AUGMENT: dict[str, Any] = {
    "rotate_deg": 20, "scale": 0.15, "shift": 0.06, "brightness": 0.3, "contrast": 0.3, "occluders": 0.15,
    "low_resolution": 0.1,
}  # fmt: skip


@dataclass
class Plan:
    """What will be trained, and why so.

    Attributes:
        recipe: of the fine-tuning.
        baselines: name -> the same network without the checkpoint: `scratch`, all of it at random; `parents`, from
            what the checkpoint once began from.
        reasons: key of the recipe -> why it has its value.
        notes: baseline -> what it starts from, or why it is not there.
    """

    recipe: Recipe
    baselines: dict[str, Recipe] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """For people: each choice, its value and its reason."""
        return (f"{choice}: {reason}" for choice, reason in self.choices())

    def choices(self) -> Iterator[tuple[str, str]]:
        """Each choice as `key = value`, and its reason."""
        plain = self.recipe.model_dump(mode="json")
        for key, reason in self.reasons.items():
            value: Any = plain
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if key == "augment":
                usual = AugmentConfig().model_dump(mode="json")
                value = {k: v for k, v in value.items() if v != usual[k]}
            yield f"{key} = {json.dumps(value)}", reason


def make_plan(data: DataFacts, loaded: Loaded, options: FinetuneOptions, asked: dict[str, Any]) -> Plan:
    """Choose.

    Args:
        data: what there is.
        loaded: the model to start from; left as it was.
        options: of fine-tuning.
        asked: a part of a recipe that goes before every choice.

    Raises:
        InputError: what is asked for is no recipe.
    """
    config = loaded.model.config
    plain, reasons = {"name": "finetune", "data": {"dataset": data.spec}}, {}  # type: dict[str, Any], dict[str, str]
    plain["data"]["validation_samples"] = VALIDATED
    shared = [m for m in loaded.model.modalities if m in data.modalities]
    if shared != list(loaded.model.modalities):
        plain["data"]["validation_subsets"] = all_subsets(shared)
        reasons["data.validation_subsets"] = "what the data has; from a modality that it lacks nothing can be judged"
    mode, reasons["training.freeze"] = choose_mode(data, options)
    plain["model"] = model_section(config)
    weights = plain["model"]["loss"].pop("group_weights", None) or {}
    plain["model"]["loss"]["group_weights"] = {g: w for g, w in weights.items() if g in data.schema.groups}
    if data.items["train"] < SOME:
        plain["model"]["image"]["frozen_norm"] = True
        reasons["model.image.frozen_norm"] = "the statistics of few pictures are noise; the checkpoint's come from many"
    plain["augment"] = augmentation(data, loaded, reasons)
    plain["training"] = training_section(data, loaded, mode, options, reasons)
    merge(plain, asked)
    recipe = parse_recipe(plain, "of the fine-tuning")
    if "steps" not in (asked.get("training") or {}):
        recipe = fit_steps(recipe, loaded, options, reasons)
    recipe = spread(recipe, asked, reasons, data)
    baselines, notes = baseline_recipes(recipe, config, options)
    for key in [k for k in reasons if _is_asked(asked, k)]:
        reasons[key] = "as asked"
    return Plan(recipe, baselines, reasons, notes)


def choose_mode(data: DataFacts, options: FinetuneOptions) -> tuple[str, str]:
    """head, lora or full, and why."""
    count = data.items["train"]
    words = {"head": "only fusion and head are trained", "lora": "low-rank adapters beside frozen encoders",
             "full": "all weights are trained"}  # fmt: skip
    if options.mode != "auto":
        return options.mode, f"finetune.mode={options.mode}: {words[options.mode]}, as asked"
    mode = "head" if count < FEW else "full"
    why = f"{count} labelled items, fewer than {FEW}" if mode == "head" else f"{count} labelled items"
    return mode, f"finetune.mode={mode}: {words[mode]} ({why})"


def model_section(config: Any) -> dict[str, Any]:
    """The recipe's `model` section of a checkpoint; its encoders' weights come with it, from nowhere else."""
    from mmkp.recipe import ModelSection

    plain: dict[str, Any] = {}
    for key in ModelSection.model_fields:
        if key in ("image", "text", "audio"):
            own = getattr(config, f"{key}_config")
            fields = ModelSection.model_fields[key].default.__class__.model_fields
            plain[key] = {name: getattr(own, name) for name in fields} | {"weights": "none"}
        else:
            plain[key] = getattr(config, key)
    return json.loads(json.dumps(plain))


def augmentation(data: DataFacts, loaded: Loaded, reasons: dict[str, str]) -> dict[str, Any]:
    """More than usual where there is little; modalities are left out in turn where there are several."""
    chosen: dict[str, Any] = dict(SMALL_AUGMENT) if data.items["train"] < SOME else {}
    if chosen:
        reasons["augment"] = f"{data.items['train']} items: wider than the defaults, so that no picture comes twice"
    shared = [m for m in data.modalities if m in loaded.model.modalities]
    if len(shared) > 1:
        chosen |= {f"drop_{m}": 0.15 if m == "image" else 0.3 for m in shared}
        reasons["augment.drop_image"] = f"each of {', '.join(shared)} is missing at times, so that any subset works"
    return chosen


def training_section(
    data: DataFacts, loaded: Loaded, mode: str, options: FinetuneOptions, reasons: dict[str, str]
) -> dict[str, Any]:
    """Batch, learning rate, what is frozen, and the steps that the data asks for."""
    count, model = data.items["train"], loaded.model
    batch = 16 if count >= 16 else 8
    reasons["training.batch_size"] = f"small, so that {count} items still give different batches"
    reasons["training.learning_rate"] = f"for mode {mode}; the image backbone, which knows most already, learns slower"
    frozen = {"head": ["image", "text", "audio"], "lora": [], "full": []}[mode]
    absent = [m for m in model.modalities if m not in data.modalities]
    if absent:
        frozen = list(dict.fromkeys([*frozen, *absent, "fusion"]))
        reasons["training.freeze"] += (
            f"; the data has no {' or '.join(absent)}: that side and the fusion stay as they are"
        )
    steps = int(np.clip(round(EPOCHS * count / batch), LEAST_STEPS, MOST_STEPS))
    reasons["training.steps"] = f"{EPOCHS} rounds through {count} items, within {LEAST_STEPS} to {MOST_STEPS}"
    if mode == "lora":
        reasons["training.lora_rank"] = "finetune.lora_rank"
    return {
        "start_from": loaded.source, "steps": steps, "batch_size": batch, "learning_rate": LEARNING_RATES[mode],
        "lr_scales": {"image_backbone": 0.3} if mode == "full" else {},
        "freeze": [part for part in frozen if part == "fusion" or part in model.modalities],
        "lora_rank": options.lora_rank if mode == "lora" else None, "ema_decay": 0.99, "log_every": 10,
    }  # fmt: skip


def fit_steps(recipe: Recipe, loaded: Loaded, options: FinetuneOptions, reasons: dict[str, str]) -> Recipe:
    """As many steps as the minutes allow on this machine, if the data asks for more."""
    runs = 1 + len({"scratch", "parents"} & set(options.baselines))
    seconds = WHOLE_STEP * step_seconds(loaded, recipe)
    most = max(LEAST_STEPS // 2, int(options.minutes * 60 / runs / seconds))
    reasons["training.steps"] += f"; a step takes about {seconds:.2f} s here"
    if most >= recipe.training.steps:
        return recipe
    reasons["training.steps"] += f", and {options.minutes:g} minutes for {runs} run(s) hold {most} (finetune.minutes)"
    return _with(recipe, steps=most)


def spread(recipe: Recipe, asked: dict[str, Any], reasons: dict[str, str], data: DataFacts) -> Recipe:
    """Evaluations, patience and warm-up in proportion to the steps."""
    steps, given = recipe.training.steps, asked.get("training") or {}
    changes: dict[str, Any] = {
        "evaluate_every": max(1, steps // EVALUATIONS), "warmup_steps": steps // 10,
        "patience": PATIENCE if data.validated else None,
    }  # fmt: skip
    reasons["training.evaluate_every"] = f"{EVALUATIONS} evaluations in all, of which the best model is kept"
    reasons["training.patience"] = (
        "evaluations without a better model that end the run" if data.validated else "nothing to stop by: no item is "
        "held out for validation"
    )  # fmt: skip
    return _with(recipe, **{k: v for k, v in changes.items() if k not in given})


def baseline_recipes(recipe: Recipe, config: Any, options: FinetuneOptions) -> tuple[dict[str, Recipe], dict[str, str]]:
    """The same network, data, augmentation and steps without the checkpoint, all of it trained; what each starts from.

    The learning rate is that of training from the start, as a fine-tuning's would handicap them.
    """
    plain = recipe.model_dump(mode="json")
    plain["training"] |= {"start_from": None, "lora_rank": None, "freeze": [], "learning_rate": 1.5e-3,
                          "lr_scales": {"image_backbone": 0.4}}  # fmt: skip
    recipes, notes = {}, {}
    if "scratch" in options.baselines:
        random: dict[str, Any] = copy.deepcopy(plain) | {"name": "scratch"}
        random["model"]["image"]["frozen_norm"] = False  # statistics of nothing
        random["training"]["lr_scales"] = {}
        recipes["scratch"], notes["scratch"] = parse_recipe(random, "of the baseline"), "all weights at random"
    weights = {m: getattr(config, f"{m}_config").weights for m in config.modalities}
    known = {m: name for m, name in weights.items() if name != "none"}
    if "parents" in options.baselines and known:
        absent = [f"{name}, for {m}, is not installed" for m, name in known.items() if not _installed(name)]
        notes["parents"] = f"left out: {'; '.join(absent)}" if absent else "; ".join(
            f"{m} encoder from {name}, as the checkpoint once began" for m, name in known.items()
        )  # fmt: skip
        if not absent:
            parents: dict[str, Any] = copy.deepcopy(plain) | {"name": "parents"}
            parents["model"]["image"]["frozen_norm"] = config.image_config.frozen_norm
            for m, name in known.items():
                parents["model"][m]["weights"] = name
            recipes["parents"] = parse_recipe(parents, "of the baseline")
    return recipes, notes


def _installed(weights: str) -> bool:
    from mmkp.encoders.packages import package_path

    try:
        package_path(weights)
    except ValueError:
        return False
    return True


def step_seconds(loaded: Loaded, recipe: Recipe, tries: int = 3) -> float:
    """How long an optimizer step takes here: the fastest of a few passes forth and back with blank items."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = copy.deepcopy(loaded.model)
    model, settings = model.to(device), recipe.training
    parameter_groups(model, settings)
    count, config = settings.batch_size, model.config
    blank = np.zeros((*config.input_size_hw, 3), np.uint8)
    given: dict[str, Any] = {"images": [blank] * count}
    if len(model.modalities) > 1:
        rate = config.audio_config.rate_hz
        given |= {"text": ["a|b"] * count, "audio": [np.zeros(rate, np.float32)] * count, "sampling_rate": rate}
    inputs = {k: v.to(device) for k, v in loaded.processor(**given).items()}
    labels = torch.ones(count, model.schema.num_keypoints, 3, device=device)
    took = []
    for _ in range(tries):
        began = time.perf_counter()
        training_mode(model, settings)
        model(**inputs, labels=labels).loss.backward()
        took.append(time.perf_counter() - began)
    return min(took)


def merge(plain: dict[str, Any], more: dict[str, Any]) -> None:
    """Put nested values of `more` over those of `plain`, in place."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(plain.get(key), dict) and "name" not in value:
            merge(plain[key], value)
        else:
            plain[key] = value


def _is_asked(asked: dict[str, Any], key: str) -> bool:
    value: Any = asked
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return not isinstance(value, dict)


def _with(recipe: Recipe, **training: Any) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})
