"""Heads of heatmaps: where their cells lie, how they start, what they refuse, that they learn in the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkp.codecs import make_codec
from mmkp.configuration_mmkp import MmkpConfig
from mmkp.errors import InputError
from mmkp.heads import head_upsample, make_head
from mmkp.heads.hourglass import check_depth
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.schema import load_schema

HEADS = {
    "heatmap": {"layers": 1},
    "deconv": {"layers": 2, "width": 16},
    "hourglass": {"stacks": 2, "depth": 2, "width": 12},
}
CODECS = ("heatmap", "gaussian_heatmap")
ARMS = [(head, codec) for head in HEADS for codec in CODECS]


def head_of(name: str, codec_name: str = "gaussian_heatmap", count: int = 5, channels: int = 16, **options):
    torch.manual_seed(0)
    codec = make_codec(codec_name, (64, 64))
    return make_head(name, channels, count, codec_name, codec, (8, 8), **{**HEADS[name], **options})


def last_of(stages):
    return stages[-1] if isinstance(stages, tuple) else stages


def tiny(head: str, codec: str, modalities=("image",), stride: int = 0, **changes) -> MmkpForKeypointDetection:
    torch.manual_seed(0)
    stride = stride or (16 if head == "deconv" else 4)
    config = MmkpConfig(
        keypoint_schema=load_schema("face68").model_dump(mode="json"),
        modalities=modalities,
        hidden_size=16,
        input_size_hw=(32, 32),
        image_config={"backbone": "mobilenetv3_small_050", "stride": stride, "deepest_stride": 16},
        text_config={"layers": 1, "heads": 2, "dropout": 0.0},
        head={"name": head, **HEADS[head]},
        codec={"name": codec},
        **changes,
    )
    return MmkpForKeypointDetection(config)


def labels(batch: int, seed: int = 0) -> torch.Tensor:
    xy = 8 + 16 * torch.rand(batch, 68, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([xy, torch.full((batch, 68, 1), 2.0)], -1)


def test_deconvolution_keeps_the_grid_centred():
    """A ramp over the coarse cells is a ramp over the fine ones, at (fine - 1.5) / 4: no half cell is lost."""
    head = head_of("deconv", count=1, channels=1, width=1)
    bilinear = torch.tensor([0.25, 0.75, 0.75, 0.25])
    for layer in head.blocks:
        if isinstance(layer, torch.nn.ConvTranspose2d):
            layer.weight.data.copy_(bilinear[:, None] * bilinear)
    head.blocks = torch.nn.Sequential(*[m for m in head.blocks if isinstance(m, torch.nn.ConvTranspose2d)])
    head.last.weight.data.fill_(1)
    with torch.no_grad():
        fine = head(torch.arange(8.0).expand(1, 1, 8, 8))[0, 0]
    assert fine.shape == (32, 32)
    np.testing.assert_allclose(fine[16, 8:24].numpy(), (np.arange(8, 24) - 1.5) / 4, atol=1e-5)
    np.testing.assert_allclose(fine[8:24, 16].numpy(), np.full(16, (16 - 1.5) / 4), atol=1e-5)


def test_an_hourglass_sees_the_whole_grid_and_lays_the_branches_on_each_other():
    """Mirrored input, mirrored output: neither pooling nor enlarging moves the grid."""
    head = head_of("hourglass", depth=3).eval()
    for module in head.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            module.weight.data.copy_((module.weight + module.weight.flip(-1)) / 2)
    grid = torch.randn(1, 16, 8, 8).requires_grad_()
    with torch.no_grad():
        torch.testing.assert_close(head(grid.flip(-1))[-1], head(grid)[-1].flip(-1), atol=1e-6, rtol=1e-4)
    head(grid)[0][0, 0, 0, 0].backward()
    assert (grid.grad.abs().amax(1) > 0).all()


def test_every_stack_answers_and_the_next_sees_the_answer():
    head = head_of("hourglass", stacks=3)
    grid = torch.randn(2, 16, 8, 8)
    before = head(grid)
    assert [stage.shape for stage in before] == [(2, 5, 8, 8)] * 3
    head.heat[0].bias.data += 1.0  # what the first stack predicts reaches the later ones, and no earlier one
    after = head(grid)
    torch.testing.assert_close(after[0], before[0] + 1.0)
    assert (after[1] - before[1]).abs().max() > 1e-6
    assert (after[2] - before[2]).abs().max() > 1e-6


@pytest.mark.parametrize("name", HEADS)
def test_regressed_heat_starts_near_0_and_can_shift_while_logits_have_no_bias(name):
    grid = torch.randn(4, 16, 8, 8)
    regressed, logits = head_of(name), head_of(name, "heatmap")
    assert last_of(regressed(grid)).abs().max() < 0.05
    shapes = {k: v.shape for k, v in logits.state_dict().items()}
    extra = [v.shape for k, v in regressed.state_dict().items() if k not in shapes]
    assert extra == [(5,)] * (2 if name == "hourglass" else 1)


@pytest.mark.parametrize("name", HEADS)
def test_one_keypoint_and_five_hundred(name):
    for count in (1, 500):
        with torch.no_grad():
            assert last_of(head_of(name, count=count)(torch.zeros(1, 16, 8, 8))).shape[:2] == (1, count)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", ["deconv", "hourglass"])
def test_group_norm_keeps_the_items_of_a_batch_apart_in_training(name, norm):
    head = head_of(name, norm=norm).train()
    grid = torch.randn(3, 16, 8, 8)
    with torch.no_grad():
        apart = torch.allclose(last_of(head(grid))[:1], last_of(head(grid[:1])), atol=1e-6)
    assert apart == (norm == "group")


def test_the_deepest_hourglass_that_fits():
    assert check_depth(None, (64, 64)) == 4
    assert check_depth(None, (64, 48)) == 4
    assert check_depth(None, (28, 28)) == 2
    assert check_depth(None, (16, 16)) == 3
    assert check_depth(None, (2, 2)) == 1
    assert check_depth(6, (64, 64)) == 6


@pytest.mark.parametrize("head, options", [
    ("hourglass", {"depth": 4}), ("hourglass", {"depth": 0}), ("hourglass", {"stacks": 0}),
    ("hourglass", {"width": 0}), ("hourglass", {"norm": "layer"}), ("hourglass", {"layers": 2}),
    ("deconv", {"layers": 0}), ("deconv", {"layers": 9}), ("deconv", {"width": 0}), ("deconv", {"norm": "instance"}),
    ("deconv", {"stacks": 2}), ("heatmap", {"width": 2}),
])  # fmt: skip
def test_a_head_that_cannot_be_is_refused(head, options):
    with pytest.raises(InputError, match="expected"):
        head_of(head, **options)


def test_a_grid_that_cannot_be_halved_is_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"a grid of even sides rather than 7x8 cells.*multiple of image\.stride"):
        check_depth(None, (7, 8))
    with pytest.raises(InputError, match="1 to 3 halvings of the grid of 8x8 cells, got 4"):
        head_of("hourglass", depth=4)


def test_the_codec_is_as_fine_as_the_head():
    assert head_upsample("deconv", layers=2, width=16) == 4
    assert head_upsample("hourglass", stacks=2) == 1
    assert tiny("deconv", "gaussian_heatmap").codec.stride == 4
    with pytest.raises(InputError, match=r"image\.stride that is a multiple of 4"):
        tiny("deconv", "heatmap", stride=2)


@pytest.mark.parametrize("head, codec", ARMS)
def test_the_whole_model_learns_its_labels(head, codec):
    """On two pictures the error falls to less than half of what it was."""
    model = tiny(head, codec, loss={"kind": "weighted_mse"} if codec == "gaussian_heatmap" else {})
    pictures, truth = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), labels(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    errors = []
    for _ in range(40):
        outputs = model.train()(pixel_values=pictures, labels=truth)
        errors.append((outputs.keypoints_xy - truth[..., :2]).norm(dim=-1).mean().item())
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
    assert errors[-1] < errors[0] / 2
    assert torch.isfinite(outputs.loss)


@pytest.mark.parametrize("rule", ["average", "weighted", "product"])
@pytest.mark.parametrize("head", HEADS)
def test_model_level_joins_the_heat_of_every_stage(head, rule):
    model = tiny(head, "gaussian_heatmap", ("image", "text"), fusion={"name": rule, "level": "model"}).eval()
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32), "input_ids": torch.randint(3, 250, (2, 9))}
    inputs["modality_mask"] = torch.tensor([[True, True, False], [True, False, False]])
    outputs = model(**inputs, labels=labels(2))
    outputs.loss.backward()
    for modality in ("image", "text"):
        reached = [p.grad.abs().sum() for p in model.heads[modality].parameters() if p.grad is not None]
        assert sum(reached) > 0, modality
    with torch.no_grad():
        alone = model(pixel_values=inputs["pixel_values"])
    torch.testing.assert_close(outputs.raw[1], alone.raw[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(outputs.keypoints_xy[1], alone.keypoints_xy[1], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head", HEADS)
def test_finite_under_autocast(head, dtype):
    model = tiny(head, "gaussian_heatmap")
    with torch.autocast("cpu", dtype=dtype):
        outputs = model(pixel_values=30 * torch.randn(2, 3, 32, 32), labels=labels(2))
    assert torch.isfinite(outputs.loss)
    assert torch.isfinite(outputs.keypoints_xy).all()
