"""The regression head with its cascade, and the SimCC head: where they look and what they learn from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mmkp.codecs import make_codec
from mmkp.codecs.rle import SIGMA_MIN
from mmkp.criteria import make_criterion
from mmkp.errors import InputError
from mmkp.heads import make_head
from mmkp.heads.regression import Refinement
from mmkp.schema import KeypointSchema

SIZE_HW, GRID_HW, D, K = (32, 64), (8, 16), 16, 3
SCHEMA = KeypointSchema(name="three", keypoints=("a", "b", "c"))


def make(name: str, codec_name: str, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    codec = make_codec(codec_name, SIZE_HW, stride=4)
    return make_head(name, D, K, codec_name, codec, GRID_HW, **options), codec


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("codec_name", ["regression", "rle"])
def test_a_new_regression_head_says_the_middle(codec_name, stages):
    head, codec = make("regression", codec_name, stages=stages)
    said = head(torch.randn(4, D, *GRID_HW))
    assert [raw.shape for raw in said] == [(4, *codec.raw_shape(K))] * stages
    for raw in said:
        keypoints_xy, scores = codec.decode(raw)
        assert (keypoints_xy - torch.tensor([31.5, 15.5])).abs().max() < 1
        if codec_name == "rle":
            torch.testing.assert_close(scores, torch.full((4, K), 0.5 * (1 - SIGMA_MIN)), atol=0.01, rtol=0)


def ramp() -> torch.Tensor:
    """(1, 2, h, w): every cell holds its own column and row."""
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in GRID_HW), indexing="ij")
    return torch.stack([columns, rows])[None]


def test_the_crop_lies_about_the_keypoint():
    """Input 64 x 32, stride 4: pixel (25.5, 13.5) is the middle of cell (6, 3), and (27.5, 13.5) half a cell on."""
    head, codec = make("regression", "regression", stages=2)
    crop = Refinement(2, 2, 2, patch=3, hidden=4)._crop
    raw = codec.raw_of(codec.encode(torch.tensor([[[25.5, 13.5], [27.5, 13.5]]])))
    seen = crop(ramp(), raw * head.to_halves).view(1, 2, 2, 3, 3)
    columns, rows = torch.tensor([[5.0, 6, 7]] * 3), torch.tensor([[2.0] * 3, [3.0] * 3, [4.0] * 3])
    torch.testing.assert_close(seen[0, 0], torch.stack([columns, rows]))
    torch.testing.assert_close(seen[0, 1], torch.stack([columns + 0.5, rows]))


def test_beyond_the_border_the_crop_is_empty():
    seen = Refinement(1, 1, 2, patch=3, hidden=4)._crop(torch.ones(1, 1, *GRID_HW), torch.tensor([[[5.0, 0.0]]]))
    assert (seen == 0).all()


def test_no_gradient_passes_from_a_stage_to_the_one_before():
    head, codec = make("regression", "regression", stages=3)
    grid = torch.randn(2, D, *GRID_HW)
    head(grid)[-1].sum().backward()
    assert head.last.weight.grad is None and head.refinements[0].judge.grad is None
    assert head.refinements[1].judge.grad.abs().max() > 0


def test_a_stage_corrects_the_one_before():
    head, codec = make("regression", "rle", stages=2)
    with torch.no_grad():
        head.refinements[0].judge.zero_()
        head.refinements[0].bias.copy_(torch.tensor([0.1, -0.1, 1.0, 2.0]).expand(K, 4))
        first, second = head(torch.randn(2, D, *GRID_HW))
    torch.testing.assert_close(second - first, torch.tensor([0.1, -0.1, 1.0, 2.0]).expand(2, K, 4))


def peaks(points: torch.Tensor) -> torch.Tensor:
    """(B, D, h, w): in the first K channels a bump at each keypoint."""
    heat = make_codec("heatmap", SIZE_HW, stride=4, sigma_grid=1.0).encode(points).heatmap()
    return F.pad(heat * 10, (0, 0, 0, 0, 0, D - K))


@pytest.mark.parametrize(
    ("name", "codec_name", "options"),
    [
        ("regression", "regression", {"stages": 2, "hidden": 64}),
        ("regression", "rle", {"hidden": 64}),
        ("simcc", "simcc", {}),
    ],
)
def test_a_head_learns_to_point_at_what_it_sees(name, codec_name, options):
    """After 60 steps the mean error is under a third of what the middle of the input is off."""
    head, codec = make(name, codec_name, **options)
    criterion = make_criterion(codec.loss, codec_name, codec, SCHEMA)
    optimizer = torch.optim.AdamW([*head.parameters(), *criterion.parameters()], lr=3e-3)
    made = torch.Generator().manual_seed(0)
    for _ in range(60):
        points = 2 + torch.rand(32, K, 2, generator=made) * torch.tensor([59.0, 27.0])
        said = head(peaks(points))
        stages = said if isinstance(said, tuple) else (said,)
        target = codec.encode(points)
        loss = torch.stack([criterion(raw, target, torch.ones(K)).mean() for raw in stages]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    points = 2 + torch.rand(64, K, 2, generator=made) * torch.tensor([59.0, 27.0])
    with torch.no_grad():
        said = head(peaks(points))
    decoded = [codec.decode(raw)[0] for raw in (said if isinstance(said, tuple) else (said,))]
    errors = [(xy - points).norm(dim=-1).mean().item() for xy in decoded]
    assert errors[-1] < (points - torch.tensor([31.5, 15.5])).norm(dim=-1).mean().item() / 3
    if len(errors) > 1:
        assert errors[-1] < errors[0]  # the closer look helps


def test_simcc_reads_columns_before_rows():
    head, codec = make("simcc", "simcc")
    raw = head(torch.randn(2, D, *GRID_HW))
    assert raw.shape == (2, K, 64 * 2 + 32 * 2)
    with torch.no_grad():
        head.columns.bias[2 * 40] += 100  # the bin at 39.75 px
        head.rows.bias[2 * 20 + 1] += 100
        keypoints_xy, _ = codec.decode(head(torch.randn(2, D, *GRID_HW)))
    torch.testing.assert_close(keypoints_xy, torch.tensor([39.75, 20.25]).expand(2, K, 2), atol=0.05, rtol=0)


@pytest.mark.parametrize("option", ["pool", "hidden", "stages", "patch"])
def test_a_regression_head_that_cannot_be_is_refused(option):
    with pytest.raises(InputError, match=rf"head\.{option}.*at least 1"):
        make("regression", "regression", **{option: 0})
