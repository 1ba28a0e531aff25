"""A model of a few thousand weights, saved as a checkpoint, for tests that load and push."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmkp import MmkpConfig, MmkpForKeypointDetection
from mmkp.processing_mmkp import make_processor
from mmkp.schema import load_schema


def tiny_config(**changes: Any) -> MmkpConfig:
    """32 px, 16 channels, the smallest parts of each kind, five points of a face."""
    plain = {
        "hidden_size": 16, "input_size_hw": (32, 32), "head": {"name": "heatmap", "layers": 1},
        "image_config": {"backbone": "test_efficientnet.r160_in1k", "stride": 8},
        "text_config": {"layers": 1, "heads": 2}, "audio_config": {"layers": 1, "heads": 2, "mel_bins": 16},
        "keypoint_schema": load_schema("face5").model_dump(mode="json"),
    }  # fmt: skip
    return MmkpConfig(**{**plain, **changes})


def save_tiny(folder: Path, **changes: Any) -> Path:
    """The model and its processor, as a folder that `mmkp.hub.load` takes."""
    torch.manual_seed(0)
    config = tiny_config(**changes)
    MmkpForKeypointDetection(config).save_pretrained(folder)
    make_processor(config).save_pretrained(folder)
    return folder
