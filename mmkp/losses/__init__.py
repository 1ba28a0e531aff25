"""Losses: pure functions, per item and masked by visibility; averaged by the caller."""

from mmkp.losses.coordinates import euclidean
from mmkp.losses.heatmap import heatmap_cross_entropy, heatmap_mse
from mmkp.losses.masking import weighted_mean
from mmkp.losses.visibility import visibility_cross_entropy

__all__ = ["euclidean", "heatmap_cross_entropy", "heatmap_mse", "visibility_cross_entropy", "weighted_mean"]
