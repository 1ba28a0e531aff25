"""Starting from a checkpoint: what is shared is copied exactly, row by row where rows are keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_recipe

from mmkp.configuration_mmkp import MmkpConfig
from mmkp.errors import InputError
from mmkp.heads import HEADS
from mmkp.processing_mmkp import make_processor
from mmkp.schema import load_schema, parse_schema
from mmkp.training.build import build, make_model
from mmkp.training.loop import make_average
from mmkp.training.start import PER_KEYPOINT, match_keypoints, match_outlines, slots, start_from

ALL = ("image", "text", "audio")
IMAGE = {"backbone": "test_efficientnet", "stride": 8}
SMALL = {"text_config": {"layers": 1, "heads": 2}, "audio_config": {"layers": 1, "heads": 2, "mel_bins": 16}}
CODEC_OF = {"regression": "regression", "simcc": "simcc", "openpose": "openpose", "hourglass": "gaussian_heatmap"}


def schema(names: str, **more: Any) -> dict[str, Any]:
    return {"name": "made", "keypoints": names.split(), **more}


def model(names: str = "a b c", modalities: tuple[str, ...] = ("image",), seed: int = 0, **config: Any) -> Any:
    """A small model whose every weight is drawn, those that start as constants too."""
    torch.manual_seed(seed)
    plain = names if isinstance(names, dict) else schema(names)
    known = {"hidden_size": 16, "input_size_hw": (32, 32), "image_config": IMAGE, **SMALL, **config}
    made, _ = make_model(MmkpConfig(modalities=modalities, keypoint_schema=plain, **known))
    for parameter in made.parameters():
        parameter.data.normal_(std=0.1)
    made.mean_shape.uniform_()
    return made


def saved(made: Any, folder: Any) -> str:
    made.save_pretrained(folder)
    make_processor(made.config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def image_only(tmp_path_factory):
    """Three keypoints a, b, c from the image; and where it is saved."""
    made = model("a b c", visibility=0.1)
    return made, saved(made, tmp_path_factory.mktemp("image_only"))


def test_an_image_checkpoint_goes_into_a_model_of_three_modalities(image_only):
    given, folder = image_only
    target = model("a b c", ALL, seed=1, visibility=0.1, input_size_hw=(48, 48))
    fresh = {k: v.clone() for k, v in target.state_dict().items()}
    lines = start_from(target, folder)
    for name, value in target.state_dict().items():
        copied = name.startswith(("encoders.image", "heads.joint", "visibility.joint"))
        assert torch.equal(value, given.state_dict()[name] if copied else fresh[name]), name
    told = "\n".join(lines)
    assert "encoders.image: all" in told
    assert "encoders.text: starts anew" in told
    assert "lifts.audio: starts anew" in told
    assert "keypoints: 3 of 3 keep their weights" in told


@pytest.mark.parametrize("parts", [["encoders"], ["heads"], ["encoders", "heads"]])
def test_only_the_parts_that_are_asked_for_are_taken(image_only, parts):
    given, folder = image_only
    target = model("a b c", ALL, seed=1, visibility=0.1)
    fresh = {k: v.clone() for k, v in target.state_dict().items()}
    start_from(target, folder, parts)
    for name, value in target.state_dict().items():
        copied = name.startswith(("encoders.image", "heads.joint")) and name.partition(".")[0] in parts
        assert torch.equal(value, given.state_dict()[name] if copied else fresh[name]), name


def test_rows_follow_the_names_of_the_keypoints(image_only):
    given, folder = image_only
    target = model("c new a", seed=1, visibility=0.1)
    fresh = target.heads["joint"].logits.weight.clone()
    shape = target.mean_shape.clone()
    lines = start_from(target, folder)
    old, new = given.heads["joint"].logits.weight, target.heads["joint"].logits.weight
    assert torch.equal(new[0], old[2])
    assert torch.equal(new[1], fresh[1])
    assert torch.equal(new[2], old[0])
    seen = given.visibility["joint"].judge.bias
    assert torch.equal(target.visibility["joint"].judge.bias[[0, 2]], seen[[2, 0]])
    assert torch.equal(target.mean_shape, shape)  # that of the new data
    assert lines[-1] == "keypoints: 2 of 3 keep their weights; anew: new"


def test_no_shared_name_leaves_the_last_layer_new_and_takes_the_rest(image_only):
    given, folder = image_only
    target = model("x y z", seed=1)  # as many keypoints, and yet none of them
    fresh = target.heads["joint"].logits.weight.clone()
    lines = start_from(target, folder)
    assert torch.equal(target.heads["joint"].logits.weight, fresh)
    assert torch.equal(target.heads["joint"].blocks[0][1].weight, given.heads["joint"].blocks[0][1].weight)
    assert "keypoints: 0 of 3" in lines[-1]


def test_a_joint_head_gives_the_heads_of_every_modality_their_start_and_takes_it_back(tmp_path):
    feature = model("a b", ALL)
    source = saved(feature, tmp_path / "feature")
    late = model("b a", ALL, seed=1, fusion={"name": "product", "level": "model"})
    start_from(late, source)
    for m in ALL:  # under a rule the joint head has read each modality by itself
        assert torch.equal(late.heads[m].logits.weight, feature.heads["joint"].logits.weight[[1, 0]])
    back = model("a b", ALL, seed=2)
    start_from(back, saved(late, tmp_path / "late"))
    assert torch.equal(back.heads["joint"].logits.weight, feature.heads["joint"].logits.weight)


def test_a_learned_fusions_head_is_no_start_for_sound_alone(tmp_path):
    given = model("a", ALL, fusion={"name": "gated"})
    source = saved(given, tmp_path / "gated")
    late = model("a", ALL, seed=1, fusion={"name": "average", "level": "model"})
    fresh = late.heads["audio"].logits.weight.clone()
    start_from(late, source)
    assert torch.equal(late.heads["image"].logits.weight, given.heads["joint"].logits.weight)
    assert torch.equal(late.heads["audio"].logits.weight, fresh)
    same, fewer = model("a", ALL, seed=2, fusion={"name": "gated"}), model("a", ("image", "text"), seed=2,
                                                                         fusion={"name": "gated"})  # fmt: skip
    for target in (same, fewer):
        lines = start_from(target, source)
        assert any(line.endswith("fusion: all") for line in lines)
    assert any(line.endswith("not used: audio") for line in lines)


@pytest.mark.parametrize("members", [("image",), ("audio",), ("image", "text"), ("text", "audio")])
@pytest.mark.parametrize("fusion", ["gated", "weighted"])
def test_a_specialist_starts_as_its_subset_was(fusion, members, tmp_path):
    """From a model of all three: on its own modalities it says to a float's precision what that one says of them."""
    whole = model(modalities=ALL, fusion={"name": fusion, "level": "feature"}).eval()
    made = model(modalities=members, seed=1, fusion={"name": fusion, "level": "feature"}).eval()
    lines = start_from(made, saved(whole, tmp_path))
    assert "fusion: all" in "\n".join(lines)
    rng = np.random.default_rng(0)
    given = {"image": {"images": [rng.integers(0, 255, (32, 32, 3), np.uint8)]}, "text": {"text": ["lay gre|en"]},
             "audio": {"audio": [rng.normal(0, 0.1, 8000).astype(np.float32)], "sampling_rate": 16_000}}  # fmt: skip
    words: dict[str, Any] = {}
    for m in members:
        words |= given[m]
    inputs = make_processor(whole.config)(**words)
    with torch.no_grad():
        torch.testing.assert_close(made(**inputs).raw, whole(**inputs).raw, rtol=1e-4, atol=1e-4)


