"""The image pyramid: scales on one grid with no half pixel shifted, joined in every way, refused where it cannot be."""

from __future__ import annotations

import pytest
import torch

import mmkp
from mmkp import InputError, geometry
from mmkp.encoders import make_encoder
from mmkp.encoders.image import ImageEncoder
from mmkp.encoders.pyramid import SCALE_FUSIONS, AttentionOverScales, GruOverScales, RuleOverScales, shrink
from mmkp.training.build import part_of

SMALL = {"backbone": "mobilenetv3_small_050", "stride": 4, "deepest_stride": 8}


def encoder(size_hw=(64, 64), channels=16, **changes):
    torch.manual_seed(0)
    config = mmkp.MmkpImageConfig(**{**SMALL, "scales": 2, **changes})
    return make_encoder("image", config, channels, input_size_hw=size_hw).eval()


def means_of_cells(monkeypatch):
    """Every level's features are the mean colours of its cells, so that their values tell where they were seen."""
    monkeypatch.setattr(ImageEncoder, "grid", lambda self, x: torch.nn.functional.avg_pool2d(x, self.stride))


def ramps(height: int, width: int) -> torch.Tensor:
    """A picture whose colours are x, y and x + y in px of the input frame."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    return torch.stack([x, y, x + y])[None]


@pytest.mark.parametrize("scales", [2, 3, 4])
def test_every_scale_lies_on_the_grid_of_the_input(monkeypatch, scales):
    """A ramp seen at any scale is the same ramp on the grid: cell i shows grid_to_input(i), to a hundredth of a px."""
    means_of_cells(monkeypatch)
    made = encoder((128, 192), channels=3, scales=scales)
    seen = made(ramps(128, 192))[0].transpose(1, 2).unflatten(2, (32, 48))[0]
    cells_xy = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(32.0), indexing="xy"), -1)
    expected = geometry.grid_to_input(cells_xy, 4)
    inside = slice(12, -12)  # the outermost cell of the coarsest level (8 cells here) sees what lies past the border
    torch.testing.assert_close(seen[0, inside, inside], expected[inside, inside, 0], atol=0.01, rtol=0)
    torch.testing.assert_close(seen[1, inside, inside], expected[inside, inside, 1], atol=0.01, rtol=0)


def test_shrinking_low_passes_first():
    """Stripes of one pixel turn grey instead of aliasing into stripes."""
    stripes = (torch.arange(32) % 2).float().expand(1, 3, 32, 32)
    assert (shrink(stripes, 4) - 0.5).abs().max() < 0.05
    assert shrink(ramps(16, 16), 2)[0, 0, 4, 2:5].tolist() == pytest.approx([4.5, 6.5, 8.5])


@pytest.mark.parametrize("name", SCALE_FUSIONS)
def test_every_way_to_join_trains_the_one_backbone(name):
    made = encoder(scale_fusion=name).train()
    single = encoder(scales=1)
    assert {k for k, _ in made.backbone.named_parameters()} == {k for k, _ in single.backbone.named_parameters()}
    assert part_of("encoders.image." + next(n for n, _ in made.named_parameters())) == "image_backbone"
    tokens, mask = made(torch.randn(2, 3, 64, 64))
    assert tokens.shape == (2, 256, 16)
    assert mask.all()
    tokens.square().sum().backward()
    silent = [n for n, p in made.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not silent


@pytest.mark.parametrize("name", SCALE_FUSIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stays_finite_under_autocast(name, dtype):
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        assert torch.isfinite(encoder(scale_fusion=name)(30 * torch.randn(1, 3, 64, 64))[0]).all()


@pytest.mark.parametrize("name", SCALE_FUSIONS)
def test_every_scale_is_looked_at(name):
    """A change at one scale alone changes the output."""
    torch.manual_seed(0)
    join = SCALE_FUSIONS[name](3, 8)
    levels = torch.randn(2, 3, 8, 4, 4)
    for scale in range(3):
        other = levels.clone()
        other[:, scale] += 1
        assert (join(other) - join(levels)).abs().max() > 1e-3


def test_rules_over_scales_are_the_rules():
    levels = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1, 1)
    assert RuleOverScales(3, 1, "average")(levels).item() == pytest.approx(3.0)
    weighted = RuleOverScales(3, 1, "weighted")
    with torch.no_grad():
        weighted.rule.logits.copy_(torch.tensor([0.5, 0.25, 0.25]).log())
    assert weighted(levels).item() == pytest.approx(2.5)
    product = RuleOverScales(3, 1, "product")(levels)
    softplus = torch.nn.functional.softplus
    assert softplus(product).item() == pytest.approx(softplus(levels).prod().item() ** (1 / 3), rel=1e-5)


def test_attention_over_scales_starts_as_the_average_and_can_choose_by_place():
    torch.manual_seed(0)
    join, levels = AttentionOverScales(2, 4), torch.randn(1, 2, 4, 3, 3)
    torch.testing.assert_close(join(levels), levels.mean(1))
    scores = torch.zeros(1, 2, 3, 3)
    scores[:, 1, 0, 0], scores[:, 0, 2, 2] = 50.0, 50.0
    join.score = torch.nn.Identity()
    join.score.forward = lambda _: scores
    joined = join(levels)
    torch.testing.assert_close(joined[..., 0, 0], levels[:, 1, :, 0, 0])
    torch.testing.assert_close(joined[..., 2, 2], levels[:, 0, :, 2, 2])


def test_the_gru_over_scales_reads_from_coarse_to_fine():
    """Where the last update gate is open, nothing of the coarse scale is left."""
    torch.manual_seed(0)
    join = GruOverScales(2, 4)
    with torch.no_grad():
        join.recurrent.cell.from_input.bias[:4] = 100.0  # z = 1
        join.recurrent.cell.from_reset.weight.zero_()  # the candidate is of the input alone
    levels = torch.randn(1, 2, 4, 5, 5)
    coarse, fine = levels.clone(), levels.clone()
    coarse[:, 1] += 1
    fine[:, 0] += 1
    torch.testing.assert_close(join(coarse), join(levels))
    assert (join(fine) - join(levels)).abs().max() > 1e-3


def test_a_pyramid_of_one_scale_is_the_plain_encoder():
    assert type(encoder(scales=1)) is ImageEncoder


@pytest.mark.parametrize(
    ("size_hw", "change", "message"),
    [
        ((64, 64), {"scales": 5}, "1 to 4"),
        ((64, 64), {"scales": 0}, "1 to 4"),
        ((64, 64), {"scales": "2"}, "1 to 4, got '2'"),
        ((64, 64), {"backbone": "resnet5000"}, "Did you mean"),
        ((64, 64), {"scale_fusion": "averag"}, "Did you mean 'average'"),
        ((64, 64), {"backbone": "vit_tiny_patch16_224", "stride": 16, "deepest_stride": 16}, "vit_tiny_patch16_224"),
        ((64, 64), {"backbone": "swin_tiny_patch4_window7_224"}, "swin_tiny_patch4_window7_224, whose input has"),
        ((64, 64), {"scales": 4}, "at least 128 px for 4 scales"),
        ((64, 64), {"deepest_stride": 32}, "at least 128 px for 2 scales of stages up to stride 32"),
        ((64, 64), {"backbone": "hrnet_w18_small", "neck": "finest"}, "at least 128 px"),
        ((64, 100), {}, "multiples of 8 px"),
    ],
)
def test_a_pyramid_that_cannot_be(size_hw, change, message):
    with pytest.raises(InputError, match=message):
        encoder(size_hw, **change)


def test_inside_the_model_saved_and_loaded_again(tmp_path):
    """And an absent image is dropped as ever."""
    schema = mmkp.load_schema("face68").model_dump(mode="json")
    image = {**SMALL, "scales": 2, "scale_fusion": "conv_gru"}
    config = mmkp.MmkpConfig(
        keypoint_schema=schema, hidden_size=16, input_size_hw=(64, 64), image_config=image, text_config={"layers": 1}
    )
    model = mmkp.MmkpForKeypointDetection(config).eval()
    inputs = {"pixel_values": torch.randn(2, 3, 64, 64), "input_ids": torch.randint(3, 250, (2, 7))}
    model.save_pretrained(tmp_path)
    again = mmkp.MmkpForKeypointDetection.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs).raw, model(**inputs).raw, atol=1e-5, rtol=1e-4)
    masked = {**inputs, "modality_mask": torch.tensor([[False, True, False]] * 2)}
    torch.testing.assert_close(model(**masked).raw, model(input_ids=inputs["input_ids"]).raw, atol=1e-5, rtol=1e-4)
