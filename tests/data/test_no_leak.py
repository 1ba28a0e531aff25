"""Nothing that the mouth does can reach the box, the crop or the cover."""

from __future__ import annotations

import shutil

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkp.data.augment import AugmentConfig, Augmenter, rng_for
from mmkp.data.corrupt import CONDITIONS
from mmkp.data.face import face_box
from mmkp.data.grid import GridDataset
from mmkp.schema import load_schema

NOT_EYES = np.r_[0:36, 48:68]


def moved(points: np.ndarray, amount: float, seed: int) -> np.ndarray:
    """The same eyes; every other point, lips and chin among them, somewhere else."""
    other = points.copy()
    other[NOT_EYES] += np.random.default_rng(seed).normal(0, amount, (len(NOT_EYES), 2))
    return other


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 200), st.integers(0, 10_000))
def test_the_box_knows_the_eyes_alone(amount, seed):
    points = np.random.default_rng(seed).uniform(0, 300, (68, 2))
    np.testing.assert_array_equal(face_box(points), face_box(moved(points, amount, seed)))


def test_what_the_network_sees_of_a_covered_clip_is_the_same_whatever_the_labels_of_the_mouth(grid_root, tmp_path):
    """Two corpora with the same pictures and eyes, other lips and jaws: box, crop and cover agree to the bit."""
    root = tmp_path / "grid"
    shutil.copytree(grid_root, root)
    for path in (root / "landmarks").glob("*.npz"):
        with np.load(path) as data:
            points, size_hw = data["keypoints_xy"].astype(np.float32), data["size_hw"]
        changed = np.stack([moved(p, 15.0, i) for i, p in enumerate(points)])
        np.savez(path, keypoints_xy=changed.astype(np.float16), size_hw=size_hw)
    augment = Augmenter(AugmentConfig(cover=1.0), load_schema("face68"), (48, 48))
    for index in (0, 7):
        one, two = (GridDataset(r, split="test")[index] for r in (grid_root, root))
        assert not np.allclose(one.keypoints_xy[48:], two.keypoints_xy[48:])
        np.testing.assert_array_equal(one.box_xywh, two.box_xywh)
        np.testing.assert_array_equal(CONDITIONS["covered"](one).image, CONDITIONS["covered"](two).image)
        np.testing.assert_array_equal(*(augment(s, rng_for(0, 0, index)).image for s in (one, two)))
