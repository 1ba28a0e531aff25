"""The crowd of talkers: several people, who hides whom, and the way of all of them through augmentation and collate."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mmkp import geometry
from mmkp.configuration_mmkp import MmkpConfig
from mmkp.data import open_dataset
from mmkp.data.augment import AugmentConfig, Augmenter
from mmkp.data.collate import Collator
from mmkp.data.sample import Sample
from mmkp.errors import InputError
from mmkp.evaluation.instances import true_people
from mmkp.processing_mmkp import make_processor
from mmkp.schema import load_schema

espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="needs the extra `talker` (pip install 'mmkp[talker]')"
)
FACE5 = load_schema("face5")
RIGHT_EYE, LEFT_EYE, NOSE = 0, 1, 2


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    return open_dataset("crowd", "test", n=16, size=96, cache_dir=tmp_path_factory.mktemp("crowd"))


@espeak
def test_samples_know_everybody_and_are_their_own_first(crowd):
    counts = set()
    for i in range(len(crowd)):
        sample = crowd[i]
        assert sample.present == (True, True, True) and sample.image.shape == (96, 96, 3)
        people = len(sample.people_xy)
        counts.add(people)
        assert sample.people_xy.shape == (people, 5, 2) and sample.people_visible.shape == (people, 5)
        np.testing.assert_array_equal(sample.people_xy[0], sample.keypoints_xy)
        np.testing.assert_array_equal(sample.people_visible[0], sample.visible)
        assert set(np.unique(sample.people_visible)) <= {1, 2}
        area = np.array(sample.info["people_area"])
        assert len(area) == people and area[0] == area.max()  # who speaks is the nearest
        # upright faces: the subject's right eye at the picture's left, the nose below the eyes
        eyes = sample.people_xy[:, [RIGHT_EYE, LEFT_EYE]]
        assert (eyes[:, 0, 0] < eyes[:, 1, 0]).all() and (sample.people_xy[:, NOSE, 1] > eyes[..., 1].mean(1)).all()
    assert len(counts) >= 3 and min(counts) >= 1 and max(counts) <= 5


@espeak
def test_the_same_index_gives_the_same_picture_and_the_cache_gives_it_back(crowd):
    from mmkp.data.talker.crowd import generate_crowd

    made = generate_crowd(0, 9, 96, "test")
    again, kept = generate_crowd(0, 9, 96, "test"), crowd[9]
    np.testing.assert_array_equal(made.image, again.image)
    np.testing.assert_array_equal(made.people_xy, again.people_xy)
    np.testing.assert_array_equal(made.image, kept.image)
    assert (made.id, made.text, json.dumps(made.info)) == (kept.id, kept.text, json.dumps(kept.info))
    np.testing.assert_allclose(kept.people_xy[:, NOSE], made.people_xy[:, 30], atol=1e-4)
    np.testing.assert_allclose(kept.people_xy[:, LEFT_EYE], made.people_xy[:, 42:48].mean(1), atol=1e-4)
    other = generate_crowd(0, 9, 96, "train")
    assert other.group != made.group and not np.array_equal(other.image, made.image)


@espeak
def test_who_is_in_front_hides_who_is_behind():
    """A face painted over another: every hidden point lies where the front one's painting changed the picture."""
    from mmkp.data.talker.crowd import Face, paint_faces
    from mmkp.data.talker.mouth import MouthState, landmarks
    from mmkp.data.talker.person import draw_person
    from mmkp.data.talker.render import draw_scene
    from mmkp.data.talker.view import View, place

    rng = np.random.default_rng(3)
    made = []
    for share, jitter in ((0.5, (-0.3, 0.6)), (0.35, (-0.4, 0.0)), (0.3, (1.0, -1.0))):
        person = draw_person(rng)
        points_mm = landmarks(person, MouthState())
        view = place(View(0, 0, 0), points_mm, 96, share, np.array(jitter))
        made.append(Face(person, MouthState(), view, points_mm))
    scene = draw_scene(rng)
    image, hidden = paint_faces(made, scene, 96, np.random.default_rng(0))
    alone, by_itself = paint_faces(made[1:], scene, 96, np.random.default_rng(0))
    in_front = paint_faces(made[:1], scene, 96, np.random.default_rng(0))[1]
    np.testing.assert_array_equal(hidden[0], in_front[0])
    np.testing.assert_array_equal(hidden[2], by_itself[1])
    assert hidden[1].mean() > by_itself[0].mean() + 0.2
    changed = (image != alone).any(-1)
    newly = hidden[1] & ~by_itself[0]
    x, y = np.rint(made[1].points_xy()[newly]).astype(int).T
    assert newly.any() and changed[y, x].all()
    assert not changed[:20, 70:].any()  # whoever comes later leaves the rest bit by bit


@espeak
def test_face68_by_option_and_nobody_alone(crowd, tmp_path):
    whole = open_dataset("crowd", "test", n=16, size=96, keypoints="face68", cache_dir=crowd_cache(crowd))
    assert whole.schema.name == "face68" and whole[3].people_xy.shape[1:] == (68, 2)
    assert whole.fingerprint != crowd.fingerprint
    np.testing.assert_allclose(whole[3].people_xy[:, 48], crowd[3].people_xy[:, 3], atol=1e-4)


def crowd_cache(dataset) -> Path:
    """The folder that the fixture's rows were written into, so that no second set is drawn."""
    return Path(dataset._rows.cache_files[0]["filename"]).parents[2]


