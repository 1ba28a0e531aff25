"""The learned fusions against values: FiLM, the attention bottleneck, recurrent fusion, the ConvGRU, low rank."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkp.errors import InputError
from mmkp.fusion import FUSIONS, make_fusion
from mmkp.fusion.conv_gru import ConvGRU, ConvGRUCell
from mmkp.fusion.film import modulate
from mmkp.fusion.rules import FusionRule

MEMBERS = ("image", "text", "audio")
D, SIDE, B = 8, 4, 2
LEARNED = ("film", "bottleneck", "rnn", "conv_gru", "low_rank")
ALL = torch.ones(B, 3, dtype=torch.bool)


def make(name: str, members: tuple[str, ...] = MEMBERS, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return make_fusion(name, members, D, "feature", **options).eval()


def made_inputs(seed: int = 1, batch: int = B) -> tuple[dict, dict, dict]:
    """Grids of every modality, tokens of text (5) and audio (6), all real."""
    made = torch.Generator().manual_seed(seed)
    grids = {m: torch.randn(batch, D, SIDE, SIDE, generator=made) for m in MEMBERS}
    tokens = {m: torch.randn(batch, n, D, generator=made) for m, n in (("text", 5), ("audio", 6))}
    return grids, tokens, {m: torch.ones(t.shape[:2], dtype=torch.bool) for m, t in tokens.items()}


def fuse(fusion: Any, grids: dict, tokens: dict, masks: dict, present: Tensor) -> Tensor:
    if getattr(fusion, "uses_tokens", False):
        image = {m: g for m, g in grids.items() if m == "image"}
        return fusion(image, present, tokens, masks, (SIDE, SIDE))
    return fusion(grids, present)


# --- every learned fusion ---------------------------------------------------------------------------------------------


def test_all_learned_fusions_are_registered():
    assert set(LEARNED) <= set(FUSIONS) - set(FusionRule.KINDS)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("absent", MEMBERS)
def test_an_absent_modality_gives_neither_value_nor_gradient(name, absent):
    """NaN where it is absent: the output is that of leaving it out, and no gradient is NaN."""
    fusion = make(name)
    grids, tokens, masks = made_inputs()
    present = torch.tensor([m != absent for m in MEMBERS]).expand(B, -1)
    without = [{k: v for k, v in d.items() if k != absent} for d in (grids, tokens, masks)]
    expected = fuse(fusion, *without, present)
    for d in (grids, tokens):
        if absent in d:
            d[absent] = torch.full_like(d[absent], math.nan).requires_grad_()
    output = fuse(fusion, grids, tokens, masks, present)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)
    output.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)
    held = grids[absent].grad if grids[absent].requires_grad and grids[absent].grad is not None else torch.zeros(1)
    assert (held == 0).all()


@pytest.mark.parametrize("name", LEARNED)
def test_nothing_at_all_is_a_finite_grid(name):
    assert torch.isfinite(fuse(make(name), *made_inputs(), torch.zeros_like(ALL))).all()


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("members", [("image",), ("text", "audio"), ("audio",)])
def test_a_model_of_fewer_modalities(name, members):
    """Without an image there is no grid of one; the modalities that there are still matter."""
    fusion, (grids, tokens, masks) = make(name, members), made_inputs()
    of = [{k: v for k, v in d.items() if k in members} for d in (grids, tokens, masks)]
    present = torch.ones(B, len(members), dtype=torch.bool)
    output = fuse(fusion, *of, present)
    assert output.shape == (B, D, SIDE, SIDE)
    other = made_inputs(seed=5)
    changed = [{k: v for k, v in d.items() if k in members} for d in (*other[:2], masks)]
    assert (fuse(fusion, *changed, present) - output).abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("name", ["film", "bottleneck", "rnn"])
def test_padding_may_hold_anything(name):
    fusion, (grids, tokens, masks) = make(name), made_inputs()
    longer = {m: torch.cat([t, torch.full((B, 3, D), math.nan)], 1) for m, t in tokens.items()}
    padded = {m: torch.cat([k, torch.zeros(B, 3, dtype=torch.bool)], 1) for m, k in masks.items()}
    expected = fuse(fusion, grids, tokens, masks, ALL)
    torch.testing.assert_close(fuse(fusion, grids, longer, padded, ALL), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_finite_in_half_precision(name, dtype):
    """Also with features a hundred times as large as they are, forwards and backwards."""
    grids, tokens, masks = made_inputs()
    fusion = make(name)
    with torch.autocast("cpu", dtype=dtype):
        scaled = [{k: (100 * v).to(dtype) for k, v in d.items()} for d in (grids, tokens)]
        output = fuse(fusion, *scaled, masks, torch.tensor([[True, True, True], [False, True, True]]))
    assert torch.isfinite(output).all()
    output.float().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("film", {"layers": 0}, r"fusion\.layers"),
        ("bottleneck", {"bottlenecks": 0}, r"fusion\.bottlenecks"),
        ("rnn", {"cell": "gruu"}, "Did you mean 'gru'"),
        ("rnn", {"steps": "words"}, "Choose one of: summaries, tokens"),
        ("rnn", {"layers": "two"}, "'two'"),
        ("conv_gru", {"kernel": 2}, "an odd number of cells"),
        ("low_rank", {"rank": -1}, r"fusion\.rank"),
        ("low_rank", {"ranks": 4}, "options that it has"),
    ],
)
def test_options_that_cannot_be(name, options, message):
    with pytest.raises(InputError, match=message):
        make(name, **options)


# --- FiLM -------------------------------------------------------------------------------------------------------------


def test_film_scales_and_shifts_by_channel():
    grid = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    modulated = modulate(grid, torch.tensor([[2.0, 0.5]]), torch.tensor([[1.0, -1.0]]))
    assert modulated.tolist() == [[[[3.0, 5.0]], [[0.5, -3.0]]]]


def test_film_that_says_nothing_is_the_image():
    """gamma = 1 and beta = 0 give the image's grid to the bit."""
    fusion, (grids, tokens, masks) = make("film", layers=1), made_inputs()
    nn.init.zeros_(fusion.read[1].weight)
    nn.init.zeros_(fusion.read[1].bias)
    gammas, betas = fusion.modulation(ALL, tokens, masks)
    assert (gammas == 1).all()
    assert (betas == 0).all()
    assert torch.equal(fuse(fusion, grids, tokens, masks, ALL), grids["image"])


