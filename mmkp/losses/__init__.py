"""Losses: pure functions, per item and masked by visibility; averaged by the caller."""

from mmkp.losses.coordinates import absolute, euclidean, oks, smooth_l1, squared, wing
from mmkp.losses.heatmap import adaptive_wing, foreground_weight, heat_mse, heatmap_cross_entropy, heatmap_mse
from mmkp.losses.masking import weighted_mean
from mmkp.losses.paf import field_squares, heat_squares
from mmkp.losses.rle import BASES as RLE_BASES
from mmkp.losses.rle import gaussian_log_density, laplace_log_density, residual_log_likelihood
from mmkp.losses.simcc import simcc_divergence
from mmkp.losses.visibility import visibility_cross_entropy

__all__ = [
    "RLE_BASES",
    "absolute",
    "adaptive_wing",
    "foreground_weight",
    "field_squares",
    "gaussian_log_density",
    "heat_squares",
    "heat_mse",
    "euclidean",
    "heatmap_cross_entropy",
    "heatmap_mse",
    "laplace_log_density",
    "oks",
    "residual_log_likelihood",
    "simcc_divergence",
    "smooth_l1",
    "squared",
    "visibility_cross_entropy",
    "weighted_mean",
    "wing",
]
