"""Regression head: coordinates from the whole grid, then refined by looking closer at where they say.

Source: DeepPose, Toshev and Szegedy, CVPR 2014: a first estimate from the whole picture, and stages that crop around
the current estimate of each joint and correct it. Here the crops are taken from the features, not from the picture.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmkp.encoders.image import conv_norm
from mmkp.errors import InputError

START_STD = 1e-3  # of the last layers' weights: a new head says the middle, and yet passes a gradient on


class Refinement(nn.Module):
    """One stage of the cascade: a patch of features about each keypoint -> a correction of what is said of it.

    What is seen is read by one layer for all keypoints; what it means, by weights of each keypoint's own.

    Args:
        channels: C of the features.
        num_keypoints: K.
        outputs: R, numbers per keypoint.
        patch: side of the crop, cells.
        hidden: width.
    """

    def __init__(self, channels: int, num_keypoints: int, outputs: int, patch: int, hidden: int) -> None:
        super().__init__()
        self.patch = patch
        self.see = nn.Linear(channels * patch**2, hidden)
        self.who = nn.Parameter(torch.zeros(num_keypoints, hidden))
        self.judge = nn.Parameter(torch.randn(num_keypoints, hidden, outputs) * START_STD)
        self.bias = nn.Parameter(torch.zeros(num_keypoints, outputs))

    def forward(self, features: Float[Tensor, "B C h w"], places: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K R"]:
        """The correction.

        Args:
            features: on the grid.
            places: in units of half the grid's sides from its middle: the grid covers -1 to 1.
        """
        crop = self._crop(features, places).to(self.see.weight.dtype)
        seen = F.gelu(self.see(crop) + self.who)
        return (torch.einsum("bkh,khr->bkr", seen, self.judge) + self.bias).float()

    def _crop(self, features: Float[Tensor, "B C h w"], places: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K CPP"]:
        height, width = features.shape[-2:]
        cells = torch.arange(self.patch, device=places.device, dtype=places.dtype) - (self.patch - 1) / 2
        steps = torch.stack([t.flatten() for t in torch.meshgrid(cells * 2 / width, cells * 2 / height, indexing="xy")])
        at = places[:, :, None] + steps.T  # (B, K, P * P, 2)
        # align_corners=False: -1 and 1 are the outer edges of the outer cells; 0 beyond them
        return F.grid_sample(features, at, align_corners=False).transpose(1, 2).flatten(2)


class RegressionHead(nn.Module):
    """Features on the grid -> coordinates, and their spread where the codec has one; a tuple, one entry per stage.

    No gradient passes from a stage to the one before, neither through the place of the crop nor through the estimate
    that it corrects: each learns from its own error, as DeepPose trains the stages one after the other.

    Args:
        channels: D.
        num_keypoints: K.
        codec: says how many numbers a keypoint has, and in which unit.
        grid_hw: cells of the grid.
        pool: the grid is averaged down to pool x pool cells for the first estimate; 1 forgets where things are.
        hidden: width of the layers.
        stages: 1: the first estimate alone; DeepPose has 3.
        patch: side of the crop of later stages, cells.

    Raises:
        InputError: a number below 1.
    """

    codecs = ("regression", "rle")

    def __init__(
        self, channels: int, num_keypoints: int, codec: Any, grid_hw: tuple[int, int], pool: int = 4, hidden: int = 256,
        stages: int = 1, patch: int = 5,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value in {"pool": pool, "hidden": hidden, "stages": stages, "patch": patch}.items():
            if value < 1:
                raise InputError(f"head.{name}", expected="at least 1", got=str(value))
        shape = codec.raw_shape(num_keypoints)
        self.shape, pooled_hw = shape, (min(pool, grid_hw[0]), min(pool, grid_hw[1]))
        self.block = conv_norm(channels, channels, 5)
        self.pool = nn.AdaptiveAvgPool2d(pooled_hw)
        self.body = nn.Sequential(
            nn.Linear(channels * pooled_hw[0] * pooled_hw[1], hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.last = nn.Linear(hidden, shape[0] * shape[1])
        nn.init.normal_(self.last.weight, std=START_STD)
        nn.init.zeros_(self.last.bias)
        crops = max(1, channels // 2)
        self.reduce = nn.Conv2d(channels, crops, 1) if stages > 1 else None
        made = (Refinement(crops, num_keypoints, shape[1], patch, hidden) for _ in range(stages - 1))
        self.refinements = nn.ModuleList(made)
        height, width = codec.input_size_hw
        to_halves = torch.tensor([2 * codec.unit_px / width, 2 * codec.unit_px / height])
        self.register_buffer("to_halves", to_halves, persistent=False)

    def forward(self, grid: Float[Tensor, "B D h w"]) -> tuple[Float[Tensor, "B K R"], ...]:
        """(B, D, h, w) -> the estimates of all stages, (B, K, R) each."""
        grid = grid + self.block(grid)
        body = self.body(self.pool(grid).flatten(1))
        features = None if self.reduce is None else self.reduce(grid).float()
        with torch.autocast(grid.device.type, enabled=False):  # half precision holds 8 bits of a coordinate
            estimates = [self.last(body.to(self.last.weight.dtype)).float().unflatten(1, self.shape)]
            for refinement in self.refinements:
                before = estimates[-1].detach()
                estimates.append(before + refinement(features, before[..., :2] * self.to_halves))
        return tuple(estimates)
