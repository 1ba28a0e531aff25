"""Registration with transformers: configuration, model, processor and its parts, and the pipeline's task."""

from __future__ import annotations

from functools import cache

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModelForKeypointDetection,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from mmkp.configuration_mmkp import MmkpConfig
from mmkp.features import MmkpFeatureExtractor
from mmkp.image_processing_mmkp import MmkpImageProcessor
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.pipelines import TASK, KeypointDetectionPipeline
from mmkp.processing_mmkp import MmkpProcessor


@cache
def register() -> None:
    """Make mmkp known to the Auto classes and `transformers.pipeline`, once a process."""
    AutoConfig.register("mmkp", MmkpConfig, exist_ok=True)
    AutoModelForKeypointDetection.register(MmkpConfig, MmkpForKeypointDetection, exist_ok=True)
    AutoImageProcessor.register(
        MmkpConfig,
        image_processor_classes={"torchvision": MmkpImageProcessor, "pil": MmkpImageProcessor},
        exist_ok=True,
    )
    AutoFeatureExtractor.register(MmkpConfig, MmkpFeatureExtractor, exist_ok=True)
    AutoProcessor.register(MmkpConfig, MmkpProcessor, exist_ok=True)
    PIPELINE_REGISTRY.register_pipeline(
        TASK, KeypointDetectionPipeline, AutoModelForKeypointDetection, type="multimodal"
    )
