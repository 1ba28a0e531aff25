"""Encoders: each modality -> tokens (B, L, D) and a mask (B, L), True where real."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmkp.encoders.audio import make_audio_encoder
from mmkp.encoders.pyramid import make_image_encoder
from mmkp.encoders.text import make_text_encoder

ENCODERS: dict[str, Any] = {
    "image": make_image_encoder,
    "text": make_text_encoder,
    "audio": make_audio_encoder,
}


def make_encoder(modality: str, config: Any, channels: int, **options: Any) -> nn.Module:
    """The encoder of a modality from its sub-configuration, without pretrained weights."""
    return ENCODERS[modality](config, channels, **options)
