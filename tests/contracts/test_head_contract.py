"""What every registered head owes its users, with every codec that it serves and every fusion and level allowed.

A new member of the registry is tested here without an edit; `SMALLER` only makes some of them faster.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import nn

from mmkp.codecs import CODECS, make_codec
from mmkp.configuration_mmkp import MmkpConfig
from mmkp.errors import InputError
from mmkp.fusion import FUSIONS
from mmkp.fusion.rules import FusionRule
from mmkp.heads import HEADS, head_upsample, make_head
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.schema import load_schema

B, SIDE, OUTPUT_STRIDE = 3, 32, 4
SCHEMA = load_schema("coco17")
SMALLER = {"deconv": {"width": 16}, "regression": {"stages": 2, "hidden": 32}}
PAIRS = [(head, codec) for head, factory in HEADS.items() for codec in factory.codecs]
PAIR_IDS = ["-".join(pair) for pair in PAIRS]


def config(head: str, codec: str, fusion: str = "average", level: str = "feature", **changes: Any) -> MmkpConfig:
    """The smallest model; its heads' output lies 4 px apart, whatever the head makes of the grid."""
    options: dict[str, Any] = {"name": head, **SMALLER.get(head, {})}
    stride = OUTPUT_STRIDE * head_upsample(**options)
    settings = {
        "keypoint_schema": SCHEMA.model_dump(mode="json"),
        "hidden_size": 16,
        "input_size_hw": (SIDE, SIDE),
        "image_config": {"backbone": "test_efficientnet", "stride": stride},
        "text_config": {"layers": 1, "heads": 2, "dropout": 0.0},
        "audio_config": {"layers": 1, "heads": 2, "mel_bins": 16, "dropout": 0.0},
        "fusion": {"name": fusion, "level": level},
        "head": options,
        "codec": {"name": codec},
    }
    return MmkpConfig(**{**settings, **changes})


def build(*args: str, **changes: Any) -> MmkpForKeypointDetection:
    torch.manual_seed(0)
    return MmkpForKeypointDetection(config(*args, **changes))


def arms() -> list[tuple[str, str, str, str]]:
    """Head, codec, fusion, level. At feature level no fusion meets the codec: all of them with each head's first."""
    made = [(head, factory.codecs[0], fusion, "feature") for head, factory in HEADS.items() for fusion in FUSIONS]
    made += [(head, codec, "average", "feature") for head, codec in PAIRS if codec != HEADS[head].codecs[0]]
    return made + [(*pair, kind, "model") for pair in PAIRS for kind in CODECS[pair[1]].joins]


ARMS = arms()


@lru_cache(maxsize=1)
def make_inputs() -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(1)
    return {
        "pixel_values": torch.randn(B, 3, SIDE, SIDE, generator=made),
        "input_ids": torch.randint(3, 250, (B, 9), generator=made),
        "input_features": torch.randn(B, 21, 16, generator=made),
        "modality_mask": torch.tensor([[True, True, True], [True, False, True], [False, True, False]]),
    }


def make_labels(model: MmkpForKeypointDetection, count: int = SCHEMA.num_keypoints, seen: float = 2.0) -> torch.Tensor:
    """Labels in the shape that the codec reads: of one instance, or of two where it takes several."""
    instances = (2,) if getattr(model.codec, "multi_instance", False) else ()
    made = torch.Generator().manual_seed(2)
    points = 3 + torch.rand(B, *instances, count, 2, generator=made) * (SIDE - 7)
    return torch.cat([points, torch.full((B, *instances, count, 1), seen)], -1)


def learnt(model: MmkpForKeypointDetection) -> dict[str, nn.Parameter]:
    """The parameters that answer: of the heads and of the criterion."""
    parts = {f"heads.{k}": v for k, v in model.heads.named_parameters()}
    return parts | {f"criterion.{k}": v for k, v in model.criterion.named_parameters()}


@pytest.mark.parametrize("arm", ARMS, ids=["-".join(arm) for arm in ARMS])
def test_learns_with_every_fusion(arm):
    """Forward, loss and backward: every parameter of the head gets a gradient, and every encoder some."""
    model = build(*arm)
    outputs = model(**make_inputs(), labels=make_labels(model))
    assert outputs.loss_per_item.shape == (B,) and torch.isfinite(outputs.loss_per_item).all()
    assert outputs.raw.shape == (B, *model.codec.raw_shape(SCHEMA.num_keypoints))
    outputs.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    without = [k for k, p in learnt(model).items() if p.grad is None or p.grad.abs().max() == 0]
    assert not without
    for modality, encoder in model.encoders.items():
        assert sum(p.grad.abs().sum() for p in encoder.parameters() if p.grad is not None) > 0, modality


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
def test_a_step_down_the_gradient_lowers_the_loss(pair):
    model = build(*pair).eval()
    inputs, labels = make_inputs(), make_labels(model)
    before = model(**inputs, labels=labels).loss
    gradients = torch.autograd.grad(before, list(learnt(model).values()))
    slope = sum(g.square().sum() for g in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(learnt(model).values(), gradients, strict=True):
            parameter -= gradient * (1e-2 * before / slope)  # a hundredth of the loss, were it straight
        after = model(**inputs, labels=labels).loss
    assert after < before


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
def test_unlabelled_keypoints_teach_nothing(pair):
    """All unlabelled: loss 0, gradient 0. One item unlabelled: its content changes nothing."""
    model = build(*pair)
    nothing = make_labels(model, seen=0.0)
    nothing[..., :2] = float("nan")
    outputs = model(**make_inputs(), labels=nothing)
    assert outputs.loss_per_item.tolist() == [0.0] * B
    outputs.loss.backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())
    labels = make_labels(model)
    labels[1] = nothing[1]
    per_item = model.eval()(**make_inputs(), labels=labels).loss_per_item
    assert per_item[1] == 0 and per_item[0] != 0 and per_item[2] != 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
