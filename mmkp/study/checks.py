"""What is wrong with a study that its types cannot say."""

from __future__ import annotations

from itertools import combinations

from mmkp.data.sample import MODALITIES
from mmkp.errors import InputError, nearest
from mmkp.study.recipe import Study

# What the study itself says, the same for every arm: a change of one arm would break what is compared.
OWNED = {
    "name": "arms", "training.steps": "budget", "training.seed": "seeds", "training.evaluate_every": "budget.checks",
    "data.dataset": "data.dataset", "data.options": "data.options",
}  # fmt: skip


def check(study: Study) -> None:
    """What a type cannot say.

    Raises:
        InputError: the first fault.
    """
    where = f"study {study.name}"
    names = [arm.name.lower() for arm in study.arms]  # a file system may not tell A from a
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"{where} arms", expected="names that differ", got=f"{twice[0]!r} more than once")
    if len(set(study.seeds)) != len(study.seeds):
        raise InputError(f"{where} seeds", expected="each seed once", got=str(list(study.seeds)))
    labels = [arm.label or arm.name for arm in study.arms]
    twice = sorted({x for x in labels if labels.count(x) > 1})
    if twice:
        remedy = "Two lines of a figure would have one name."
        raise InputError(
            f"{where} arms", expected="labels that differ", got=f"{twice[0]!r} more than once", remedy=remedy
        )
    if study.evaluate.split == "train":
        remedy = "Take test, or validation while settings are chosen."
        raise InputError(
            f"{where} evaluate.split", expected="data that no arm was trained on", got="train", remedy=remedy
        )
    if len(set(study.evaluate.conditions)) != len(study.evaluate.conditions):
        got = str(list(study.evaluate.conditions))
        raise InputError(f"{where} evaluate.conditions", expected="each once", got=got)
    for arm in study.arms:
        if any(not c.isprintable() for c in arm.label):
            raise InputError(f"{where}, arm {arm.name} label", expected="one line", got=repr(arm.label))
        if arm.modalities and len(set(arm.modalities)) < len(arm.modalities):
            got = str(list(arm.modalities))
            raise InputError(f"{where}, arm {arm.name} modalities", expected="each once", got=got)
    if study.corruptions and "clear" not in study.evaluate.conditions:
        raise InputError(
            f"{where} evaluate.conditions", expected="clear among them, which corruptions are held against",
            got=str(list(study.evaluate.conditions)),
        )  # fmt: skip
    if (study.budget.steps is None) == (study.budget.cpu_seconds is None):
        got = "both" if study.budget.steps else "neither"
        raise InputError(f"{where} budget", expected="steps or cpu_seconds", got=got)
    for key, value in (i for c in (study.changes, *(arm.changes for arm in study.arms)) for i in c.items()):
        owned = next((o for o in OWNED if f"{key}.".startswith(f"{o}.") or o.startswith(f"{key}.")), None)
        if owned is not None:
            remedy = f"Say it in the study's {OWNED[owned]}."
            raise InputError(f"{where} changes", expected="what arms may differ in", got=key, remedy=remedy)
        if isinstance(value, dict) and "." not in key:  # it would replace the section, the arms' own keys too
            remedy = "Write them into the file; an override cannot."
            raise InputError(f"{where} changes", expected="single keys, {section.key: value}", got=key, remedy=remedy)
    _check_corruptions(study)
    _check_subsets(study)
    from mmkp.data.corrupt import CONDITIONS
    from mmkp.study.corruptions import check_names

    for name in study.evaluate.conditions:
        if name not in CONDITIONS:
            raise InputError(
                f"{where} evaluate.conditions", expected="a known one", got=repr(name), remedy=nearest(name, CONDITIONS)
            )
    for name in study.evaluate.primary.conditions:
        if name not in study.evaluate.conditions and "conditions" in study.evaluate.primary.model_fields_set:
            raise InputError(
                f"{where} evaluate.primary.conditions", expected="one of evaluate.conditions", got=repr(name),
                remedy=nearest(name, study.evaluate.conditions),
            )  # fmt: skip
    check_names(f"{where} corruptions", [n for c in study.corruptions for n in c.names])


def _check_corruptions(study: Study) -> None:
    """Every arm is put through a corruption once, on one set of items."""
    for section in study.corruptions:
        for arm in section.arms or ():
            study.arm(arm)
        if len(set(section.severities)) < len(section.severities):
            where = f"study {study.name} corruptions severities"
            raise InputError(where, expected="each once", got=str(list(section.severities)))
    for each in study.arms:
        names = [name for section in study.corruptions_of(each.name) for name in section.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            where = f"study {study.name} corruptions, arm {each.name}"
            raise InputError(where, expected="each corruption once", got=f"{twice[0]!r} more than once")


def _check_subsets(study: Study) -> None:
    known = ["+".join(c) for n in (1, 2, 3) for c in combinations(MODALITIES, n)]
    asked = [study.evaluate.subsets, *(c.subsets for c in study.corruptions)]
    for subsets in asked:
        if subsets and len(set(subsets)) < len(subsets):
            raise InputError(f"study {study.name} subsets", expected="each once", got=str(list(subsets)))
    for name in (s for subsets in asked for s in subsets or ()):
        if name not in known:
            turned = "+".join(m for m in MODALITIES if m in name.split("+"))
            remedy = (
                f"Did you mean {turned!r}?" if set(turned.split("+")) == set(name.split("+")) else nearest(name, known)
            )
            raise InputError(f"study {study.name} subsets", expected="a subset", got=repr(name), remedy=remedy)
