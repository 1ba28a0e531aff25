"""What is looked at in a checkpoint's folder before anything of it is used. Nothing here runs or allocates by it.

A folder may come from anybody. transformers would run code that a configuration names, fetch what it points to, and
build whatever sizes it asks for; so all of that is refused first, by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmkp import __version__
from mmkp.errors import InputError
from mmkp.loading.weights import read_header, weight_files
from mmkp.schema import parse_schema

MOST_JSON_BYTES, MOST_DEPTH = 5_000_000, 32
# Keys by which transformers, peft or timm run code, fetch from elsewhere, or load other weights than the folder's.
# tokenizer files hold vocabularies, in which any word may be a key.
CODE_KEYS = {
    "auto_map", "trust_remote_code", "custom_pipelines", "custom_pipeline", "custom_generate", "transformers_weights",
    "quantization_config", "kernel_config", "use_kernels", "checkpoint_path", "pretrained_cfg",
    "pretrained_cfg_overlay", "use_pretrained_backbone", "pretrained", "base_model_name_or_path",
}  # fmt: skip
ATTENTION_KEY = re.compile("attn_implementation|experts_implementation")  # a Hub id there would be code to fetch
ATTENTION = {"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "grouped_mm", "batched_mm"}
VOCABULARIES = {"vocab.json", "tokenizer.json", "added_tokens.json", "model.safetensors.index.json"}
ELSEWHERE = re.compile(r"://|\.(pth|pt|bin|pkl|pickle|ckpt|tar|npy|npz|h5)$", re.IGNORECASE)
WEIGHT_NAMES = re.compile(r"none|hub|package:[a-z0-9_.-]+")
COUNTED = re.compile(r"layers|depth|blocks|stages|stacks|scales|heads|repeats")
# Most that a configuration of ours may ask for: far over any model in use, far under what would fill a memory.
LIMITS = {
    "hidden_size": 8192, "input_size_hw": 4096, "image_config.stride": 1024, "image_config.deepest_stride": 1024,
    "image_config.scales": 16, "text_config.layers": 128, "text_config.heads": 256, "text_config.max_bytes": 1_000_000,
    "audio_config.layers": 128, "audio_config.heads": 256, "audio_config.mel_bins": 4096,
    "audio_config.rate_hz": 1_000_000, "audio_config.window_s": 3600,
}  # fmt: skip
CALIBRATION = ("temperature", "bias")
MOST_COUNTED, MOST_OPTION, MOST_EXTERNAL, MOST_KEYPOINTS = 256, 100_000, 2**24, 10_000


def check_folder(folder: Path, trusted: bool = False) -> dict[str, Any]:
    """Refuse a folder that is no sound checkpoint of mmkp.

    Args:
        folder: with config.json and its weights.
        trusted: part of the installation, whose files may be links.

    Returns:
        The plain form of config.json.

    Raises:
        InputError: what is wrong, in the order links, configuration, processor, weights.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"model {folder}", expected="a folder with config.json and model.safetensors",
                         got="no config.json")  # fmt: skip
    check_settings(folder, trusted)
    config = _read_json(folder / "config.json")
    check_config(config, f"model {folder}")
    for path in {*weight_files(folder), *folder.glob("*.safetensors")}:
        read_header(path)
    return config


def check_settings(folder: Path, trusted: bool = False) -> None:
    """Refuse a folder with links out of it, or with settings that name code; all that a processor needs.

    Raises:
        InputError: the first of them.
    """
    if not trusted:
        _check_links(folder)
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"model {folder}", expected="a whole checkpoint", got="an adapter (adapter_config.json)",
            remedy="Merge it into its model and save that.",
        )  # fmt: skip
    for path in sorted(folder.glob("*.json")):
        if path.name not in VOCABULARIES:
            _check_code(path, _read_json(path))


def _check_links(folder: Path) -> None:
    """Links may lead inside the folder; those of the Hub's cache to the blobs of the same repository."""
    root = folder.resolve()
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise InputError(f"model {folder}", expected="files of its own", got=f"{path.name}, a link out of it")


def _read_json(path: Path) -> dict[str, Any]:
    where = f"model {path.parent}, {path.name}"
    if path.stat().st_size > MOST_JSON_BYTES:
        raise InputError(where, expected=f"at most {MOST_JSON_BYTES:,} bytes", got=f"{path.stat().st_size:,}")
    try:
        plain = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(where, expected="a checkpoint of mmkp, its settings as JSON", got=str(error)[:120]) from error
    if not isinstance(plain, dict):
        raise InputError(where, expected="a checkpoint of mmkp, its settings as an object", got=type(plain).__name__)
    return plain


