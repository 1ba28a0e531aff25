"""Crafted checkpoints are refused, by name, before anything in them runs, is fetched or takes memory."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_model import save_tiny

from mmkp import InputError, MmkpForKeypointDetection
from mmkp.hub import load
from mmkp.loading.safety import check_folder, check_settings
from mmkp.loading.weights import read_header

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "crafted"))


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """Unpickling, timm's downloads and addresses are out of reach; a test that comes to them fails."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a checkpoint was unpickled or fetched from")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(timm.models._builder, "load_pretrained", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.path, "boom"))


def refused(folder: Path, words: str) -> None:
    """By `load` and by `from_pretrained`, with the same words."""
    for take in (lambda: load(str(folder)), lambda: MmkpForKeypointDetection.from_pretrained(folder)):
        with pytest.raises(InputError, match=words) as error:
            take()
        assert "\n" not in str(error.value)


def change(path: Path, **entries: Any) -> None:
    """Set entries of a JSON file, by dotted place with `__`."""
    plain = json.loads(path.read_text())
    for place, value in entries.items():
        *parents, last = place.split("__")
        inner = plain
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    path.write_text(json.dumps(plain))


def header_of(entries: dict[str, Any], length: int = 0) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(length)


def test_a_sound_folder_passes(folder):
    assert check_folder(folder)["model_type"] == "mmkp"
    assert load(str(folder)).model.schema.name == "face5"


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_named_as_weights(folder, tmp_path, protocol):
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb(tmp_path / "boom"), protocol=protocol))
    refused(folder, "a pickle by that name")
    assert not (tmp_path / "boom").exists()


def test_an_archive_of_torch_named_as_weights(folder):
    torch.save({"a": torch.zeros(3)}, folder / WEIGHTS)
    refused(folder, "a zip archive, as torch.save writes")


def test_only_pickled_weights(folder, tmp_path):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    (folder / WEIGHTS).unlink()
    refused(folder, r"weights as model\.safetensors, got pytorch_model\.bin.*never loaded")
    assert not (tmp_path / "boom").exists()


def test_pickles_and_code_beside_the_weights_are_not_touched(folder, tmp_path):
    for name in ("pytorch_model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    for name in ("modeling_mmkp.py", "__init__.py", "configuration_mmkp.py", "processing_mmkp.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'boom')!r}, 'w').close()")
    load(str(folder))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModel": "modeling_evil.Evil"}),
        ("trust_remote_code", True),
        ("custom_pipelines", {"x": {"impl": "evil.Pipe"}}),
        ("transformers_weights", "pytorch_model.bin"),
        ("quantization_config", {"quant_method": "evil"}),
        ("_attn_implementation", "org/kernel"),
    ],
)
def test_settings_that_name_code(folder, file, key, value):
    change(folder / file, **{key: value})
    refused(folder, f"{file}: expected settings alone, got {key}")
    with pytest.raises(InputError, match=key):
        check_settings(folder)


def test_settings_that_name_code_deep_inside(folder):
    change(folder / "config.json", image_config__backbone_config={"model_type": "resnet", "auto_map": {"a": "b"}})
    refused(folder, "image_config.backbone_config.auto_map")


def test_a_word_of_a_vocabulary_may_be_called_anything(folder):
    (folder / "added_tokens.json").write_text(json.dumps({"auto_map": 300}))
    check_folder(folder)


def test_an_adapter_would_load_another_model(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/base"}))
    refused(folder, "an adapter")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: struct.pack("<Q", 10**12) + b"{}", "a header said to be longer"),
        (lambda: struct.pack("<Q", 30_000_000) + b" " * 30_000_001, "a header said to be longer"),
        (lambda: b"", "a header said to be longer"),
        (lambda: struct.pack("<Q", 2) + b"[]", "a header that is no object"),
        (lambda: struct.pack("<Q", 5) + b"{oops", "a header that cannot be read"),
        (lambda: struct.pack("<Q", 100_000) + b"[" * 100_000, "a header that cannot be read"),
        (lambda: struct.pack("<Q", 13) + b'{"a":1,"a":2}', "a name stands in it twice"),
        (lambda: header_of(one([2])), "0 bytes of tensors where 8"),
        (lambda: header_of(one([3]), 8), "do not fit its shape"),
        (lambda: header_of(one([-1]), 8), "do not fit its shape"),
        (lambda: header_of(one([2], "EVIL"), 8), "an unusable entry"),
        (lambda: header_of({"a": [1]}, 8), "an unusable entry"),
        (lambda: header_of(two(0, 8, 4, 12), 12), "'b', which overlaps its neighbour"),
        (lambda: header_of(two(0, 8, 12, 20), 20), "'b', which leaves a gap"),
        (lambda: header_of(two(0, 8, 8, 16), 30), "30 bytes of tensors where 16"),
    ],
)  # fmt: skip
def test_a_crafted_header(folder, make: Callable[[], bytes], words):
    (folder / WEIGHTS).write_bytes(make())
    refused(folder, words)


def one(shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, 8]}}


