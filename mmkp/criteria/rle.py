"""The criterion of residual log-likelihood estimation: a normalising flow learns how the errors are distributed.

Source: Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021. The flow is RealNVP (Dinh
et al., Density Estimation using Real NVP, ICLR 2017). It serves training alone: the codec decodes without it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmkp import losses
from mmkp.codecs.regression import CoordinateTarget
from mmkp.codecs.rle import RleCodec
from mmkp.errors import choose
from mmkp.schema import KeypointSchema


class Coupling(nn.Module):
    """One affine coupling: the kept coordinate says how the other one is scaled and moved.

    Args:
        kept: 0 or 1, the coordinate that stays as it is.
        hidden: width of the two hidden layers.
    """

    def __init__(self, kept: int, hidden: int) -> None:
        super().__init__()
        self.kept = kept
        last = nn.Linear(hidden, 2)
        nn.init.normal_(last.weight, std=1e-3)  # the flow starts as good as the identity
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(1, hidden), nn.LeakyReLU(), nn.Linear(hidden, hidden), nn.LeakyReLU(), last)

    def _affine(self, points: Float[Tensor, "N 2"]) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        dtype = next(self.net.parameters()).dtype  # half, where the model was loaded so
        kept = points[:, self.kept, None].to(dtype)
        scale, shift = self.net(kept).to(points.dtype).unbind(-1)
        return scale.tanh(), shift

    def _with_other(self, points: Float[Tensor, "N 2"], other: Float[Tensor, " N"]) -> Float[Tensor, "N 2"]:
        kept = points[:, self.kept]
        return torch.stack([kept, other] if self.kept == 0 else [other, kept], dim=-1)

    def forward(self, z: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2"]:
        """From the side of the normal variable to the side of the errors."""
        scale, shift = self._affine(z)
        return self._with_other(z, z[:, 1 - self.kept] * scale.exp() + shift)

    def inverse(self, x: Float[Tensor, "N 2"]) -> tuple[Float[Tensor, "N 2"], Float[Tensor, " N"]]:
        """The way back, and the logarithm of its Jacobian's determinant."""
        scale, shift = self._affine(x)
        return self._with_other(x, (x[:, 1 - self.kept] - shift) * (-scale).exp()), -scale


class RealNvp(nn.Module):
    """A density over the plane: a standard normal variable, bent by couplings.

    Args:
        couplings: how many; they keep x and y in turn.
        hidden: width of their layers.
    """

    def __init__(self, couplings: int = 6, hidden: int = 64) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(i % 2, hidden) for i in range(couplings))

    def forward(self, z: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2"]:
        """Standard normal points -> points of the density."""
        for coupling in self.couplings:
            z = coupling(z)
        return z

    def inverse(self, x: Float[Tensor, "N 2"]) -> tuple[Float[Tensor, "N 2"], Float[Tensor, " N"]]:
        """The normal points that become `x`, and the logarithm of the Jacobian's determinant of the way back."""
        log_determinant = x.new_zeros(len(x))
        for coupling in reversed(self.couplings):
            x, change = coupling.inverse(x)  # type: ignore[operator]
            log_determinant = log_determinant + change
        return x, log_determinant

    def log_density(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, " N"]:
        """The logarithm of the density; integrates to 1 over the plane."""
        z, log_determinant = self.inverse(x)
        return losses.gaussian_log_density(z) + log_determinant


class RleCriterion(nn.Module):
    """Minus the log-likelihood of the errors under a base density and a learned flow, nats; it may fall below 0.

    Args:
        codec: that made the targets.
        schema: not used.
        base: `laplace` or `gaussian`, the density that the flow corrects.
        couplings, hidden: of the flow, one for all keypoints (6 and 64 in the paper's code).
    """

    codecs = ("rle",)

    def __init__(
        self, codec: RleCodec, schema: KeypointSchema, base: str = "laplace", couplings: int = 6, hidden: int = 64
    ) -> None:
        super().__init__()
        self.codec = codec
        self.log_base: Any = choose("loss.base", base, losses.RLE_BASES)
        self.flow = RealNvp(couplings, hidden)

    def forward(
        self, raw: Float[Tensor, "B K 4"], target: CoordinateTarget, point_weight: Float[Tensor, " K"]
    ) -> Float[Tensor, " B"]:
        """The loss of every item; `point_weight` says how much each keypoint counts."""
        sigma = self.codec.sigma(raw)
        weight = target.weight * point_weight
        errors = (raw[..., :2].float() - target.xy) / sigma
        with torch.autocast(raw.device.type, enabled=False):  # a density in half precision is none
            log_flow = self.flow.log_density(errors.flatten(0, 1)).view(weight.shape)
        return losses.residual_log_likelihood(sigma, self.log_base(errors), log_flow, weight)
