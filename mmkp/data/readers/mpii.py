"""MPII Human Pose: the owners' .mat, and the JSON that the pose community made of it.

Frame. Both count pixels from 1 (said by the authors, microsoft/human-pose-estimation.pytorch issue 110), and hold the
same numbers, so 1 comes off every point.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.data.paths import PathFault
from mmkp.data.readers.labels import centre_box, extent_box, numbers, on_a_picture
from mmkp.data.readers.sources import Pictures, RowFault, annotation_files, read_json, split_of
from mmkp.data.rows import Fault, Row, RowTable
from mmkp.errors import InputError, MissingExtraError
from mmkp.schema import load_schema

ORIGIN = 1.0  # the index of the first pixel
# Around a person: `center` sits at the chest and the square of 200 px times `scale` would cut feet off. Source: the
# MPII loaders of simple baselines and HRNet, which everybody's figures rest on.
BOX_MARGIN, BOX_LOWER = 1.25, 15.0
JOINTS = 16  # ids 0 right ankle ... 9 head top ... 15 left wrist: the order of mpii16
PATTERNS = ("mpii_human_pose_*.mat", "mpii_*.json", "*mpii.json", "*.json")
HEAD_FILES = ("mpii_gt_val.mat", "gt_valid.mat")


def read_mpii(
    path: str | Path, *, images: str | Path | None = None, head_boxes: str | Path | None = None,
    unlabelled: str = "skip",
) -> RowTable:  # fmt: skip
    """MPII: a row a person. `info["head_box"]`, xywh px, is the head's box; PCKh divides by 0.6 of its diagonal.

    The box is a square of 250 px times `scale`, 15 px times `scale` below `center`. Joints that the .mat calls
    invisible are hidden; the JSON says only which are labelled, so its joints count as visible, and it has no head
    boxes. Besides `head_box`, `info` holds the source's own numbers.

    Args:
        path: mpii_human_pose_v1_u12_1.mat, mpii_train.json (train.json, valid.json), or the folder of them.
        images: the folder of the pictures; by default it is looked for.
        head_boxes: mpii_gt_val.mat (gt_valid.mat), head boxes for mpii_val.json in its order; looked for beside it.
        unlabelled: `skip` leaves out people without a labelled joint (the default; all of the test part), or `keep`.

    Raises:
        InputError: nothing that can be read, an option's value that is none.
    """
    if unlabelled not in ("skip", "keep"):
        raise InputError("option unlabelled", expected="skip or keep", got=repr(unlabelled))
    rows: list[Row] = []
    faults: list[Fault] = []
    files, root = annotation_files(path, "mpii", PATTERNS), Path(path)
    for file in files:
        pictures = Pictures(file, "mpii", images)
        people = _from_mat(file) if file.suffix.lower() == ".mat" else _from_json(file, head_boxes)
        prefix = f"{file.stem}_" if len(files) > 1 else ""
        made, without = _rows(people, pictures, faults, prefix, keep=unlabelled == "keep")
        rows += made
        if without:
            message = f"{without} people left out; unlabelled=keep takes them"
            faults.append(Fault("no keypoints", file.name, message))
        root = pictures.root
    return RowTable("mpii", load_schema("mpii16"), rows, faults, root)


def _rows(
    people: Iterator[dict[str, Any]], pictures: Pictures, faults: list[Fault], prefix: str, keep: bool
) -> tuple[list[Row], int]:
    """The usable people, and how many were left out for want of a labelled joint; faults are added to `faults`."""
    rows: list[Row] = []
    found: dict[str, tuple[Path, str] | None] = {}
    per_picture: Counter[str] = Counter()
    without = 0
    for number, person in enumerate(people, 1):
        where, name = person["where"], str(person.get("image"))
        key = f"{prefix}{Path(name).stem}_{per_picture[name]}"
        per_picture[name] += 1
        try:
            row = _row(person, key)
        except RowFault as fault:
            faults.append(Fault(fault.kind, where, str(fault), number, key))
            continue
        if not row.visible.any() and not keep:
            without += 1
            continue
        if name not in found:
            try:
                found[name] = pictures.find(person.get("image"))
            except (PathFault, RowFault) as fault:
                faults.append(Fault(fault.kind, where, str(fault), number, key))
                found[name] = None
        picture = found[name]
        if picture is not None:
            rows.append(row.replace(image=picture[0], group=person.get("group") or picture[1]))
    return rows, without


def _row(person: dict[str, Any], key: str) -> Row:
    """A person's row without the picture.

    Raises:
        RowFault: joints or flags that are not 16 points.
    """
    points = numbers(person["joints"], "joints") - ORIGIN
    visible = numbers(person["visible"], "joints_vis")
    if len(points) != 2 * JOINTS or len(visible) != JOINTS:
        raise RowFault("keypoint count", f"expected {JOINTS} joints and flags, got {len(points) / 2:g}, {len(visible)}")
    points, visible = points.reshape(JOINTS, 2), np.clip(np.nan_to_num(visible), 0, 2).astype(np.uint8)
    visible[~on_a_picture(points)] = 0
    points[visible == 0] = np.nan
    box = centre_box(person.get("center"), person.get("scale"), ORIGIN, BOX_MARGIN, BOX_LOWER)
    if box is None:
        box = extent_box(points[visible > 0])
    info = {k: v for k, v in person.items() if k in ("center", "scale", "head_box", "activity") and v is not None}
    return Row(key, "", person["where"], points.astype(np.float32), visible, box, split=person["split"], info=info)


def _from_json(file: Path, head_boxes: str | Path | None) -> Iterator[dict[str, Any]]:
    """People of the community's JSON: a list of image, center, scale, joints [[x, y] ...], joints_vis."""
    listed = read_json(file, "mpii")
    if not isinstance(listed, list):
        raise InputError(
            f"data mpii:{file}", expected="a list of people with image, joints and joints_vis",
            got=f"a {type(listed).__name__}", remedy="coco:FILE reads COCO's form, with schema=mpii16 where it fits.",
        )  # fmt: skip
    heads = _head_boxes(file, head_boxes, len(listed))
    for number, entry in enumerate(listed):
        entry = entry if isinstance(entry, dict) else {}
        flags = entry.get("joints_vis") or [0] * JOINTS
        labelled = [2 if flag == 1 else flag for flag in flags] if isinstance(flags, list) else flags
        yield {
            "where": f"{file.name} person {number + 1}", "image": entry.get("image"), "split": split_of(file),
            "joints": entry.get("joints") or [[0, 0]] * JOINTS, "visible": labelled, "center": entry.get("center"),
            "scale": entry.get("scale"), "head_box": None if heads is None else heads[number],
        }  # fmt: skip


