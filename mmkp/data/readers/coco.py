"""COCO keypoints with captions, WholeBody, CrowdPose and AP-10K."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmkp.data.readers.coco_json import CocoFormat, CocoOptions, read_coco_json
from mmkp.data.rows import RowTable

COCO = CocoFormat("coco", "coco17", ("person_keypoints_*.json", "*coco.json", "*.json"))
# Source: the owners' data_format.md (COCO-WholeBody): fields and their sizes; of the face and the hands only v > 0
# means something (the point can be relied on), and some values are fractions.
WHOLEBODY = CocoFormat(
    "wholebody", "wholebody133", ("coco_wholebody_*.json", "*wholebody*.json", "*.json"),
    parts=(("keypoints", 17), ("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21)),
    labelled_only=("face_kpts", "lefthand_kpts", "righthand_kpts"),
)  # fmt: skip
CROWDPOSE = CocoFormat("crowdpose", "crowdpose14", ("mmpose_crowdpose_*.json", "*crowdpose*.json", "*.json"))
AP10K = CocoFormat("ap10k", "animal17", ("ap10k-*-split1.json", "*ap10k*.json", "*.json"))


def read_coco(path: str | Path, **options: Any) -> RowTable:
    """COCO person keypoints: a row a person, with the picture's caption as its text.

    `info` keeps area, iscrowd, num_keypoints, category and image_id. Options: see `CocoOptions`.

    Args:
        path: person_keypoints_train2017.json, or the folder of `annotations/`.
    """
    return read_coco_json(COCO, path, CocoOptions(**options))


def read_wholebody(path: str | Path, **options: Any) -> RowTable:
    """COCO-WholeBody: 17 body, 6 foot, 68 face and 21 points of each hand, in that order. Options: `CocoOptions`.

    Args:
        path: coco_wholebody_train_v1.0.json, or the folder of `annotations/`.
    """
    return read_coco_json(WHOLEBODY, path, CocoOptions(**options))


def read_crowdpose(path: str | Path, **options: Any) -> RowTable:
    """CrowdPose: 14 points of people in crowds; `info` keeps the picture's crowdIndex. Options: `CocoOptions`.

    Args:
        path: mmpose_crowdpose_trainval.json or crowdpose_train.json, or the folder of `annotations/`.
    """
    return read_coco_json(CROWDPOSE, path, CocoOptions(**options))


def read_ap10k(path: str | Path, **options: Any) -> RowTable:
    """AP-10K: 17 points of animals of 54 species; `info` keeps the species as `category`. Options: `CocoOptions`.

    Args:
        path: ap10k-train-split1.json, or the folder of `annotations/`, of which split 1 is taken.
    """
    return read_coco_json(AP10K, path, CocoOptions(**options))
