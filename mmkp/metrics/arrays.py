"""One implementation for numpy arrays and torch tensors, and means that leave out what is not known."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmkp.errors import InputError

Array = TypeVar("Array", np.ndarray, Tensor)


def namespace(*arrays: Any) -> Any:
    """The module, numpy or torch, that all the arrays belong to.

    Raises:
        InputError: arrays of both kinds, or of neither.
    """
    kinds = {torch if isinstance(a, Tensor) else np if isinstance(a, np.ndarray) else None for a in arrays}
    if len(kinds) != 1 or None in kinds:
        got = ", ".join(type(a).__name__ for a in arrays)
        raise InputError("metrics", expected="numpy arrays or torch tensors, all of one kind", got=got)
    return kinds.pop()


def as_double(values: Any) -> Any:
    """In float64, so that a threshold falls the same way for half and for single precision (MPS: float32)."""
    if isinstance(values, Tensor):
        return values.float() if values.device.type == "mps" else values.double()
    return values.astype(np.float64)


def distances(predicted: Float[Array, "N K D"], true: Float[Array, "N K D"]) -> Float[Array, "N K"]:
    """Euclidean distance of every pair of points, in their unit."""
    xp = namespace(predicted, true)
    return xp.sqrt(((as_double(predicted) - as_double(true)) ** 2).sum(-1))


def known_mean(values: Float[Array, "N K"]) -> Float[Array, " N"]:
    """Mean over the last axis without the NaN; NaN where all are."""
    xp = namespace(values)
    known = ~xp.isnan(values)
    count = known.sum(-1)
    total = xp.where(known, values, 0.0).sum(-1)
    return xp.where(count > 0, total / count.clip(1), np.nan)


def select(values: Float[Array, "N K"], points: Any) -> Float[Array, "N k"]:
    """The columns `points` (indices), or all of them for None."""
    return values if points is None else values[:, points]


def summary(values: Any) -> float | None:
    """Mean over all that is known in `values`; None, never NaN, where nothing is."""
    known = values[~namespace(values).isnan(values)]
    return float(as_double(known).mean()) if len(known) else None
