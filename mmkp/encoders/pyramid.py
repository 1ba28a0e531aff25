"""Image pyramid: one image encoder sees the picture on several scales; a rule, attention or a ConvGRU joins them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmkp.encoders.image import ImageEncoder, has_fixed_input_size
from mmkp.errors import InputError, choose
from mmkp.fusion.conv_gru import ConvGRU
from mmkp.fusion.rules import FusionRule

MAX_SCALES = 4
MIN_CELLS = 2  # of the deepest stage at the coarsest scale: a single cell has no place, nor statistics for a batch norm


class RuleOverScales(nn.Module):
    """Average, weighted or product, with every scale present.

    Args:
        scales: how many.
        channels: D; the rules have no use for it.
        kind: as FusionRule has it.
    """

    def __init__(self, scales: int, channels: int, kind: str) -> None:
        super().__init__()
        self.rule = FusionRule(tuple(f"1/{2**s}" for s in range(scales)), kind)

    def forward(self, levels: Float[Tensor, "B S D h w"]) -> Float[Tensor, "B D h w"]:
        """Levels from fine to coarse -> one grid."""
        present = torch.ones(levels.shape[:2], dtype=torch.bool, device=levels.device)
        return self.rule(dict(zip(self.rule.members, levels.unbind(1), strict=True)), present)


class AttentionOverScales(nn.Module):
    """At every place a softmax over the scales, from the features of all of them; it starts as the average.

    Source: attention to scale, Chen et al. 2016, equations 1 and 2, with 1x1 convolutions.
    """

    def __init__(self, scales: int, channels: int) -> None:
        super().__init__()
        choice = nn.Conv2d(channels, scales, 1)
        for parameter in choice.parameters():
            nn.init.zeros_(parameter)
        self.score = nn.Sequential(nn.Conv2d(scales * channels, channels, 1), nn.GELU(), choice)

    def forward(self, levels: Float[Tensor, "B S D h w"]) -> Float[Tensor, "B D h w"]:
        """Levels from fine to coarse -> one grid."""
        share = torch.softmax(self.score(levels.flatten(1, 2)).float(), 1)
        return (levels * share[:, :, None].to(levels.dtype)).sum(1)


class GruOverScales(nn.Module):
    """Deep fusion: a ConvGRU reads the levels from coarse to fine, so that the finest has the last word."""

    def __init__(self, scales: int, channels: int) -> None:
        super().__init__()
        self.recurrent = ConvGRU(scales, channels)

    def forward(self, levels: Float[Tensor, "B S D h w"]) -> Float[Tensor, "B D h w"]:
        """Levels from fine to coarse -> one grid."""
        return self.recurrent(levels.flip(1))


SCALE_FUSIONS: dict[str, Any] = {
    "average": partial(RuleOverScales, kind="average"),
    "weighted": partial(RuleOverScales, kind="weighted"),
    "product": partial(RuleOverScales, kind="product"),
    "attention": AttentionOverScales,
    "conv_gru": GruOverScales,
}


class PyramidEncoder(ImageEncoder):
    """Pixels at 1, 1/2, 1/4 ... of the input's size through the same weights, joined on the grid of the full size.

    Args:
        config: MmkpImageConfig with `scales` of at least 2.
        channels: D.
        input_size_hw: px.

    Raises:
        InputError: no such way to join, a backbone of a fixed input size, an input that the coarsest scale makes too
            small or that does not halve into whole cells; or what ImageEncoder refuses.
    """

    def __init__(self, config: Any, channels: int, input_size_hw: tuple[int, int] = (128, 128)) -> None:
        join: Any = choose("image.scale_fusion", config.scale_fusion, SCALE_FUSIONS)
        if has_fixed_input_size(config):
            raise InputError(
                "image.scales", expected=f"1 for {config.backbone}, whose input has a fixed size",
                got=str(config.scales), remedy="Take a convolutional backbone.",
            )  # fmt: skip
        super().__init__(config, channels, input_size_hw)
        self.scales = config.scales
        self._check_size(input_size_hw)
        self.join = join(config.scales, channels)

    def _check_size(self, input_size_hw: tuple[int, int]) -> None:
        shrink = 2 ** (self.scales - 1)
        smallest = MIN_CELLS * self.deepest_stride * shrink
        if min(input_size_hw) < smallest:
            raise InputError(
                "image.scales",
                expected=f"an input of at least {smallest} px for {self.scales} scales of stages up to stride "
                f"{self.deepest_stride}",
                got=f"model.input_size_hw {tuple(input_size_hw)}",
                remedy="Take fewer scales, a smaller image.deepest_stride or a larger input.",
            )  # fmt: skip
        if any(side % (self.stride * shrink) for side in input_size_hw):
            raise InputError(
                "model.input_size_hw",
                expected=f"multiples of {self.stride * shrink} px (stride {self.stride}, {self.scales} scales)",
                got=str(tuple(input_size_hw)),
            )  # fmt: skip

    def grid(self, pixel_values: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """The joined features on the grid of the full-size picture."""
        levels = [super().grid(pixel_values)]
        grid_hw = (levels[0].shape[-2], levels[0].shape[-1])
        for scale in range(1, self.scales):
            levels.append(enlarge(super().grid(shrink(pixel_values, 2**scale)), grid_hw))
        return self.join(torch.stack(levels, 1))


def shrink(pixel_values: Float[Tensor, "B C H W"], factor: int) -> Float[Tensor, "B C h w"]:
    """The picture at 1/factor of its size, low-passed first; edges stay on edges, so no half pixel is lost."""
    size_hw = (pixel_values.shape[-2] // factor, pixel_values.shape[-1] // factor)
    # in float32, as torch's antialiasing knows no half precision on every device
    small = F.interpolate(pixel_values.float(), size=size_hw, mode="bilinear", antialias=True, align_corners=False)
    return small.to(pixel_values.dtype)


def enlarge(grid: Float[Tensor, "B D h w"], size_hw: tuple[int, int]) -> Float[Tensor, "B D H W"]:
    """A coarser level on the grid of the finest; edges on edges, as mmkp.geometry has its frames."""
    return F.interpolate(grid, size=size_hw, mode="bilinear", align_corners=False)


def make_image_encoder(
    config: Any, channels: int, input_size_hw: tuple[int, int] = (128, 128)
) -> ImageEncoder | PyramidEncoder:
    """The image encoder of a configuration: on one scale, or on a pyramid of them.

    Raises:
        InputError: scales out of 1 to 4; or what the encoder refuses.
    """
    if not isinstance(config.scales, int) or not 1 <= config.scales <= MAX_SCALES:
        raise InputError("image.scales", expected=f"1 to {MAX_SCALES}", got=repr(config.scales))
    return (ImageEncoder if config.scales == 1 else PyramidEncoder)(config, channels, input_size_hw)
