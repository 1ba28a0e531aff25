"""Text encoder: a small transformer over bytes, or any transformers encoder by name."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from mmkp.encoders.external import make_external
from mmkp.encoders.layers import MaskedConv, sincos_sequence, transformer

BYTE_VOCABULARY = 384  # ByT5's tokenizer: 3 special tokens, 256 bytes, 125 reserved


class ByteEncoder(nn.Module):
    """Bytes -> tokens. A convolution over neighbouring bytes first: a letter means little, the cursor's sides much."""

    def __init__(self, config: Any, channels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(BYTE_VOCABULARY, channels)
        self.neighbours = MaskedConv(channels, channels, kernel=5)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = transformer(channels, config.heads, config.layers, config.dropout)

    def forward(self, input_ids: Int[Tensor, "B L"], attention_mask: Bool[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
        """(B, L) ids and mask, True = real -> tokens (B, L, D) and the mask."""
        x = self.embed(input_ids)
        near, _ = self.neighbours(x, attention_mask)
        x = x + near + sincos_sequence(x.shape[1], x.shape[2], x.device).to(x.dtype)
        return self.transformer(self.dropout(x), src_key_padding_mask=~attention_mask), attention_mask


class ExternalTextEncoder(nn.Module):
    """Any AutoModel encoder, its hidden states projected to D channels."""

    def __init__(self, config: Any, channels: int) -> None:
        super().__init__()
        self.encoder: Any = make_external(config, "text.encoder")
        self.project = nn.Linear(self.encoder.config.hidden_size, channels)

    def forward(self, input_ids: Int[Tensor, "B L"], attention_mask: Bool[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
        """(B, L) ids and mask, True = real -> tokens (B, L, D) and the mask."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask.long()).last_hidden_state
        return self.project(hidden), attention_mask


def make_text_encoder(config: Any, channels: int) -> nn.Module:
    """The encoder that a MmkpTextConfig names.

    Raises:
        InputError: no such encoder.
    """
    return (ByteEncoder if config.encoder == "bytes" else ExternalTextEncoder)(config, channels)


def as_mask(attention_mask: Tensor | None, like: Tensor) -> Tensor:
    """A boolean mask (B, L), all True when none is given."""
    if attention_mask is None:
        return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
    return attention_mask.bool()
