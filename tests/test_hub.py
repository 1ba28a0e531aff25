"""Loading by packaged name, folder or Hub id: what is wrong is named, before the Hub is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import save_tiny, tiny_config
from transformers import AutoModelForKeypointDetection, AutoProcessor, T5Config

from mmkp import InputError, MmkpForKeypointDetection, MmkpProcessor
from mmkp.hub import find, load, packaged, resolve


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "runs" / "quickstart"))


@pytest.fixture
def never_asked(monkeypatch):
    """The Hub must not be asked."""

    def refuse(*args, **kwargs):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


def test_a_packaged_name_is_taken_by_every_way_of_loading():
    name = next(iter(packaged()))
    model = MmkpForKeypointDetection.from_pretrained(name)
    assert model.name_or_path == name
    assert MmkpProcessor.from_pretrained(name).image_processor.size_hw == model.config.input_size_hw
    auto = AutoModelForKeypointDetection.from_pretrained(resolve(name))
    assert torch.equal(auto.mean_shape, model.mean_shape)
    assert find(name) == packaged()[name]


def test_a_folder_is_taken_by_every_way_of_loading(folder):
    digest = load(str(folder)).digest
    assert load(f"{folder}/").digest == digest
    model = MmkpForKeypointDetection.from_pretrained(folder, dtype=torch.float16)
    assert model.dtype == torch.float16
    assert type(AutoProcessor.from_pretrained(folder)) is MmkpProcessor
    found, info = MmkpForKeypointDetection.from_pretrained(str(folder), output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(found.mean_shape, model.mean_shape.float())


def test_a_processor_alone_needs_no_weights(folder):
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    assert MmkpProcessor.from_pretrained(folder).image_processor.size_hw == (32, 32)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("grid-taker", "Did you mean 'grid-talker'"),
        ("runs/quickstrat", "Did you mean 'runs/quickstart'.*A model on the Hub: hf://runs/quickstrat"),
        ("./runs/quickstrat", "Did you mean 'runs/quickstart'"),
        ("rusn/quickstart/", "Did you mean 'runs'"),
        ("runs/quickstrat/checkpoints/step-1", "Did you mean 'runs/quickstart'"),
        ("", "a packaged name, a folder or a Hub id"),
        ("runs", "a folder with config.json"),
        ("runs/quickstart/config.json", "got a file. Give its folder, runs/quickstart"),
        ("https://huggingface.co/org/name", "got an address. Write org/name"),
        ("org/name/more", "a packaged name, a folder or a Hub id"),
        ("org name/x", "a packaged name, a folder or a Hub id"),
    ],
)
def test_a_name_that_is_none_never_goes_to_the_hub(folder, never_asked, monkeypatch, name, words):
    monkeypatch.chdir(folder.parents[1])
    for take in (load, MmkpForKeypointDetection.from_pretrained):
        with pytest.raises(InputError, match=words):
            take(name)


def test_offline_and_not_here(tmp_path):
    """conftest sets HF_HUB_OFFLINE."""
    with pytest.raises(InputError, match=r"model org/name at v1: .*offline mode, and no copy.*unset HF_HUB_OFFLINE"):
        load("org/name", revision="v1")
    with pytest.raises(InputError, match="offline mode"):
        MmkpForKeypointDetection.from_pretrained("hf://org/name", local_files_only=True, cache_dir=tmp_path)


def edit(folder: Path, **entries) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"model_type": "bert"}, "model_type mmkp in config.json, got 'bert'"),
        ({"mmkp_version": "9.0.0"}, r"mmkp 0\.\d+\.\d+ or older, got one of 9\.0\.0.*pip install -U mmkp"),
        ({"mmkp_version": "newest"}, "mmkp_version: expected a version"),
        ({"keypoint_schema": None}, "schema of the model"),
        ({"keypoint_schema": {"name": "x", "keypoints": ["a", "a"]}}, "all names must differ"),
        ({"keypoint_schema": {"name": "x", "keypoints": ["a", "b"]}}, r"tensors that it misfits, first .*: \[5"),
        ({"head": {"name": "heatmp"}}, "Did you mean 'heatmap'"),
        ({"head": {"name": "heatmap", "colour": 1}}, "colour"),
        ({"image_config": {"backbone": "mobilnetv3_small_100"}}, "Did you mean 'mobilenetv3_small_100'"),
        ({"modalities": ["image"]}, r"tensors that it misfits, first fusion\.logits: \[3\] for \[1\]"),
        ({"modalities": []}, "at least one of image, text, audio"),
        ({"modalities": "smell"}, "a list of image, text, audio"),
        ({"calibration": {"temperature": "x"}}, "calibration: expected temperature and bias"),
        ({"calibration": {"temperature": 0.0, "bias": 0.0}}, "calibration: expected a temperature above 0"),
        ({"calibration": {"temperature": 1.0, "bias": float("nan")}}, "calibration: expected a temperature above 0"),
        ({"input_size_hw": [32]}, "a checkpoint of mmkp"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_is_named(folder, entries, words):
    edit(folder, **entries)
    with pytest.raises(InputError, match=words):
        load(str(folder))


def test_a_patch_of_this_version_is_no_newer_one(folder):
    edit(folder, mmkp_version="0.1.99")
    assert load(str(folder)).model.config.mmkp_version == "0.1.99"


@pytest.mark.parametrize("key", ["mean_shape", "heads.joint.logits.weight"])
def test_missing_and_unknown_tensors_are_named(folder, key):
    tensors = load_file(folder / "model.safetensors")
    kept = tensors.pop(key)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"1 tensors that it lacks, first {key}"):
        MmkpForKeypointDetection.from_pretrained(folder)
    save_file({**tensors, key: kept, "other": kept.clone()}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="1 tensors that it holds unknown, first other"):
        MmkpForKeypointDetection.from_pretrained(folder)


def test_options_that_would_load_other_files_are_refused(folder):
    for key, value in (("variant", "fp16"), ("gguf_file", "a.gguf"), ("subfolder", "checkpoints")):
        with pytest.raises(InputError, match=key):
            MmkpForKeypointDetection.from_pretrained(folder, **{key: value})
    assert MmkpForKeypointDetection.from_pretrained(folder, use_safetensors=False)  # still the safetensors


def test_an_encoder_whose_tensors_share_memory_loads(tmp_path):
    """T5 stores its embedding once, under one of two names."""
    t5 = T5Config(vocab_size=384, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2).to_dict()
    text = {"encoder": "org/t5", "encoder_config": t5}
    config = tiny_config(modalities=("text",), text_config=text)
    made = MmkpForKeypointDetection(config)
    made.save_pretrained(tmp_path)
    back = MmkpForKeypointDetection.from_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(made.eval()(input_ids=ids).keypoints_xy, back(input_ids=ids).keypoints_xy)


def set_processor(folder: Path, part: str, key: str, value) -> None:
    path = folder / "processor_config.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, part: {**plain[part], key: value}}))


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("image_processor", "image_std", [0, 1, 1], "image_std of three numbers above 0, got .0, 1, 1"),
        ("image_processor", "image_mean", [0.5, 0.5], "image_mean of three numbers, got"),
        ("image_processor", "image_mean", "red", "image_mean of three numbers, got"),
        ("image_processor", "size_hw", [64, 64], r"size_hw \[32, 32\], the model's input_size_hw, got \[64, 64\]"),
        ("image_processor", "image_processor_type", "CLIPImageProcessor", "got CLIPImageProcessor"),
        ("feature_extractor", "feature_size", 40, "feature_size 16, the model's mel_bins, got 40"),
        ("feature_extractor", "sampling_rate", 8000, "sampling_rate 16000, the model's rate_hz, got 8000"),
        ("feature_extractor", "window_s", 0, "a window_s of 0.01 to 60 seconds, got 0"),
    ],
)  # fmt: skip
def test_a_processor_that_does_not_fit_is_named(folder, part, key, value, words):
    set_processor(folder, part, key, value)
    with pytest.raises(InputError, match=f"processor_config.json: expected .*{words}"):
        load(str(folder))


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer_config.json"])
def test_a_model_without_its_processor_says_which_file_is_missing(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"got no {name}. Save the processor"):
        load(str(folder))


def test_only_the_hub_has_revisions(folder):
    with pytest.raises(InputError, match="which lies on this machine, got 'v2'"):
        load(str(folder), revision="v2")
    name = next(iter(packaged()))
    with pytest.raises(InputError, match=f"none for {name}"):
        MmkpProcessor.from_pretrained(name, revision="v2")
    assert load(str(folder), revision="main").digest == load(str(folder)).digest


def test_the_former_name_of_dtype_is_heard(folder):
    assert MmkpForKeypointDetection.from_pretrained(folder, torch_dtype=torch.float16).dtype == torch.float16
