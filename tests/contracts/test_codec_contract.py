"""What every registered codec owes its users, by itself: points come back, and what is not known weighs nothing.

A new member of the registry is tested here without an edit. Codecs of several instances per picture take labels of
another shape: they are skipped here, visibly, and tested in files of their own.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmkp.codecs import CODECS, make_codec
from mmkp.criteria import CRITERIA
from mmkp.errors import InputError
from mmkp.heads import HEADS

HEIGHT, WIDTH = 192, 256
MARGIN = 72  # at least 4 sigma of every codec at stride 8
SMALL = (32, 64)
B, M, K = 3, 3, 5


def build(name: str, size_hw: tuple[int, int] = SMALL, stride: int = 4) -> Any:
    codec = make_codec(name, size_hw, stride=stride)
    if getattr(codec, "multi_instance", False):
        pytest.skip(f"{name} encodes several instances per picture")
    return codec


def within(size_hw: tuple[int, int], margin: float, count: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Points between the pixels, (batch, count, 2) px."""
    made = torch.Generator().manual_seed(seed)
    size = torch.tensor([size_hw[1] - 1.0, size_hw[0] - 1.0])
    return margin + torch.rand(batch, count, 2, generator=made) * (size - 2 * margin)


@pytest.fixture(params=CODECS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def codec(name: str) -> Any:
    return build(name)


@pytest.fixture
def raw(codec: Any) -> torch.Tensor:
    """What heads might say: logits, heat or coordinates of every sign."""
    return torch.randn(B, *codec.raw_shape(K), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_points_come_back(name, stride):
    codec = build(name, (HEIGHT, WIDTH), stride)
    points = within((HEIGHT, WIDTH), MARGIN, 60)
    raw = codec.raw_of(codec.encode(points))
    assert raw.shape[1:] == codec.raw_shape(60)
    decoded, scores = codec.decode(raw)
    error = decoded - points
    assert error.abs().max() <= codec.resolution_px
    assert error.mean(dim=(0, 1)).abs().max() < 0.02  # bias, px of the input
    assert scores.min() > 0.9 and scores.max() <= 1


def test_what_is_not_known_weighs_nothing(codec):
    nan, inf = float("nan"), float("inf")
    points = [[20.3, 9.1], [nan, 5.0], [5.0, nan], [inf, 5.0], [-0.6, 5.0], [63.6, 5.0], [5.0, 31.6], [20.0, 9.0]]
    target = codec.encode(torch.tensor([points]), torch.tensor([[True] * 7 + [False]]))
    assert target.weight.tolist() == [[1.0] + [0.0] * 7]
    assert all(torch.isfinite(part).all() for part in target)
    assert codec.encode(torch.tensor([points])).weight.tolist() == [[1.0] + [0.0] * 6 + [1.0]]


def test_items_do_not_see_each_other(codec, raw):
    points = within(SMALL, 4, K, B)
    points[1, 2] = float("nan")
    together, (decoded, scores) = codec.encode(points), codec.decode(raw)
    for i in range(B):
        alone = codec.encode(points[i : i + 1])
        for part, whole in zip(alone, together, strict=True):
            torch.testing.assert_close(part, whole[i : i + 1])
        torch.testing.assert_close(codec.decode(raw[i : i + 1]), (decoded[i : i + 1], scores[i : i + 1]))


def joins(codec: Any) -> list[str]:
    assert set(codec.joins) <= {"average", "weighted", "product"} and codec.joins
    return list(codec.joins)


def test_one_member_alone_is_that_member(codec, raw):
    other = torch.full_like(raw, float("nan"))
    for kind in joins(codec):
        joined = codec.join(kind, [other, raw, other], torch.tensor([[0.0, 1.0, 0.0]]).expand(B, M))
        torch.testing.assert_close(codec.decode(joined), codec.decode(raw), atol=1e-3, rtol=1e-4)
        if codec.declares_distribution:
            torch.testing.assert_close(codec.log_density(joined), codec.log_density(raw), atol=1e-4, rtol=1e-4)


def test_equal_members_agree_on_the_place(name):
    codec = build(name, (HEIGHT, WIDTH))
    points = within((HEIGHT, WIDTH), MARGIN, K, B)
    raw = codec.raw_of(codec.encode(points))
    for kind in joins(codec):
        joined = codec.join(kind, [raw] * M, torch.full((B, M), 1 / M))
        torch.testing.assert_close(codec.decode(joined)[0], points, atol=0.05, rtol=0)


def test_who_is_absent_changes_nothing_and_gets_no_gradient(codec, raw):
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.3, 0.7], [0.0, 0.0, 0.0]])
    held = (weights > 0).view(B, M, *[1] * (raw.ndim - 1))
    stacked = torch.stack([raw, raw.flip(0), raw * 0.5], 1)
    for kind in joins(codec):
        outputs = []
        for filler in (0.0, 1e4, float("nan"), float("inf")):
            outputs.append(codec.join(kind, torch.where(held, stacked, filler).unbind(1), weights))
            torch.testing.assert_close(outputs[-1], outputs[0])
        assert torch.isfinite(outputs[0]).all()  # also where no member is present
        leaf = torch.where(held, stacked, 0.0).requires_grad_()
        codec.join(kind, leaf.unbind(1), weights).square().sum().backward()
        assert torch.isfinite(leaf.grad).all()
        assert (leaf.grad[~held.expand_as(leaf)] == 0).all() and leaf.grad[0, 0].abs().max() > 0


@pytest.mark.parametrize("count", [1, 500])
def test_one_keypoint_and_five_hundred(codec, count):
    points = within(SMALL, 12, count, 2)
    decoded, scores = codec.decode(codec.raw_of(codec.encode(points)))
    assert decoded.shape == (2, count, 2) and scores.shape == (2, count)
    assert (decoded - points).abs().max() < 2  # within 4 sigma of the border a mean is pulled inwards


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
def test_finite_whatever_the_head_says(codec, raw, dtype, scale):
    raw = (raw * scale).to(dtype)
    stacked = torch.stack([raw, raw.flip(0)], 1)
    joined = [codec.join(kind, stacked.unbind(1), torch.full((B, 2), 0.5)) for kind in joins(codec)]
    for said in (raw, *joined):
        keypoints_xy, scores = codec.decode(said)
        assert keypoints_xy.dtype == scores.dtype == torch.float32
        assert torch.isfinite(keypoints_xy).all()
        assert ((scores >= 0) & (scores <= 1)).all()


def test_there_is_a_head_and_a_criterion_for_it(name):
    codec = make_codec(name, SMALL)
    assert any(name in head.codecs for head in HEADS.values())
    assert name in CRITERIA[codec.loss].codecs


def test_an_option_that_it_lacks_is_refused(name):
    with pytest.raises(InputError, match="options that it has"):
        make_codec(name, SMALL, sigmma=3)
