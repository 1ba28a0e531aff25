"""OpenPose: heat per keypoint, a background, and a field per limb, by which the keypoints of several people are told
apart without anybody's box.

Source: Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields, CVPR 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmkp import geometry
from mmkp.codecs import paf
from mmkp.codecs.grouping import Candidates, assemble, collect, find_peaks, pair_greedily
from mmkp.codecs.heatmap import place_on_grid
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema

Points = Float[Tensor, "B P K 2"] | Float[Tensor, "B K 2"]
Flags = Bool[Tensor, "B P K"] | Bool[Tensor, "B K"]


class OpenposeTarget(NamedTuple):
    """The targets of a batch. The weights are 0 for channels that are not learned from.

    Attributes:
        heat: 1 at each person's keypoint; the last channel is the background, 1 where no keypoint is.
        fields: unit vectors along the limbs.
        weight, limb_weight, background_weight: of the keypoints' heat, of the limbs' fields, of the background.
    """

    heat: Float[Tensor, "B C h w"]
    fields: Float[Tensor, "B E 2 h w"]
    weight: Float[Tensor, "B K"]
    limb_weight: Float[Tensor, "B E"]
    background_weight: Float[Tensor, " B"]


class Instances(NamedTuple):
    """The people of one picture, best first.

    Attributes:
        keypoints_xy: px, input frame; NaN where a keypoint was not found.
        scores: in [0, 1]; 0 where it was not found.
        instance_scores: in [0, 1]: the mean over all keypoints, those not found included.
    """

    keypoints_xy: Float[Tensor, "P K 2"]
    scores: Float[Tensor, "P K"]
    instance_scores: Float[Tensor, " P"]


@dataclass(frozen=True)
class OpenposeCodec:
    """People's keypoints in the input frame <-> heat and part affinity fields on the grid.

    The raw output is (B, K + 1 + 2 E, h, w): heat, background, then x and y of each limb's field. E counts the
    schema's edges, and one more for each part of the schema that they leave unconnected.

    Args:
        input_size_hw: px.
        stride: px of the input per grid cell.
        edges: the limbs, pairs of keypoints; the model fills in the schema's.
        sigma_grid: of the Gaussians, cells.
        limb_width_grid: how far from its axis a limb's field reaches, cells.
        unlabelled: what a keypoint means that nobody in a picture is labelled for: `ignore`, nothing is learned about
            it, or `absent`, it is not there, as OpenPose takes COCO.
        peak_threshold: heat of a candidate; 0.1 as in OpenPose's demo.
        limb_threshold: of the mean of the field along a limb; 0.05 there.
        samples: along a limb, of which `samples_share` must lie above `limb_threshold`; 10 and 0.8 there.
        max_people: candidates per keypoint.
        min_parts: a person of fewer keypoints is none (or of K, if that is less); 4 of 18 in the demo.
        min_score: likewise of a lower mean score of the keypoints found.

    Raises:
        InputError: a number that makes no sense.
    """

    input_size_hw: tuple[int, int]
    stride: int = 4
    edges: tuple[tuple[int, int], ...] | None = None
    sigma_grid: float = 1.0
    limb_width_grid: float = 1.0
    unlabelled: str = "ignore"
    peak_threshold: float = 0.1
    limb_threshold: float = 0.05
    samples: int = 10
    samples_share: float = 0.8
    max_people: int = 20
    min_parts: int = 3
    min_score: float = 0.2

    multi_instance = True
    joins = ()
    loss = "openpose"

    def __post_init__(self) -> None:
        if self.edges is not None:
            object.__setattr__(self, "edges", tuple((int(a), int(b)) for a, b in self.edges))
        if self.unlabelled not in ("ignore", "absent"):
            raise InputError("codec.unlabelled", expected="ignore or absent", got=repr(self.unlabelled))
        for name in ("sigma_grid", "limb_width_grid", "samples", "max_people", "min_parts"):
            if not getattr(self, name) > 0:
                raise InputError(f"codec.{name}", expected="a number above 0", got=str(getattr(self, name)))
        if any(side % self.stride for side in self.input_size_hw):
            raise InputError(
                "codec.stride", expected="a divisor of the input's sides", got=f"{self.stride} for {self.input_size_hw}"
            )

    @staticmethod
    def schema_options(schema: KeypointSchema) -> dict[str, Any]:
        """The options that come with a schema.

        Raises:
            InputError: it has no edges, so that nothing says which keypoints belong together.
        """
        if not schema.edges and schema.num_keypoints > 1:
            raise InputError(
                f"codec openpose with schema {schema.name}", expected="edges, which say what belongs together",
                got="none", remedy="Add `edges` to the schema, or give codec.edges.",
            )  # fmt: skip
        return {"edges": schema.edges}

    def limbs(self, num_keypoints: int) -> paf.Edges:
        """The limbs of so many keypoints, connected.

        Raises:
            InputError: no edges are known, or one names a keypoint that is not there.
        """
        if self.edges is None and num_keypoints > 1:
            raise InputError("codec.edges", expected="the schema's edges", got="none")
        edges = self.edges or ()
        if any(not 0 <= k < num_keypoints for edge in edges for k in edge):
            raise InputError("codec.edges", expected=f"keypoints below {num_keypoints}", got=str(edges))
        return paf.connected(edges, num_keypoints)

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Cells, height and width."""
        return self.input_size_hw[0] // self.stride, self.input_size_hw[1] // self.stride

    def raw_shape(self, num_keypoints: int) -> tuple[int, ...]:
        """(K + 1 + 2 E, h, w)."""
        return num_keypoints + 1 + 2 * len(self.limbs(num_keypoints)), *self.grid_hw

    @property
    def resolution_px(self) -> float:
        """The largest error of encode and decode on a point that no other person's is near to, px of the input."""
        return 0.02

    def encode(self, keypoints_xy: Points, labelled: Flags | None = None) -> OpenposeTarget:
        """Targets for a batch.

        Args:
            keypoints_xy: (B, P, K, 2), or (B, K, 2) for one person a picture; px, input frame; NaN where not known.
            labelled: likewise without the last axis; False where the point carries no label, or there is no person.

        Returns:
            Targets. A person's point outside the input, NaN or not labelled is not drawn.
        """
        if keypoints_xy.ndim == 3:
            keypoints_xy, labelled = keypoints_xy[:, None], None if labelled is None else labelled[:, None]
        batch, people, keypoints = keypoints_xy.shape[:3]
        flat = None if labelled is None else labelled.flatten(0, 1)
        xy, there = place_on_grid(keypoints_xy.flatten(0, 1), flat, self.stride, self.grid_hw)
        xy, there = xy.view(batch, people, keypoints, 2), there.view(batch, people, keypoints) > 0
        limbs = torch.tensor(self.limbs(keypoints), device=xy.device, dtype=torch.long).view(-1, 2)
        limb_there = there[:, :, limbs[:, 0]] & there[:, :, limbs[:, 1]]
        heat = self._heat(xy, there)
        background = 1 - heat.amax(1, keepdim=True)
        fields = paf.draw_fields(
            xy[:, :, limbs[:, 0]], xy[:, :, limbs[:, 1]], limb_there, self.grid_hw, self.limb_width_grid
        )
        known, limb_known = there.any(1), limb_there.any(1)
        if self.unlabelled == "absent":
            known, limb_known = torch.ones_like(known), torch.ones_like(limb_known)
        return OpenposeTarget(
            torch.cat([heat, background], 1), fields, known.float(), limb_known.float(), known.all(1).float()
        )

    def _heat(self, xy: Float[Tensor, "B P K 2"], there: Bool[Tensor, "B P K"]) -> Float[Tensor, "B K h w"]:
        """The largest of the people's Gaussians, which is the Gaussian of the nearest person's point."""
        columns, rows = paf.cell_axes(self.grid_hw, xy)
        at_once = paf.rows_at_once(xy.shape[0] * max(1, xy.shape[1]), self.grid_hw)
        if not xy.shape[1]:
            return xy.new_zeros(xy.shape[0], xy.shape[2], *self.grid_hw)
        parts = []
        for point, known in zip(xy.split(at_once, 2), there.split(at_once, 2), strict=True):
            squares = (columns - point[..., 0, None, None]) ** 2 + (rows - point[..., 1, None, None]) ** 2
            nearest = torch.where(known[..., None, None], squares, torch.inf).amin(1)
            parts.append(torch.exp(-nearest / (2 * self.sigma_grid**2)))
        return torch.cat(parts, 1)

    def raw_of(self, target: OpenposeTarget) -> Float[Tensor, "B R h w"]:
        """The output of a head that knows the target."""
        return torch.cat([target.heat, target.fields.flatten(1, 2)], 1)

    def split(self, raw: Float[Tensor, "B R h w"]) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B E 2 h w"]]:
        """Heat with the background as its last channel, and fields.

        Raises:
            InputError: another number of channels than the limbs make.
        """
        keypoints = self._keypoints_of(raw.shape[1])
        heat, fields = raw.float().split([keypoints + 1, raw.shape[1] - keypoints - 1], 1)
        return heat, fields.reshape(len(raw), fields.shape[1] // 2, 2, *raw.shape[2:])

    def _keypoints_of(self, channels: int) -> int:
        """K of an output; every keypoint beyond the last that has an edge brings a limb of its own."""
        least = max((k for edge in self.edges or () for k in edge), default=0) + 1
        more, odd = divmod(channels - least - 1 - 2 * len(self.limbs(least)), 3)
        if odd or more < 0:
            raise InputError("openpose raw", expected="K + 1 + 2 E channels for the codec's limbs", got=str(channels))
        return least + more

    @torch.no_grad()
    def decode_instances(self, raw: Float[Tensor, "B R h w"]) -> list[Instances]:
        """The people of every picture, best first; an empty list of them where there are none."""
        heat, fields = self.split(raw)
        return self._instances(heat[:, :-1], fields)

    def _instances(self, heat: Float[Tensor, "B K h w"], fields: Float[Tensor, "B E 2 h w"]) -> list[Instances]:
        found = find_peaks(heat, self.max_people, self.peak_threshold)
        edges = self.limbs(heat.shape[1])
        pairs = pair_greedily(self._limb_scores(found, fields, edges), self.limb_threshold)
        owner = assemble(pairs, found.there, edges)
        xy, scores = collect(owner, found)
        parts = (scores > 0).sum(-1)
        enough = parts >= min(self.min_parts, heat.shape[1])
        enough &= scores.sum(-1) >= self.min_score * parts.clamp_min(1)
        people = torch.where(enough, scores.mean(-1), -1.0)
        order = people.argsort(dim=1, descending=True, stable=True)
        xy = geometry.grid_to_input(xy, self.stride)
        counts = enough.sum(1).tolist()
        return [
            Instances(xy[i, order[i, :n]], scores[i, order[i, :n]], people[i, order[i, :n]])
            for i, n in enumerate(counts)
        ]

    def _limb_scores(
        self, found: Candidates, fields: Float[Tensor, "B E 2 h w"], edges: paf.Edges
    ) -> Float[Tensor, "B E N N"]:
        """How well each start goes with each end; -inf where a candidate is none or too little of the line fits."""
        limbs = torch.tensor(edges, device=fields.device, dtype=torch.long).view(-1, 2)
        start, end = limbs[:, 0], limbs[:, 1]
        along = paf.line_integrals(fields, found.xy[:, start], found.xy[:, end], self.samples)
        fits = (along > self.limb_threshold).float().mean(-1) >= self.samples_share
        both = found.there[:, start, :, None] & found.there[:, end, None, :]
        return torch.where(fits & both, along.mean(-1), -torch.inf)

    @torch.no_grad()
    def decode(self, raw: Float[Tensor, "B R h w"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """The best person of every picture; a keypoint not found is where its heat is largest.

        Returns:
            keypoints_xy (B, K, 2) px, input frame; scores (B, K) in [0, 1].
        """
        heat, fields = self.split(raw)
        heat = heat[:, :-1]
        people = self._instances(heat, fields)
        hottest = find_peaks(heat, 1, -torch.inf)
        xy, scores = geometry.grid_to_input(hottest.xy[:, :, 0], self.stride), hottest.score[:, :, 0]
        for item, one in enumerate(people):
            if len(one.scores):
                known = one.scores[0] > 0
                xy[item, known], scores[item, known] = one.keypoints_xy[0, known], one.scores[0, known]
        return xy, scores
