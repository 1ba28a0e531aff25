"""Coordinates that come with their spread: four numbers per keypoint, for residual log-likelihood estimation (RLE).

Source: Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mmkp.codecs.regression import CoordinateTarget, RegressionCodec
from mmkp.experts import join_gaussians

SIGMA_MIN = 1e-3  # of the longer side, a quarter of a px at 256: finer than labels are, and likelihoods stay finite
SIGMA_SURE = 0.01  # of the longer side: how sure a head is that knows the target


@dataclass(frozen=True)
class RleCodec(RegressionCodec):
    """Keypoints in the input frame <-> mean x, mean y and the logits of sigma x, sigma y.

    Means and sigmas are in units of the input's longer side, the means from its middle. Sigma is the sigmoid of its
    logit, as Li et al. have it, raised to lie in (SIGMA_MIN, 1). Where heads are joined, each axis is read as a
    Gaussian with sigma as its standard deviation: the flow that shapes the density is the criterion's.
    """

    joins: ClassVar[tuple[str, ...]] = ("average", "weighted", "product")
    loss = "rle"

    def raw_shape(self, num_keypoints: int) -> tuple[int, ...]:
        """(K, 4)."""
        return num_keypoints, 4

    def sigma(self, raw: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 2"]:
        """The spread of x and y that the head declares, in units of the input's longer side."""
        return SIGMA_MIN + (1 - SIGMA_MIN) * torch.sigmoid(raw[..., 2:].float())

    def from_mean_sigma(
        self, mean: Float[Tensor, "*batch 2"], sigma: Float[Tensor, "*batch 2"]
    ) -> Float[Tensor, "*batch 4"]:
        """The head's output that declares the given mean and spread; a spread beyond the limits is brought to them."""
        return torch.cat([mean, torch.logit((sigma - SIGMA_MIN) / (1 - SIGMA_MIN), eps=1e-6)], dim=-1)

    def raw_of(self, target: CoordinateTarget) -> Float[Tensor, "B K 4"]:
        """The output of a head that knows the target."""
        return self.from_mean_sigma(target.xy, torch.full_like(target.xy, SIGMA_SURE))

    def decode(self, raw: Float[Tensor, "B K 4"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints (B, K, 2) px, input frame; scores (B, K) in [0, 1]: 1 less the mean of the sigmas (Li et al.)."""
        return super().decode(raw)[0], (1 - self.sigma(raw).mean(-1)).clamp(0, 1)

    def join(
        self, kind: str, members: Sequence[Float[Tensor, "B K 4"]], weights: Float[Tensor, "B M"]
    ) -> Float[Tensor, "B K 4"]:
        """What several heads say together: the product of their Gaussians, or the mixture's mean and variance."""
        means, variances = [x[..., :2].float() for x in members], [self.sigma(x).square() for x in members]
        mean, variance = join_gaussians(kind, means, variances, weights)
        anyone = (weights > 0).any(1)[:, None, None]  # a product of no experts has no mean
        return torch.where(anyone, self.from_mean_sigma(mean, variance.sqrt()), 0.0)
