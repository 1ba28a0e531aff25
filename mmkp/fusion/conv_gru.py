"""ConvGRU: a recurrent network whose state is a grid, run over the modalities' grids (or the scales of a pyramid)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmkp.errors import InputError


class ConvGRUCell(nn.Module):
    """One step of a gated recurrent unit whose products are convolutions.

    z = sigmoid(W_z x + U_z s), r = sigmoid(W_r x + U_r s), c = tanh(W_c x + U_c (r s)), new s = (1 - z) s + z c.

    Source: Ballas et al. 2016, equations 4 to 7.

    Args:
        channels: D of the input and of the state.
        kernel: cells, odd.

    Raises:
        InputError: an even kernel.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
            raise InputError("fusion.kernel", expected="an odd number of cells", got=repr(kernel))
        self.from_input = nn.Conv2d(channels, 3 * channels, kernel, padding=kernel // 2)  # z, r, c
        self.from_state = nn.Conv2d(channels, 2 * channels, kernel, padding=kernel // 2, bias=False)  # z, r
        self.from_reset = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)  # c

    def forward(self, x: Float[Tensor, "B D h w"], state: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        """The next state."""
        input_z, input_r, input_c = self.from_input(x).chunk(3, 1)
        state_z, state_r = self.from_state(state).chunk(2, 1)
        update, reset = torch.sigmoid(input_z + state_z), torch.sigmoid(input_r + state_r)
        candidate = torch.tanh(input_c + self.from_reset(reset * state))
        return (1 - update) * state + update * candidate


class ConvGRU(nn.Module):
    """A ConvGRU over a short sequence of grids; a step that is not real carries the state over.

    Args:
        steps: length of the sequence; each step has a learned vector of its own, added to its grid.
        channels: D.
        kernel: cells, odd.
    """

    def __init__(self, steps: int, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.cell = ConvGRUCell(channels, kernel)
        self.kind = nn.Parameter(torch.randn(steps, channels) * 0.02)
        self.start = nn.Parameter(torch.zeros(channels))
        self.out = nn.Conv2d(channels, channels, 1)  # a state lies in (-1, 1), features need not

    def forward(
        self, grids: Float[Tensor, "B T D h w"], real: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B D h w"]:
        """The last state, projected; without `real` every step is."""
        if real is None:
            real = torch.ones(grids.shape[:2], dtype=torch.bool, device=grids.device)
        held = torch.where(real[:, :, None, None, None], grids, 0.0)
        steps = held + self.kind[:, :, None, None].to(held.dtype)
        state = self.start[:, None, None].to(steps.dtype).expand_as(steps[:, 0])
        for step, here in zip(steps.unbind(1), real.unbind(1), strict=True):
            state = torch.where(here[:, None, None, None], self.cell(step, state), state)
        return self.out(state)


class ConvGruFusion(nn.Module):
    """The lifted grids in canonical order, one step of a ConvGRU each; what is absent is no step.

    Source: the convolutional recurrent network (CRNN) of deep fusion, with the cell of Ballas et al. 2016.

    Args:
        members: names in canonical order.
        channels: D.
        kernel: cells, odd.

    Raises:
        InputError: an even kernel.
    """

    def __init__(self, members: tuple[str, ...], channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.members = members
        self.recurrent = ConvGRU(len(members), channels, kernel)

    def forward(
        self, grids: dict[str, Float[Tensor, "B D h w"]], present: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B D h w"]:
        """(B, D, h, w) from grids of that shape."""
        blank = torch.zeros_like(next(iter(grids.values())))
        there = torch.tensor([m in grids for m in self.members], device=present.device)
        return self.recurrent(torch.stack([grids.get(m, blank) for m in self.members], 1), present & there)
