"""mmkp: multimodal keypoint detection on the Hugging Face stack.

Importing the package is light. The first model-side name (or `register()`) loads torch and transformers and makes
mmkp known to the Auto classes and to `transformers.pipeline`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "MmkpConfig": "mmkp.configuration_mmkp",
    "MmkpImageConfig": "mmkp.configuration_mmkp",
    "MmkpTextConfig": "mmkp.configuration_mmkp",
    "MmkpAudioConfig": "mmkp.configuration_mmkp",
    "MmkpForKeypointDetection": "mmkp.modeling_mmkp",
    "MmkpProcessor": "mmkp.processing_mmkp",
    "MmkpImageProcessor": "mmkp.image_processing_mmkp",
    "MmkpFeatureExtractor": "mmkp.features",
    "KeypointDetectionPipeline": "mmkp.pipelines",
    "pipeline": "mmkp.pipelines",
}
_LIGHT = {
    "KeypointSchema": "mmkp.schema",
    "load_schema": "mmkp.schema",
    "load_recipe": "mmkp.recipe",
    "Sample": "mmkp.data.sample",
    "InputError": "mmkp.errors",
    "MmkpError": "mmkp.errors",
    "draw": "mmkp.outputs",
    "to_coco": "mmkp.outputs",
    "coco_results": "mmkp.outputs",
    "to_supervision": "mmkp.outputs",
}
__all__ = ["__version__", "register", *sorted([*_LAZY, *_LIGHT])]


def register() -> None:
    """Make mmkp known to transformers' Auto classes and pipelines; safe to call again."""
    import_module("mmkp.registration").register()


def __getattr__(name: str) -> Any:
    if name in _LIGHT:
        return getattr(import_module(_LIGHT[name]), name)
    if name in _LAZY:
        register()
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mmkp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
