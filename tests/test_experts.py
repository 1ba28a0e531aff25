"""mmkp.experts: what is left out of a sum has no say, whatever it holds."""

from __future__ import annotations

import pytest
import torch

from mmkp.experts import kept, weighted_sum


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_kept_is_the_same_bit_by_bit_and_the_rest_is_zero(dtype):
    x = torch.tensor([[1.5, -0.0, 3e-7], [float("nan"), float("inf"), -1.0], [float("nan"), 2.0, -2.5]], dtype=dtype)
    made = kept(x[..., None], torch.tensor([True, False, True]))[..., 0]
    torch.testing.assert_close(made[[0, 2]], x[[0, 2]], rtol=0, atol=0, equal_nan=True)  # a NaN that counts is told
    assert torch.signbit(made[0, 1])
    assert made[1].tolist() == [0, 0, 0]


def test_what_does_not_lie_in_one_piece_is_kept_too():
    x = torch.arange(24.0).reshape(4, 3, 2)
    made = kept(x.transpose(1, 2), torch.tensor([True, False, False, True]))
    assert torch.equal(made[[0, 3]], x.transpose(1, 2)[[0, 3]])
    assert not made[[1, 2]].any()


def test_no_gradient_to_what_is_left_out():
    x = torch.tensor([[2.0], [float("nan")]], dtype=torch.float64, requires_grad=True)
    (kept(x, torch.tensor([True, False])) ** 3).sum().backward()
    assert x.grad.tolist() == [[12.0], [0.0]]


def test_its_gradients_are_those_of_finite_differences():
    keep = torch.tensor([True, False, True])
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: kept(x, keep), x)
    assert torch.autograd.gradgradcheck(lambda x: kept(x, keep) ** 2, x)


def test_a_member_of_weight_0_has_no_say_even_if_it_is_not_a_number():
    members = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[float("nan"), float("inf")], [5.0, 8.0]])]
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    assert weighted_sum(members, weights).tolist() == [[1.0, 2.0], [4.5, 7.0]]


@pytest.mark.parametrize("fixed", [0, 1, 2])
def test_the_gradients_of_a_sum_are_those_of_finite_differences(fixed):
    members = [torch.randn(3, 2, dtype=torch.float64, requires_grad=i != fixed) for i in range(3)]
    weights = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, *x: weighted_sum(x, w), (weights, *members))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("first", [0, 1])
def test_half_precision_beside_float_is_float(half, first):
    members = [torch.tensor([[1.001]]), torch.tensor([[2.0]], dtype=half)]
    made = weighted_sum(members[first:] + members[:first], torch.full((1, 2), 0.5))
    assert made.dtype == torch.float32
    assert made.item() == pytest.approx(1.5005, abs=1e-6)