GATED, CONCAT = ({"name": name, "level": "feature"} for name in ("gated", "concat"))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"fusion": CONCAT}, {"fusion": CONCAT}),
        ({"fusion": GATED}, {"fusion": {**GATED, "groups": 4}}),
        ({"fusion": GATED}, {"fusion": GATED, "hidden_size": 32}),
    ],
    ids=["one that mixes them", "other gates", "another width"],
)
def test_a_subset_of_a_fusion_that_means_something_else_starts_anew(given, wanted, tmp_path):
    whole, made = model(modalities=ALL, **given), model(modalities=("image",), seed=1, **wanted)
    before = {k: v.clone() for k, v in made.fusion.state_dict().items()}
    assert any("fusion: starts anew" in line for line in start_from(made, saved(whole, tmp_path)))
    assert all(torch.equal(v, before[k]) for k, v in made.fusion.state_dict().items())


def test_rows_of_a_fusion_are_no_keypoints(tmp_path):
    """Another head starts anew: the fusion's rows, which are taken, do not make keypoints keep their weights."""
    whole = model(modalities=ALL, fusion=GATED)
    made = model(modalities=ALL, seed=1, fusion=GATED, head={"name": "regression"}, codec={"name": "regression"})
    assert start_from(made, saved(whole, tmp_path))[-1].startswith("keypoints: 0 of 3 keep their weights")


