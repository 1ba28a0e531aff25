"""Several subsets of the modalities over one pass of the encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_recipe

from mmkp.configuration_mmkp import MmkpConfig
from mmkp.data.augment import AugmentConfig
from mmkp.data.collate import Collator
from mmkp.data.sample import Sample
from mmkp.errors import InputError
from mmkp.schema import load_schema
from mmkp.training.build import make_model


@pytest.fixture(scope="module")
def made() -> tuple:
    torch.manual_seed(0)
    recipe = tiny_recipe(Path("unused"))
    schema = load_schema("face5").model_dump(mode="json")
    return make_model(MmkpConfig(**recipe.model_kwargs(), keypoint_schema=schema))


def sample(number: int, schema_name: str, **changes: object) -> Sample:
    rng = np.random.default_rng(number)
    count = load_schema(schema_name).num_keypoints
    return Sample(
        id=str(number), group=str(number), keypoints_xy=rng.uniform(12, 36, (count, 2)).astype(np.float32),
        visible=np.full(count, 2, np.uint8), box_xywh=np.array([-0.5, -0.5, 48.0, 48.0]),
        image=rng.integers(0, 256, (48, 48, 3), dtype=np.uint8), text="a|b",
        audio=rng.uniform(-1, 1, 16_000).astype(np.float32),
    ).replace(**changes)  # fmt: skip


def batch_of(made: tuple, samples: list[Sample], subsets: int, **augment: float) -> dict:
    model, processor = made
    config = AugmentConfig.off().model_copy(update=augment)
    collate = Collator(processor, model.schema, config, 0, model.modalities, subsets)
    return collate([((0, i), s) for i, s in enumerate(samples)])


def test_one_full_subset_is_the_plain_loss(made: tuple) -> None:
    model, _ = made
    samples = [sample(i, model.schema.name) for i in range(3)]
    plain, drawn = batch_of(made, samples, 0), batch_of(made, samples, 1)
    assert drawn["subset_mask"].tolist() == [[[True] * 3]] * 3
    for batch in (plain, drawn):
        batch.pop("ids")
    with torch.no_grad():
        model.eval()
        torch.testing.assert_close(model(**drawn).loss_per_item, model(**plain).loss_per_item)


def test_the_loss_is_the_mean_over_the_subsets_as_if_each_had_come_alone(made: tuple) -> None:
    model, _ = made
    batch = batch_of(made, [sample(i, model.schema.name) for i in range(2)], 2)
    batch.pop("ids")
    batch["subset_mask"] = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[0, 0, 1], [1, 1, 0]]]).bool()
    with torch.no_grad():
        model.eval()
        found = model(**batch).loss_per_item
        mask = batch.pop("subset_mask")
        batch.pop("blind_targets")
        each = [model(**{**batch, "modality_mask": mask[:, s]}).loss_per_item for s in range(2)]
    torch.testing.assert_close(found, torch.stack(each).mean(0))


def test_subsets_without_the_picture_learn_from_the_plain_crop(made: tuple) -> None:
    model, _ = made
    one = sample(0, model.schema.name)
    batch = batch_of(made, [one], 1, rotate_deg=90.0, drop_image=1.0)
    assert not batch["subset_mask"][0, 0, 0] and "pixel_values" in batch
    np.testing.assert_allclose(batch["blind_targets"][0, :, :2], one.keypoints_xy, atol=1e-4)
    assert np.abs(batch["labels"][0, :, :2] - one.keypoints_xy).max() > 1
    batch.pop("ids")
    with torch.no_grad():
        model.eval()
        plain = model(**{**batch, "subset_mask": None, "labels": batch["blind_targets"],
                         "modality_mask": batch["subset_mask"][:, 0]})  # fmt: skip
        assert model(**batch).loss.item() == pytest.approx(plain.loss.item(), rel=1e-5)


def test_chances_are_those_of_the_recipe_and_something_always_stays(made: tuple) -> None:
    model, _ = made
    only_image = sample(0, model.schema.name, text=None, audio=None)
    samples = [sample(i, model.schema.name) for i in range(40)] + [only_image]
    mask = batch_of(made, samples, 16, drop_image=0.25, drop_text=1.0)["subset_mask"]
    assert mask.any(-1).all()
    assert mask[-1].tolist() == [[True, False, False]] * 16
    assert not mask[:-1, :, 1].any() and mask[:-1, :, 2].all()
    assert mask[:-1, :, 0].float().mean().item() == pytest.approx(0.75, abs=0.06)  # 640 draws: 3.5 deviations


def test_a_batch_is_the_same_again(made: tuple) -> None:
    model, _ = made
    samples = [sample(i, model.schema.name) for i in range(4)]
    first, again = (batch_of(made, samples, 3, drop_image=0.5, drop_audio=0.5, rotate_deg=20.0) for _ in range(2))
    assert torch.equal(first["subset_mask"], again["subset_mask"]) and torch.equal(first["labels"], again["labels"])


def lying(made: tuple, subsets: int, chance: float, samples: list[Sample], **augment: float) -> tuple[dict, dict]:
    """A batch without and with lies; all else is drawn from the same generators."""
    return batch_of(made, samples, subsets, **augment), batch_of(made, samples, subsets, conflict=chance, **augment)


def heard(batch: dict) -> list[bytes]:
    """What tells a text and a sound from others, item by item: the encoders' inputs."""
    return [ids.numpy().tobytes() for ids in batch["input_ids"]], [f.numpy().tobytes() for f in batch["input_features"]]


