"""The three rules that join modalities (or scales): average, weighted, product.

One form serves all: with weights w that are 0 for what is absent and sum to 1 over what is there, a rule is the mean
``phi^-1( sum_m w_m phi(x_m) )``. Average and weighted take phi as the identity. Product takes the logarithm of a
positive factor, so that it is the weighted geometric mean; on features the factor is ``softplus(x)`` and the result is
carried back through softplus, so that one factor alone is itself exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmkp.errors import InputError, nearest
from mmkp.experts import kept, total, weighted_sum


def masked_weights(logits: Float[Tensor, " M"], present: Bool[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """Softmax over the present members: 0 for the absent, summing to 1; all 0 where nothing is present."""
    expanded = logits.float().expand(present.shape)
    weights = torch.softmax(expanded.masked_fill(~present, torch.finfo(torch.float32).min), dim=-1)
    return weights * present


# Where no number is far from 0, as features are, three steps each suffice. On a CPU NumPy makes them, in place: it has
# log1p and expm1 of many numbers at once, which torch makes one by one (20 times the time; NumPy 2.4, torch 2.14).
_NEAR = 80.0  # exp of it and of its negative are normal floats
_LOW = -15.0  # below, softplus(x) is exp(x) to a float's precision


def _within(x: Tensor, low: float, high: float) -> bool:
    """Whether it lies on a CPU and all of it between the two; a GPU is not asked, which would have to wait."""
    if x.device.type != "cpu" or not x.numel():
        return False
    values = x.detach().numpy()  # its least and largest in the order of memory, whatever that of the axes
    return bool(low < values.min() and values.max() < high)


def _steps(x: Tensor, *functions: np.ufunc) -> Tensor:
    """NumPy's functions, one after another, the first into new memory."""
    made = torch.from_numpy(np.asarray(functions[0](x.numpy())))
    for function in functions[1:]:
        function(made.numpy(), out=made.numpy())
    return made


class _LogSoftplus(torch.autograd.Function):
    """log(softplus(x)); the gradient is sigmoid(x) / softplus(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        near = _within(x, -_NEAR, _NEAR)
        if near and not ctx.needs_input_grad[0]:
            return _steps(x, np.exp, np.log1p, np.log)
        if near:
            softplus = _steps(x, np.exp, np.log1p)
            made = _steps(softplus, np.log)
        else:
            inner = x.clamp_min(-_NEAR)
            softplus = F.softplus(inner, threshold=_NEAR / 2)
            made = softplus.log() + (x - inner)
        ctx.save_for_backward(x, softplus)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, softplus = ctx.saved_tensors
        return grads[0] * torch.where(x < _LOW, 1.0, x.sigmoid().div_(softplus))


class _InverseLogSoftplus(torch.autograd.Function):
    """The x for which log(softplus(x)) = y; the gradient is softplus(x) / sigmoid(x)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        near = _within(y, -_NEAR, math.log(_NEAR))
        if near and not ctx.needs_input_grad[0]:
            return _steps(y, np.exp, np.expm1, np.log)
        if near:
            softplus = _steps(y, np.exp)
            x = _steps(softplus, np.expm1, np.log)
        else:
            softplus = y.exp()
            x = torch.where(y < _LOW, y, softplus + (-torch.expm1(-softplus)).log())
        ctx.save_for_backward(x, softplus)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, softplus = ctx.saved_tensors
        return grads[0] * torch.where(x < _LOW, 1.0, softplus / x.sigmoid())


def log_softplus(x: Tensor) -> Tensor:
    """log(softplus(x)), exact where softplus underflows: there it tends to x."""
    return _LogSoftplus.apply(x)


def inverse_log_softplus(y: Tensor) -> Tensor:
    """The x for which log(softplus(x)) = y."""
    return _InverseLogSoftplus.apply(y)


class FusionRule(nn.Module):
    """Average, weighted or product over the members of a dict of like-shaped tensors.

    Args:
        members: the names in their canonical order; the dict's own order does not matter.
        kind: `average` (equal weights), `weighted` (weights learned as a softmax, or fixed), `product` (geometric).
        weights: fixed weights by name; they are scaled to sum 1 over what is present. Without them `weighted` learns
            its own, starting equal.

    Raises:
        InputError: no such rule, weights that are negative, all 0 or name no member.
    """

    KINDS = ("average", "weighted", "product")

    def __init__(self, members: tuple[str, ...], kind: str, weights: dict[str, float] | None = None) -> None:
        super().__init__()
        if kind not in self.KINDS:
            raise InputError("fusion.name", expected="a rule", got=repr(kind), remedy=nearest(kind, self.KINDS))
        self.members, self.kind = members, kind
        logits = torch.zeros(len(members))
        if weights is not None:
            unknown = set(weights) - set(members)
            values = [weights.get(m, 0.0) for m in members]
            if unknown or min(values) < 0 or sum(values) <= 0:
                raise InputError(
                    "fusion.weights", expected=f"weights of at least 0, not all 0, for {', '.join(members)}",
                    got=str(weights),
                )  # fmt: skip
            logits = torch.tensor(values).clamp_min(1e-12).log()
        if kind == "weighted" and weights is None:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)

    def weights(self, present: Bool[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """The weight of each member for each item: 0 where absent, sum 1."""
        return masked_weights(self.logits, present)

    def _given(self, parts: dict[str, Tensor], present: Bool[Tensor, "B M"]) -> tuple[list[Tensor], Tensor]:
        """What there is, and the weight of each for each item, in the order of the members."""
        there = torch.tensor([m in parts for m in self.members], device=present.device)
        columns = [i for i, m in enumerate(self.members) if m in parts]
        return [parts[self.members[i]] for i in columns], self.weights(present & there)[:, columns]

    def forward(self, parts: dict[str, Float[Tensor, " B *rest"]], present: Bool[Tensor, "B M"]) -> Tensor:
        """Join features. `present` is (B, M) in the order of `members`; (B, *rest), 0 where nothing is present."""
        given, weights = self._given(parts, present)
        if self.kind != "product":
            return weighted_sum(given, weights)
        with torch.autocast(given[0].device.type, enabled=False):
            members = [g.float() for g in given]
            factors = (log_softplus(kept(g, w > 0)) for g, w in zip(members, weights.unbind(1), strict=True))
            joined, count = inverse_log_softplus(total(factors, weights)), (weights > 0).sum(1)
            if joined.device.type != "cpu" or (count < 2).any():  # to ask a GPU would make the process wait for it
                joined = kept(joined, count > 1) + kept(weighted_sum(members, weights), count == 1)
        return joined.to(given[0].dtype)

    def mean(self, parts: dict[str, Float[Tensor, "B K"]], present: Bool[Tensor, "B M"]) -> Float[Tensor, "B K"]:
        """The weighted mean, whatever the rule: of logits that are no distribution over places."""
        return weighted_sum(*self._given(parts, present))

    def join_outputs(self, raws: dict[str, Tensor], present: Bool[Tensor, "B M"], codec: Any) -> Tensor:
        """Join the heads' outputs as what they declare (model level): by `codec.join`, which knows what they mean.

        Average and weighted give the mixture of distributions, or the mean of coordinates. Product is the product of
        experts, for distributions only.
        """
        return codec.join(self.kind, *self._given(raws, present))
