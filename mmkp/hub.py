"""Loading models: by packaged name, from a folder, or from the Hub; what is wrong is named before anything runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from mmkp.errors import InputError, MmkpError
from mmkp.loading.processor import check_files, check_processor
from mmkp.loading.source import find, packaged, resolve
from mmkp.loading.weights import WEIGHTS
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import MmkpProcessor
from mmkp.registration import register
from mmkp.schema import KeypointSchema

__all__ = ["WEIGHTS", "Loaded", "check_schema", "digest_of", "find", "load", "packaged", "resolve"]
# What transformers raises for a damaged or foreign checkpoint: whatever its parsers happen to stumble over.
UNREADABLE = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, SafetensorError)


@dataclass
class Loaded:
    """A model with its processor; `source` is the packaged name, folder or Hub id, `digest` that of its weights."""

    model: MmkpForKeypointDetection
    processor: MmkpProcessor
    source: str
    digest: str


def load(name: str, revision: str | None = None) -> Loaded:
    """A model and its processor.

    Args:
        name: a packaged name (`mmkp models` lists them), a folder, or ORG/NAME on the Hub.
        revision: of a model on the Hub: a branch, tag or commit.

    Raises:
        InputError: no such model, not one of mmkp's, weights that do not fit its configuration.
        MmkpError: the Hub does not answer.
    """
    register()
    folder = str(find(name, revision=revision))
    check_files(Path(folder), f"model {name}")
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model: Any = MmkpForKeypointDetection.from_pretrained(folder)
        processor = MmkpProcessor.from_pretrained(folder)
        check_processor(processor, model.config, f"model {name}")
    except MmkpError:
        raise
    except UNREADABLE as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"model {name}", expected="a checkpoint of mmkp", got=first) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    model.name_or_path = model.config._name_or_path = name
    return Loaded(model.eval(), processor, name, digest_of(model, processor))


def digest_of(model: MmkpForKeypointDetection, processor: MmkpProcessor) -> str:
    """A hash of all that predictions depend on: weights, configuration, processor."""
    config = {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}  # not how its path was spelled
    made = hashlib.sha1(json.dumps(config, sort_keys=True, default=str).encode())
    tokenizer = processor.tokenizer
    words = (type(tokenizer).__name__, tokenizer.model_max_length, sorted(tokenizer.get_vocab().items()))
    made.update(processor.to_json_string().encode() + repr(words).encode())
    for key, value in sorted(model.state_dict().items()):
        made.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()[:16]


def check_schema(loaded: Loaded, schema: KeypointSchema, where: str) -> None:
    """Refuse data whose keypoints are not the model's.

    Raises:
        InputError: the schemas differ.
    """
    own = loaded.model.schema
    if (own.name, own.keypoints) != (schema.name, schema.keypoints):
        raise InputError(
            where, expected=f"keypoints of the schema {loaded.model.schema.name}, which {loaded.source} predicts",
            got=f"{schema.name}, {schema.num_keypoints} keypoints",
            remedy="Choose another model, or fine-tune this one on the data.",
        )  # fmt: skip