def test_a_lie_is_the_words_the_sound_or_both_of_one_other_clip(made: tuple) -> None:
    model, _ = made
    samples = [sample(i, model.schema.name, text=f"{'abcdefghijkl'[i]}|") for i in range(12)]
    truth, lie = lying(made, 0, 1.0, samples)
    words, sounds = heard(truth)
    told_words, told_sounds = heard(lie)
    whose = [(words.index(w), sounds.index(s)) for w, s in zip(told_words, told_sounds, strict=True)]
    kinds = {("text" if w != i else "") + ("audio" if s != i else "") for i, (w, s) in enumerate(whose)}
    assert kinds == {"text", "audio", "textaudio"}
    assert all(w == s for i, (w, s) in enumerate(whose) if w != i and s != i)
    assert torch.equal(truth["labels"], lie["labels"]) and torch.equal(truth["pixel_values"], lie["pixel_values"])


def test_nobody_lies_about_a_hidden_face_nor_borrows_from_its_own_clip(made: tuple) -> None:
    model, _ = made
    hidden = np.array([2, 2, 2, 1, 1], np.uint8)  # as under a cover
    blind = [sample(i, model.schema.name, image=None) for i in range(3)]
    covered = [sample(i, model.schema.name, visible=hidden) for i in range(3, 6)]
    for samples in ([*blind, *covered], [sample(i, model.schema.name, group="one clip") for i in range(6)]):
        truth, lie = lying(made, 0, 1.0, samples)
        assert heard(truth) == heard(lie)


def test_who_hears_a_lie_keeps_the_picture_in_every_subset(made: tuple) -> None:
    model, _ = made
    samples = [sample(i, model.schema.name, text=f"{'abcdefgh'[i]}|") for i in range(8)]
    truth, lie = lying(made, 16, 0.5, samples, drop_image=0.5)
    same = [heard(truth)[0][i] == heard(lie)[0][i] and heard(truth)[1][i] == heard(lie)[1][i] for i in range(8)]
    always = lie["subset_mask"][..., 0].all(1).tolist()
    assert always == [not s for s in same] and 0 < sum(same) < 8


@pytest.mark.parametrize("shape", [(1, 68, 3), (1, 5, 2), (1, 2, 68, 3), (1,)])
def test_labels_of_another_schema_are_refused(made: tuple, shape: tuple[int, ...]) -> None:
    model, _ = made
    batch = batch_of(made, [sample(0, model.schema.name)], 0)
    batch.pop("ids")
    with pytest.raises(InputError, match=r"^labels: expected \(\.\.\., 5, 3\): x, y and visibility of face5, got \(1"):
        model(**{**batch, "labels": torch.zeros(shape)})
