"""Faces in COCO's JSON, as the pose community converts them: 300W, WFLW, AFLW, COFW.

Frames. iBUG's .pts files count pixels from 1 ("the matlab convention"); of WFLW, AFLW and COFW the owners say nothing.
Whether the conversions to JSON took the 1 off is written nowhere, and those who train on them read the numbers as they
are, so they are kept unchanged: at most one pixel, the same for all points. The boxes of 300W, WFLW and AFLW are 1.2
times the extent of the keypoints (checked on the files) and so in the keypoints' own frame.
A flag of 1 means labelled, hidden or not; COFW alone tells 1 (occluded) from 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmkp.data.readers.coco_json import CocoFormat, CocoOptions, read_coco_json
from mmkp.data.rows import RowTable


def _points_only(name: str, schema: str) -> CocoFormat:
    patterns = (f"face_landmarks_{name}_*.json", f"*{name}*.json", "*.json")
    return CocoFormat(name, schema, patterns, labelled_only=("keypoints",), box="points")


W300 = _points_only("300w", "face68")
WFLW = _points_only("wflw", "wflw98")
AFLW = _points_only("aflw", "aflw19")
COFW = CocoFormat("cofw", "cofw29", ("cofw_*.json", "*cofw*.json", "*.json"))


def read_300w(path: str | Path, **options: Any) -> RowTable:
    """300W: 68 points, picture names like helen/trainset/1.jpg below images/. Options: `CocoOptions`.

    Args:
        path: face_landmarks_300w_train.json, or the folder of `annotations/`: train, valid and test.
    """
    return read_coco_json(W300, path, CocoOptions(**options))


def read_wflw(path: str | Path, **options: Any) -> RowTable:
    """WFLW: 98 points, several faces in some pictures. Options: `CocoOptions`.

    Args:
        path: face_landmarks_wflw_train.json, or the folder of `annotations/`: train and test.
    """
    return read_coco_json(WFLW, path, CocoOptions(**options))


def read_aflw(path: str | Path, **options: Any) -> RowTable:
    """AFLW: the 19 points that were filled in later (AFLW-19); `box_size` stays in `info`. Options: `CocoOptions`.

    Args:
        path: face_landmarks_aflw_train.json, or the folder of `annotations/`: train and test.
    """
    return read_coco_json(AFLW, path, CocoOptions(**options))


def read_cofw(path: str | Path, **options: Any) -> RowTable:
    """COFW: 29 points, each occluded (1) or not (2). Options: `CocoOptions`.

    Args:
        path: cofw_train.json, or the folder of `annotations/`: train and test.
    """
    return read_coco_json(COFW, path, CocoOptions(**options))