def test_finite_under_autocast(pair, dtype):
    model = build(*pair)
    inputs = {**make_inputs(), "pixel_values": make_inputs()["pixel_values"] * 30}  # features far outside the usual
    with torch.autocast("cpu", dtype=dtype):
        outputs = model(**inputs, labels=make_labels(model))
    assert torch.isfinite(outputs.loss)
    outputs.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in learnt(model).values())
    if not getattr(model.codec, "multi_instance", False):
        assert outputs.keypoints_xy.dtype == torch.float32 and torch.isfinite(outputs.keypoints_xy).all()


@pytest.mark.parametrize("count", [1, 500])
@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
def test_one_keypoint_and_five_hundred(pair, count):
    if getattr(CODECS[pair[1]], "multi_instance", False):
        pytest.skip(f"{pair[1]} needs a schema with edges")
    names = {"name": "many", "keypoints": [f"p{i}" for i in range(count)]}
    model = build(*pair, keypoint_schema=names)
    outputs = model(**make_inputs(), labels=make_labels(model, count))
    outputs.loss.backward()
    assert outputs.keypoints_xy.shape == (B, count, 2)
    assert torch.isfinite(outputs.loss) and torch.isfinite(outputs.keypoints_xy).all()


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
def test_items_do_not_see_each_other(pair):
    model = build(*pair).eval()
    with torch.no_grad():
        together = model(**make_inputs()).raw
        alone = torch.cat([model(**{k: v[i : i + 1] for k, v in make_inputs().items()}).raw for i in range(B)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
def test_a_join_that_the_codec_cannot_do_is_refused_when_the_model_is_made(pair):
    refused = set(FusionRule.KINDS) - set(CODECS[pair[1]].joins)
    for kind in refused:
        with pytest.raises(InputError, match=rf"fusion\.name.*{pair[1]}.*{kind}"):
            build(*pair, kind, "model")


@pytest.mark.parametrize("name", HEADS)
def test_what_does_not_fit_is_refused(name):
    other = next(c for c in CODECS if c not in HEADS[name].codecs)
    with pytest.raises(InputError, match=f"head {name}: expected a codec among"):
        build(name, other)
    fitting = HEADS[name].codecs[0]
    codec = make_codec(fitting, (SIDE, SIDE), stride=4)
    with pytest.raises(InputError, match="options that it has"):
        make_head(name, 16, 5, fitting, codec, (16, 16), lairs=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
def test_saved_and_loaded_it_says_and_learns_the_same(pair, dtype, tmp_path):
    """Buffers that no checkpoint holds included: the loader builds a model without memory and must fill them."""
    model = build(*pair).eval()
    model.save_pretrained(tmp_path)
    again = MmkpForKeypointDetection.from_pretrained(tmp_path, dtype=dtype).eval()
    labels = make_labels(model)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in make_inputs().items()}
    with torch.no_grad():
        one, two = model(**make_inputs(), labels=labels), again(**inputs, labels=labels)
    if dtype == torch.float32:
        torch.testing.assert_close(two.raw, one.raw, atol=2e-5, rtol=1e-3)
        torch.testing.assert_close(two.loss, one.loss, atol=1e-4, rtol=1e-3)
    assert torch.isfinite(two.loss)
    for (name, one_buffer), (_, two_buffer) in zip(model.named_buffers(), again.named_buffers(), strict=True):
        if one_buffer.is_floating_point():
            torch.testing.assert_close(two_buffer.float(), one_buffer.float(), atol=1e-2, rtol=1e-2, msg=name)


def test_the_buffers_of_a_loss_and_of_a_backbone_come_back(tmp_path):
    image = {"backbone": "resnetblur18", "stride": 4}  # timm's, with a buffer that is not stored
    model = build("regression", "regression", loss={"name": "regression", "kind": "oks"}, image_config=image).eval()
    hidden = {f"{n}.{k}" for n, m in model.named_modules() for k in m._non_persistent_buffers_set}
    assert any("sigmas" in name for name in hidden) and any("backbone" in name for name in hidden)
    model.save_pretrained(tmp_path)
    again = MmkpForKeypointDetection.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        losses = [m(**make_inputs(), labels=make_labels(m)).loss for m in (model, again)]
    torch.testing.assert_close(losses[1], losses[0])
