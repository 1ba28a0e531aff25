"""The recipe of a classic run: typed sections, unknown keys refused with the nearest."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from mmkp import strict_yaml
from mmkp.classic import DESCRIPTORS, METHODS, REGRESSORS
from mmkp.errors import InputError, choose, nearest
from mmkp.recipe import DataSection, Part, Section, merged, parse_overrides

Modality = Literal["image", "text", "audio"]
Dimension = Annotated[int, Field(ge=1)]


class TextSection(Section):
    """TF-IDF of n-grams of letters or words; `ngrams` is the shortest and the longest."""

    analyzer: Literal["char", "char_wb", "word"] = "char"
    ngrams: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1, 4)
    max_features: Dimension = 2000


class AudioSection(Section):
    """MFCC and their deltas: mean, std, min and max over spans centred on the picture's moment."""

    coefficients: Annotated[int, Field(ge=2, le=40)] = 20
    mel_bins: Annotated[int, Field(ge=2, le=128)] = 40
    spans_s: tuple[Annotated[float, Field(gt=0.02, le=0.5)], ...] = (0.5, 0.1)


class DescriptorSection(Part):
    """Which descriptor of the picture, with its own options."""

    name: str = "hog"


class RegressorSection(Part):
    """Which regressor, with its own options."""

    name: str = "svm"


class MethodSection(Part):
    """How the picture gives keypoints, with the method's own options."""

    name: str = "regression"


class FeaturesSection(Section):
    """Descriptors, their scale (fitted on the train split alone) and the dimension that PCA leaves of each modality.

    `scale`: `zscore` (mean 0, deviation 1) or `unit` (0 to 1).
    """

    size_px: Annotated[int, Field(ge=32, le=1024)] = 64
    image: DescriptorSection = DescriptorSection()
    text: TextSection = TextSection()
    audio: AudioSection = AudioSection()
    scale: Literal["zscore", "unit"] = "zscore"
    pca: dict[Modality, Dimension] = {}


class FusionSection(Section):
    """Which rule, on features or on each modality's prediction; weights of `weighted`, from held-out errors without."""

    name: Literal["average", "weighted", "product", "concat"] = "product"
    level: Literal["feature", "model"] = "model"
    weights: dict[Modality, Annotated[float, Field(ge=0)]] = {}


class FitSection(Section):
    """items: at most so many of the train split; cover: share of its pictures that get a cover (face68 alone).
    folds: of its groups; each is predicted by a fit to the others, for the errors that weights, covariances and scores
    rest on."""

    items: Annotated[int, Field(ge=4, le=20_000)] = 4000
    cover: Annotated[float, Field(ge=0, le=1)] = 0.0
    folds: Annotated[int, Field(ge=2, le=20)] = 3
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=1)] = 2


class ClassicRecipe(Section):
    """A whole classic run. shape_components: of the point distribution model that regressors predict."""

    kind: Literal["classic"]
    name: str
    data: DataSection
    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)] = ("image", "text", "audio")
    features: FeaturesSection = FeaturesSection()
    method: MethodSection = MethodSection()
    regressor: RegressorSection = RegressorSection()
    shape_components: Dimension = 20
    fusion: FusionSection = FusionSection()
    training: FitSection = FitSection()

    def to_yaml(self) -> str:
        """The resolved recipe, every default spelled out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=100)


def make_part(where: str, part: Part, registry: dict[str, str]) -> Any:
    """A registry's member with its options.

    Raises:
        InputError: no such member, an option that it does not have (each with the nearest), a wrong value.
    """
    module, _, attribute = str(choose(where + ".name", part.name, registry)).partition(":")
    member: type[BaseModel] = getattr(importlib.import_module(module), attribute)
    try:
        return member.model_validate(part.model_dump(exclude={"name"}))
    except ValidationError as error:
        raise _explain(error, where, member) from error


def load_classic_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> ClassicRecipe:
    """Read a classic recipe and apply `a.b=c` overrides, whose values are read as YAML.

    Raises:
        InputError: no such file, no YAML, an unknown key, name or option (with the nearest), a wrong type.
    """
    path = Path(path)
    try:
        plain = strict_yaml.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"recipe {path}", expected="a readable YAML file", got=str(error)) from error
    if not isinstance(plain, dict):
        raise InputError(f"recipe {path.name}", expected="sections (data, features ...)", got=repr(plain)[:60])
    return parse_classic_recipe(merged(plain, parse_overrides(list(overrides))), path.name)


def parse_classic_recipe(plain: dict[str, Any], where: str = "") -> ClassicRecipe:
    """A classic recipe from its plain form.

    Raises:
        InputError: the first fault, by its key.
    """
    try:
        recipe = ClassicRecipe.model_validate(plain)
    except ValidationError as error:
        raise _explain(error, f"recipe {where}".strip(), ClassicRecipe) from error
    make_part("features.image", recipe.features.image, DESCRIPTORS)
    make_part("regressor", recipe.regressor, REGRESSORS)
    make_part("method", recipe.method, METHODS)
    _check(recipe)
    return recipe


def _check(recipe: ClassicRecipe) -> None:
    fusion, ngrams = recipe.fusion, recipe.features.text.ngrams
    if recipe.method.name != "regression" and (fusion.level == "feature" or "image" not in recipe.modalities):
        raise InputError(
            "method", expected="regression, or modalities with image and fusion.level: model",
            got=f"{recipe.method.name} of {'+'.join(recipe.modalities)}, level {fusion.level}",
        )  # fmt: skip
    if fusion.level == "model" and fusion.name == "concat":
        raise InputError("fusion.name", expected="average, weighted or product at model level", got="concat")
    if fusion.weights and (fusion.name != "weighted" or not any(fusion.weights.values())):
        raise InputError("fusion.weights", expected="the rule weighted, not all weights 0", got=str(fusion.weights))
    if set(fusion.weights) - set(recipe.modalities) or len(set(recipe.modalities)) != len(recipe.modalities):
        raise InputError("modalities", expected="each once, and all that have weights", got=str(recipe.modalities))
    if ngrams[0] > ngrams[1]:
        raise InputError("features.text.ngrams", expected="the shorter first", got=str(list(ngrams)))


def _explain(error: ValidationError, where: str, root: type[BaseModel]) -> InputError:
    fault = error.errors()[0]
    place = [str(part) for part in fault["loc"]]
    name = f"{where} {'.'.join(place)}"
    if fault["type"] == "extra_forbidden":
        return InputError(
            name, expected="a known key", got=repr(place[-1]), remedy=nearest(place[-1], _keys(root, place[:-1]))
        )
    if fault["type"] == "missing":
        return InputError(name, expected="a value", got="none")
    return InputError(name, expected=fault["msg"].removeprefix("Input should be "), got=repr(fault["input"])[:80])


def _keys(section: Any, place: list[str]) -> list[str]:
    for part in place:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
