"""`mmkp data check`: labels that can be used and can hardly be meant: odd boxes, shares for px, sides exchanged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmkp.data.check import check

FACE = np.array([[40, 40], [60, 42], [50, 55], [43, 65], [58, 66]], float)  # face5: the right eye first


def write(folder: Path, points: np.ndarray | None = None, count: int = 1, schema: str = "face5", **fields) -> Path:
    """A folder of one picture, 100 x 80 px, in `count` rows that differ a little."""
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100, 3)).astype(np.uint8)).save(folder / "a.png")
    points = FACE if points is None else points
    rows = [
        {"id": f"r{i}", "file_name": "a.png", "group": str(i), "keypoints": (points + 0.01 * i).tolist(), **fields}
        for i in range(count)
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "schema.yaml").write_text(f"schema: {schema}\n")
    return folder


def told(folder: Path) -> dict[str, str]:
    """Kinds and messages, without the copies of the one picture."""
    found = check(str(folder), workers=1).report.findings
    return {f.kind: f.message for f in found if f.kind not in ("duplicate image", "near duplicate")}


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0, 0, 20, 20], "holds 0 of 5 keypoints"),
        ([39, 39, 12, 12], "holds 1 of 5 keypoints"),
        ([40, 40, 1, 1], "is 1 x 1 px"),
        ([30, 30, 300, 300], "of [30.0, 30.0, 300.0, 300.0] lie in the picture of 100 x 80 px"),
    ],
)
def test_odd_boxes(tmp_path, box, message):
    assert message in told(write(tmp_path / "data", box=box))["odd box"]


@pytest.mark.parametrize("box", [[30, 30, 40, 45], [39.6, 39.6, 20.4, 26.4], [0, 0, 100, 80], [-20, -10, 110, 100]])
def test_boxes_that_can_be_meant(tmp_path, box):
    assert told(write(tmp_path / "data", box=box)) == {}


def test_shares_of_the_sides_in_one_row(tmp_path):
    folder = write(tmp_path / "data")
    row = {"id": "shares", "file_name": "a.png", "group": "s", "keypoints": (FACE / [100, 80]).tolist()}
    with (folder / "metadata.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert "within 0.3" in told(folder)["small shape"]


def test_minus_one_is_no_place(tmp_path):
    missing = FACE.copy()
    missing[2] = -1
    assert "nose" in told(write(tmp_path / "data", missing))["outside image"]
    missing[2] = -0.5  # the picture's own edge
    assert told(write(tmp_path / "more", missing)) == {}


def test_all_rows_from_the_viewers_side(tmp_path):
    swapped = FACE[[1, 0, 2, 4, 3]]
    assert "in 100% of 24 rows the right eye lies right" in told(write(tmp_path / "a", swapped, 24))["sides exchanged"]
    assert (
        "in 100% of 24 rows one eye lies above" in told(write(tmp_path / "b", FACE[:, ::-1], 24))["x and y exchanged"]
    )
    assert told(write(tmp_path / "c", FACE, 24)) == {}
    assert told(write(tmp_path / "d", swapped, 5)) == {}  # too few to tell


def test_flags_that_are_true_or_false(tmp_path):
    folder = write(tmp_path / "data")
    row = {"file_name": "a.png", "keypoints": [[x, y, i < 3] for i, (x, y) in enumerate(FACE.tolist())]}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    checked = check(str(folder), workers=1)
    assert "true counts as 2 (visible), false as 1 (hidden)" in checked.report.findings[0].message
    assert checked.table.rows[0].visible.tolist() == [2, 2, 2, 1, 1]