def test_film_reads_gamma_and_beta_from_the_mean_of_the_real_tokens():
    fusion, (grids, tokens, masks) = make("film", layers=1), made_inputs()
    masks["text"][:, 3:] = False
    heard = fusion.silence + fusion.listen["text"](tokens["text"][:, :3].mean(1))
    heard = heard + fusion.listen["audio"](tokens["audio"].mean(1))
    gamma, beta = fusion.read(heard).split(D, 1)
    expected = (1 + gamma)[..., None, None] * grids["image"] + beta[..., None, None]
    torch.testing.assert_close(fuse(fusion, grids, tokens, masks, ALL), expected)


# --- bottleneck -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bottlenecks", "rank"), [(1, D), (2, 2 * D)])
def test_what_is_heard_passes_through_the_bottleneck_alone(bottlenecks, rank):
    """The output's Jacobian in the 5 x 8 numbers of the text has at most as many dimensions as the shared tokens."""
    fusion = make("bottleneck", ("image", "text"), layers=1, heads=2, bottlenecks=bottlenecks).double()
    grids, tokens, masks = made_inputs(batch=1)
    image, mask = {"image": grids["image"].double()}, {"text": masks["text"]}

    def output(text: Tensor) -> Tensor:
        return fusion(image, ALL[:1, :2], {"text": text}, mask, (SIDE, SIDE))

    jacobian = torch.autograd.functional.jacobian(output, tokens["text"].double()).reshape(D * SIDE**2, 5 * D)
    strengths = torch.linalg.svdvals(jacobian)
    assert strengths[0] > 1e-3
    assert int((strengths > 1e-12 * strengths[0]).sum()) <= rank


def test_the_shared_tokens_become_the_mean_over_what_is_present():
    fusion = make("bottleneck", layers=1, heads=2)
    _, tokens, masks = made_inputs()
    image = torch.randn(B, 3, D)
    own = {"image": (image, torch.ones(B, 3, dtype=torch.bool)), "text": (tokens["text"], masks["text"])}
    here = {"image": torch.tensor([True, False]), "text": torch.tensor([True, True])}
    _, shared = fusion.exchange(own, here)
    start = fusion.shared.expand(B, -1, -1)
    told = [fusion.streams[m][0](torch.cat([own[m][0], start], 1))[:, own[m][0].shape[1] :] for m in own]
    torch.testing.assert_close(shared[0], (told[0] + told[1])[0] / 2)
    torch.testing.assert_close(shared[1], told[1][1])


# --- recurrent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_state_hears_the_real_steps_in_order_and_no_other(cell):
    fusion = make("rnn", cell=cell)
    steps = torch.randn(3, 5, D)
    real = torch.tensor([[True, False, True, True, False], [True] * 5, [False] * 5])
    states = fusion.last_state(steps, real)
    for i in range(2):
        outputs, _ = fusion.rnn(steps[i : i + 1, real[i]])  # the learned start is 0 before training
        torch.testing.assert_close(states[i], outputs[0, -1])
    assert (states[2] == 0).all()
    backwards = fusion.last_state(steps.flip(1), real.flip(1))
    assert (backwards[:2] - states[:2]).abs().max() > 1e-3


