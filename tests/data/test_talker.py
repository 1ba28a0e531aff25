"""The talking face: drawn where its keypoints say, the same for the same numbers, kept without loss."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mmkp.data.face import BOX_SIDE, face_box
from mmkp.data.talker import TalkerDataset, dataset, generate
from mmkp.data.talker.clip import FRAMES_PER_CLIP
from mmkp.data.talker.generate import hidden_by_head
from mmkp.data.talker.mouth import MouthState, landmarks
from mmkp.data.talker.paint import Canvas, curve
from mmkp.data.talker.person import draw_person
from mmkp.data.talker.render import draw_scene, render
from mmkp.data.talker.view import View, place
from mmkp.errors import InputError, MissingExtraError
from mmkp.schema import load_schema

pytestmark = pytest.mark.skipif(
    find_spec("espeakng_loader") is None,
    reason="the extra 'talker' (espeakng-loader) is not installed",
)
DIGEST = (
    "import hashlib, sys; from mmkp.data.talker import generate;"
    "h = hashlib.sha1();"
    "[h.update(s.keypoints_xy.tobytes() + (s.image.tobytes() if s.image is not None else b'') +"
    " (s.audio.tobytes() if s.audio is not None else b'') + str(s.text).encode()) for s in"
    " (generate(3, int(i), 48) for i in sys.argv[1:])]; print(h.hexdigest())"
)


def identical(a, b) -> bool:
    """Whether two samples are the same to the bit (sound to the half step of 16 bits that the cache keeps)."""
    same = a.id == b.id and a.text == b.text and a.info == b.info and a.text_controls == b.text_controls
    same &= np.array_equal(a.keypoints_xy, b.keypoints_xy) and np.array_equal(a.visible, b.visible)
    same &= a.present == b.present and np.array_equal(a.box_xywh, b.box_xywh)
    if a.image is not None:
        same &= np.array_equal(a.image, b.image)
    if a.audio is not None:
        same &= np.allclose(a.audio, b.audio, atol=0.51 / 32767)
    return bool(same)


@pytest.fixture(scope="module")
def face() -> tuple:
    """A beardless person in flat colours that can be told apart, mouth a little open, seen from the front."""
    rng = np.random.default_rng(5)
    person = dataclasses.replace(
        draw_person(rng), skin=np.array([60.0, 200, 60]), lips=np.array([220.0, 30, 30]), beard=0.0, moustache=0.0,
        style="cropped", glasses=0, scale=np.ones(3),
    )  # fmt: skip
    state = MouthState(open=0.4)
    return person, state, landmarks(person, state), draw_scene(rng)


def test_the_order_of_generation_does_not_matter() -> None:
    forwards = [generate(3, i, 48) for i in (0, 9, 17, 1)]
    again = {i: generate(3, i, 48) for i in (1, 17, 0, 9)}
    assert all(identical(a, again[i]) for a, i in zip(forwards, (0, 9, 17, 1), strict=True))
    assert not np.array_equal(generate(4, 0, 48).keypoints_xy, forwards[0].keypoints_xy)


def test_another_process_makes_the_same() -> None:
    run = [
        subprocess.run([sys.executable, "-c", DIGEST, *order], capture_output=True, text=True, check=True).stdout
        for order in (("2", "11"), ("2", "11"))
    ]
    assert run[0] == run[1] != ""


@pytest.mark.parametrize("size", [64, 150])
def test_lip_edges_lie_at_their_keypoints(face: tuple, size: int) -> None:
    """Where the colour turns from skin to lip along a column, against the keypoint of that edge."""
    person, state, points_mm, scene = face
    for jitter in ([0.0, 0.0], [0.31, -0.17]):
        view = place(View(0, 0, 0), points_mm, size, 0.85, np.array(jitter))
        image = render(person, state, points_mm, view, scene, np.zeros(2), size).astype(float)
        red = image[..., 0] / (image[..., 0] + image[..., 1] + 1e-6)
        for index, inwards in ((57, -1), (51, 1)):
            x, y = view.project(points_mm)[index]
            rows = np.arange(round(y) - 4, round(y) + 5)
            column = red[rows, round(x)]
            halfway = (column.max() + column[0 if inwards > 0 else -1]) / 2
            above = column > halfway
            step = np.flatnonzero(above[1:] != above[:-1])
            edge = step if inwards > 0 else step[::-1]
            a = edge[0]
            found = rows[a] + (halfway - column[a]) / (column[a + 1] - column[a])
            assert found == pytest.approx(y, abs=0.6)


def test_the_canvas_has_no_half_pixel_fault() -> None:
    """The centre of gravity of a painted disc is where it was put."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    for centre in ([20.0, 20.0], [23.37, 18.81]):
        canvas = Canvas(np.zeros((80, 80, 3), np.uint8))
        canvas.fill(np.array(centre) + 9.0 * np.stack([np.cos(turn), np.sin(turn)], -1), np.full(3, 255.0))
        weight = canvas.finish(40)[..., 0].astype(float)
        found = [(weight * axis).sum() / weight.sum() for axis in np.mgrid[:40, :40][::-1]]
        np.testing.assert_allclose(found, centre, atol=0.05)


