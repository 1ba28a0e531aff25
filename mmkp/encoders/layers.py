"""What the sequence encoders share: a transformer over masked tokens, and positions in time."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def sincos_sequence(length: int, channels: int, device: torch.device) -> Float[Tensor, "L D"]:
    """The fixed position embedding of Vaswani et al. 2017, section 3.5."""
    at = torch.arange(length, device=device)[:, None]
    frequency = torch.exp(torch.arange(0, channels, 2, device=device) * (-math.log(10_000.0) / channels))
    return torch.cat([(at * frequency).sin(), (at * frequency).cos()], -1)[:, :channels]


def transformer(channels: int, heads: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    """A pre-norm transformer with a final norm.

    Without biases: a softmax does not see the keys' bias, so that its gradient is rounding noise, which Adam would
    scale up to whole steps.
    """
    layer = nn.TransformerEncoderLayer(
        channels, heads, 4 * channels, dropout, "gelu", batch_first=True, norm_first=True, bias=False
    )
    return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(channels), enable_nested_tensor=False)


class MaskedConv(nn.Module):
    """Convolution in time that sees zeros where the sequence is not real, so that padding cannot matter.

    Args:
        inputs, outputs: channels.
        kernel: an odd number of steps.
        stride: steps per output; an output step is real where the input step at its middle is.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(outputs)
        self.act = nn.GELU()
        self.stride = stride

    def forward(self, x: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
        """(B, L, inputs) and its mask -> (B, ceil(L / stride), outputs) and its mask."""
        x = torch.where(mask[..., None], x, torch.zeros_like(x))
        x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.act(self.norm(x)), mask[:, :: self.stride]
