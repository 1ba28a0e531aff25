"""From peaks and fields to people: candidates, their pairing limb by limb, and the assembly along the limbs' tree.

All limbs of all pictures are paired at once; the only loops run over picks (at most one per candidate) and over the
limbs that close loops.

Source: Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields, CVPR 2017, section 2.4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmkp.codecs import dark
from mmkp.codecs.paf import Edges, spanning_tree

PEAK_FLOOR = 1e-4  # of heat, before its logarithm


class Candidates(NamedTuple):
    """The peaks of every keypoint's heat, hottest first, in the grid frame; `there` False where there are fewer."""

    xy: Float[Tensor, "B K N 2"]
    score: Float[Tensor, "B K N"]
    there: Bool[Tensor, "B K N"]


class Pairs(NamedTuple):
    """The partner of each start among the ends, and of each end among the starts; -1 for none."""

    end_of: Int[Tensor, "B E N"]
    start_of: Int[Tensor, "B E N"]


def find_peaks(heat: Float[Tensor, "B K h w"], most: int, threshold: float) -> Candidates:
    """Cells hotter than the eight around them and than `threshold`, at most `most` a channel, between the cells.

    Of equally hot neighbours the first counts, row by row.
    """
    batch, keypoints, height, width = heat.shape
    index = torch.arange(height * width, device=heat.device, dtype=heat.dtype).view(1, 1, height, width)
    top = (heat == F.max_pool2d(heat, 3, 1, 1)) & (heat > threshold)
    earlier = F.max_pool2d(torch.where(top, -index, -index.new_tensor(float(height * width))), 3, 1, 1)
    top &= earlier == -index  # the smallest index among equally hot neighbours
    score, at = torch.where(top, heat, 0.0).flatten(2).topk(min(most, height * width), dim=-1)
    used = max(1, int((score > 0).sum(-1).max())) if score.numel() else 1
    score, at = score[..., :used], at[..., :used]
    row, column = at // width, at % width
    inner_row, inner_column = dark.inner_cell(row.flatten(1), column.flatten(1), (height, width))
    patches = _patches(heat, inner_row.view_as(row), inner_column.view_as(row))
    offset = dark.taylor_offset(patches.clamp_min(PEAK_FLOOR).log().flatten(1, 2))
    xy = torch.stack([inner_column, inner_row], -1) + offset
    return Candidates(xy.view(batch, keypoints, used, 2), score.clamp(0, 1), score > 0)


def _patches(heat: Float[Tensor, "B K h w"], row: Tensor, column: Tensor) -> Float[Tensor, "B K N 3 3"]:
    height, width = heat.shape[-2:]
    steps = torch.arange(-1, 2, device=heat.device)
    rows = (row[..., None] + steps).clamp(0, height - 1)
    columns = (column[..., None] + steps).clamp(0, width - 1)
    index = rows[..., :, None] * width + columns[..., None, :]
    return heat.flatten(2).gather(2, index.flatten(2)).view(*row.shape, 3, 3)


def pair_greedily(score: Float[Tensor, "B E N N"], threshold: float) -> Pairs:
    """For each limb the best pair, then the best of what is left, as long as one scores above `threshold`.

    Args:
        score: of start i with end j; -inf where there is no such pair.
    """
    batch, limbs, count = score.shape[:3]
    end_of = torch.full((batch, limbs, count), -1, dtype=torch.long, device=score.device)
    start_of, left = end_of.clone(), score.clone()
    for _ in range(count):
        best, at = left.flatten(2).max(-1, keepdim=True)
        good = best > threshold
        if not bool(good.any()):
            break
        start, end = at // count, at % count
        end_of.scatter_(2, start, torch.where(good, end, end_of.gather(2, start)))
        start_of.scatter_(2, end, torch.where(good, start, start_of.gather(2, end)))
        taken = good[..., None]
        places = torch.arange(count, device=score.device)
        cross = (places[:, None] == start[..., None]) | (places == end[..., None])
        left = left.masked_fill(taken & cross, -torch.inf)
    return Pairs(end_of, start_of)


