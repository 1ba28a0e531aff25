"""Loading models: by packaged name, from a folder, or from the Hub; what is wrong is named before anything runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from mmkp.errors import InputError, nearest
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import MmkpProcessor
from mmkp.registration import register
from mmkp.schema import KeypointSchema

WEIGHTS = "model.safetensors"
# What transformers raises for a damaged or foreign checkpoint: whatever its parsers happen to stumble over.
UNREADABLE = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, SafetensorError)


@dataclass
class Loaded:
    """A model with its processor; `source` is the packaged name, folder or Hub id, `digest` that of its weights."""

    model: MmkpForKeypointDetection
    processor: MmkpProcessor
    source: str
    digest: str


def packaged() -> dict[str, Path]:
    """The checkpoints that the package carries, by name."""
    root = Path(str(files("mmkp"))) / "checkpoints"
    return {p.name: p for p in sorted(root.iterdir()) if (p / "config.json").is_file()} if root.is_dir() else {}


def resolve(name: str) -> str:
    """A packaged name, a folder or a Hub id -> what transformers can load.

    Raises:
        InputError: none of the three; the nearest packaged name is given.
    """
    if name in packaged():
        return str(packaged()[name])
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(
                f"model {name}", expected="a folder with config.json and model.safetensors", got="no config.json"
            )
        if not (folder / WEIGHTS).is_file():
            raise InputError(
                f"model {name}", expected=f"weights as {WEIGHTS}", got="none", remedy="Other forms are not loaded."
            )
        return name
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        known = packaged()
        raise InputError(
            f"model {name!r}", expected="a packaged name, a folder or a Hub id (ORG/NAME)", got="none of them",
            remedy=nearest(name, known) if known else "",
        )  # fmt: skip
    return name


def load(name: str, revision: str | None = None) -> Loaded:
    """A model and its processor.

    Raises:
        InputError: no such model, not one of mmkp's, weights that do not fit its configuration.
    """
    register()
    source = resolve(name)
    _check_config(source)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model: Any
        info: Any
        model, info = MmkpForKeypointDetection.from_pretrained(
            source, revision=revision or "main", use_safetensors=True, output_loading_info=True
        )
        processor = MmkpProcessor.from_pretrained(source, revision=revision or "main")
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(f"model {name}", expected="a Hub id that exists", got=str(error).splitlines()[0]) from error
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"model {name}", expected="a checkpoint of mmkp", got=first) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    _check_loading(name, info)
    return Loaded(model.eval(), processor, name, digest_of(model, processor))


def _check_config(source: str) -> None:
    path = Path(source) / "config.json"
    if path.is_file():
        try:
            plain = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"model {source}", expected="a config.json that is JSON", got=str(error)) from error
        if not isinstance(plain, dict) or plain.get("model_type") != "mmkp":
            got = plain.get("model_type") if isinstance(plain, dict) else type(plain).__name__
            raise InputError(f"model {source}", expected="model_type mmkp in config.json", got=repr(got))


def _check_loading(name: str, info: dict[str, Any]) -> None:
    for kind, words in (
        ("missing_keys", "lacks"),
        ("unexpected_keys", "holds unknown"),
        ("mismatched_keys", "misfits"),
    ):
        keys = sorted(str(k) for k in info.get(kind, ()))
        if keys:
            raise InputError(
                f"model {name}", expected="weights that fit its configuration",
                got=f"{len(keys)} tensors that it {words}, first {keys[0]}",
            )  # fmt: skip


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