def test_curves_pass_through_their_points(rng: np.random.Generator) -> None:
    points = rng.normal(size=(6, 3))
    np.testing.assert_allclose(curve(points, steps=4)[::4], points, atol=1e-12)
    np.testing.assert_allclose(curve(points, closed=True, steps=4)[::4], points, atol=1e-12)


def test_a_mean_face_is_symmetric_and_in_the_markup_s_order(face: tuple) -> None:
    _, _, points_mm, _ = face
    flip = load_schema("face68").flip_index
    np.testing.assert_allclose((points_mm * [-1, 1, 1])[flip], points_mm, atol=1e-9)
    assert points_mm[0, 0] < 0 < points_mm[16, 0]  # jaw_0 is the subject's right: the picture's left
    assert points_mm[8, 1] == points_mm[:, 1].max()
    assert points_mm[36, 0] < points_mm[39, 0] < points_mm[42, 0] < points_mm[45, 0]


def test_the_mouth_does_what_its_parameters_say(face: tuple) -> None:
    person = face[0]
    rest = landmarks(person, MouthState())
    gap = {
        name: np.ptp(landmarks(person, MouthState(open=0.8, **{name: 1.0}))[[62, 66], 1]) for name in ("press", "tuck")
    }
    opened, rounded = landmarks(person, MouthState(open=0.8)), landmarks(person, MouthState(round=1.0))
    assert opened[66, 1] - opened[62, 1] > 15
    assert gap["press"] < 0.5
    assert gap["tuck"] < 8
    assert rounded[54, 0] - rounded[48, 0] < rest[54, 0] - rest[48, 0] - 8
    assert opened[8, 1] > rest[8, 1] + 15
    np.testing.assert_allclose(opened[17:48], rest[17:48])


def test_pose_turns_the_way_it_says(face: tuple) -> None:
    points_mm = face[2]
    nose = {name: View(*angles).project(points_mm[30]) for name, angles in
            {"front": (0, 0, 0), "right": (20, 0, 0), "down": (0, 20, 0)}.items()}  # fmt: skip
    assert nose["right"][0] > nose["front"][0] + 10
    assert nose["down"][1] > nose["front"][1] + 5
    eyes = View(0, 0, 15).project(points_mm[[36, 45]])
    assert np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1])) == pytest.approx(15, abs=1.0)


def test_the_far_side_is_hidden_when_the_head_turns(face: tuple) -> None:
    points_mm = face[2]
    assert not hidden_by_head(View(0, 0, 0), points_mm).any()
    right, left = (hidden_by_head(View(yaw, 0, 0), points_mm) for yaw in (30, -30))
    assert right[14:17].all()
    assert not right[:8].any()
    np.testing.assert_array_equal(right[load_schema("face68").flip_index], left)


def test_samples_are_whole() -> None:
    for index in range(12):
        sample = generate(0, index * 8 + index % 8, 64)
        assert sample.keypoints_xy.shape == (68, 2)
        assert sample.keypoints_xy.dtype == np.float32
        assert np.isfinite(sample.keypoints_xy).all()
        assert set(sample.visible.tolist()) <= {1, 2}
        np.testing.assert_allclose(sample.box_xywh, face_box(sample.keypoints_xy))
        x, y, side, _ = sample.box_xywh
        assert 0.69 < side / 64 < 0.86
        assert min(x, y) > -0.6
        assert max(x, y) + side < 64.1
        assert side == pytest.approx(
            BOX_SIDE * np.linalg.norm(sample.keypoints_xy[36] - sample.keypoints_xy[45]), rel=1e-4
        )
        if sample.image is not None:
            assert sample.image.shape == (64, 64, 3)
        if sample.audio is not None:
            assert sample.audio.dtype == np.float32
            assert np.abs(sample.audio).max() <= 1