def test_a_summary_is_the_mean_of_a_modality():
    """One step a modality: shuffling words changes nothing, as it does where every token is a step."""
    grids, tokens, masks = made_inputs()
    shuffled = {**tokens, "text": tokens["text"].flip(1)}
    by_summary, by_token = make("rnn", steps="summaries"), make("rnn", steps="tokens")
    one, two = (fuse(by_summary, grids, t, masks, ALL) for t in (tokens, shuffled))
    torch.testing.assert_close(one, two)
    one, two = (fuse(by_token, grids, t, masks, ALL) for t in (tokens, shuffled))
    assert (one - two).abs().max() > 1e-4


# --- ConvGRU ----------------------------------------------------------------------------------------------------------


def test_a_step_of_the_conv_gru_by_hand():
    """One channel, 1x1: z = sigmoid(x - s), r = sigmoid(2x + s), c = tanh(x + 3 r s), s' = (1 - z) s + z c."""
    cell = ConvGRUCell(1, kernel=1)
    with torch.no_grad():
        cell.from_input.weight.copy_(torch.tensor([1.0, 2.0, 1.0]).view(3, 1, 1, 1))
        cell.from_input.bias.zero_()
        cell.from_state.weight.copy_(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))
        cell.from_reset.weight.fill_(3.0)
    x, s = 0.5, -0.25
    # z = r = sigmoid(0.75) = 0.679179; c = tanh(-0.009384) = -0.009384; 0.320821 * -0.25 + 0.679179 * -0.009384
    step = cell(torch.full((1, 1, 1, 1), x), torch.full((1, 1, 1, 1), s))
    assert step.item() == pytest.approx(-0.086579, abs=2e-6)


def test_the_conv_gru_sees_a_neighbourhood_of_its_kernel():
    torch.manual_seed(0)
    cell, x, state = ConvGRUCell(2, kernel=3), torch.zeros(1, 2, 5, 5), torch.zeros(1, 2, 5, 5)
    touched = x.clone()
    touched[..., 2, 2] = 1.0
    changed = (cell(touched, state) - cell(x, state)).abs().amax((0, 1)) > 1e-6
    assert changed[1:4, 1:4].all()
    assert changed.sum() == 9


def test_a_skipped_step_carries_the_state_over():
    torch.manual_seed(0)
    recurrent, grids = ConvGRU(3, D).eval(), torch.randn(1, 3, D, SIDE, SIDE)
    state = torch.zeros(1, D, SIDE, SIDE)
    for i in (0, 2):
        state = recurrent.cell(grids[:, i] + recurrent.kind[i][:, None, None], state)
    output = recurrent(grids, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(output, recurrent.out(state))


# --- low rank ---------------------------------------------------------------------------------------------------------


def weight_tensor(fusion: Any, members: tuple[str, ...]) -> Tensor:
    """The full tensor (D out, D + 1, D + 1, ...) whose low-rank factors the fusion holds."""
    full = torch.zeros(())
    for r in range(fusion.rank):
        factors = []
        for m in members:
            conv = fusion.factors[m]
            rows = slice(r * D, (r + 1) * D)
            factors.append(torch.cat([conv.weight[rows, :, 0, 0], conv.bias[rows, None]], 1))
        letters = "abc"[: len(members)]
        outer = torch.einsum(",".join("o" + a for a in letters) + "->o" + letters, *factors)
        full = full + fusion.weight[r] * outer
    return full


@pytest.mark.parametrize("members", [MEMBERS, ("image", "audio"), ("text",)])
def test_low_rank_is_the_tensor_applied_to_the_outer_product(members):
    fusion, (grids, _, _) = make("low_rank", rank=3), made_inputs()
    present = torch.tensor([m in members for m in MEMBERS]).expand(B, -1)
    with torch.no_grad():
        nn.init.normal_(fusion.weight)
        nn.init.normal_(fusion.bias)
        appended = [torch.cat([grids[m], torch.ones(B, 1, SIDE, SIDE)], 1) for m in members]
        letters = "abc"[: len(members)]
        products = ",".join(f"n{a}hw" for a in letters)
        expected = torch.einsum(f"o{letters},{products}->nohw", weight_tensor(fusion, members), *appended)
        output = fusion(grids, present)
    torch.testing.assert_close(output, expected + fusion.bias[:, None, None], atol=1e-4, rtol=1e-4)
