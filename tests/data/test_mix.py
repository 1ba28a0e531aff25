"""The mixture of datasets: shares, splits, names, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from corpus import face_picture, face_points
from hypothesis import given
from hypothesis import strategies as st

from mmkp.data import open_dataset
from mmkp.data.mix import _index
from mmkp.errors import InputError


def csv_dataset(folder: Path, people: int) -> str:
    """Drawn faces in a CSV, one person each; returns how to open them."""
    folder.mkdir()
    lines = ["image," + ",".join(f"{axis}{k}" for k in range(68) for axis in "xy")]
    for number in range(people):
        points = face_points(4.0 + number, 0.0)
        cv2.imwrite(str(folder / f"person{number}_0.png"), face_picture(points))
        lines.append(f"person{number}_0.png," + ",".join(f"{v:.2f}" for v in points.ravel()))
    (folder / "faces.csv").write_text("\n".join(lines))
    return f"csv:{folder}"


def test_train_repeats_the_small_part_until_the_shares_hold() -> None:
    index = _index([10, 4], [0.5, 0.5], "train")
    assert np.bincount(index[:, 0]).tolist() == [10, 10]
    assert index[10:, 1].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_validation_thins_the_large_part_and_repeats_nothing() -> None:
    index = _index([10, 4], [0.5, 0.5], "validation")
    assert index[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert index[:4, 1].tolist() == [0, 3, 6, 9]


def test_other_splits_hold_every_item_once() -> None:
    assert _index([3, 2], [0.9, 0.1], "test").tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0.1, 5)), min_size=1, max_size=4))
def test_every_item_is_trained_on_and_shares_hold_to_an_item(parts: list[tuple[int, float]]) -> None:
    lengths, shares = [p[0] for p in parts], [p[1] for p in parts]
    index = _index(lengths, shares, "train")
    whole = max(n / s for n, s in parts)
    for part, (length, share) in enumerate(zip(lengths, shares, strict=True)):
        items = index[index[:, 0] == part, 1]
        assert set(items) == set(range(length))
        assert abs(len(items) - whole * share) <= 1


def test_items_carry_the_name_of_their_part(tmp_path: Path) -> None:
    first, second = csv_dataset(tmp_path / "a", 3), csv_dataset(tmp_path / "b", 2)
    parts = {"one": {"dataset": first}, "two": {"dataset": second}}
    mixed = open_dataset("mix", "all", parts=parts)
    alone = open_dataset(second, "all")
    assert [mixed[i].id for i in range(5)][3:] == [f"two/{alone[i].id}" for i in range(2)]
    assert mixed[3].group == f"two/{alone[0].group}"
    np.testing.assert_array_equal(mixed[4].keypoints_xy, alone[1].keypoints_xy)
    again = open_dataset("mix", "all", parts={**parts, "two": {"dataset": second, "share": 2}})
    assert again.fingerprint != mixed.fingerprint


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (None, "parts"),
        ({"a": {"dataset": "talker", "shar": 1}}, "parts.a.shar"),
        ({"a": {"dataset": "talker", "share": 0}}, "parts.a.share"),
        ({"a": {"dataset": "nowhere"}}, "nowhere"),
    ],
)
def test_a_wrong_mixture_is_refused_by_name(parts: dict | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_dataset("mix", "train", **({} if parts is None else {"parts": parts}))
