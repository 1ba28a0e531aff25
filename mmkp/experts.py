"""What several experts say, joined into what they say together: mixtures and products of distributions.

Their weights (B, M) are 0 for who is absent and sum to 1 over who is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST = 1e-37
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def weighted_sum(
    members: Sequence[Float[Tensor, " B *rest"]], weights: Float[Tensor, "B M"]
) -> Float[Tensor, " B *rest"]:
    """sum_m w_m x_m; a member of weight 0 is left out, whatever it holds (NaN included)."""
    return total((kept(x, w > 0) for x, w in zip(members, weights.unbind(1), strict=True)), weights)


def total(members: Iterable[Float[Tensor, " B *rest"]], weights: Float[Tensor, "B M"]) -> Float[Tensor, " B *rest"]:
    """`weighted_sum` of members that hold numbers, whatever their weight."""
    shares = zip(members, weights.unbind(1), strict=True)
    first, weight = next(shares)
    joined = first * over(weight, first).to(first.dtype)
    for x, w in shares:  # each is added as soon as it is made: a CPU's cache holds no more
        joined = joined.to(torch.promote_types(joined.dtype, x.dtype))  # half precision beside float is float
        joined.addcmul_(x.to(joined.dtype), over(w, x).to(joined.dtype))
    return joined


class _Kept(torch.autograd.Function):
    """See `kept`. On a CPU a bitwise and takes a sixth of the time of torch.where (torch 2.14)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor) -> Tensor:
        ctx.save_for_backward(keep)
        bits = _BITS[x.element_size()]
        return (x.view(bits) & over(keep, x).to(bits).neg()).view(x.dtype)  # all bits of what is kept, else none

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Kept.apply(grads[0], ctx.saved_tensors[0]), None


def kept(x: Float[Tensor, " B *rest"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B *rest"]:
    """The items that are to be kept; 0 in place of the others, NaN included, and no gradient to them."""
    if keep.device.type == "cpu" and bool(keep.all()):  # a GPU is not asked, which would have to wait
        return x
    return _Kept.apply(x, keep)


def over(weights: Tensor, weighed: Tensor) -> Tensor:
    """Weights (B) or (B, M) with as many axes as what they weigh, whose first axes are theirs."""
    return weights.view(*weights.shape, *[1] * (weighed.ndim - weights.ndim))


def exponents(weights: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """Exponents of a product of experts: equal weights give every present expert the exponent 1 (Hinton 2002)."""
    return weights * (weights > 0).sum(1, keepdim=True)


def join_logits(
    kind: str,
    logits: Sequence[Float[Tensor, " B *rest"]],
    weights: Float[Tensor, "B M"],
    density: Callable[[Tensor], Tensor],
) -> Float[Tensor, " B *rest"]:
    """The logarithm of the joint distribution; for `product` not normalised.

    Args:
        kind: `product`, the product of experts, in which experts who agree sharpen; else the mixture.
        logits: logarithms of the experts' densities, normalised or not.
        weights: of the experts.
        density: the distribution that an expert's logits declare.

    Returns:
        For the mixture at least log(1e-37), below which a float holds no probability.
    """
    logits = [x.float() for x in logits]
    if kind == "product":  # what would normalise an expert is a constant factor
        return weighted_sum(logits, exponents(weights))
    densities = (density(kept(x, w > 0)) for x, w in zip(logits, weights.unbind(1), strict=True))
    return total(densities, weights).clamp_min(SMALLEST).log()


def join_gaussians(
    kind: str,
    means: Sequence[Float[Tensor, " B *rest"]],
    variances: Sequence[Float[Tensor, " B *rest"]],
    weights: Float[Tensor, "B M"],
) -> tuple[Float[Tensor, " B *rest"], Float[Tensor, " B *rest"]]:
    """Mean and variance of the joint distribution of independent Gaussians, each axis by itself.

    `product` weighs every mean by its precision; the mixture is given by its first two moments.
    """
    mean, variance = torch.stack(list(means), 1), torch.stack(list(variances), 1)
    held = over(weights, mean) > 0
    mean, variance = torch.where(held, mean, 0.0), torch.where(held, variance, 1.0)
    if kind == "product":
        shares = over(exponents(weights), mean)
        precision = (shares / variance).sum(1)
        return (shares * mean / variance).sum(1) / precision, 1 / precision
    shares = over(weights, mean)
    joint = (shares * mean).sum(1)
    return joint, (shares * (variance + (mean - joint[:, None]) ** 2)).sum(1)
