"""Whether a checkpoint's processor is the one that its model was made for, known before anything goes through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmkp.errors import InputError

# What a processor writes into a checkpoint's folder, beside the model's configuration and weights.
FILES = ("processor_config.json", "tokenizer_config.json")
LEAST_RATE_HZ, MOST_RATE_HZ = 1000, 768_000
LEAST_WINDOW_S, MOST_WINDOW_S = 0.01, 60.0


def check_files(folder: Path, where: str) -> None:
    """Refuse a model without its processor by the name of the file that is not there.

    Raises:
        InputError: a file is missing.
    """
    lacking = [name for name in FILES if not (folder / name).is_file()]
    if lacking:
        raise InputError(
            where, expected=f"a model and its processor ({', '.join(FILES)})", got=f"no {' and no '.join(lacking)}",
            remedy="Save the processor into the same folder: processor.save_pretrained(FOLDER).",
        )  # fmt: skip


def check_processor(processor: Any, config: Any, where: str) -> None:
    """Refuse settings that the model cannot take, or with which every picture would be a blank.

    Args:
        processor: MmkpProcessor, as loaded.
        config: MmkpConfig of the model.
        where: begins the message.

    Raises:
        InputError: a value of processor_config.json or tokenizer_config.json that does not fit.
    """
    for expected, got in _misfits(processor, config):
        raise InputError(f"{where}, processor_config.json", expected=expected, got=got)


def _misfits(processor: Any, config: Any) -> Any:
    from mmkp.features import MmkpFeatureExtractor
    from mmkp.image_processing_mmkp import MmkpImageProcessor

    image, tokenizer, hear = processor.image_processor, processor.tokenizer, processor.feature_extractor
    if not isinstance(image, MmkpImageProcessor):
        yield "image_processor_type MmkpImageProcessor", type(image).__name__
        return
    size = tuple(config.input_size_hw)
    if image.size_hw != size:
        yield f"size_hw {list(size)}, the model's input_size_hw", str(list(image.size_hw))
    for key, lowest in (("image_mean", -np.inf), ("image_std", 0.0)):
        value = getattr(image, key)
        if not _is_rgb(value, lowest):
            yield f"{key} of three numbers{'' if key == 'image_mean' else ' above 0'}", str(list(value))
    if "text" in config.modalities and not tokenizer.model_max_length >= 2:
        yield "a tokenizer with a model_max_length of at least 2", str(tokenizer.model_max_length)
    if "audio" not in config.modalities:
        return
    if config.audio_config.encoder == "log_mel" and not isinstance(hear, MmkpFeatureExtractor):
        yield "feature_extractor_type MmkpFeatureExtractor", type(hear).__name__
        return
    if isinstance(hear, MmkpFeatureExtractor):
        for key, own in (("feature_size", "mel_bins"), ("sampling_rate", "rate_hz")):
            wanted = getattr(config.audio_config, own)
            if getattr(hear, key) != wanted:
                yield f"{key} {wanted}, the model's {own}", repr(getattr(hear, key))
    rate, window = hear.sampling_rate, getattr(hear, "window_s", None)
    if not _within(rate, LEAST_RATE_HZ, MOST_RATE_HZ):
        yield f"a sampling_rate of {LEAST_RATE_HZ} to {MOST_RATE_HZ} Hz", repr(rate)
    if not _within(window, LEAST_WINDOW_S, MOST_WINDOW_S):
        yield f"a window_s of {LEAST_WINDOW_S} to {MOST_WINDOW_S:g} seconds", repr(window)


def _is_rgb(value: Any, lowest: float) -> bool:
    return len(value) == 3 and all(_is_number(v) and np.isfinite(v) and v > lowest for v in value)


def _within(value: Any, low: float, high: float) -> bool:
    return _is_number(value) and low <= value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
