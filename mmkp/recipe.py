"""The recipe: one typed, complete description of a run. Unknown keys are refused by name; every number has a unit."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from mmkp import strict_yaml
from mmkp.configuration_mmkp import MODALITIES, MmkpAudioConfig, MmkpImageConfig, MmkpTextConfig
from mmkp.data.augment_config import AugmentConfig
from mmkp.errors import InputError, nearest

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator takes
Trained = Literal["image_backbone", "image", "text", "audio", "fusion", "head", "image_head"]


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(BaseModel):
    """A registry's member by `name`, with that member's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str


class FusionSection(Part):
    """Which fusion, before the head (feature) or after it (model)."""

    name: str = "average"
    level: Literal["feature", "model"] = "feature"


class LossSection(Part):
    """A criterion by name, the codec's usual one without; group_weights: by the schema's groups; its own options."""

    name: str | None = None  # type: ignore[assignment]
    group_weights: dict[str, Positive] = {}


def _section_of(config_class: type, name: str) -> Any:
    """A section with the keys, types and defaults that a configuration class declares itself."""
    fields = {k: (t, getattr(config_class, k)) for k, t in _own_annotations(config_class).items()}
    return create_model(name, __base__=Section, __doc__=config_class.__doc__, **fields)  # type: ignore[call-overload]


def _own_annotations(config_class: type) -> dict[str, Any]:
    own = inspect.get_annotations(config_class, eval_str=True)
    return {k: t for k, t in own.items() if not k.endswith("_config")}


ImageSection = _section_of(MmkpImageConfig, "ImageSection")
TextSection = _section_of(MmkpTextConfig, "TextSection")
AudioSection = _section_of(MmkpAudioConfig, "AudioSection")


class ModelSection(Section):
    """The model: what MmkpConfig holds, but for the schema, which comes with the data."""

    modalities: tuple[Literal["image", "text", "audio"], ...] = ("image", "text", "audio")
    hidden_size: Annotated[int, Field(ge=8, multiple_of=8)] = 96
    input_size_hw: tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]] = (128, 128)
    image: ImageSection = ImageSection()  # type: ignore[valid-type]
    text: TextSection = TextSection()  # type: ignore[valid-type]
    audio: AudioSection = AudioSection()  # type: ignore[valid-type]
    fusion: FusionSection = FusionSection()
    head: Part = Part(name="heatmap")
    codec: Part = Part(name="heatmap")
    loss: LossSection = LossSection()
    visibility: Annotated[float, Field(ge=0)] = 0.0


class DataSection(Section):
    """The data: `dataset` is NAME or NAME:PATH; options go to the dataset, train_options to its train split alone.

    validation_subsets: the subsets of the modalities, such as `image+audio`, by whose mean error the best checkpoint is
    chosen; all of the model's without. A specialist that never misses a modality is to be judged by that one alone.
    """

    dataset: str
    options: dict[str, Any] = {}
    train_options: dict[str, Any] = {}
    validation_samples: Annotated[int, Field(ge=1)] = 400
    validation_subsets: tuple[str, ...] = ()


