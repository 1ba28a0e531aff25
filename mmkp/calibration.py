"""Confidence that means something: scores turned into the probability that the keypoint is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

CLIP = 1e-4  # a score of exactly 0 or 1 has no logit
STEPS = 50
MOST_STEP = 2.0  # of Newton, in logits; a set that is all right or all wrong has its optimum at infinity
RIDGE = 1e-6


def temper(scores: Float[Tensor, "*shape"], temperature: float, bias: float = 0.0) -> Float[Tensor, "*shape"]:
    """sigmoid(logit(score) / temperature + bias); temperature 1 and bias 0 change nothing.

    Source: temperature scaling (Guo et al., ICML 2017) of a yes-or-no confidence, with Platt's offset (1999): a mass of
    0.5 within reach of the peak does not mean an even chance, and a temperature alone keeps it at 0.5.
    """
    if temperature == 1.0 and bias == 0.0:
        return scores
    clipped = scores.float().clamp(CLIP, 1 - CLIP)
    return torch.sigmoid(torch.logit(clipped) / temperature + bias)


def fit(scores: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"]) -> dict[str, Any]:
    """Temperature and bias of the least negative log-likelihood, by Newton's method (it is convex).

    Args:
        scores: in [0, 1], before calibration.
        right: whether the keypoint was within the threshold.

    Returns:
        temperature, bias, n, and the mean negative log-likelihood before and after, nats. Scores that do not tell
        right from wrong at all (a slope of 0 or below) keep the temperature 1.
    """
    logits = np.clip(scores.astype(np.float64), CLIP, 1 - CLIP)
    logits = np.log(logits) - np.log1p(-logits)
    design = np.stack([logits, np.ones_like(logits)], 1)
    target, found = right.astype(np.float64), np.array([1.0, 0.0])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-design @ found))
        slope = design.T @ (chance - target) / len(target) + RIDGE * (found - [1, 0])
        bend = (design * (chance * (1 - chance))[:, None]).T @ design / len(target) + RIDGE * np.eye(2)
        step = np.linalg.solve(bend, slope)
        found = found - step * min(1.0, MOST_STEP / max(float(np.abs(step).max()), 1e-12))
    if not found[0] > 0.01:
        found = np.array([1.0, 0.0])
    return {
        "temperature": float(1 / found[0]), "bias": float(found[1]), "n": len(target),
        "nll_before": _nll(logits, target), "nll": _nll(design @ found, target),
    }  # fmt: skip


def _nll(logits: np.ndarray, target: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, logits) - target * logits))