def _walk(value: Any, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every (place, key, value) of nested dicts and lists; a list's entries have its key.

    Raises:
        InputError: nested deeper than any settings are.
    """
    waiting = [(value, place, "", 0)]
    while waiting:
        outer, at, name, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise InputError(at[:80], expected=f"settings nested at most {MOST_DEPTH} deep", got="more")
        inner = outer.items() if isinstance(outer, dict) else enumerate(outer) if isinstance(outer, list) else ()
        for key, entry in inner:
            here, named = f"{at}.{key}" if at else str(key), name if isinstance(outer, list) else str(key)
            yield here, named, entry
            if isinstance(entry, (dict, list)):
                waiting.append((entry, here, named, depth + 1))


def _check_code(path: Path, plain: dict[str, Any]) -> None:
    for place, key, value in _walk(plain):
        bad = key in CODE_KEYS and value not in (None, False, {}, [])
        if ATTENTION_KEY.search(key):
            bad = value is not None and (not isinstance(value, str) or value not in ATTENTION)
        if bad:
            raise InputError(
                f"model {path.parent}, {path.name}", expected="settings alone", got=f"{place} = {value!r}"[:160],
                remedy="A checkpoint may not name code to run or weights to fetch; nothing of it was run.",
            )  # fmt: skip


def check_config(config: dict[str, Any], where: str) -> None:
    """Refuse a configuration that is not ours, is newer than this package, points elsewhere or asks for absurd sizes.

    Raises:
        InputError: the first fault, by its key.
    """
    if config.get("model_type") != "mmkp":
        raise InputError(where, expected="model_type mmkp in config.json", got=repr(config.get("model_type")))
    _check_version(config.get("mmkp_version"), where)
    schema, modalities = config.get("keypoint_schema"), config.get("modalities", [])
    names = schema.get("keypoints") if isinstance(schema, dict) else None
    if isinstance(names, list) and len(names) > MOST_KEYPOINTS:
        raise InputError(where, expected=f"at most {MOST_KEYPOINTS} keypoints", got=str(len(names)))
    parse_schema(schema, f"of the {where}")
    if not isinstance(modalities, list):
        raise InputError(f"{where}, modalities", expected="a list of image, text, audio", got=repr(modalities)[:60])
    known = config.get("calibration")
    if known is not None and not (isinstance(known, dict) and all(_is_number(known.get(k)) for k in CALIBRATION)):
        raise InputError(f"{where}, calibration", expected="temperature and bias, numbers", got=repr(known)[:60])
    if known is not None and not (0 < known["temperature"] < math.inf and math.isfinite(known["bias"])):
        raise InputError(f"{where}, calibration", expected="a temperature above 0, finite", got=repr(known)[:60])
    for part in ("image_config", "text_config", "audio_config"):
        _check_encoder(config, part, where)
    _check_sizes(config, where)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_version(version: Any, where: str) -> None:
    parts = re.match(r"(\d{1,6})\.(\d{1,6})", str(version))
    if version is None:
        return
    if parts is None:
        raise InputError(f"{where}, mmkp_version", expected="a version such as 0.1.0", got=repr(version)[:60])
    own = tuple(int(v) for v in __version__.split(".")[:2])
    if (int(parts[1]), int(parts[2])) > own:
        raise InputError(
            where, expected=f"a checkpoint of mmkp {__version__} or older", got=f"one of {version}",
            remedy="pip install -U mmkp",
        )  # fmt: skip


def _check_encoder(config: dict[str, Any], part: str, where: str) -> None:
    """An encoder of another library must bring its configuration along, or loading would fetch it by name."""
    own = config.get(part)
    if own is None:
        return
    if not isinstance(own, dict):
        raise InputError(f"{where}, {part}", expected="an object", got=repr(own)[:60])
    named, brought, builtin = ("backbone", "backbone_config", "") if part == "image_config" else (
        "encoder", "encoder_config", {"text_config": "bytes", "audio_config": "log_mel"}[part])  # fmt: skip
    weights = own.get("weights", "none")
    if not isinstance(weights, str) or not WEIGHT_NAMES.fullmatch(weights):
        raise InputError(f"{where}, {part}.weights", expected="none, hub or package:NAME", got=repr(weights)[:120])
    name = own.get(named, builtin)
    if not isinstance(name, str) or ELSEWHERE.search(name):
        raise InputError(f"{where}, {part}.{named}", expected="an architecture's name", got=repr(name)[:120])
    foreign = "/" in name if part == "image_config" else name != builtin
    if foreign and not isinstance(own.get(brought), dict) and part.split("_")[0] in config.get("modalities", ()):
        raise InputError(
            f"{where}, {part}.{brought}", expected=f"the configuration of {name!r}, so that nothing is fetched",
            got=repr(own.get(brought)),
        )  # fmt: skip
    for place, key, value in _walk(own.get(brought), f"{part}.{brought}"):
        if isinstance(value, str) and ELSEWHERE.search(value) and key != "_name_or_path":  # never read again
            raise InputError(f"{where}, {place}", expected="a setting", got=f"{value!r}, a place elsewhere"[:160])
        _check_size(value, MOST_COUNTED if COUNTED.search(key) else MOST_EXTERNAL, f"{where}, {place}")


def _check_sizes(config: dict[str, Any], where: str) -> None:
    for place, limit in LIMITS.items():
        part, _, key = place.rpartition(".")
        inside: Any = (config.get(part) or {}) if part else config
        if key in inside:
            value = inside[key]
            for entry in value if isinstance(value, (list, tuple)) else (value,):
                if not _is_number(entry) or not 0 < entry <= limit:
                    raise InputError(f"{where}, {place}", expected=f"a number over 0, at most {limit}",
                                     got=repr(value)[:80])  # fmt: skip
    for part in ("fusion", "head", "codec", "loss", "finder"):
        for place, key, value in _walk(config.get(part), part):
            _check_size(value, MOST_COUNTED if COUNTED.search(key) else MOST_OPTION, f"{where}, {place}")


def _check_size(value: Any, limit: int, place: str) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > limit:
        raise InputError(place, expected=f"a number of at most {limit}", got=repr(value)[:80])
