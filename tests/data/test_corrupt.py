"""The cover lies where the protocol says, hides the lips, and cannot know what they do."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkp import geometry
from mmkp.data import corrupt, corrupt_designs
from mmkp.data.face import eye_frame
from mmkp.data.sample import Sample
from mmkp.errors import InputError

EYES = np.r_[36:48]
NOT_EYES = np.r_[0:36, 48:68]
LIPS = np.r_[48:68]
SEEDS = st.integers(0, 2**32 - 1)


def face(distance: float = 60.0, roll: float = 0.0, middle: tuple[float, float] = (90.0, 60.0)) -> np.ndarray:
    """A stylised face68 shape, (68, 2) px, with its eyes where asked and lips 0.75 to 1.15 d below them."""
    shape = np.zeros((68, 2))
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    ring = np.stack([-np.cos(turn), -np.sin(turn)], axis=1)
    shape[36:42], shape[42:48] = ring * (0.15, 0.06) + (-0.35, 0), ring * (0.15, 0.06) + (0.35, 0)
    shape[[36, 45]] = (-0.5, 0), (0.5, 0)
    around = np.linspace(0, 2 * np.pi, 20)
    shape[48:68] = np.stack([0.3 * np.cos(around), 0.95 + 0.2 * np.sin(around)], axis=1)
    shape[0:17] = np.stack([np.linspace(-0.8, 0.8, 17), 1.5 - np.linspace(-1.1, 1.1, 17) ** 2], axis=1)
    shape[17:36] = np.stack([np.linspace(-0.1, 0.1, 19), np.linspace(-0.2, 0.4, 19)], axis=1)
    cos, sin = np.cos(roll), np.sin(roll)
    shape = shape @ np.array([[cos, sin], [-sin, cos]]) * distance
    return shape - eye_frame(shape)[0] + middle


def picture(seed: int = 0, size_hw: tuple[int, int] = (200, 180)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def sample(**changes: object) -> Sample:
    points = face().astype(np.float32)
    made = Sample("a_01", "a", points, np.full(68, 2, np.uint8), np.array([20.0, 20, 140, 140]), picture())
    return made.replace(**changes)


def real_landmarks() -> np.ndarray:
    """(N, 68, 2) px of GRID's own clips, or a skip with the reason."""
    default = Path(__file__).parents[3] / "shared/data/grid"
    files = sorted((Path(os.environ.get("MMKP_TEST_GRID", default)) / "landmarks").glob("*.npz"))
    if not files:
        pytest.skip("no GRID landmarks: set MMKP_TEST_GRID to a folder that holds landmarks/*.npz")
    return np.concatenate([np.load(file)["keypoints_xy"][::9].astype(np.float64) - 0.5 for file in files])


def test_hides_lips_on_grid() -> None:
    frames = real_landmarks()
    height, width = 288, 360
    image = np.zeros((height, width, 3), np.uint8)
    hidden = [
        corrupt.cover(image, frames[seed % len(frames)], np.random.default_rng(seed))[1][LIPS] for seed in range(2500)
    ]
    assert np.mean(hidden) >= 0.99


