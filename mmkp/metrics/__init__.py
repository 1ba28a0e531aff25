"""Metrics of keypoints: pure functions on whole batches, numpy arrays or torch tensors alike.

A function gives a value per item (and keypoint) and never averages over items; NaN marks what could not be measured.
Only what is named a summary does average (`summary`, `pooled`, `coco_ap`, `expected_calibration_error`), and none of
these ever returns NaN: there is None, or COCO's -1, where nothing was left to average.
"""

from mmkp.metrics.arrays import summary
from mmkp.metrics.calibration import ReliabilityTable, expected_calibration_error, reliability_table
from mmkp.metrics.coco import Detections, GroundTruth, coco_ap
from mmkp.metrics.coco_dicts import read_coco
from mmkp.metrics.counts import Counts, detection_counts, pooled, visibility_counts
from mmkp.metrics.distances import auc, epe, heatmap_pck, nme, normalized_errors, pck, pckh, torso_pck
from mmkp.metrics.normalizers import NORMALIZERS, head_points, normalizer_px, torso_points
from mmkp.metrics.pose3d import mpjpe, n_mpjpe, p_mpjpe, procrustes
from mmkp.metrics.robustness import (
    conflict_ratio,
    corruption_error,
    effective_robustness,
    effective_robustness_by_trend,
    mean_corruption_error,
    relative_robustness,
    severity_area,
)
from mmkp.metrics.similarity import oks, oks_nms, schema_sigmas

__all__ = [
    "NORMALIZERS",
    "Counts",
    "Detections",
    "GroundTruth",
    "ReliabilityTable",
    "auc",
    "coco_ap",
    "conflict_ratio",
    "corruption_error",
    "detection_counts",
    "effective_robustness",
    "effective_robustness_by_trend",
    "epe",
    "expected_calibration_error",
    "head_points",
    "heatmap_pck",
    "mean_corruption_error",
    "mpjpe",
    "n_mpjpe",
    "nme",
    "normalized_errors",
    "normalizer_px",
    "oks",
    "oks_nms",
    "p_mpjpe",
    "pck",
    "pckh",
    "pooled",
    "procrustes",
    "read_coco",
    "relative_robustness",
    "reliability_table",
    "schema_sigmas",
    "severity_area",
    "summary",
    "torso_pck",
    "torso_points",
    "visibility_counts",
]