class TrainingSection(Section):
    """The loop. Steps are optimizer steps; the global batch is batch_size x accumulate x processes.

    lr_scales multiplies the learning rate of a part (image_backbone, image, text, audio, fusion, head, image_head: the
    image's own at model level); a part in `freeze` is not trained. precision `auto` is what `accelerate launch` was
    told, or none. evaluate_every also says how often a checkpoint to resume from is written. start_from: a checkpoint
    (a packaged name, a folder, a Hub id) whose weights the model takes where they fit; start_parts: of these parts
    alone, all without. lora_rank: the encoders are
    frozen and adapters of this rank trained beside them, which are added to them on saving. patience: evaluations
    without a better one that end the run. subsets: so many subsets of the modalities are drawn for each item and step,
    by augment.drop_*, over one pass of the encoders; 0: one, drawn before the encoders.
    """

    start_from: str | None = None
    start_parts: tuple[Literal["encoders", "lifts", "fusion", "heads"], ...] = ()
    lora_rank: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=1)] = 1000
    batch_size: Annotated[int, Field(ge=1)] = 32
    accumulate: Annotated[int, Field(ge=1)] = 1
    learning_rate: Positive = 1e-3
    lr_scales: dict[Trained, Positive] = {}
    subsets: Annotated[int, Field(ge=0, le=16)] = 0
    freeze: tuple[Trained, ...] = ()
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Count = 100
    final_lr_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    clip_norm: Positive = 5.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    seed: Seed = 0
    workers: Count = 0
    threads: Count = 0
    log_every: Annotated[int, Field(ge=1)] = 20
    evaluate_every: Annotated[int, Field(ge=1)] = 500
    patience: Annotated[int, Field(ge=1)] | None = None
    trackers: tuple[str, ...] = ()

    @property
    def warmup_share(self) -> float:
        """Of the steps, those of warming up."""
        return self.warmup_steps / self.steps


class Recipe(Section):
    """A whole run."""

    name: str
    data: DataSection
    model: ModelSection = ModelSection()
    augment: AugmentConfig = AugmentConfig()
    training: TrainingSection = TrainingSection()

    def model_kwargs(self) -> dict[str, Any]:
        """The keyword arguments of MmkpConfig, without the schema."""
        plain = self.model.model_dump(mode="python")
        for m in MODALITIES:
            plain[f"{m}_config"] = plain.pop(m)
        return plain

    def to_yaml(self) -> str:
        """The resolved recipe, every default spelled out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=100)


def load_recipe(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Recipe:
    """Read a recipe and apply `a.b=c` overrides, whose values are read as YAML.

    Raises:
        InputError: no such file, no YAML, an unknown key (with the nearest), a wrong type.
    """
    path = Path(path)
    if not path.is_file():
        near = [p.stem for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise InputError(
            f"recipe {path}", expected="a .yaml file", got="none there", remedy=nearest(path.stem, near) if near else ""
        )
    try:
        plain = strict_yaml.parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path.name}", expected="YAML", got=str(error)) from error
    if not isinstance(plain, dict):
        raise InputError(f"recipe {path.name}", expected="sections (data, model, training ...)", got=repr(plain)[:60])
    for override in overrides:
        _apply(plain, override)
    return parse_recipe(plain, path.name)


def parse_recipe(plain: dict[str, Any], where: str = "") -> Recipe:
    """A recipe from its plain form.

    Raises:
        InputError: the first fault, by its key.
    """
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        raise _explain(first, where) from error


def merged(plain: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts with some entries replaced."""
    made = dict(plain)
    for key, value in changes.items():
        inner = made.get(key)
        made[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return made


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """`a.b=c` words as nested dicts; the values are read as YAML.

    Raises:
        InputError: a word without `=`, or a value that is no YAML.
    """
    plain: dict[str, Any] = {}
    for override in overrides:
        _apply(plain, override)
    return plain


def _apply(plain: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {override!r}", expected="section.key=value", got="no '='")
    *parents, last = key.split(".")
    for parent in parents:
        inner = plain.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError(f"override {override!r}", expected="a section", got=f"{parent} is {inner!r}")
        plain = inner
    try:
        plain[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"override {override!r}", expected="a YAML value", got=str(error)) from error


def _explain(fault: dict[str, Any] | Any, where: str) -> InputError:
    place = [str(part) for part in fault["loc"]]
    name = f"recipe {where} {'.'.join(place)}".replace("  ", " ")
    if fault["type"] == "extra_forbidden":
        return InputError(
            name, expected="a known key", got=repr(place[-1]), remedy=nearest(place[-1], _keys(place[:-1]))
        )
    if fault["type"] == "missing":
        return InputError(name, expected="a value", got="none")
    return InputError(name, expected=fault["msg"].removeprefix("Input should be "), got=repr(fault["input"])[:80])


def _keys(place: list[str]) -> list[str]:
    section: Any = Recipe
    for part in place:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