@given(SEEDS, st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_same_bits_whatever_the_mouth_does(seed: int, other: int) -> None:
    points, image = face(), picture()
    moved = points.copy()
    moved[NOT_EYES] += np.random.default_rng(other).normal(0, 25, (56, 2))
    moved[LIPS[:3]] = np.nan
    one, _ = corrupt.cover(image, points, np.random.default_rng(seed))
    two, hidden = corrupt.cover(image, moved, np.random.default_rng(seed))
    assert np.array_equal(one, two)
    assert not hidden[LIPS[:3]].any()


@given(SEEDS, st.floats(-0.6, 0.6))
@settings(max_examples=60, deadline=None)
def test_opaque_over_the_lips(seed: int, roll: float) -> None:
    """What lies under the lips' region cannot be told from the covered picture, and not from its edges either."""
    points = face(roll=roll)
    one, two = picture(1), picture(2)
    out_one, hidden = corrupt.cover(one, points, np.random.default_rng(seed))
    out_two, _ = corrupt.cover(two, points, np.random.default_rng(seed))
    assert hidden[LIPS].all()
    columns, rows = np.rint(points[LIPS]).astype(int).T
    for dx in (-1, 0, 1):
        assert np.array_equal(out_one[rows, columns + dx], out_two[rows, columns + dx])


@given(SEEDS, st.floats(-0.5, 0.5), st.floats(40, 70))
@settings(max_examples=60, deadline=None)
def test_body_lies_in_the_protocols_ranges(seed: int, roll: float, distance: float) -> None:
    """Measured on the picture that was drawn, turned back to the eyes' frame; straps and handles left out."""
    points = face(distance, roll, middle=(150, 110))
    design = corrupt.draw_design(np.random.default_rng(seed))
    bare = corrupt_designs.CoverDesign(**{**vars(design), "attachments": ()})
    _, alpha = corrupt.paint(bare, picture(size_hw=(300, 300)), points)
    rows, columns = np.nonzero(alpha > 127)
    cos, sin = np.cos(roll), np.sin(roll)
    relative = (np.stack([columns, rows], axis=1) - eye_frame(points)[0]) @ np.array([[cos, -sin], [sin, cos]])
    slack = 1.2 / distance  # a drawn edge, half covered, may round by a pixel
    u, v = relative.T / distance
    assert 0.42 - slack <= v.min() <= 0.55 + slack
    assert 1.35 - slack <= v.max() <= 1.55 + slack
    assert 0.50 - slack <= u.max() <= 0.70 + slack
    assert 0.50 - slack <= -u.min() <= 0.70 + slack


def test_shares_of_kinds() -> None:
    kinds = [corrupt.draw_design(np.random.default_rng(seed)).kind for seed in range(2000)]
    share = {kind: kinds.count(kind) / 2000 for kind in set(kinds)}
    # four standard deviations of a share over 2000 draws are at most 0.045
    assert share["mask"] == pytest.approx(0.5, abs=0.045)
    assert share["rectangle"] == pytest.approx(0.4, abs=0.045)
    assert share["hand"] + share["microphone"] == pytest.approx(0.1, abs=0.027)
    assert min(share["hand"], share["microphone"]) > 0.02


def test_cover_leaves_its_input_and_the_eyes_alone() -> None:
    image, points = picture(), face()
    before = image.copy()
    for seed in range(40):
        out, hidden = corrupt.cover(image, points, np.random.default_rng(seed))
        assert np.array_equal(image, before)
        above = int(points[EYES, 1].max()) + 3
        assert np.array_equal(out[:above], image[:above])
        assert not hidden[EYES].any() and hidden[LIPS].all()


@pytest.mark.parametrize("middle", [(-500.0, 60.0), (90.0, 1000.0), (90.0, -40.0), (3.0, 195.0)])
def test_a_cover_that_leaves_the_picture_is_cut(middle: tuple[float, float]) -> None:
    for seed in range(20):
        out, hidden = corrupt.cover(picture(), face(middle=middle), np.random.default_rng(seed))
        outside = (face(middle=middle) < -0.5) | (face(middle=middle) > (179.5, 199.5))
        assert out.shape == (200, 180, 3)
        assert not hidden[outside.any(axis=1)].any()


@pytest.mark.parametrize("fault", ["nan", "coincide", "shape"])
def test_unknown_eyes_are_refused(fault: str) -> None:
    points = face()
    if fault == "nan":
        points[40] = np.nan
    elif fault == "coincide":
        points[EYES] = 50
    else:
        points = points[:17]
    assert not corrupt.can_cover(points)
    with pytest.raises(InputError, match="eye points"):
        corrupt.cover(picture(), points, np.random.default_rng(0))
    faulty = sample(keypoints_xy=points.astype(np.float32), visible=np.full(len(points), 2, np.uint8))
    assert corrupt.conditions_for(faulty) == ["clear"]


def test_same_cover_for_a_whole_clip() -> None:
    """Two frames of a clip, the second moved by whole pixels: the same cover moved; another clip has another."""
    flat = np.full((200, 180, 3), 90, np.uint8)
    first = corrupt.covered(sample(image=flat))
    moved = sample(id="a_02", image=flat, keypoints_xy=(face() + (8, 5)).astype(np.float32))
    second = corrupt.covered(moved)
    assert np.abs(first.image[60:180, 20:160].astype(int) - second.image[65:185, 28:168]).max() <= 8  # float32 eyes
    assert not np.array_equal(first.image, corrupt.covered(sample(image=flat, group="b")).image)


def test_covered_marks_what_it_hides() -> None:
    visible = np.full(68, 2, np.uint8)
    visible[48], visible[49] = 0, 1
    after = corrupt.covered(sample(visible=visible)).visible
    assert after[48] == 0 and (after[LIPS[1:]] == 1).all() and (after[EYES] == 2).all()
    blind = sample(image=None)
    assert corrupt.covered(blind) is blind


def test_cover_seed_is_of_the_name_alone() -> None:
    # worked out by `printf bbaf2n | sha1sum`: its first sixteen hexadecimal digits
    assert corrupt.cover_seed("bbaf2n") == 0x1E25A616C3F42285
    assert corrupt.cover_seed("bbaf2n") != corrupt.cover_seed("bbaf3s")


def test_conditions() -> None:
    timed = sample(text="bl|ue", text_controls={"even_times": "b|lue", "no_times": "blue"})
    assert corrupt.conditions_for(timed) == ["clear", "covered", "even_times", "covered+even_times"]
    assert corrupt.CONDITIONS["clear"](timed) is timed
    even = corrupt.CONDITIONS["even_times"](timed)
    assert even.text == "b|lue" and even.image is timed.image
    both = corrupt.CONDITIONS["covered+even_times"](timed)
    assert both.text == "b|lue" and np.array_equal(both.image, corrupt.covered(timed).image)
    assert corrupt.conditions_for(sample(text="blue")) == ["clear", "covered"]
    assert corrupt.conditions_for(sample(image=None, text="a|b", text_controls={"even_times": "|ab"})) == [
        "clear",
        "even_times",
    ]
    assert corrupt.CONDITIONS["covered"](sample(image=None)) is None


def test_hidden_agrees_with_the_picture() -> None:
    """Points said to be hidden lie on changed pixels, the others do not (a plain colour that the picture has not)."""
    points = face()
    image = np.zeros((200, 180, 3), np.uint8)
    design = corrupt_designs.CoverDesign(
        "rectangle", 0.5, 1.4, 0.6, np.array([(-0.6, 0.5), (0.6, 0.5), (0.6, 1.4), (-0.6, 1.4)]),
        np.full((1, 1, 3), 255, np.uint8),
    )  # fmt: skip
    out, alpha = corrupt.paint(design, image, points)
    u, v = ((points - eye_frame(points)[0]) / 60).T
    beyond = np.maximum(np.abs(u) - 0.6, np.abs(v - 0.95) - 0.45)  # in d: below 0 inside, above 0 outside
    clear_cut = np.abs(beyond) > 1.5 / 60  # 1.5 px off the edge, where no rounding decides
    assert clear_cut.sum() > 50
    assert np.array_equal(corrupt.under(alpha, points)[clear_cut], beyond[clear_cut] < 0)
    assert np.array_equal(out[..., 0], alpha)
    middle = geometry.transform(np.array([[0.0, 0.95]]), np.array([[60.0, 0, 90], [0, 60, 60]]))[0]
    assert out[round(middle[1]), round(middle[0])].tolist() == [255, 255, 255]