def two(a: int, b: int, c: int, d: int) -> dict[str, Any]:
    return {n: {"dtype": "F32", "shape": [2], "data_offsets": o} for n, o in (("a", [a, b]), ("b", [c, d]))}


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 400), byte=st.integers(0, 255))
def test_what_passes_is_read_by_safetensors_too(tmp_path_factory, at, byte):
    """A byte of a sound file's head changed: what we let pass, the library takes; what it refuses, we refuse."""
    path = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.int64)}, path)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(bytes(data))
    try:
        read_header(path)
    except InputError:
        return
    try:
        load_file(path)
    except SafetensorError as error:  # stricter in the form of the JSON, which harms nobody
        assert "metadata" in str(error).lower() or "header" in str(error).lower()


@pytest.mark.parametrize(
    "name", ["../../x.safetensors", "/etc/x.safetensors", "..\\x.safetensors", "a/b.safetensors", "x.bin"]
)
def test_an_index_that_leads_out_of_the_folder(folder, tmp_path, name):
    shutil.copy(folder / WEIGHTS, tmp_path / "x.safetensors")
    (folder / WEIGHTS).unlink()
    index = {"metadata": {}, "weight_map": {"mean_shape": name}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    refused(folder, "names of safetensors files in the same folder")


def test_a_sound_index_is_followed(folder):
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, keys in parts.items():
        save_file({k: tensors[k] for k in keys}, folder / file, metadata={"format": "pt"})
    (folder / WEIGHTS).unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": {k: f for f, keys in parts.items() for k in keys}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert torch.equal(load(str(folder)).model.state_dict()[names[0]], tensors[names[0]])


def test_links_out_of_the_folder(folder, tmp_path):
    (folder / WEIGHTS).rename(tmp_path / "elsewhere.safetensors")
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere.safetensors")
    refused(folder, "a link out of it")
    (folder / WEIGHTS).unlink()
    (tmp_path / "elsewhere.safetensors").rename(folder / "best.safetensors")
    (folder / WEIGHTS).symlink_to("best.safetensors")
    load(str(folder))  # a link inside is no harm


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"hidden_size": 10**9}, "hidden_size: expected a number over 0, at most 8192, got 1000000000"),
        ({"hidden_size": -8}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": "96"}, "hidden_size"),
        ({"input_size_hw": [32, 10**8]}, "input_size_hw"),
        ({"text_config__layers": 10**7}, "text_config.layers"),
        ({"audio_config__window_s": 1e12}, "audio_config.window_s"),
        ({"head__layers": 10**6}, "head.layers"),
        ({"codec__split_ratio": 10**9}, "codec.split_ratio"),
        ({"keypoint_schema__keypoints": [f"k{i}" for i in range(20_000)]}, "at most 10000 keypoints"),
        ({"text_config__encoder": "org/bert", "text_config__encoder_config": {"vocab_size": 10**9}}, "vocab_size"),
        ({"text_config__encoder": "org/bert", "text_config__encoder_config": {"depths": [2, 999_999]}}, "depths.1"),
        ({"hidden_size": 8192}, "tensors that it misfits"),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(folder, monkeypatch, entries, words):
    monkeypatch.setattr(torch, "empty", only_small(torch.empty))
    monkeypatch.setattr(torch, "zeros", only_small(torch.zeros))
    change(folder / "config.json", **entries)
    refused(folder, words)


def only_small(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(*sizes: Any, **options: Any) -> Any:
        tensor = make(*sizes, **options)
        assert tensor.is_meta or tensor.numel() < 10**6
        return tensor

    return made


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"image_config__weights": "https://evil.example/w.pth"}, "image_config.weights"),
        ({"image_config__weights": "../weights.pkl"}, "image_config.weights"),
        ({"image_config__backbone": "https://evil.example/w.pth"}, "image_config.backbone"),
        ({"image_config__backbone": "weights.pkl"}, "image_config.backbone"),
        ({"image_config__backbone": "evil/backbone"}, "backbone_config.*so that nothing is fetched"),
        ({"image_config__backbone": "hf-hub:evil"}, "no timm|a timm model"),
        ({"text_config__encoder": "evil/encoder"}, "encoder_config.*so that nothing is fetched"),
        ({"audio_config__encoder": "evil/encoder"}, "encoder_config.*so that nothing is fetched"),
        (
            {"image_config__backbone": "a/b", "image_config__backbone_config": {"use_pretrained_backbone": True}},
            "use_pretrained_backbone",
        ),
        (
            {"image_config__backbone": "a/b", "image_config__backbone_config": {"url": "http://evil.example/x"}},
            "a place elsewhere",
        ),
        (
            {"image_config__backbone": "a/b", "image_config__backbone_config": {"checkpoint_path": "/x.pth"}},
            "checkpoint_path",
        ),
    ],
)
def test_parts_that_point_elsewhere(folder, entries, words):
    change(folder / "config.json", **entries)
    refused(folder, words)


@pytest.mark.parametrize("weights", ["hub", "package:efficientnet-lite0"])
def test_a_checkpoint_does_not_fetch_what_its_encoder_began_from(folder, weights):
    change(folder / "config.json", image_config__weights=weights, text_config__weights=weights)
    load(str(folder))


def test_settings_that_are_no_settings(folder):
    deep = json.dumps({"model_type": "mmkp", "head": "x"}).replace('"x"', '{"a":' * 200 + "1" + "}" * 200)
    for text in (deep, "{", "[1]", '"mmkp"', "[" * 100_000, "{" + " " * 6_000_000 + "}"):
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"config\.json|nested at most"):
            load(str(folder))