@pytest.mark.parametrize(
    "options, where",
    [
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"keypoints": "face6"}, r"crowd\.keypoints.*face6"),
        ({"people": (0, 3)}, "fewest"),
        ({"people": (4, 3)}, "fewest"),
        ({"people": (1, 99)}, "fewest"),
        ({"size": 8}, "size"),
        ({"n": 0}, "n >= 1"),
    ],
)
def test_options_that_make_no_picture_are_refused(options, where):
    from mmkp.data.talker.crowd import CrowdDataset

    with pytest.raises(InputError, match=where):
        CrowdDataset(**options)


# ---- the way of people through augmentation and collate ----


def sample_of(people: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(20, 76, (people, 5, 2)).astype(np.float32)
    visible = np.full((people, 5), 2, np.uint8)
    first = (xy[0], visible[0]) if people else (np.full((5, 2), np.nan, np.float32), np.zeros(5, np.uint8))
    return Sample(
        id=f"s{people}", group="g", keypoints_xy=first[0], visible=first[1],
        box_xywh=geometry.whole_image_box((96, 96)), image=rng.integers(0, 255, (96, 96, 3), dtype=np.uint8),
        people_xy=xy, people_visible=visible,
    )  # fmt: skip


def test_people_go_the_way_of_the_picture():
    config = AugmentConfig(rotate_deg=20, scale=0.3, shift=0.1, flip=1.0)
    made = Augmenter(config, FACE5, (64, 64))(sample_of(3), np.random.default_rng(1))
    assert made.flipped and made.people_xy.shape == (3, 5, 2)
    np.testing.assert_array_equal(made.people_xy[0], made.keypoints_xy)
    np.testing.assert_array_equal(made.people_visible[0], made.visible)
    expected = geometry.transform(sample_of(3).people_xy.astype(float), made.image_to_input)[:, FACE5.flip_index]
    np.testing.assert_allclose(made.people_xy, expected, atol=1e-4)


def test_occluders_hide_points_of_everybody():
    config = AugmentConfig(occluders=1.0, occluder_size=0.6)
    made = Augmenter(config, FACE5, (64, 64))(sample_of(6), np.random.default_rng(0))
    assert (made.people_visible[1:] == 1).any() and (made.people_visible == 2).any()
    np.testing.assert_array_equal(made.people_visible[0], made.visible)


def test_labels_are_filled_up_with_nobody():
    config = MmkpConfig(input_size_hw=(96, 96), keypoint_schema=FACE5.model_dump(mode="json"))
    collate = Collator(make_processor(config), FACE5, AugmentConfig.off(), seed=0)
    samples = [sample_of(3), sample_of(0), sample_of(1).replace(people_xy=None, people_visible=None)]
    labels = collate([((0, i), s) for i, s in enumerate(samples)])["labels"].numpy()
    assert labels.shape == (3, 3, 5, 3)
    np.testing.assert_allclose(labels[0, ..., :2], samples[0].people_xy, atol=1e-4)
    assert (labels[0, ..., 2] == 2).all()
    assert (labels[1] == 0).all()
    np.testing.assert_allclose(labels[2, 0, :, :2], samples[2].keypoints_xy, atol=1e-4)
    assert (labels[2, 1:] == 0).all()
    one = collate([((0, 0), samples[2])])["labels"]
    assert one.shape == (1, 5, 3)  # as ever where nobody knows of more people


def test_areas_are_said_or_the_boxs_or_the_points():
    sample = sample_of(2)
    xy = sample.people_xy
    np.testing.assert_allclose(true_people(sample)[2], np.ptp(xy, axis=1).prod(-1), rtol=1e-5)
    said = true_people(sample.replace(info={"people_area": [7.0, 8.0]}))
    assert said[2].tolist() == [7.0, 8.0]
    single = sample.replace(people_xy=None, people_visible=None, box_xywh=np.array([0, 0, 4, 5.0]))
    assert true_people(single)[0].shape == (1, 5, 2) and true_people(single)[2].tolist() == [20.0]
    assert true_people(sample_of(0))[2].shape == (0,)


def test_rows_of_one_picture_become_one_sample(tmp_path):
    """COCO's rows joined by picture: the largest first, no person's box."""
    import cv2

    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(tmp_path / "val2017" / name), np.full((40, 60, 3), 90, np.uint8))
    points = [v for k in range(17) for v in (k + 3, 2 * k + 1, 2)]
    people = [
        {"id": 1, "image_id": 1, "category_id": 1, "keypoints": points, "bbox": [1, 1, 20, 30], "area": 300.0},
        {"id": 2, "image_id": 2, "category_id": 1, "keypoints": points, "bbox": [1, 1, 20, 30], "area": 310.0},
        {"id": 3, "image_id": 1, "category_id": 1, "keypoints": points, "bbox": [1, 1, 30, 35], "area": 500.0},
    ]
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    document = {"images": images, "annotations": people, "categories": []}
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(document))
    dataset = open_dataset(f"people:coco:{tmp_path}", "all")
    assert [len(dataset[i].people_xy) for i in range(len(dataset))] == [2, 1]
    first = dataset[0]
    assert first.id == "3" and first.info["people_area"] == [500.0, 300.0]
    assert first.box_xywh.tolist() == [-0.5, -0.5, 60.0, 40.0]
    assert dataset.name == "people:coco" and dataset.schema.name == "coco17"
    with pytest.raises(InputError, match="no path"):
        open_dataset("people", "all")
