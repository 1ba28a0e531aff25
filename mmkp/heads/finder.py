"""The finder: where in a picture are faces, from the image backbone's stages, before the neck and all that follows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STRIDE = 16  # px per cell: a face of the nominal size covers four cells, and most of a backbone's cost lies below
SPOT_OUTPUTS = 4  # a logit, x and y offset, log of the size


class Finder(nn.Module):
    """Two small readers of the backbone's stages, in the way of cascades: a spotter and a judge.

    The spotter looks at every cell of a picture of any size: does it hold the middle of a face of the nominal size?
    The judge looks at one crop as the network gets it: is this a face in its box?

    Args:
        stage_channels: channels of the backbone's stages, from fine to coarse.
        face_px: the nominal side of a face's box, px of what the spotter sees.
        channels: of the spotter's hidden layers.
        judge_channels: of the judge's hidden layers.
        judge_cells: the judge sees a crop as so many cells a side.

    Source: proposals and their verdict as in MTCNN, Zhang et al. 2016, with one backbone for both; offsets and size
    beside the logit as in CenterNet, Zhou et al. 2019.
    """

    def __init__(
        self, stage_channels: list[int], face_px: int, channels: int, judge_channels: int, judge_cells: int
    ) -> None:
        super().__init__()
        total = sum(stage_channels)
        self.face_px, self.judge_cells = face_px, judge_cells
        self.norm = nn.BatchNorm2d(total, affine=False)  # stages differ in size by far
        self.spotter = nn.Sequential(
            nn.Conv2d(total, channels, 1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(channels, SPOT_OUTPUTS, 1),
        )  # fmt: skip
        self.judge = nn.Sequential(
            nn.Conv2d(total, judge_channels, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(judge_channels * judge_cells**2, judge_channels), nn.ReLU(), nn.Linear(judge_channels, 1),
        )  # fmt: skip

    def gather(self, stages: list[Tensor], size_hw: tuple[int, int]) -> Float[Tensor, "B C h w"]:
        """The stages of an input of `size_hw` px side by side on one grid of `STRIDE`, as they come."""
        grid = (size_hw[0] // STRIDE, size_hw[1] // STRIDE)
        return torch.cat([_onto(stage, grid) for stage in stages], 1)

    def spot(self, gathered: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 4 h w"]:
        """For every cell: a logit, the offset of the face's middle from the cell's (x, y) and the log of the box's
        side, in units of `face_px`."""
        return self.spotter(self.norm(gathered))

    def view(self, gathered: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C n n"]:
        """What the judge sees of gathered crops."""
        return F.adaptive_avg_pool2d(gathered, self.judge_cells)

    def verdict(self, view: Float[Tensor, "B C n n"]) -> Float[Tensor, " B"]:
        """A logit for each crop."""
        return self.judge(self.norm(view))[:, 0]


def _onto(stage: Tensor, grid: tuple[int, int]) -> Tensor:
    if stage.shape[-2] > grid[0]:
        return F.adaptive_avg_pool2d(stage, grid)
    if tuple(stage.shape[-2:]) != grid:
        return F.interpolate(stage, size=grid, mode="bilinear", align_corners=False)
    return stage
