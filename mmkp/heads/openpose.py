"""OpenPose's head: stages of fields and heat, each of which sees the features and what the stage before said."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmkp.encoders.image import conv_norm
from mmkp.errors import InputError


class Stage(nn.Module):
    """Features and the last stage's answer -> fields, and then heat, which sees the fields.

    Args:
        channels: D.
        heat, fields: channels of the answer.
        layers: residual blocks of depthwise and pointwise convolution.
        kernel: of the depthwise convolution, cells.
        first: there is no stage before.
    """

    def __init__(self, channels: int, heat: int, fields: int, layers: int, kernel: int, first: bool) -> None:
        super().__init__()
        self.enter = None if first else nn.Conv2d(heat + fields, channels, 1, bias=False)
        self.blocks = nn.ModuleList(conv_norm(channels, channels, kernel) for _ in range(layers))
        self.fields = regressed(channels, fields) if fields else None
        self.see_fields = nn.Conv2d(fields, channels, 1, bias=False) if fields else None
        self.last = conv_norm(channels, channels, kernel)
        self.heat = regressed(channels, heat)
        nn.init.ones_(self.heat.bias[-1:])  # type: ignore[index]  # the background, which is nearly everywhere

    def forward(
        self, grid: Float[Tensor, "B D h w"], said: Float[Tensor, "B R h w"] | None
    ) -> Float[Tensor, "B R h w"]:
        """Heat and fields, in the codec's order."""
        x = grid if self.enter is None or said is None else grid + self.enter(said)
        for block in self.blocks:
            x = x + block(x)
        if self.fields is None or self.see_fields is None:
            return self.heat(x + self.last(x))
        fields = self.fields(x)
        x = x + self.see_fields(fields)
        return torch.cat([self.heat(x + self.last(x)), fields], 1)


class OpenposeHead(nn.Module):
    """Features on the grid -> heat, background and part affinity fields of every stage, the last of which answers.

    As in Cao et al. (CVPR 2017) every stage says both and is learned from; as in their OpenPose (TPAMI 2021) the
    fields come first and the heat sees them. The convolutions are separable ones.

    Args:
        channels: D.
        num_keypoints: K.
        codec: whose raw output this is; it knows the limbs.
        grid_hw: not used: the output lies on the grid.
        stages: 6 in the paper of 2017.
        layers: blocks of each stage.
        kernel: of the depthwise convolutions, cells; 7 in the paper.

    Raises:
        InputError: no stages.
    """

    codecs = ("openpose",)

    def __init__(
        self, channels: int, num_keypoints: int, codec: Any, grid_hw: tuple[int, int], stages: int = 3,
        layers: int = 2, kernel: int = 7,
    ) -> None:  # fmt: skip
        super().__init__()
        if stages < 1 or layers < 0 or kernel < 1 or kernel % 2 == 0:
            raise InputError(
                "head openpose", expected="at least 1 stage and an odd kernel",
                got=f"stages {stages}, layers {layers}, kernel {kernel}",
            )  # fmt: skip
        heat = num_keypoints + 1
        fields = codec.raw_shape(num_keypoints)[0] - heat
        self.stages = nn.ModuleList(Stage(channels, heat, fields, layers, kernel, i == 0) for i in range(stages))

    def forward(self, grid: Float[Tensor, "B D h w"]) -> tuple[Tensor, ...]:
        """(B, D, h, w) -> for every stage (B, K + 1 + 2 E, h, w)."""
        said: list[Tensor] = []
        for stage in self.stages:
            said.append(stage(grid, said[-1] if said else None))
        return tuple(said)


def regressed(channels: int, maps: int) -> nn.Conv2d:
    """Maps from near 0, where most of every target lies."""
    layer = nn.Conv2d(channels, maps, 1)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
