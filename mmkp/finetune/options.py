"""What can be asked of a fine-tuning: `finetune.*` beside the recipe's own keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from mmkp.errors import InputError, nearest
from mmkp.recipe import Section, parse_overrides

Mode = Literal["auto", "head", "lora", "full"]
Baseline = Literal["mean_shape", "scratch", "parents", "unchanged"]


class FinetuneOptions(Section):
    """How to fine-tune.

    mode: `head` trains fusion and head; `lora` also low-rank adapters in the encoders; `full` everything. minutes: of
    training in all, the networks among the baselines included; steps are chosen to fit. baselines: what is measured
    beside the result on the same items: `mean_shape`; `scratch`, the same network with all weights at random;
    `parents`, the same network from what the checkpoint once began from (ImageNet's weights); `unchanged`, the
    checkpoint itself where it has the data's keypoints.
    """

    mode: Mode = "auto"
    minutes: Annotated[float, Field(gt=0)] = 3.0
    lora_rank: Annotated[int, Field(ge=1)] = 8
    baselines: tuple[Baseline, ...] = ("mean_shape", "scratch", "parents", "unchanged")


def split_overrides(overrides: list[str]) -> tuple[FinetuneOptions, dict[str, Any]]:
    """`a.b=c` words as the options of fine-tuning and a part of a recipe.

    Raises:
        InputError: an unknown key or value of `finetune`, a key that fine-tuning decides by itself.
    """
    plain = parse_overrides(overrides)
    asked = plain.pop("finetune", None) or {}
    for key, own in {"start_from": "--model", "lora_rank": "finetune.lora_rank", "freeze": "finetune.mode"}.items():
        if isinstance(plain.get("training"), dict) and key in plain["training"]:
            raise InputError(f"override training.{key}", expected=f"{own} to say it", got=repr(plain["training"][key]))
    if isinstance(plain.get("data"), dict) and "dataset" in plain["data"]:
        raise InputError("override data.dataset", expected="the data as the first argument", got="an override")
    try:
        return FinetuneOptions.model_validate(asked), plain
    except ValidationError as error:
        raise _explained(error.errors()[0]) from error


def _explained(fault: Any) -> InputError:
    key = ".".join(str(part) for part in fault["loc"])
    where = f"finetune.{key}".rstrip(".")
    if fault["type"] == "extra_forbidden":
        remedy = nearest(key, FinetuneOptions.model_fields)
        return InputError(where, expected="a known key", got=repr(key), remedy=remedy)
    expected = fault["msg"].removeprefix("Input should be ")
    return InputError(where, expected=expected, got=repr(fault["input"])[:80])
