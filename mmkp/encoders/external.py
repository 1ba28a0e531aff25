"""Encoders of other libraries by name: their configuration travels in ours, so that a saved model needs no Hub."""

from __future__ import annotations

from typing import Any

from mmkp.encoders.packages import package_path
from mmkp.errors import InputError


def make_external(config: Any, where: str) -> Any:
    """A transformers encoder without weights, from `config.encoder_config` or, the first time, by `config.encoder`.

    Only the encoder half of an encoder-decoder (Whisper, T5) is kept.

    Raises:
        InputError: transformers cannot find or build it.
    """
    from transformers import AutoConfig, AutoModel

    if config.encoder_config is None:
        try:
            source = package_path(config.weights) or config.encoder
            config.encoder_config = AutoConfig.from_pretrained(source).to_dict()
        except (OSError, ValueError) as error:
            raise InputError(
                where, expected="a built-in encoder, or a folder or Hub id that transformers can load",
                got=f"{config.encoder!r}: {str(error).splitlines()[0]}",
            ) from error  # fmt: skip
    plain = dict(config.encoder_config)
    model = AutoModel.from_config(AutoConfig.for_model(plain.pop("model_type"), **plain))
    return encoder_half(model)


def encoder_half(model: Any) -> Any:
    """The encoder of an encoder-decoder, or the model itself."""
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    return model