def test_stages_of_the_neck_are_matched_by_stage(tmp_path):
    """A finer grid has one projection more at the front; a shallower backbone has wrapped names."""
    given = model("a", image_config={**IMAGE, "stride": 8})
    source = saved(given, tmp_path / "s8")
    target = model("a", seed=1, image_config={**IMAGE, "stride": 4, "deepest_stride": 16})
    fresh = target.encoders["image"].neck.lateral[0].weight.clone()
    start_from(target, source)
    old, new = given.encoders["image"].neck.lateral, target.encoders["image"].neck.lateral
    assert torch.equal(new[0].weight, fresh)
    assert torch.equal(new[1].weight, old[0].weight)
    assert torch.equal(new[2].weight, old[1].weight)
    kept = {k.removeprefix("model."): v for k, v in target.encoders["image"].backbone.state_dict().items()}
    assert kept.keys() < given.encoders["image"].backbone.state_dict().keys() or len(kept) > 10
    assert all(torch.equal(v, given.encoders["image"].backbone.state_dict()[k]) for k, v in kept.items())


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_tensor_with_something_per_keypoint_is_known(head, tmp_path):
    """Those whose shape grows with the keypoints, and no others, are copied by rows; reordering them loses nothing."""
    options = {"regression": {"stages": 2, "hidden": 16}, "openpose": {"stages": 2, "layers": 1},
               "deconv": {"layers": 1, "width": 8}, "hourglass": {"stacks": 2, "width": 8}}  # fmt: skip
    made = {"head": {"name": head, **options.get(head, {})}, "codec": {"name": CODEC_OF.get(head, "heatmap")},
            "visibility": 0.0 if head == "openpose" else 0.1}  # fmt: skip
    three = schema("a b c", edges=[[0, 1], [1, 2]])
    four = schema("c b new a", edges=[[3, 1], [1, 0], [0, 2]])  # a-b and b-c again, and one more
    given, target = model(three, **made), model(four, seed=1, **made)
    grown = {n for n, p in given.named_parameters() if p.shape != dict(target.named_parameters())[n].shape}
    assert grown == {n for n, s in slots(given, {}).items() if s.axis is not None}
    start_from(target, saved(given, tmp_path / "three"))
    back = model(three, seed=2, **made)
    start_from(back, saved(target, tmp_path / "four"))
    for name, value in given.named_parameters():
        assert torch.equal(dict(back.named_parameters())[name], value), name


def test_the_table_of_tensors_names_nothing_that_is_not_there():
    names = " ".join(PER_KEYPOINT)
    assert all(word in names for word in ("logits", "maps", "feed_heat", "judge", "see_fields"))


