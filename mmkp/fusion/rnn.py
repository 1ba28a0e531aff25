"""Recurrent fusion: a GRU or an LSTM hears one modality after the other; its last state conditions every place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.errors import choose
from mmkp.fusion.tokens import ImageOrPlaces, at_least_one, masked_mean, real_tokens

CELLS: dict[str, Any] = {"gru": nn.GRU, "lstm": nn.LSTM}
STEPS = {"tokens": "every real token is a step", "summaries": "every modality is one step, the mean of its tokens"}


class RnnFusion(nn.Module):
    """Steps in canonical order: the image's mean, then the others' tokens (or their means). What is absent is no step.

    Leaving a step out carries the state over it, so that neither an absent modality nor padding can change the state.

    Source: GRU, Cho et al. 2014; LSTM, Hochreiter and Schmidhuber 1997. The state enters a place through a residual
    two-layer perceptron of the place and the state.

    Args:
        members: names in canonical order.
        channels: D, also of the state.
        cell: `gru` or `lstm`.
        steps: `tokens` or `summaries`.
        layers: recurrent layers above each other.

    Raises:
        InputError: no such cell or kind of steps, fewer than one layer.
    """

    uses_tokens = True

    def __init__(
        self, members: tuple[str, ...], channels: int, cell: str = "gru", steps: str = "tokens", layers: int = 1
    ) -> None:
        super().__init__()
        recurrent: Any = choose("fusion.cell", cell, CELLS)
        choose("fusion.steps", steps, STEPS)
        at_least_one("fusion.layers", layers)
        self.summarise = steps == "summaries"
        self.image = ImageOrPlaces(members, channels)
        self.others = {m: i for i, m in enumerate(members) if m != "image"}
        self.kind = nn.Parameter(torch.randn(1 + len(self.others), channels) * 0.02)
        self.norm = nn.LayerNorm(channels)
        self.rnn = recurrent(channels, channels, layers, batch_first=True)
        self.start = nn.Parameter(torch.zeros(layers, 1, channels))
        self.see = nn.Conv2d(channels, channels, 1)
        self.hear = nn.Linear(channels, channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(
        self,
        grids: dict[str, Float[Tensor, "B D h w"]],
        present: Bool[Tensor, "B M"],
        tokens: dict[str, Tensor],
        token_masks: dict[str, Tensor],
        grid_hw: tuple[int, int],
    ) -> Float[Tensor, "B D h w"]:
        """(B, D, h, w) from the image's grid and the others' tokens (B, L, D) with masks (B, L), True = real."""
        grid, has_image = self.image(grids, present, grid_hw)
        steps, masks = [grid.mean((2, 3))[:, None] + self.kind[0].to(grid.dtype)], [has_image[:, None]]
        for kind, (name, at) in zip(self.kind[1:], self.others.items(), strict=True):
            if name in tokens:
                values, mask = real_tokens(tokens[name], token_masks[name], present[:, at])
                if self.summarise:
                    values, mask = masked_mean(values, mask)[:, None], mask.any(1, keepdim=True)
                steps.append(values + kind.to(values.dtype))
                masks.append(mask)
        state = self.last_state(self.norm(torch.cat(steps, 1)), torch.cat(masks, 1))
        told = self.hear(state)[:, :, None, None]
        return grid + self.out(F.gelu(self.see(grid) + told)).to(grid.dtype)

    def last_state(self, steps: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """The state after the last real step; the learned start where there is none."""
        batch, count = real.shape[0], real.sum(1)
        start = self.start.expand(-1, batch, -1).contiguous()
        # Real steps first, in their order: a state never depends on what comes after it, so no packing is needed.
        order = torch.argsort(real.to(torch.uint8), dim=1, descending=True, stable=True)
        steps = steps.gather(1, order[..., None].expand(-1, -1, steps.shape[-1]))
        with torch.autocast(steps.device.type, enabled=False):
            first = (start, torch.zeros_like(start)) if isinstance(self.rnn, nn.LSTM) else start
            states, _ = self.rnn(steps.to(start.dtype), first)
        states = torch.cat([start[-1][:, None], states], 1)
        return states[torch.arange(batch, device=count.device), count]
