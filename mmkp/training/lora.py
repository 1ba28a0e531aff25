"""Low-rank adapters in the encoders, by peft: trained beside frozen weights, and added to them when a model is saved.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022; peft's implementation.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

from torch import nn

from mmkp.errors import InputError, MissingExtraError

# They read their layers' weights without calling the layers, past any adapter.
CLOSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def add_lora(model: Any, rank: int) -> str:
    """Freeze the encoders and put adapters beside their convolutions and linear layers, in place.

    An adapter starts at zero: the model says what it said. Depthwise convolutions have no rank to lower, and torch's
    own transformer layers (those of the byte and log-mel encoders) stay as they are.

    Args:
        model: MmkpForKeypointDetection.
        rank: of the adapters; their scale is 2, as in peft's examples.

    Returns:
        A line for people.

    Raises:
        MissingExtraError: peft is not installed.
        InputError: no layer to adapt.
    """
    if find_spec("peft") is None:
        raise MissingExtraError("training.lora_rank", "peft", "lora")
    from peft import LoraConfig, inject_adapter_in_model

    names = adaptable(model.encoders)
    if not names:
        raise InputError("training.lora_rank", expected="encoders with convolutions or linear layers", got="none")
    model.encoders.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), model.encoders)
    count = sum(p.numel() for p in model.encoders.parameters() if p.requires_grad)
    return f"lora: {len(names)} layers of the encoders adapted at rank {rank}, {count / 1e3:.0f} k weights"


def adaptable(encoders: nn.Module) -> list[str]:
    """The names of the layers that adapters go beside."""
    closed = [name + "." for name, module in encoders.named_modules() if isinstance(module, CLOSED)]
    return [
        name
        for name, module in encoders.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, (nn.Conv1d, nn.Conv2d)) and module.groups == 1))
        and not name.startswith(tuple(closed))
    ]


def merged(model: Any) -> Any:
    """The model with its adapters added to the plain weights: itself where it has none, else a copy."""
    if not any(hasattr(m, "lora_A") for m in model.modules()):
        return model
    made = copy.deepcopy(model)
    adapted = [(n, m) for n, m in made.named_modules() if hasattr(m, "lora_A") and hasattr(m, "get_base_layer")]
    for name, layer in adapted:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(made.get_submodule(parent), last, layer.get_base_layer())
    return made
