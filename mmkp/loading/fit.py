"""Whether a checkpoint's tensors are those that its configuration describes, known before memory is taken for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from mmkp.errors import InputError, MmkpError
from mmkp.loading.source import HUB_OPTIONS, UNSUPPORTED, find
from mmkp.loading.weights import tensors_in


def looked_through(model_class: Any, name: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """The folder of a model, sound and fit for the class; what names its place is taken out of `options`.

    Args:
        model_class: a PreTrainedModel.
        name: a packaged name, a folder or a Hub id.
        options: keyword arguments of `from_pretrained`, changed in place.

    Raises:
        InputError: no such model, one that is refused, or tensors that are lacking, unknown or of other shapes.
    """
    folder = find(name, **{k: options.pop(k) for k in HUB_OPTIONS if k in options})
    for key in UNSUPPORTED:
        if options.get(key):
            raise InputError(f"from_pretrained {key}", expected="none: a checkpoint lies at the top, in safetensors",
                             got=repr(options[key]))  # fmt: skip
    options["use_safetensors"] = True
    if not options.get("ignore_mismatched_sizes"):
        config = options.get("config")
        config = config if isinstance(config, model_class.config_class) else _configuration(model_class, folder, name)
        check_fit(model_class, config, tensors_in(folder), f"model {name}")
    return folder


def _configuration(model_class: Any, folder: Path, name: str | os.PathLike[str]) -> Any:
    try:
        return model_class.config_class.from_pretrained(folder)
    except (TypeError, ValueError, LookupError, AttributeError, OSError) as error:
        if isinstance(error, MmkpError):
            raise
        raise _unusable(f"model {name}, config.json", error) from error


def check_fit(model_class: Any, config: Any, shapes: dict[str, tuple[int, ...]], where: str) -> None:
    """Build the model without memory and compare names and shapes.

    Args:
        model_class: a PreTrainedModel.
        config: its configuration.
        shapes: of the checkpoint's tensors, by name.
        where: begins the message.

    Raises:
        InputError: a configuration that gives no model, or tensors that are lacking, unknown or of other shapes.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = model_class(type(config)(**config.to_dict()))  # what a part fills in stays out of the given one
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, AssertionError, OverflowError) as error:
        if isinstance(error, MmkpError):
            raise
        raise _unusable(f"{where}, config.json", error) from error
    wanted = model.state_dict(keep_vars=True)
    held = {id(wanted[k]) for k in shapes if k in wanted}  # a tensor that two names share is stored once
    lacking = sorted(k for k, v in wanted.items() if k not in shapes and id(v) not in held)
    unknown = sorted(set(shapes) - set(wanted))
    misfits = sorted(k for k, v in wanted.items() if k in shapes and tuple(v.shape) != shapes[k])
    for keys, words in ((misfits, "misfits"), (lacking, "lacks"), (unknown, "holds unknown")):
        if keys:
            first = keys[0]
            sizes = f": {list(shapes[first])} for {list(wanted[first].shape)}" if keys is misfits else ""
            raise InputError(
                where, expected="a checkpoint of mmkp whose weights fit its configuration",
                got=f"{len(keys)} tensors that it {words}, first {first}{sizes}",
            )  # fmt: skip


def _unusable(where: str, error: Exception) -> InputError:
    got = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return InputError(where, expected="settings of a checkpoint of mmkp", got=got)
