"""The visibility output beside any head: by hand, learned, joined, saved; and absent where it is not asked for."""

from __future__ import annotations

import math

import pytest
import torch

from mmkp import losses
from mmkp.configuration_mmkp import MmkpConfig
from mmkp.heads.visibility import VisibilityHead
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.schema import load_schema


def build(visibility: float, level: str = "feature", head: str = "heatmap") -> MmkpForKeypointDetection:
    torch.manual_seed(0)
    return MmkpForKeypointDetection(
        MmkpConfig(
            keypoint_schema=load_schema("face5").model_dump(mode="json"), hidden_size=16, input_size_hw=(32, 32),
            image_config={"backbone": "test_efficientnet", "stride": 4}, text_config={"layers": 1, "heads": 2},
            audio_config={"layers": 1, "heads": 2, "mel_bins": 16}, fusion={"name": "average", "level": level},
            head={"name": head}, codec={"name": "regression" if head == "regression" else head},
            visibility=visibility,
        )
    )  # fmt: skip


def test_where_it_looks_and_what_it_says_by_hand():
    """Two cells, one channel: attention softmax(log 3, 0) = (3/4, 1/4) over the judgements 2 and -2 gives 1."""
    head = VisibilityHead(1, 1)
    with torch.no_grad():
        head.look.weight.fill_(1.0)
        head.judge.weight.fill_(4 / math.log(3))
        head.judge.bias.fill_(-2.0)
    grid = torch.tensor([math.log(3), 0.0]).view(1, 1, 1, 2)
    assert head(grid).item() == pytest.approx(0.75 * 2 + 0.25 * -2)


def test_loss_by_hand():
    """Visible at logit 0: log 2; hidden at log 3: -log(1 / 4); the unlabelled point is out, whatever it says."""
    logits = torch.tensor([[0.0, math.log(3), 50.0]])
    value = losses.visibility_cross_entropy(logits, torch.tensor([[2.0, 1.0, 0.0]]))
    assert value.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)


@pytest.mark.parametrize("level", ["feature", "model"])
@pytest.mark.parametrize("head", ["heatmap", "regression", "simcc"])
def test_it_learns_beside_any_head_and_at_both_levels(level, head):
    """One picture hides all points, another shows them: 150 steps tell the two apart."""
    model = build(5.0, level, head).eval()  # two pictures are no statistics
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([8.0, 20.0, 2.0]).repeat(2, 5, 1)
    labels[0, :, 2] = 1.0
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=labels).loss.backward()
        optimizer.step()
    seen = model(pixel_values=pixels).visibility
    assert seen.shape == (2, 5)
    assert (seen[0] < 0.2).all() and (seen[1] > 0.8).all()


def test_without_it_the_model_says_nothing_of_it():
    model = build(0.0).eval()
    assert model(pixel_values=torch.zeros(1, 3, 32, 32)).visibility is None
    assert not [name for name, _ in model.named_parameters() if name.startswith("visibility")]
