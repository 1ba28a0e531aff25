"""The study file: typed, complete, unknown keys refused by name; and the recipe that each of its arms stands for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from mmkp import strict_yaml
from mmkp.classic import is_classic
from mmkp.classic.recipe import ClassicRecipe, parse_classic_recipe
from mmkp.data.sample import MODALITIES
from mmkp.errors import InputError, nearest
from mmkp.recipe import FusionSection, Positive, Recipe, Section, Seed, merged, parse_overrides, parse_recipe

Modality = Literal["image", "text", "audio"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=60)]
Severity = Annotated[int, Field(ge=1, le=5)]
Many = Annotated[int, Field(ge=1)]


class ArmSection(Section):
    """One way to solve the task: what it changes in the base recipe, or a recipe of its own (a network's or a classic).

    recipe: a .yaml file beside the study's; changes: {a.b: value} of that recipe; modalities with one member make a
    specialist; label: for figures.
    """

    name: Name
    recipe: str | None = None
    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)] | None = None
    fusion: FusionSection | None = None
    changes: dict[str, Any] = {}
    label: str = ""


class BudgetSection(Section):
    """What every trained arm gets: optimizer steps, or CPU-seconds of training (a probe says how many steps these are).

    checks: validations during training, at each of which a checkpoint to resume from is written.
    """

    steps: Many | None = None
    cpu_seconds: Positive | None = None
    checks: Many = 3


class DataSection(Section):
    """The data of all arms, in place of the base recipe's."""

    dataset: str | None = None
    options: dict[str, Any] | None = None
    train_options: dict[str, Any] | None = None


class PrimarySection(Section):
    """What the verdict is about: a group of the schema (all points without) under the conditions, in their order."""

    part: str | None = None
    conditions: tuple[str, ...] = ("covered", "clear")


class EvaluateSection(Section):
    """How all arms are judged. items: evenly spread over the split; all of them without. subsets: of the modalities, as
    `image+text`; all that an arm has without. calibrate: fit the scores on the validation split first."""

    split: str = "test"
    items: Many | None = None
    conditions: Annotated[tuple[str, ...], Field(min_length=1)] = ("clear", "covered")
    subsets: tuple[str, ...] | None = None
    batch_size: Many = 32
    calibrate: bool = True
    primary: PrimarySection = PrimarySection()


class CorruptionSection(Section):
    """Corruptions by name at some of five severities, on some arms (all without) and items.

    items: evenly spread; subsets: all modalities of an arm without.
    """

    names: Annotated[tuple[str, ...], Field(min_length=1)]
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = (1, 2, 3, 4, 5)
    arms: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    subsets: tuple[str, ...] | None = None
    items: Many = 120


class Study(Section):
    """A whole study.

    recipe: the base of the arms; changes: {a.b: value} of it, for all arms that have no recipe of their own. The steps
    of warming up keep their share of all steps, unless changes name them.
    reference: the arm that paired tests compare with; the specialist of the image without. tuning: in words, how the
    settings of the arms were chosen. alpha: of the verdict, after correction; margin: a ratio within 1 +- margin is no
    difference that matters. ceilings: put `mmkp ceilings` beside the table (talker only).
    """

    kind: Literal["study"]
    name: Name
    recipe: str
    changes: dict[str, Any] = {}
    data: DataSection = DataSection()
    arms: Annotated[tuple[ArmSection, ...], Field(min_length=1)]
    reference: str | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    budget: BudgetSection
    tuning: str = "none: every arm takes the base recipe's settings"
    evaluate: EvaluateSection = EvaluateSection()
    corruptions: tuple[CorruptionSection, ...] = ()
    alpha: Annotated[float, Field(ge=1e-4, lt=0.5)] = 0.01
    margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    ceilings: bool = False

    def arm(self, name: str) -> ArmSection:
        """The arm of that name.

        Raises:
            InputError: there is none; the nearest is named.
        """
        found = {a.name: a for a in self.arms}
        if name not in found:
            raise InputError(
                f"study {self.name}", expected="one of its arms", got=repr(name), remedy=nearest(name, found)
            )
        return found[name]

    def corruptions_of(self, arm: str) -> list[CorruptionSection]:
        """The corruptions that an arm is put through."""
        return [c for c in self.corruptions if c.arms is None or arm in c.arms]


class Loaded:
    """A study with the recipes of its arms, resolved and checked.

    Attributes:
        study: as written, with overrides.
        folder: of its file, which recipes' paths are relative to.
        modalities: by arm.
        reference: the arm's name.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self._files: dict[str, dict[str, Any]] = {}
        self.base = self._read(study.recipe)
        recipes = {arm.name: self.recipe(arm.name, study.seeds[0], study.budget.steps or 1) for arm in study.arms}
        self.classic = {name for name, r in recipes.items() if isinstance(r, ClassicRecipe)}
        self.modalities: dict[str, tuple[str, ...]] = {}
        for name, r in recipes.items():
            own = r.modalities if isinstance(r, ClassicRecipe) else r.model.modalities
            self.modalities[name] = tuple(m for m in MODALITIES if m in own)
        self.data = next(iter(recipes.values())).data
        self.reference = _reference(study, self.modalities, self.classic)

    def recipe(self, name: str, seed: int, steps: int) -> Recipe | ClassicRecipe:
        """The complete recipe of a cell.

        Raises:
            InputError: a part that does not exist or does not fit, by its key.
        """
        study, arm = self.study, self.study.arm(name)
        where = f"(study {study.name}, arm {name})"
        plain = copy.deepcopy(self.base if arm.recipe is None else self._read(arm.recipe))
        if not isinstance(plain.get("data", {}), dict):
            parse_recipe(plain, where)  # says what is wrong with it
        plain["data"] = self._data(plain.get("data", {}), own=arm.recipe is not None)
        changes = {} if arm.recipe else dict(study.changes)
        if plain.get("kind") == "classic":
            return self._classic(plain, arm, seed, where)
        if arm.modalities is not None:
            changes["model.modalities"] = list(arm.modalities)
            if len(arm.modalities) == 1:  # what a specialist lives on is never taken away
                changes[f"augment.drop_{arm.modalities[0]}"] = 0.0
        if arm.fusion is not None:
            put(plain, "model.fusion", arm.fusion.model_dump())
        share = parse_recipe(plain, where).training.warmup_share
        changes = {"training.warmup_steps": max(1, round(min(share, 0.5) * steps)), **changes, **arm.changes}
        changes |= {
            "name": f"{study.name}-{name}-{seed}", "training.seed": seed, "training.steps": steps,
            "training.evaluate_every": max(1, -(-steps // study.budget.checks)),
        }  # fmt: skip
        for key, value in changes.items():
            put(plain, key, value)
        recipe = parse_recipe(plain, where)
        _check_parts(recipe, name)
        return recipe

    def _classic(self, plain: dict[str, Any], arm: ArmSection, seed: int, where: str) -> ClassicRecipe:
        changes: dict[str, Any] = {"training.seed": seed, "training.workers": 1}
        if arm.modalities is not None:
            changes["modalities"] = list(arm.modalities)
        if arm.fusion is not None:
            changes["fusion"] = arm.fusion.model_dump()
        for key, value in (changes | arm.changes).items():
            put(plain, key, value)
        return parse_classic_recipe(plain, where)

    def _data(self, plain: dict[str, Any], own: bool) -> dict[str, Any]:
        """A recipe's data section with the entries that hold for every arm.

        The train split's options are an own recipe's own. Options of another dataset than the one asked for are none
        of its.
        """
        given, asked = self.base.get("data", {}), self.study.data.model_dump(exclude_none=True)
        base = given if isinstance(given, dict) else {}
        dataset = asked.get("dataset", base.get("dataset"))
        entries = {**_of_dataset(base, dataset), **asked}
        wanted = ("dataset", "options", *(() if own else ("train_options",)))
        return {**_of_dataset(plain, dataset), **{k: entries[k] for k in wanted if k in entries}}

    def _read(self, name: str) -> dict[str, Any]:
        if name not in self._files:
            self._files[name] = _read_yaml(self.folder / name, f"study {self.study.name} recipe")
        return self._files[name]


def load_study(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Loaded:
    """Read a study, apply `a.b=c` overrides, and resolve the recipe of every arm.

    Raises:
        InputError: no such file, an unknown key (with the nearest), a fusion, arm or corruption that does not exist,
            two arms of one name, no arm to compare with.
    """
    path = Path(path)
    plain = merged(_read_yaml(path, "study"), parse_overrides(list(overrides)))
    if plain.get("kind") != "study":
        kind = "a classic recipe" if is_classic(path) else f"kind: {plain.get('kind')}"
        raise InputError(
            f"study {path.name}",
            expected="a file that says `kind: study`",
            got=kind,
            remedy="A recipe is for mmkp train.",
        )
    try:
        study = Study.model_validate(plain)
    except ValidationError as error:
        raise _explain(error.errors()[0], path.name) from error
    from mmkp.study.checks import check

    check(study)
    return Loaded(study, path.parent)


def _reference(study: Study, modalities: dict[str, tuple[str, ...]], classic: set[str]) -> str:
    if study.reference is not None:
        return study.arm(study.reference).name
    alone = [name for name, of in modalities.items() if of == ("image",) and name not in classic]
    if not alone:
        raise InputError(
            f"study {study.name}", expected="an arm of the image alone, which paired tests compare with",
            got=", ".join(modalities),
            remedy="Add `- {name: image, modalities: [image]}`, or say `reference: ARM`.",
        )  # fmt: skip
    return alone[0]


def _of_dataset(section: dict[str, Any], dataset: Any) -> dict[str, Any]:
    """A data section without the options of another dataset."""
    names = [str(d).partition(":")[0] for d in (section.get("dataset", dataset), dataset)]
    return {k: v for k, v in section.items() if names[0] == names[1] or k not in ("options", "train_options")}


def _check_parts(recipe: Recipe, arm: str) -> None:
    """Refuse what a cell would only find after its data is read: parts that do not exist or do not go together."""
    from mmkp.codecs import CODECS
    from mmkp.errors import choose
    from mmkp.fusion import make_fusion

    model, fusion = recipe.model, recipe.model.fusion
    try:
        make_fusion(members=model.modalities, channels=model.hidden_size, **fusion.model_dump())
        codec: Any = choose("codec.name", model.codec.name, CODECS)
    except InputError as error:
        raise InputError(
            f"arm {arm} {error.where}", expected=error.expected, got=error.got, remedy=error.remedy
        ) from error
    if getattr(codec, "multi_instance", False):
        raise InputError(f"arm {arm} codec.name", expected="a codec of one person", got=repr(model.codec.name))
    joins = getattr(codec, "joins", None)
    if fusion.level == "model" and isinstance(joins, tuple | frozenset | set) and fusion.name not in joins:
        raise InputError(
            f"arm {arm} fusion.name", expected=f"{' or '.join(joins) or 'none'} at model level with the codec "
            f"{model.codec.name}", got=repr(fusion.name),
        )  # fmt: skip


def put(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b` in nested dicts."""
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(plain.get(parent), dict):
            plain[parent] = {}
        plain = plain[parent]
    plain[last] = value


def _get(plain: Any, key: str, default: Any) -> Any:
    for part in key.split("."):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return default if plain is None else plain


def _read_yaml(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        near = [p.stem for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        remedy = nearest(path.stem, near) if near else ""
        raise InputError(f"{what} {path}", expected="a .yaml file", got="none there", remedy=remedy)
    try:
        plain = strict_yaml.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{what} {path.name}", expected="readable YAML", got=str(error)) from error
    if not isinstance(plain, dict):
        raise InputError(f"{what} {path.name}", expected="sections by name", got=repr(plain)[:60])
    return plain


def _explain(fault: Any, where: str) -> InputError:
    place = [str(part) for part in fault["loc"]]
    name = f"study {where} {'.'.join(place)}"
    if fault["type"] == "extra_forbidden":
        parts = {"arms": ArmSection, "corruptions": CorruptionSection, "budget": BudgetSection, "data": DataSection}
        parts |= {"evaluate": PrimarySection if "primary" in place[:-1] else EvaluateSection}
        section: Any = parts.get(place[0], Study)
        keys = section.model_fields if len(place) > 1 else Study.model_fields
        return InputError(name, expected="a known key", got=repr(place[-1]), remedy=nearest(place[-1], keys))
    if fault["type"] == "missing":
        return InputError(name, expected="a value", got="none")
    return InputError(name, expected=fault["msg"].removeprefix("Input should be "), got=repr(fault["input"])[:80])
