"""`mmkp evaluate` on one's own pictures: no boxes, no words, no sound."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmkp.card_figures import read_evaluation, results, tables
from mmkp.data.talker.dataset import TalkerDataset


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Six drawn faces with 68 points; a box in none."""
    folder = tmp_path_factory.mktemp("own") / "faces"
    folder.mkdir()
    drawn, rows = TalkerDataset("test", size=48, n=48), []
    for i in range(6):
        sample = drawn[8 * i]
        cv2.imwrite(str(folder / f"{i}.png"), np.asarray(sample.image)[..., ::-1])
        rows.append(
            {"file_name": f"{i}.png", "group": str(i), "split": "test", "keypoints": sample.keypoints_xy.tolist()}
        )
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "schema.yaml").write_text("schema: face68\n")
    return folder


def test_what_the_data_lacks_is_said_and_has_no_figures(pictures, tmp_path, mmkp):
    code, printed, said = mmkp("evaluate", "-m", "talker-small", "-d", pictures, "-o", tmp_path / "out")
    assert code == 0
    assert "100% of the pictures of" in said
    assert "has text or audio: subsets with it have no figures" in said
    assert [line.split()[0] for line in printed.splitlines() if line.startswith("  ")] == ["image", "mean_shape"] * 2
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["protocol"]["box"] == "whole picture"
    rows = summary["conditions"]["clear"]
    assert len(rows) == 8
    assert rows["image+audio"]["nme"]["reason"] == "no item has audio"
    assert rows["text"]["pck"]["mean"] is None
    assert summary["comparisons"] == {}
    report = (tmp_path / "out/report.md").read_text()
    assert "| image+text" not in report
    assert "Box: whole picture" in report
    again = mmkp("evaluate", "-m", "talker-small", "-d", pictures, "-o", tmp_path / "out")
    assert "used again" in again[2]
    assert again[1] == printed


def test_a_card_shows_what_there_is(pictures, tmp_path, mmkp):
    mmkp("evaluate", "-m", "talker-small", "-d", pictures, "-o", tmp_path / "out")
    evaluation = read_evaluation("own faces", tmp_path / "out")
    assert {r["subset"] for r in results([evaluation])} == {"image"}
    assert "image+text" not in "\n".join(tables(evaluation))


def test_with_boxes_nothing_is_said(pictures, tmp_path, mmkp):
    rows = [json.loads(line) for line in (pictures / "metadata.jsonl").read_text().splitlines()]
    (tmp_path / "data").mkdir()
    for row in rows:
        low, high = np.min(row["keypoints"], 0), np.max(row["keypoints"], 0)
        row |= {"box": [*low, *(high - low)], "text": "bin bl|ue"}
        (tmp_path / "data" / row["file_name"]).write_bytes((pictures / row["file_name"]).read_bytes())
    (tmp_path / "data/metadata.jsonl").write_text("".join(json.dumps(row, default=float) + "\n" for row in rows))
    (tmp_path / "data/schema.yaml").write_text("schema: face68\n")
    code, printed, said = mmkp("evaluate", "-m", "talker-small", "-d", tmp_path / "data", "-o", tmp_path / "out")
    assert code == 0
    assert "whole" not in said
    assert "no item of" in said
    assert "has audio" in said
    assert "image+text " in printed
    assert json.loads((tmp_path / "out/summary.json").read_text())["protocol"]["box"] == "truth"