def assemble(pairs: Pairs, there: Bool[Tensor, "B K N"], edges: Edges) -> Int[Tensor, "B K N"]:
    """Whose each candidate is: candidates with one number are one person's; -1 where there is no candidate.

    Along the tree every candidate has at most one above it and one below it per limb, so that nobody gets two noses.
    Limbs off the tree then join what a part that was not found has cut in two, where both halves have no part in
    common.
    """
    batch, keypoints, count = there.shape
    node = torch.arange(keypoints * count, device=there.device)
    above = node.expand(batch, -1).clone().view(batch, keypoints, count)
    tree = spanning_tree(edges)
    if tree.limb:
        limb, child, parent = (torch.tensor(v, device=there.device) for v in (tree.limb, tree.child, tree.parent))
        points_down = torch.tensor(tree.child_is_end, device=there.device)[:, None]
        partner = torch.where(points_down, pairs.start_of[:, limb], pairs.end_of[:, limb])
        above[:, child] = torch.where(partner >= 0, parent[:, None] * count + partner, above[:, child])
    owner = above.flatten(1)
    for _ in range(keypoints.bit_length()):  # each round doubles how far up the tree one sees
        owner = owner.gather(1, owner)
    for limb_index in tree.rest:
        owner = _join_halves(owner, pairs.end_of[:, limb_index], edges[limb_index], there)
    return torch.where(there.flatten(1), owner, -1).view(there.shape)


def _join_halves(
    owner: Int[Tensor, "B Q"], end_of: Int[Tensor, "B N"], edge: tuple[int, int], there: Bool[Tensor, "B K N"]
) -> Int[Tensor, "B Q"]:
    """Give what owns a limb's end to what owns its start, where they have no keypoint in common.

    Two such joins never touch: who owns both of the limb's keypoints shares one with any partner.
    """
    batch, keypoints, count = there.shape
    paired = end_of >= 0
    by_point = owner.view(batch, keypoints, count)
    first = by_point[:, edge[0]]
    second = by_point[:, edge[1]].gather(1, end_of.clamp_min(0))
    parts = torch.zeros(batch, keypoints * count, keypoints, dtype=torch.bool, device=owner.device)
    item, point, place = there.nonzero(as_tuple=True)
    parts[item, by_point[item, point, place], point] = True
    index = first[..., None].expand(-1, -1, keypoints), second[..., None].expand(-1, -1, keypoints)
    shared = (parts.gather(1, index[0]) & parts.gather(1, index[1])).any(-1)
    item, place = (paired & ~shared).nonzero(as_tuple=True)
    renamed = torch.arange(keypoints * count, device=owner.device).expand(batch, -1).clone()
    renamed[item, second[item, place]] = first[item, place]
    return renamed.gather(1, owner)


def collect(owner: Int[Tensor, "B K N"], found: Candidates) -> tuple[Float[Tensor, "B P K 2"], Float[Tensor, "B P K"]]:
    """The candidates of each person in one row: places in the grid frame, NaN where not found, and scores.

    A row without any score is no person.
    """
    batch, keypoints, count = owner.shape
    used = torch.zeros(batch, keypoints * count, dtype=torch.bool, device=owner.device)
    item, point, place = found.there.nonzero(as_tuple=True)
    number = owner[item, point, place]
    used[item, number] = True
    rank = used.long().cumsum(1) - 1
    people = int(used.sum(1).max()) if batch else 0
    xy = found.xy.new_full((batch, people, keypoints, 2), torch.nan)
    score = found.score.new_zeros(batch, people, keypoints)
    person = rank[item, number]
    xy[item, person, point] = found.xy[item, point, place]
    score[item, person, point] = found.score[item, point, place]
    return xy, score
