"""A model that finds faces for one that cannot: in predict, in the pipeline, and in the boxes of a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmkp import finding
from mmkp import pipeline as make_pipeline
from mmkp.data.rows import Row
from mmkp.errors import InputError
from mmkp.evaluation import single
from mmkp.finetune.boxes import face_of
from mmkp.hub import load


def test_another_model_finds_for_one_that_cannot(finder, scene, blind, tmp_path, mmkp):
    whole = single.predict_one(load(str(blind)), scene[0])
    assert whole["box"] == "whole image"
    said = single.predict_one(load(str(blind)), scene[0], finder=finder[0])
    assert said["box"] == "found"
    boxes = [one["box_xywh"] for one in said["instances"]]
    assert boxes == [one["box_xywh"] for one in single.predict_one(finder[0], scene[0])["instances"]]
    cv2.imwrite(str(tmp_path / "scene.png"), scene[0][..., ::-1])
    words = ("predict", "-m", blind, "-i", tmp_path / "scene.png", "-o", tmp_path / "out", "--find-with")
    assert f"{len(boxes)} instance(s)" in mmkp(*words, finder[2])[1]
    code, _, complaint = mmkp(*words, blind)
    assert code == 2
    assert "expected a model that finds faces" in complaint
    code, _, complaint = mmkp(*words, finder[2], "--whole")
    assert code == 2
    assert "neither --box nor --whole" in complaint


def test_the_pipeline_finds_with_another_model(finder, scene, blind):
    pipe, own = (make_pipeline(model=str(folder)) for folder in (blind, finder[2]))
    assert len(pipe(scene[0])) == 1  # the whole picture
    found = pipe(scene[0], find_with=str(finder[2]))
    assert [one["box"] for one in found] == [one["box"] for one in own(scene[0])]
    assert [one["score"] for one in found] == [one["score"] for one in own(scene[0])]
    assert pipe([scene[0], np.full((60, 80, 3), 90, np.uint8)], find_with=str(finder[2]))[1] == []
    with pytest.raises(InputError, match="expected a model that finds faces"):
        pipe(scene[0], find_with=str(blind))
    with pytest.raises(InputError, match="no find=False beside it"):
        pipe(scene[0], find=False, find_with=str(finder[2]))
    with pytest.raises(InputError, match="a packaged name, a folder or a Hub id"):
        pipe(scene[0], find_with=3)


def labelled_scene(folder: Path, scene: tuple[np.ndarray, np.ndarray]) -> Path:
    """A dataset: two of the scene's faces, one place without a face, a wall, and a row that has a box."""
    folder.mkdir()
    cv2.imwrite(str(folder / "scene.png"), scene[0][..., ::-1])
    cv2.imwrite(str(folder / "wall.png"), np.full((60, 80, 3), 90, np.uint8))
    middles = scene[1][:, :2] + scene[1][:, 2:] / 2
    rows = [
        {"id": name, "file_name": file, "keypoints": [list(at), [at[0] + 5, at[1]]], **more}
        for name, file, at, more in (
            ("second", "scene.png", middles[1], {}), ("third", "scene.png", middles[2], {}),
            ("beside", "scene.png", (5.0, 230.0), {}), ("wall", "wall.png", (40.0, 30.0), {}),
            ("known", "scene.png", middles[0], {"box": [1, 2, 30, 40]}),
        )
    ]  # fmt: skip
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "schema.yaml").write_text("name: two\nkeypoints: [a, b]\n")
    return folder


def test_boxes_are_laid_by_a_model_that_finds(finder, scene, blind, tmp_path, mmkp):
    data, out = labelled_scene(tmp_path / "data", scene), tmp_path / "out"
    code, printed, complaint = mmkp("data", "boxes", data, "--find-with", finder[2], "--out", out)
    assert code == 0
    assert "boxes laid: 2; rows with a picture that have none: 2" in printed
    assert "metadata.jsonl line 3" in complaint
    assert "none with half of the keypoints in it" in complaint
    assert "metadata.jsonl line 4: no face found" in complaint
    laid = {row["id"]: row["box"] for row in map(json.loads, (out / "metadata.jsonl").read_text().splitlines())}
    assert laid["beside"] is None
    assert laid["wall"] is None
    assert laid["known"] == [1, 2, 30, 40]
    shared = finding.overlap(np.array([laid["second"], laid["third"]]), scene[1])
    assert shared.argmax(1).tolist() == [1, 2]
    assert shared.max(1).min() > 0.5
    for words, told in (
        (("boxes", data, "--find-with", blind, "--out", tmp_path / "more"), "expected a model that finds faces"),
        (("boxes", "talker", "--find-with", finder[2], "--out", tmp_path / "more"), "lays its own boxes"),
        (("boxes", data, "--find-with", finder[2], "--out", out), "expected a new or empty folder"),
    ):
        code, _, complaint = mmkp("data", *words)
        assert code == 2
        assert told in complaint


def test_of_several_faces_the_one_with_most_keypoints():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 10, 10.0]])
    row = Row("", "", "", np.array([[25, 5], [np.nan, np.nan], [26, 6], [1, 1]], np.float32), np.array([2, 0, 1, 2]))
    np.testing.assert_array_equal(face_of(row, boxes), boxes[1])
    assert face_of(row.replace(keypoints_xy=row.keypoints_xy + 50), boxes) is None
    np.testing.assert_array_equal(face_of(row.replace(visible=np.zeros(4)), boxes), boxes[0])  # no label: the best
    assert face_of(row, boxes[:0]) is None
