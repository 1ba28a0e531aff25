"""Audio encoder: log-mel frames through a small convolution + transformer encoder, or a transformers one by name."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.encoders.external import make_external
from mmkp.encoders.layers import MaskedConv, sincos_sequence, transformer


class LogMelEncoder(nn.Module):
    """Log-mel frames every 10 ms -> tokens every 20 ms."""

    def __init__(self, config: Any, channels: int) -> None:
        super().__init__()
        self.first = MaskedConv(config.mel_bins, channels, kernel=3)
        self.second = MaskedConv(channels, channels, kernel=3, stride=2)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = transformer(channels, config.heads, config.layers, config.dropout)

    def forward(self, input_features: Float[Tensor, "B F M"], mask: Bool[Tensor, "B F"]) -> tuple[Tensor, Tensor]:
        """(B, F, M) frames and their mask, True = real -> tokens (B, ceil(F / 2), D) and their mask."""
        x, mask = self.second(*self.first(input_features, mask))
        x = x + sincos_sequence(x.shape[1], x.shape[2], x.device).to(x.dtype)
        mask = mask | ~mask.any(1, keepdim=True)  # a row with nothing real is absent; keep its attention finite
        return self.transformer(self.dropout(x), src_key_padding_mask=~mask), mask


class ExternalAudioEncoder(nn.Module):
    """Whisper, Wav2Vec2, AST and their like: the hidden states projected to D channels.

    Their features cover a fixed length or their mask shrinks inside; every token counts as real.
    """

    def __init__(self, config: Any, channels: int) -> None:
        super().__init__()
        self.encoder: Any = make_external(config, "audio.encoder")
        width = getattr(self.encoder.config, "d_model", None) or self.encoder.config.hidden_size
        self.project = nn.Linear(width, channels)

    def forward(self, input_features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The features of the encoder's own extractor -> tokens (B, L, D) and their mask, all True."""
        hidden = self.encoder(input_features).last_hidden_state
        tokens = self.project(hidden)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


def make_audio_encoder(config: Any, channels: int) -> nn.Module:
    """The encoder that a MmkpAudioConfig names.

    Raises:
        InputError: no such encoder.
    """
    return (LogMelEncoder if config.encoder == "log_mel" else ExternalAudioEncoder)(config, channels)
