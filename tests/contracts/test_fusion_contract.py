"""What every registered fusion owes its users, at every level it has, inside the whole model.

A new member of the registry is tested here without an edit.
"""

from __future__ import annotations

import pytest
import torch

from mmkp.configuration_mmkp import MmkpConfig
from mmkp.fusion import FUSIONS
from mmkp.fusion.rules import FusionRule
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.schema import load_schema

MODALITIES = ("image", "text", "audio")
ARMS = [(name, "feature") for name in FUSIONS] + [(name, "model") for name in FusionRule.KINDS]
SINGLES = [[m == k for k in MODALITIES] for m in MODALITIES]
B, SIDE = 3, 32


def tiny(name: str, level: str, seed: int = 0) -> MmkpForKeypointDetection:
    torch.manual_seed(seed)
    config = MmkpConfig(
        keypoint_schema=load_schema("face68").model_dump(mode="json"),
        hidden_size=16,
        input_size_hw=(SIDE, SIDE),
        image_config={"backbone": "mobilenetv3_small_050", "stride": 8},
        text_config={"layers": 1, "heads": 2, "dropout": 0.0},
        audio_config={"layers": 1, "heads": 2, "mel_bins": 16, "dropout": 0.0},
        fusion={"name": name, "level": level},
        head={"layers": 1},
    )
    return MmkpForKeypointDetection(config)


def make_inputs(batch: int = B, seed: int = 1) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.randn(batch, 3, SIDE, SIDE, generator=made),
        "input_ids": torch.randint(3, 250, (batch, 9), generator=made),
        "attention_mask": torch.ones(batch, 9, dtype=torch.long),
        "input_features": torch.randn(batch, 21, 16, generator=made),
        "input_features_mask": torch.ones(batch, 21, dtype=torch.bool),
        "modality_mask": torch.ones(batch, 3, dtype=torch.bool),
    }


KEYS = {
    "image": ["pixel_values"],
    "text": ["input_ids", "attention_mask"],
    "audio": ["input_features", "input_features_mask"],
}


@pytest.fixture(scope="module", params=ARMS, ids=["-".join(arm) for arm in ARMS])
def model(request):
    return tiny(*request.param).eval()


@pytest.fixture
def inputs():
    return make_inputs()


def raw(model, inputs):
    with torch.no_grad():
        return model(**inputs).raw


@pytest.mark.parametrize("absent", [[True, True, False], [True, False, True], [False, True, True], *SINGLES])
def test_absent_equals_masked_whatever_it_holds(model, inputs, absent):
    """Left out, masked, masked with other content, masked with NaN: one output."""
    present = torch.tensor(absent)
    left_out = {
        k: v
        for k, v in inputs.items()
        if not any(k in KEYS[m] for m, p in zip(MODALITIES, absent, strict=True) if not p)
    }
    left_out.pop("modality_mask")
    expected = raw(model, left_out)
    mask = {"modality_mask": present.expand(B, -1)}
    torch.testing.assert_close(raw(model, {**inputs, **mask}), expected, atol=1e-5, rtol=1e-5)
    other = make_inputs(seed=2)
    for m, p in zip(MODALITIES, absent, strict=True):
        if p:
            other.update({k: inputs[k] for k in KEYS[m]})
        else:
            other.update(
                {
                    k: torch.full_like(v, float("nan"))
                    for k, v in other.items()
                    if k in KEYS[m] and v.is_floating_point()
                }
            )
    torch.testing.assert_close(raw(model, {**other, **mask}), expected, atol=1e-5, rtol=1e-5)


def test_dict_order_does_not_matter(model, inputs):
    given = {
        "image": (inputs["pixel_values"],),
        "text": (inputs["input_ids"], inputs["attention_mask"]),
        "audio": (inputs["input_features"], inputs["input_features_mask"]),
    }
    with torch.no_grad():
        one = model.detect(model.encode(given))
        two = model.detect(model.encode(dict(reversed(given.items()))))
    torch.testing.assert_close(one, two, atol=0, rtol=0)


def test_padding_does_not_matter(model, inputs):
    longer = dict(inputs)
    longer["input_ids"] = torch.cat([inputs["input_ids"], torch.full((B, 5), 77)], 1)
    longer["attention_mask"] = torch.cat([inputs["attention_mask"], torch.zeros(B, 5, dtype=torch.long)], 1)
    longer["input_features"] = torch.cat([inputs["input_features"], torch.randn(B, 8, 16)], 1)
    longer["input_features_mask"] = torch.cat([inputs["input_features_mask"], torch.zeros(B, 8, dtype=torch.bool)], 1)
    torch.testing.assert_close(raw(model, longer), raw(model, inputs), atol=1e-5, rtol=1e-5)


def test_batch_items_do_not_see_each_other(model, inputs):
    """Each item alone gives what it gives in a batch with other items and other masks."""
    inputs["modality_mask"] = torch.tensor([[True, True, True], [False, True, False], [True, False, True]])
    together = raw(model, inputs)
    for i in range(B):
        alone = raw(model, {k: v[i : i + 1] for k, v in inputs.items()})
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_every_present_modality_matters_and_gets_a_gradient(model, inputs):
    model.zero_grad()
    labels = torch.cat([torch.rand(B, 68, 2) * SIDE, torch.full((B, 68, 1), 2.0)], -1)
    model(**inputs, labels=labels).loss.backward()
    for modality in MODALITIES:
        gradients = [p.grad.abs().sum() for p in model.encoders[modality].parameters() if p.grad is not None]
        assert sum(gradients) > 0, modality
    changed = make_inputs(seed=3)
    for modality in MODALITIES:
        other = {**inputs, **{k: changed[k] for k in KEYS[modality]}}
        assert (raw(model, other) - raw(model, inputs)).abs().max() > 1e-6, modality


@pytest.mark.parametrize("single", SINGLES, ids=MODALITIES)
def test_each_modality_alone_works(model, inputs, single):
    inputs["modality_mask"] = torch.tensor(single).expand(B, -1)
    with torch.no_grad():
        outputs = model(**inputs)
    assert outputs.keypoints_xy.shape == (B, 68, 2)
    assert torch.isfinite(outputs.keypoints_xy).all()
    assert ((outputs.scores >= 0) & (outputs.scores <= 1)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stays_finite_under_autocast(model, inputs, dtype):
    inputs["pixel_values"] = inputs["pixel_values"] * 30  # features far outside the usual
    inputs["modality_mask"][1, 0] = False
    labels = torch.cat([torch.rand(B, 68, 2) * SIDE, torch.full((B, 68, 1), 2.0)], -1)
    with torch.autocast("cpu", dtype=dtype):
        outputs = model(**inputs, labels=labels)
    assert torch.isfinite(outputs.loss)
    assert torch.isfinite(outputs.keypoints_xy).all()


def test_training_and_loading_again(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    again = MmkpForKeypointDetection.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(raw(again, inputs), raw(model, inputs), atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("kind", FusionRule.KINDS)
def test_weights_of_the_rules_sum_to_one_over_what_is_present(kind):
    rule = FusionRule(MODALITIES, kind)
    with torch.no_grad():
        rule.logits.copy_(torch.tensor([0.3, -2.0, 1.5]))
    masks = torch.tensor([[i >> k & 1 for k in range(3)] for i in range(8)], dtype=torch.bool)
    weights = rule.weights(masks)
    torch.testing.assert_close(weights.sum(1), masks.any(1).float())
    assert (weights[~masks] == 0).all()
