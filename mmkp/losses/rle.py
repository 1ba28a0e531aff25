"""The loss of residual log-likelihood estimation, per item."""

from __future__ import annotations

import math
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from mmkp.losses.masking import weighted_mean


def laplace_log_density(z: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """log Q of two independent Laplace variables of mean 0 and scale 1."""
    return -(z.abs() + math.log(2)).sum(-1)


def gaussian_log_density(z: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """log Q of two independent standard normal variables."""
    return -(z.square() / 2 + math.log(2 * math.pi) / 2).sum(-1)


BASES: dict[str, Callable[[Tensor], Tensor]] = {"laplace": laplace_log_density, "gaussian": gaussian_log_density}


def residual_log_likelihood(
    sigma: Float[Tensor, "B K 2"],
    log_base: Float[Tensor, "B K"],
    log_flow: Float[Tensor, "B K"],
    weight: Float[Tensor, "B K"],
) -> Float[Tensor, " B"]:
    """Minus the logarithm of base density times flow density, nats.

    Both are taken as densities of the error itself, so that each brings its own log sigma, as in the authors' code.
    The paper has one log sigma and the integral of the product of the densities; with neither that integral nor the
    second log sigma, a flow that follows the errors would be best served by a sigma without end.

    Source: Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021.

    Args:
        sigma: predicted spread of x and y.
        log_base, log_flow: log densities of the errors divided by sigma.
        weight: of the points.
    """
    return weighted_mean(2 * sigma.log().sum(-1) - log_base - log_flow, weight)
