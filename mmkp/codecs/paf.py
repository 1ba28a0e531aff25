"""Part affinity fields: for every limb a field of unit vectors that point along it, and the tree that limbs make.

Source: Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields, CVPR 2017, section 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Edges = tuple[tuple[int, int], ...]

CHUNK_CELLS = 1 << 23  # people times channels times cells held at once: 32 MB in float32
LIMB_END_GRID = 0.5  # a limb reaches so many cells beyond its ends, so that the shortest one still owns a cell


@dataclass(frozen=True)
class Tree:
    """A spanning tree of the limbs, and the limbs that it does not need.

    Attributes:
        child, parent: keypoints, one pair per limb of the tree.
        limb: the limb's index; `child_is_end`: whether the limb points from the parent to the child.
        rest: indices of the other limbs, which close loops.
    """

    child: tuple[int, ...]
    parent: tuple[int, ...]
    limb: tuple[int, ...]
    child_is_end: tuple[bool, ...]
    rest: tuple[int, ...]


@lru_cache(maxsize=64)
def connected(edges: Edges, num_keypoints: int) -> Edges:
    """The edges, and where they leave the keypoints in several parts, one more to the first keypoint of each.

    A face's eyes and lips are rings of their own; without a limb between them nobody could tell whose lips are whose.
    """
    made = list(dict.fromkeys(edge for edge in edges if edge[0] != edge[1]))
    part = list(range(num_keypoints))
    for a, b in made:
        old, new = max(part[a], part[b]), min(part[a], part[b])
        part = [new if p == old else p for p in part]
    return tuple(made + [(0, first) for first in sorted(set(part)) if first != 0])


@lru_cache(maxsize=64)
def spanning_tree(edges: Edges) -> Tree:
    """A tree, breadth first from the keypoint with the most limbs, so that it is shallow.

    Args:
        edges: as `connected` gives them.
    """
    ends = [k for edge in edges for k in edge]
    if not ends:
        return Tree((), (), (), (), ())
    root = max(sorted(set(ends)), key=ends.count)
    seen, queue, found = {root}, [root], []
    while queue:
        at = queue.pop(0)
        for limb, (a, b) in enumerate(edges):
            other = b if a == at else a if b == at else None
            if other is not None and other not in seen:
                seen.add(other)
                queue.append(other)
                found.append((other, at, limb, other == b))
    used = {limb for _, _, limb, _ in found}
    return Tree(*zip(*found, strict=True), rest=tuple(i for i in range(len(edges)) if i not in used))


def draw_fields(
    start_xy: Float[Tensor, "B P E 2"],
    end_xy: Float[Tensor, "B P E 2"],
    there: Bool[Tensor, "B P E"],
    grid_hw: tuple[int, int],
    width_grid: float,
) -> Float[Tensor, "B E 2 h w"]:
    """The field of every limb, the mean of all people's that own a cell (eq. 8 to 10).

    Args:
        start_xy, end_xy: grid frame, cells.
        there: False where an end is not known.
        grid_hw: cells.
        width_grid: how far from the limb's axis a cell still belongs to it, cells.

    Returns:
        Unit vectors, shorter where people's limbs cross, 0 off the limbs. Cells belong to a limb up to half a cell
        beyond its ends; the paper ends it at the ends, which leaves a limb of less than a cell without a field.
    """
    batch, people, limbs = there.shape
    vector = end_xy - start_xy
    length = vector.norm(dim=-1)
    unit = vector / length.clamp_min(1e-6)[..., None]
    there = there & (length > 1e-6)
    columns, rows = cell_axes(grid_hw, start_xy)
    fields = []
    for part in torch.arange(limbs, device=there.device).split(rows_at_once(batch * people, grid_hw)):
        a, u, far = start_xy[:, :, part], unit[:, :, part], length[:, :, part]
        dx = columns - a[..., 0, None, None]
        dy = rows - a[..., 1, None, None]
        ux, uy = u[..., 0, None, None], u[..., 1, None, None]
        along, across = dx * ux + dy * uy, dy * ux - dx * uy
        on = (along >= -LIMB_END_GRID) & (along <= far[..., None, None] + LIMB_END_GRID) & (across.abs() <= width_grid)
        on = (on & there[:, :, part, None, None]).to(a.dtype)
        total = torch.stack([(on * ux).sum(1), (on * uy).sum(1)], dim=2)
        fields.append(total / on.sum(1).clamp_min(1)[:, :, None])
    return torch.cat(fields, 1) if fields else start_xy.new_zeros(batch, 0, 2, *grid_hw)


def cell_axes(grid_hw: tuple[int, int], like: Tensor) -> tuple[Float[Tensor, "1 w"], Float[Tensor, "h 1"]]:
    """x of every column and y of every row, cells."""
    columns = torch.arange(grid_hw[1], device=like.device, dtype=like.dtype)
    rows = torch.arange(grid_hw[0], device=like.device, dtype=like.dtype)
    return columns[None, :], rows[:, None]


def rows_at_once(maps: int, grid_hw: tuple[int, int]) -> int:
    """How many channels of so many maps each may be held in memory at once."""
    return max(1, CHUNK_CELLS // max(1, maps * grid_hw[0] * grid_hw[1]))


def line_integrals(
    fields: Float[Tensor, "B E 2 h w"],
    start_xy: Float[Tensor, "B E N 2"],
    end_xy: Float[Tensor, "B E N 2"],
    samples: int,
) -> Float[Tensor, "B E N N S"]:
    """The field along the line from every start to every end, as its share in the line's direction (eq. 11, 12).

    Args:
        fields: predicted.
        start_xy, end_xy: candidates of each limb's two keypoints, grid frame, cells.
        samples: S, evenly spaced from end to end.

    Returns:
        The dot product at each sample; its mean is the paper's E. 0 for two candidates at one place.
    """
    batch, limbs, count = start_xy.shape[:3]
    height, width = fields.shape[-2:]
    share = torch.linspace(0, 1, samples, device=fields.device)
    a, b = start_xy[:, :, :, None], end_xy[:, :, None, :]
    vector = b - a
    unit = vector / vector.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    points = a[..., None, :] + share[:, None] * vector[..., None, :]
    scale = points.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    where = (points / scale * 2 - 1).reshape(batch * limbs, count * count, samples, 2)
    found = F.grid_sample(fields.flatten(0, 1), where, padding_mode="border", align_corners=True)
    found = found.view(batch, limbs, 2, count, count, samples)
    return found[:, :, 0] * unit[..., 0, None] + found[:, :, 1] * unit[..., 1, None]