def _head_boxes(file: Path, told: str | Path | None, count: int) -> list[list[float]] | None:
    """xywh per person from `headboxes_src` (2, 2, N), the corners of each head; None where there is no such file."""
    beside = [file.parent / name for name in HEAD_FILES] if split_of(file) in ("val", "valid", "validation") else []
    path = Path(told).expanduser() if told else next((p for p in beside if p.is_file()), None)
    if path is None:
        return None
    corners = np.asarray(_load_mat(path).get("headboxes_src", []))
    corners = corners[..., None] if corners.ndim == 2 else corners  # of one person
    if corners.shape != (2, 2, count) or corners.dtype.kind not in "iuf":
        raise InputError(
            f"data mpii head boxes {path}", expected=f"headboxes_src of 2 x 2 x {count}", got=str(corners.shape)
        )
    return [_xywh(corner) for corner in corners.astype(float).transpose(2, 0, 1).reshape(count, 4).tolist()]


def _xywh(corners: list[float]) -> list[float]:
    x1, y1, x2, y2 = corners
    return [x1 - ORIGIN, y1 - ORIGIN, x2 - x1, y2 - y1]


def _load_mat(file: Path) -> dict[str, Any]:
    """The variables of a MATLAB file, structs as objects.

    Raises:
        MissingExtraError: no scipy.
        InputError: not a MATLAB file that scipy reads.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtraError("MPII's .mat", "scipy", "data") from error
    try:
        return loadmat(file, struct_as_record=False, squeeze_me=True)
    except Exception as error:  # scipy lets out whatever a broken file makes of its parser
        raise InputError(f"data mpii:{file}", expected="a MATLAB file up to version 7.2", got=str(error)) from error


def _from_mat(file: Path) -> Iterator[dict[str, Any]]:
    """People of the owners' RELEASE.

    Source: "Annotation description" on the owners' page: .annolist(i).image.name, .annorect(r) with x1, y1, x2, y2 of
    the head, scale, objpos.x / y, annopoints.point(p) with x, y, id (0-15) and is_visible; .img_train(i) 1 for train;
    .annolist(i).vididx the video that the picture is of; .act(i).act_name.
    """
    release = _load_mat(file).get("RELEASE")
    images = np.atleast_1d(getattr(release, "annolist", np.array([])))
    train = np.atleast_1d(getattr(release, "img_train", np.zeros(len(images))))
    acts = np.atleast_1d(getattr(release, "act", np.full(len(images), None)))
    if not len(images) or len(train) != len(images):
        raise InputError(f"data mpii:{file}", expected="RELEASE.annolist and RELEASE.img_train", got="none of a kind")
    for i, image in enumerate(images):
        video = _number(getattr(image, "vididx", None))
        act = getattr(acts[i], "act_name", None) if len(acts) == len(images) else None
        act = act if isinstance(act, str) and act else None  # an empty array where there is none
        split = "train" if train[i] == 1 else "test"
        for r, person in enumerate(np.atleast_1d(getattr(image, "annorect", np.array([])))):
            objpos = getattr(person, "objpos", None)
            sides = [_number(getattr(person, side, None)) for side in ("x1", "y1", "x2", "y2")]
            corners = [side for side in sides if side is not None]
            yield {
                "where": f"{file.name} annolist {i + 1} annorect {r + 1}", "split": split,
                "image": getattr(getattr(image, "image", None), "name", None), "activity": act,
                "group": None if video is None else f"video {video:g}", **_points(person),
                "center": [_number(getattr(objpos, axis, None)) for axis in "xy"],
                "scale": _number(getattr(person, "scale", None)), "head_box": _xywh(corners) if corners[3:] else None,
            }  # fmt: skip


def _number(value: Any) -> float | None:
    """A number as MATLAB wrote it, be it text; None for an empty array or nothing."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _points(person: Any) -> dict[str, list]:
    """Joints by their ids; is_visible may be 0, 1, '0', '1' or, for the head's two, empty, which means labelled."""
    joints, visible = [[0.0, 0.0] for _ in range(JOINTS)], [0] * JOINTS
    for point in np.atleast_1d(getattr(getattr(person, "annopoints", None), "point", np.array([]))):
        which, x, y = (_number(getattr(point, name, None)) for name in ("id", "x", "y"))
        if which is not None and x is not None and y is not None and which in range(JOINTS):
            joints[int(which)] = [x, y]
            visible[int(which)] = 1 if _number(getattr(point, "is_visible", None)) == 0 else 2
    return {"joints": joints, "visible": visible}
