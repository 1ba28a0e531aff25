"""The point distribution model: shapes as a mean and a few directions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

NOISE_FLOOR = 1e-4  # px^2: labels are never known better than to a hundredth of a pixel


class ShapeModel:
    """Mean and principal components of shapes in the input frame, so that place and size in the box are among them.

    Shapes with unlabelled points do not enter the components while there are at least two whole ones for each; where
    there are not, all enter, the unlabelled points at the mean.

    Args:
        xy: px, input frame; NaN where unlabelled.
        components: how many; fewer where there are fewer shapes or coordinates.
        seed: of the PCA.

    Source: Cootes et al., "Active shape models", CVIU 1995, without the Procrustes alignment; the noise is that of
    probabilistic PCA (Tipping and Bishop, 1999, equation 8).
    """

    def __init__(self, xy: Float[np.ndarray, "N K 2"], components: int, seed: int = 0) -> None:
        self.notes: list[str] = []
        flat = xy.reshape(len(xy), -1).astype(np.float64)
        known = np.isfinite(flat)
        count = known.sum(0)
        mean = np.where(known, flat, 0).sum(0) / np.maximum(count, 1)
        mean = np.where(count > 0, mean, np.nanmean(mean[count > 0]))
        whole = known.all(1)
        if whole.sum() >= max(2, min(2 * components, len(flat))):
            flat = flat[whole]
        else:
            flat = np.where(known, flat, mean)
            self.notes.append(f"shapes: {int(whole.sum())} whole ones; unlabelled points stand at the mean")
        taken = min(components, len(flat) - 1, flat.shape[1])
        self.mean, self.num_keypoints = mean, xy.shape[1]
        if taken < components:
            self.notes.append(f"shapes: {components} components asked for, {taken} taken")
        pca = PCA(taken, random_state=seed).fit(flat) if taken else None
        self.basis = np.zeros((1, flat.shape[1])) if pca is None else pca.components_
        spread = np.zeros(1) if pca is None else pca.explained_variance_
        self.variance = np.maximum(spread, NOISE_FLOOR)
        total = flat.var(0, ddof=1).sum() if len(flat) > 1 else 0.0
        left = max(flat.shape[1] - len(self.variance), 1)
        self.noise = float(max((total - spread.sum()) / left, NOISE_FLOOR))

    @property
    def mean_xy(self) -> Float[np.ndarray, "K 2"]:
        """The mean shape, px, input frame."""
        return self.mean.reshape(-1, 2)

    @property
    def deviation_px(self) -> Float[np.ndarray, " K"]:
        """How far each keypoint strays from its mean, px, the mean over x and y."""
        return np.sqrt(self.variance @ self.basis**2 + self.noise).reshape(-1, 2).mean(1)

    def decode(self, coefficients: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N K 2"]:
        """Coefficients, px along each component -> points, px, input frame."""
        return (self.mean + coefficients @ self.basis).reshape(len(coefficients), -1, 2)

    def encode(
        self, xy: Float[np.ndarray, "N K 2"], variance: Float[np.ndarray, "N K"] | None = None
    ) -> Float[np.ndarray, "N C"]:
        """The likeliest coefficients of points of which some are not known, or not equally well.

        Args:
            xy: px, input frame; NaN where unknown, and then the other points tell.
            variance: px^2 of each point's error; 0 without. The model's own noise is added.

        Returns:
            The mode of the posterior: N systems of C equations, solved at once.
        """
        known = np.isfinite(xy).all(-1)
        noise = self.noise + (np.zeros(known.shape) if variance is None else variance)
        precision = np.repeat(np.where(known, 1 / noise, 0.0), 2, axis=1)
        offset = np.where(np.repeat(known, 2, axis=1), xy.reshape(len(xy), -1) - self.mean, 0.0)
        weighted = precision[:, None, :] * self.basis
        systems = weighted @ self.basis.T + np.diag(1 / self.variance)
        return np.linalg.solve(systems, (weighted @ offset[..., None]))[..., 0]
