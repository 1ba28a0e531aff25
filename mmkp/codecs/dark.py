"""Between the cells: where a heatmap peaks, from the few cells around its largest.

All of it looks at patches alone, so that it costs K small windows an item rather than K whole heatmaps.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

LIMIT_CELLS = 1.5  # beyond it a second-order expansion says nothing; a peak in a corner lies 1 from its patch's middle


def peak_cell(heat: Float[Tensor, "B K h w"]) -> tuple[Int[Tensor, "B K"], Int[Tensor, "B K"]]:
    """Row and column of the largest cell; of equal ones the first, row by row."""
    height, width = heat.shape[-2:]
    rows = math.gcd(height, 4)  # strips first: torch's amax is vectorised and its argmax is not, 3 times as fast
    strips = heat.reshape(-1, height // rows, rows * width)
    hottest = strips.amax(-1).argmax(-1)
    within = strips[torch.arange(len(strips), device=heat.device), hottest].argmax(-1)
    at = (hottest * rows * width + within).view(heat.shape[:2])
    return at // width, at % width


def patch_around(
    heat: Float[Tensor, "B K h w"], row: Int[Tensor, "B K"], column: Int[Tensor, "B K"], radius: int
) -> Float[Tensor, "B K side side"]:
    """The cells within `radius` of a cell; beyond the border the map is mirrored, its outermost cells repeated."""
    height, width = heat.shape[-2:]
    steps = torch.arange(-radius, radius + 1, device=heat.device)
    rows, columns = _mirror(row[..., None] + steps, height), _mirror(column[..., None] + steps, width)
    index = rows[..., :, None] * width + columns[..., None, :]
    side = len(steps)
    return heat.flatten(2).gather(2, index.flatten(2)).view(*row.shape, side, side)


def _mirror(index: Int[Tensor, "B K n"], cells: int) -> Int[Tensor, "B K n"]:
    index = index.remainder(2 * cells)
    return torch.minimum(index, 2 * cells - 1 - index)


def blurred_patch(
    heat: Float[Tensor, "B K h w"],
    row: Int[Tensor, "B K"],
    column: Int[Tensor, "B K"],
    kernel: int,
    sigma_grid: float,
) -> Float[Tensor, "B K 3 3"]:
    """The 3x3 cells around a cell, of the heatmap convolved with a Gaussian.

    Args:
        heat: a heatmap per keypoint.
        row, column: the patch's middle.
        kernel: side of the Gaussian's window, cells, odd; 1 leaves the heatmap as it is.
        sigma_grid: the Gaussian's standard deviation, cells.
    """
    radius = kernel // 2
    patch = patch_around(heat, row, column, radius + 1)
    steps = torch.arange(-radius, radius + 1, device=heat.device, dtype=patch.dtype)
    window = torch.softmax(-(steps**2) / (2 * sigma_grid**2), dim=0)
    smooth = torch.stack([torch.nn.functional.pad(window, (i, 2 - i)) for i in range(3)])
    with torch.autocast(heat.device.type, enabled=False):
        return (patch.flatten(2) @ torch.kron(smooth, smooth).T).unflatten(-1, (3, 3))


def taylor_offset(log_patch: Float[Tensor, "B K 3 3"]) -> Float[Tensor, "B K 2"]:
    """From the middle of a patch to the maximum of its second-order expansion, cells, x and y; 0 where it has none.

    Exact for the logarithm of a Gaussian.

    Source: Zhang et al., Distribution-Aware Coordinate Representation, CVPR 2020, eq. 7.
    """
    middle = log_patch[..., 1, 1]
    slope_x = (log_patch[..., 1, 2] - log_patch[..., 1, 0]) / 2
    slope_y = (log_patch[..., 2, 1] - log_patch[..., 0, 1]) / 2
    bend_x = log_patch[..., 1, 2] - 2 * middle + log_patch[..., 1, 0]
    bend_y = log_patch[..., 2, 1] - 2 * middle + log_patch[..., 0, 1]
    cross = (log_patch[..., 2, 2] - log_patch[..., 2, 0] - log_patch[..., 0, 2] + log_patch[..., 0, 0]) / 4
    determinant = bend_x * bend_y - cross**2
    peaked = (bend_x < 0) & (bend_y < 0) & (determinant > 1e-8)
    safe = torch.where(peaked, determinant, torch.ones_like(determinant))
    offset = torch.stack([cross * slope_y - bend_y * slope_x, cross * slope_x - bend_x * slope_y], -1)
    offset = (offset / safe[..., None]).clamp(-LIMIT_CELLS, LIMIT_CELLS)
    return torch.where(peaked[..., None], offset, torch.zeros_like(offset))


def inner_cell(
    row: Int[Tensor, "B K"], column: Int[Tensor, "B K"], grid_hw: tuple[int, int]
) -> tuple[Int[Tensor, "B K"], Int[Tensor, "B K"]]:
    """The nearest cell that has all its eight neighbours on the grid."""
    height, width = grid_hw
    return row.clamp(1, max(1, height - 2)), column.clamp(1, max(1, width - 2))
