"""Regressors of several outputs: support vectors with an RBF or a linear kernel, random forests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from jaxtyping import Float
from joblib import Parallel, delayed
from pydantic import Field
from sklearn.ensemble import RandomForestRegressor
from sklearn.svm import SVR, LinearSVR

from mmkp.recipe import Positive, Section

Predict = Callable[[np.ndarray], np.ndarray]
Count = Annotated[int, Field(ge=1)]
STEPS = 200_000  # of libsvm, for one output: bounds a fit that would not end
CACHE_MB = 400


class Svm(Section):
    """Epsilon-SVR with an RBF kernel, one for each output, on outputs of deviation 1.

    `gamma` is in units of 1 / mean squared distance of the training rows. The kernel is computed once for all
    outputs, which then differ by their dual coefficients alone, so that a prediction is one matrix product.

    Source: Drucker et al., NIPS 1996, by scikit-learn (libsvm).
    """

    c: Positive = 3.0
    epsilon: Annotated[float, Field(ge=0)] = 0.1
    gamma: Positive = 1.0

    def fit(self, x: Float[np.ndarray, "N D"], y: Float[np.ndarray, "N C"], seed: int, workers: int) -> Predict:
        """Fit rows to outputs; returns x (M, D) -> y (M, C)."""
        mean, deviation = y.mean(0), np.maximum(y.std(0), 1e-9)
        spread = 2 * float(x.var(0).sum())
        gamma = self.gamma / max(spread, 1e-9)
        kernel = rbf(x, x, gamma)

        def one(target: np.ndarray) -> tuple[np.ndarray, float]:
            model = SVR(kernel="precomputed", C=self.c, epsilon=self.epsilon, cache_size=CACHE_MB, max_iter=STEPS)
            model.fit(kernel, target)
            dual = np.zeros(len(x))
            dual[model.support_] = model.dual_coef_[0]
            return dual, float(model.intercept_[0])

        # threads: libsvm gives the interpreter free, and the kernel need not be copied
        found = Parallel(workers, prefer="threads")(delayed(one)(target) for target in ((y - mean) / deviation).T)
        duals, offsets = np.stack([d for d, _ in found], 1), np.array([o for _, o in found])
        return lambda rows: (rbf(rows, x, gamma) @ duals + offsets) * deviation + mean


def rbf(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"], gamma: float) -> Float[np.ndarray, "N M"]:
    """exp(-gamma |a - b|^2)."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.exp(-gamma * np.maximum(squared, 0))


class LinearSvm(Section):
    """Linear epsilon-SVR with squared loss, one for each output, on outputs of deviation 1. By scikit-learn."""

    c: Positive = 1.0
    epsilon: Annotated[float, Field(ge=0)] = 0.1

    def fit(self, x: Float[np.ndarray, "N D"], y: Float[np.ndarray, "N C"], seed: int, workers: int) -> Predict:
        """Fit rows to outputs; returns x (M, D) -> y (M, C)."""
        mean, deviation = y.mean(0), np.maximum(y.std(0), 1e-9)
        scale = 1 / max(float(np.sqrt(x.var(0).mean())), 1e-9)
        x = x * scale

        def one(target: np.ndarray) -> tuple[np.ndarray, float]:
            loss = "squared_epsilon_insensitive"
            model = LinearSVR(C=self.c, epsilon=self.epsilon, loss=loss, dual=False, random_state=seed).fit(x, target)
            return model.coef_, float(np.ravel(model.intercept_)[0])

        found = Parallel(workers, prefer="threads")(delayed(one)(target) for target in ((y - mean) / deviation).T)
        slopes, offsets = np.stack([s for s, _ in found], 1), np.array([o for _, o in found])
        return lambda rows: (rows * scale @ slopes + offsets) * deviation + mean


class Forest(Section):
    """A random forest, one for all outputs: its splits lower the summed variance, px^2, of all of them.

    Source: Breiman, Machine Learning 2001, by scikit-learn; a third of the features at a split is his for regression.
    """

    trees: Count = 60
    features_share: Annotated[float, Field(gt=0, le=1)] = 0.33
    leaf_items: Count = 4

    def fit(self, x: Float[np.ndarray, "N D"], y: Float[np.ndarray, "N C"], seed: int, workers: int) -> Predict:
        """Fit rows to outputs; returns x (M, D) -> y (M, C)."""
        model = RandomForestRegressor(
            self.trees, max_features=self.features_share, min_samples_leaf=self.leaf_items, n_jobs=workers,
            random_state=seed,
        ).fit(x, y)  # fmt: skip
        model.n_jobs = 1  # sums in one order: the same prediction to the last bit
        return lambda rows: model.predict(rows).reshape(len(rows), -1)
