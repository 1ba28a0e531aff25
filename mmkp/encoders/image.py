"""Image encoder: a CNN backbone by name, and a small top-down neck that brings its stages onto one grid."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import Format
from torch import Tensor, nn

from mmkp.errors import InputError, choose, nearest

NECKS = {"top_down": "all stages, brought onto the grid", "finest": "the one stage of the grid's stride"}
HRNET_BRANCHES = {4: 1, 8: 2, 16: 3, 32: 4}  # stride -> timm's index of the fused branch; 0 is the stem


def conv_norm(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """1x1 convolution, or a depthwise one of `kernel` and a pointwise one; group norm; GELU."""
    layers: list[nn.Module] = []
    if kernel > 1:
        layers.append(nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs, bias=False))
    layers += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(norm_groups(outputs), outputs), nn.GELU()]
    return nn.Sequential(*layers)


def norm_groups(channels: int) -> int:
    """The largest number of groups up to 8 that divides the channels (Wu and He 2018 find 8 to 32 alike)."""
    return next(g for g in range(min(8, channels), 0, -1) if channels % g == 0)


class Neck(nn.Module):
    """Top-down pyramid: each stage is projected to D channels and added to the one below, down to the grid's stride.

    Source: feature pyramid networks, Lin et al. 2017, with depthwise smoothing; what is finer than the grid is left
    out, and where no stage is as fine, the finest is enlarged.
    """

    def __init__(self, stage_channels: list[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in stage_channels)
        self.smooth = conv_norm(channels, channels, kernel=3)

    def forward(self, stages: list[Tensor], grid_hw: tuple[int, int]) -> Float[Tensor, "B D h w"]:
        """Stages from fine to coarse -> (B, D, h, w)."""
        grid = self.lateral[-1](stages[-1])
        for lateral, stage in zip(reversed(self.lateral[:-1]), reversed(stages[:-1]), strict=True):
            stage = lateral(stage)
            grid = stage + F.interpolate(grid, size=stage.shape[-2:], mode="bilinear", align_corners=False)
        if grid.shape[-2:] != grid_hw:
            grid = F.interpolate(grid, size=grid_hw, mode="bilinear", align_corners=False)
        return self.smooth(grid)


class ImageEncoder(nn.Module):
    """Pixels -> one token per cell of the grid.

    Args:
        config: MmkpImageConfig.
        channels: D.
        input_size_hw: px; only transformers with a table of positions (ViT, Swin) need to know it.

    Raises:
        InputError: neither timm nor transformers has the backbone, none of its stages fits the strides asked for, no
            such neck, an input that HRNet cannot halve five times.
    """

    def __init__(self, config: Any, channels: int, input_size_hw: tuple[int, int] = (128, 128)) -> None:
        super().__init__()
        choose("image.neck", str(config.neck), NECKS)
        self.stride = config.stride
        self.frozen_norm = config.frozen_norm
        self.backbone, stage_channels, strides = make_backbone(config, input_size_hw)
        self.channels_last = getattr(self.backbone, "output_fmt", None) == Format.NHWC  # Swin and its kin
        self.picked = pick_stages(strides, config.stride, deepest_stride(config))
        self.deepest_stride = max(HRNET_BRANCHES) if is_hrnet(config) else strides[self.picked[-1]]
        if is_hrnet(config) and any(side % self.deepest_stride for side in input_size_hw):
            raise InputError(
                "model.input_size_hw", expected=f"multiples of {self.deepest_stride} px for {config.backbone}",
                got=str(tuple(input_size_hw)),
            )  # fmt: skip
        self.neck = Neck([stage_channels[i] for i in self.picked], channels)

    def train(self, mode: bool = True) -> ImageEncoder:
        """As nn.Module.train, but frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, pixel_values: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor]:
        """Encode.

        Returns:
            tokens (B, h * w, D), row by row, and their mask (B, h * w), all True.
        """
        tokens = self.grid(pixel_values).flatten(2).transpose(1, 2)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    def grid(self, pixel_values: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """The features on the grid: cell i covers the pixels i*stride ... i*stride + stride - 1."""
        grid_hw = (pixel_values.shape[-2] // self.stride, pixel_values.shape[-1] // self.stride)
        return self.neck(self.stages(pixel_values), grid_hw)

    def stages(self, pixel_values: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """The stages of the backbone that the neck reads, from fine to coarse; the picture may have any size."""
        stages = self.backbone(pixel_values.contiguous(memory_format=torch.channels_last))  # faster on a CPU
        stages = list(getattr(stages, "feature_maps", stages))
        if self.channels_last:
            stages = [stage.permute(0, 3, 1, 2) for stage in stages]
        return [stages[i] for i in self.picked]


def pick_stages(strides: list[int], finest: int, deepest: int) -> list[int]:
    """Indices of the stages between the two strides, one a stride (the last of several).

    Raises:
        InputError: when no stage lies between them.
    """
    last = {s: i for i, s in enumerate(strides)}
    picked = [i for s, i in sorted(last.items()) if finest <= s <= deepest]
    if not picked:
        raise InputError(
            "image.stride", expected=f"strides between {min(strides)} and {max(strides)} for this backbone",
            got=f"stride {finest}, deepest_stride {deepest}",
        )  # fmt: skip
    return picked


def deepest_stride(config: Any) -> int:
    """The stride beyond which stages are left out."""
    return config.stride if config.neck == "finest" else config.deepest_stride


def from_timm(config: Any) -> bool:
    """Whether the backbone is timm's, rather than one that AutoBackbone loads."""
    return config.backbone_config is None and "/" not in config.backbone


def is_hrnet(config: Any) -> bool:
    """Whether the backbone is one of timm's HRNets, which keep a branch of stride 4 to the end."""
    known = from_timm(config) and timm.is_model(config.backbone)
    return known and timm.model_entrypoint(config.backbone).__module__ == "timm.models.hrnet"


def has_fixed_input_size(config: Any) -> bool:
    """Whether the backbone is one of timm's with a table of positions of the input's size (ViT, Swin)."""
    described = timm.get_pretrained_cfg(config.backbone, allow_unregistered=True) if from_timm(config) else None
    return described is not None and bool(described.fixed_input_size)


def make_backbone(config: Any, input_size_hw: tuple[int, int]) -> tuple[nn.Module, list[int], list[int]]:
    """The backbone without weights, the channels of its stages and their strides.

    Raises:
        InputError: no such backbone.
    """
    if from_timm(config):
        return _timm_backbone(config, input_size_hw)
    return _transformers_backbone(config)


def _timm_backbone(config: Any, input_size_hw: tuple[int, int]) -> tuple[nn.Module, list[int], list[int]]:
    if config.backbone not in timm.list_models() and config.backbone.split(".")[0] not in timm.list_models():
        raise InputError(
            "image.backbone", expected="a timm model, or a Hub id with '/'", got=repr(config.backbone),
            remedy=nearest(config.backbone, timm.list_models()),
        )  # fmt: skip
    options: dict[str, Any] = {"drop_path_rate": config.drop_path_rate} if config.drop_path_rate else {}
    if has_fixed_input_size(config):
        options["img_size"] = tuple(input_size_hw)
    if config.neck == "finest" and is_hrnet(config):
        return _hrnet_branch(config, options)
    backbone: Any = timm.create_model(config.backbone, features_only=True, pretrained=False, **options)
    info = backbone.feature_info
    strides = list(info.reduction())
    pick_stages(strides, config.stride, deepest_stride(config))  # refuses what would leave no stage to keep
    keep = [i for i, s in enumerate(strides) if s <= deepest_stride(config)]
    if len(keep) < len(strides):  # `getter` prunes what is deeper than asked for; timm's other wrappers compute it
        backbone = timm.create_model(
            config.backbone, features_only=True, feature_cls="getter", pretrained=False, out_indices=keep, **options
        )
        info = backbone.feature_info
        strides = list(info.reduction())
    return backbone, list(info.channels()), strides


def _hrnet_branch(config: Any, options: dict[str, Any]) -> tuple[nn.Module, list[int], list[int]]:
    """HRNet whose one output is the branch of the grid's stride, fused of all four in the last stage.

    Source: HRNetV1, Sun et al. 2019, figure 4 (a); timm's own output widens each branch as its classifier needs it.
    """
    if config.stride not in HRNET_BRANCHES:
        raise InputError(
            "image.stride", expected=f"one of {', '.join(map(str, HRNET_BRANCHES))}, the branches of {config.backbone}",
            got=str(config.stride),
        )  # fmt: skip
    branch = HRNET_BRANCHES[config.stride]
    backbone: Any = timm.create_model(
        config.backbone, features_only=True, feature_location="", out_indices=(branch,), pretrained=False, **options
    )
    last = backbone.stage4[-1]
    last.fuse_layers = last.fuse_layers[:branch]  # what fuses into coarser branches would be computed for nothing
    return backbone, list(backbone.feature_info.channels()), list(backbone.feature_info.reduction())


def _transformers_backbone(config: Any) -> tuple[nn.Module, list[int], list[int]]:
    from transformers import AutoBackbone, AutoConfig

    if config.backbone_config is None:
        try:
            loaded = AutoConfig.from_pretrained(config.backbone)
        except (OSError, ValueError) as error:
            raise InputError(
                "image.backbone", expected="a backbone that AutoBackbone can load", got=str(error).splitlines()[0]
            ) from error
        config.backbone_config = loaded.to_dict()
    plain = dict(config.backbone_config)
    made = AutoConfig.for_model(plain.pop("model_type"), **plain)
    made.out_features = list(made.stage_names)
    backbone = AutoBackbone.from_config(made)
    probe_px = 64
    with torch.no_grad(), torch.device("cpu"):
        on_meta = any(p.is_meta for p in backbone.parameters())
        probe = torch.zeros(1, 3, probe_px, probe_px, device="meta" if on_meta else "cpu")
        was = backbone.training
        maps = backbone.eval()(probe).feature_maps
        backbone.train(was)
    return backbone, [m.shape[1] for m in maps], [probe_px // m.shape[-1] for m in maps]