def test_about_half_is_clean_and_the_cover_hides_the_lips() -> None:
    samples = [generate(0, i, 32) for i in range(0, 1200, 5)]
    clean = np.mean([s.info["degradation"] == "none" for s in samples])
    assert 0.35 < clean < 0.55
    assert 0.03 < np.mean([not all(s.present) for s in samples]) < 0.2
    covered = [s for s in samples if s.info["covered"]]
    hidden = np.mean([s.visible[48:] == 1 for s in covered])
    assert len(covered) > 20
    assert hidden > 0.98


def test_evaluation_splits_are_clear() -> None:
    kept = TalkerDataset("validation", size=32, n=16)
    assert all(s.present == (True, True, True) and s.info["degradation"] == "none" for s in kept)


def test_the_cache_gives_back_what_was_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TalkerDataset("train", size=32, n=20, seed=7, cache_dir=tmp_path)
    assert len(first) == 20
    assert all(identical(first[i], generate(7, i, 32)) for i in range(20))
    assert first[-1].id == first[19].id
    with pytest.raises(IndexError):
        first[20]
    monkeypatch.setattr(dataset, "generate", lambda *a: pytest.fail("generated again"))
    monkeypatch.setattr(dataset, "require_espeak", lambda: pytest.fail("a full cache needs no voice"))
    second = TalkerDataset("train", size=32, n=20, seed=7, cache_dir=tmp_path)
    assert second.fingerprint == first.fingerprint
    assert identical(second[5], first[5])


def test_every_parameter_changes_the_fingerprint(tmp_path: Path) -> None:
    base = {"split": "train", "size": 32, "n": 4, "seed": 0, "degrade": True}
    changes = [{}, {"split": "test"}, {"size": 33}, {"n": 5}, {"seed": 1}, {"degrade": False}]
    made = [TalkerDataset(**{**base, **change}, cache_dir=tmp_path).fingerprint for change in changes]
    assert len(set(made)) == len(made)


def test_two_workers_write_what_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_FEWEST_PER_WORKER", 8)
    one = TalkerDataset("train", size=32, n=24, cache_dir=tmp_path / "one", workers=1)
    two = TalkerDataset("train", size=32, n=24, cache_dir=tmp_path / "two", workers=2)
    assert all(identical(a, b) for a, b in zip(one, two, strict=True))


def test_an_interrupted_generation_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_nine(seed: int, index: int, *rest: object):
        if index == 9:
            raise KeyboardInterrupt
        return generate(seed, index, *rest)

    monkeypatch.setattr(dataset, "generate", stop_at_nine)
    with pytest.raises(KeyboardInterrupt):
        TalkerDataset("train", size=32, n=16, cache_dir=tmp_path)
    assert list((tmp_path / "talker").iterdir()) == []
    monkeypatch.undo()
    assert len(TalkerDataset("train", size=32, n=16, cache_dir=tmp_path)) == 16


def test_splits_share_no_person_no_sentence_no_group(tmp_path: Path) -> None:
    seen = {}
    for split in ("train", "validation", "test"):
        kept = list(TalkerDataset(split, size=32, n=40, cache_dir=tmp_path))
        assert [len({s.group for s in kept}), len({s.id for s in kept})] == [40 // FRAMES_PER_CLIP, 40]
        seen[split] = {name for s in kept for name in (s.group, s.info["person"], s.info["sentence"])}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file.*can be written.*MMKP_CACHE"):
        TalkerDataset("train", size=32, n=8, cache_dir=tmp_path / "file")


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="'validation'"):
        TalkerDataset("validate")
    with pytest.raises(InputError, match="n=0"):
        TalkerDataset("train", n=0)


def test_without_espeak_an_empty_cache_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtraError, match=r"mmkp\[talker\]"):
        TalkerDataset("train", size=32, n=8, cache_dir=tmp_path)


def test_the_environment_places_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMKP_CACHE", str(tmp_path))
    assert dataset.cache_root() == tmp_path
    monkeypatch.delenv("MMKP_CACHE")
    assert dataset.cache_root() == Path.home() / ".cache" / "mmkp"