def test_another_head_starts_anew_and_keeps_the_encoder(image_only):
    given, folder = image_only
    target = model("a b c", seed=1, head={"name": "regression", "hidden": 16}, codec={"name": "regression"})
    fresh = {k: v.clone() for k, v in target.heads.state_dict().items()}
    lines = start_from(target, folder)
    assert all(torch.equal(v, fresh[k]) for k, v in target.heads.state_dict().items())
    assert any(line.endswith("heads.joint: starts anew") for line in lines)
    weight = "encoders.image.neck.smooth.1.weight"
    assert torch.equal(target.state_dict()[weight], given.state_dict()[weight])


def test_nothing_shared_is_an_error_that_says_what_both_are(image_only):
    target = model("a b", ("text",))
    target.heads = torch.nn.ModuleDict()  # a head of 16 channels would fit
    with pytest.raises(InputError, match=r"shares parts with the model \(text, .* \(image, test_efficientnet"):
        start_from(target, image_only[1])


def test_a_source_that_is_not_there_is_an_error():
    with pytest.raises(InputError, match="packaged name, a folder or a Hub id"):
        start_from(model("a"), "nothing-of-this-name")


def test_phrases_say_what_is_the_same_under_another_name():
    found = match_keypoints(load_schema("face68"), load_schema("face5"))
    assert found == {
        "nose_tip": "nose_bridge_3", "right_mouth_corner": "outer_lip_0", "left_mouth_corner": "outer_lip_6"
    }  # fmt: skip
    twice = parse_schema(schema("p q", phrases=["same", "same"]))
    assert match_keypoints(twice, parse_schema(schema("r", phrases=["same"]))) == {}


def test_a_middle_starts_from_the_mean_of_its_outline(tmp_path):
    source = model("eye_0 eye_1 eye_2 nose")
    target = model("nose eye brow")
    said = start_from(target, saved(source, tmp_path / "source"))
    old, new = source.heads["joint"].logits, target.heads["joint"].logits
    torch.testing.assert_close(new.weight[1], old.weight[:3].mean(0))
    assert torch.equal(new.weight[0], old.weight[3])
    assert "from the mean of their outline: eye from eye_0 ... eye_2; anew: brow" in said[-1]
    names = match_keypoints(load_schema("face68"), load_schema("face5"))
    found = match_outlines(load_schema("face68"), load_schema("face5"), names)
    assert found == {f"{s}_eye": tuple(f"{s}_eye_{i}" for i in range(6)) for s in ("right", "left")}
    assert match_outlines(parse_schema(schema("eye_0 eye_1")), parse_schema(schema("eye")), {}) == {}


def test_a_run_starts_from_a_checkpoint_and_so_does_its_average(grid_root, tmp_path):
    first = build(tiny_recipe(grid_root, seed=1)).model
    parts = build(tiny_recipe(grid_root, start_from=saved(first, tmp_path / "first"), seed=5))
    average = make_average(parts.model, 0.999)
    for name, value in parts.model.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]), name
        assert torch.equal(average.module.state_dict()[name], value), name
    assert any("keypoints: 68 of 68" in line for line in parts.notes)


def test_a_part_that_starts_anew_from_the_same_seed_is_told(tmp_path):
    def made(seed: int) -> Any:
        torch.manual_seed(seed)
        config = MmkpConfig(
            modalities=ALL, keypoint_schema=schema("a b c"), fusion={"name": "gated", "level": "feature"},
            hidden_size=16, input_size_hw=(32, 32), image_config=IMAGE, **SMALL,
        )  # fmt: skip
        return make_model(config)[0]

    begun = made(3)
    with torch.no_grad():
        for parameter in begun.parameters():
            parameter += (
                0.3 * parameter.std(correction=0).nan_to_num() * torch.randn_like(parameter)
            )  # trained a little
    folder = saved(begun, tmp_path / "m")
    parts = ("encoders", "lifts", "heads")
    told = [line for line in start_from(made(3), folder, parts) if line.startswith("note")]
    assert len(told) == 1
    assert "fusion starts anew from the values that" in told[0]
    assert "another training.seed" in told[0]
    assert not [line for line in start_from(made(4), folder, parts) if line.startswith("note")]
    assert not [line for line in start_from(made(3), folder) if line.startswith("note")]  # nothing is left out
