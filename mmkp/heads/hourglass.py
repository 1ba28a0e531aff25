"""Stacked hourglasses: down to a few cells and up again, several times, each pass corrected by the next.

Source: Newell et al., Stacked Hourglass Networks for Human Pose Estimation, ECCV 2016, section 3.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmkp.errors import InputError
from mmkp.heads.layers import last_layer, make_norm

PAPERS_DEPTH = 4  # from 64 cells to 4
COARSEST_CELLS = 2  # that a depth not asked for leaves on a side


class Residual(nn.Module):
    """The pre-activated bottleneck: 1x1 to half the width, 3x3, 1x1 back, added to what came (figure 4, left)."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.body = nn.Sequential(
            make_norm(norm, channels), nn.ReLU(), nn.Conv2d(channels, half, 1, bias=False),
            make_norm(norm, half), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1, bias=False),
            make_norm(norm, half), nn.ReLU(), nn.Conv2d(half, channels, 1),
        )  # fmt: skip

    def forward(self, grid: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Of the same shape."""
        return grid + self.body(grid)


class Hourglass(nn.Module):
    """One hourglass: at every scale a branch goes straight on, another through the next coarser scale (figure 3).

    Args:
        channels: C.
        depth: how often the grid is halved.
        norm: of the residual modules.
    """

    def __init__(self, channels: int, depth: int, norm: str) -> None:
        super().__init__()
        self.straight = nn.ModuleList(Residual(channels, norm) for _ in range(depth))
        self.down = nn.ModuleList(Residual(channels, norm) for _ in range(depth))
        self.up = nn.ModuleList(Residual(channels, norm) for _ in range(depth))
        self.bottom = Residual(channels, norm)

    def forward(self, grid: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Of the same shape."""
        kept = []
        for straight, down in zip(self.straight, self.down, strict=True):
            kept.append(straight(grid))
            grid = down(F.max_pool2d(grid, 2))
        grid = self.bottom(grid)
        for up in self.up:
            grid = kept.pop() + F.interpolate(up(grid), scale_factor=2, mode="nearest")
        return grid


class HourglassHead(nn.Module):
    """Features on the grid -> the heatmaps of every stack, the last of which are the answer.

    Args:
        channels: D.
        num_keypoints: K.
        codec: whose raw output this is.
        grid_hw: cells; they say how deep an hourglass can be.
        stacks: hourglasses one after the other, each learned from.
        depth: how often an hourglass halves the grid; None: 4 times as in the paper, or as often as the grid allows.
        width: channels of the hourglasses (256 in the paper); None: D.
        norm: `batch`, as in the paper, or `group`.

    Raises:
        InputError: no stacks, a grid that cannot be halved so often, no such norm.
    """

    codecs = ("heatmap", "gaussian_heatmap")

    def __init__(
        self,
        channels: int,
        num_keypoints: int,
        codec: Any,
        grid_hw: tuple[int, int],
        stacks: int = 2,
        depth: int | None = None,
        width: int | None = None,
        norm: str = "group",
    ) -> None:
        super().__init__()
        if stacks < 1 or (width is not None and width < 1):
            raise InputError(
                "head hourglass", expected="at least 1 stack and 1 channel", got=f"stacks {stacks}, width {width}"
            )
        depth, inner = check_depth(depth, grid_hw), width or channels
        self.enter = nn.Identity() if inner == channels else nn.Conv2d(channels, inner, 1)
        self.hourglasses = nn.ModuleList(
            nn.Sequential(Hourglass(inner, depth, norm), Residual(inner, norm), linear(inner, norm))
            for _ in range(stacks)
        )
        self.heat = nn.ModuleList(last_layer(inner, num_keypoints, codec) for _ in range(stacks))
        self.feed_features = nn.ModuleList(nn.Conv2d(inner, inner, 1) for _ in range(stacks - 1))
        self.feed_heat = nn.ModuleList(nn.Conv2d(num_keypoints, inner, 1, bias=False) for _ in range(stacks - 1))

    def forward(self, grid: Float[Tensor, "B D h w"]) -> tuple[Tensor, ...]:
        """(B, D, h, w) -> for every stack (B, K, h, w)."""
        grid = self.enter(grid)
        stages = []
        for i, (hourglass, heat) in enumerate(zip(self.hourglasses, self.heat, strict=True)):
            features = hourglass(grid)
            stages.append(heat(features))
            if i < len(self.feed_heat):  # predictions go back among the features (figure 4, right)
                grid = grid + self.feed_features[i](features) + self.feed_heat[i](stages[-1])
        return tuple(stages)


def linear(channels: int, norm: str) -> nn.Sequential:
    """1x1 convolution, norm, ReLU."""
    return nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), make_norm(norm, channels), nn.ReLU())


def check_depth(depth: int | None, grid_hw: tuple[int, int]) -> int:
    """The depth asked for, or the paper's where the grid allows it.

    Raises:
        InputError: a grid that cannot be halved so often, or at all.
    """
    possible = max(d for d in range(32) if all(side % 2**d == 0 for side in grid_hw))
    if depth is None:
        enough = max(1, (min(grid_hw) // COARSEST_CELLS).bit_length() - 1)
        depth = max(1, min(possible, enough, PAPERS_DEPTH))
    if not 1 <= depth <= possible:
        raise InputError(
            "head.depth", expected=f"1 to {possible} halvings of the grid of {grid_hw[0]}x{grid_hw[1]} cells"
            if possible else f"a grid of even sides rather than {grid_hw[0]}x{grid_hw[1]} cells", got=str(depth),
            remedy="Choose a model.input_size_hw that is a multiple of image.stride times 2^depth.",
        )  # fmt: skip
    return depth
