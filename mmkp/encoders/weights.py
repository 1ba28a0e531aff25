"""Pretrained weights for the encoders: from the Hub by name, or from a package that carries them."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from mmkp.encoders.external import encoder_half
from mmkp.encoders.packages import package_path
from mmkp.errors import InputError


def load_pretrained_encoders(model: Any) -> list[str]:
    """Give each encoder the weights that its configuration names; called once, when training begins.

    Returns:
        A line per encoder that got weights: which, from where, how many tensors.
    """
    lines = []
    for modality, encoder in model.encoders.items():
        config = getattr(model.config, f"{modality}_config")
        if config.weights != "none":
            target = encoder.backbone if modality == "image" else encoder.encoder
            try:
                state = _image_state(config, target) if modality == "image" else _external_state(config)
            except (OSError, RuntimeError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(
                    f"{modality}.weights",
                    expected="weights that can be fetched",
                    got=(str(error).splitlines() or [type(error).__name__])[0],
                    remedy="Without a Hub, take weights that a package carries (package:NAME), or none.",
                ) from error
            _copy(target, state, f"{modality}.weights")
            lines.append(f"{modality}: {len(target.state_dict())} tensors from {config.weights}")
    return lines


def _image_state(config: Any, target: nn.Module) -> dict[str, torch.Tensor]:
    path = package_path(config.weights)
    if path is None and "/" in config.backbone:
        backbone: Any = type(target)
        return backbone.from_pretrained(config.backbone).state_dict()
    if path is None:
        return timm.create_model(config.backbone, pretrained=True).state_dict()
    if config.backbone.split(".")[0] != "tf_efficientnet_lite0":
        raise InputError("image.backbone", expected="tf_efficientnet_lite0 for these weights", got=config.backbone)
    # The file's names are those of another library; its tensors stand in the order of timm's, shape by shape.
    values = list(torch.load(path, map_location="cpu", weights_only=True).values())
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    return dict(zip(names, values, strict=True))


def _external_state(config: Any) -> dict[str, torch.Tensor]:
    from transformers import AutoModel

    return encoder_half(AutoModel.from_pretrained(package_path(config.weights) or config.encoder)).state_dict()


def _copy(target: nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    wanted = target.state_dict()
    # timm wraps a cut network once more and calls the inner one `model`
    found = {k: state.get(k, state.get(k.removeprefix("model."))) for k in wanted}
    misfits = [k for k, v in found.items() if v is None or v.shape != wanted[k].shape]
    if misfits:
        got = f"{len(misfits)} tensors that do not fit, first {misfits[0]}"
        raise InputError(where, expected="weights of this architecture", got=got)
    target.load_state_dict(found)
