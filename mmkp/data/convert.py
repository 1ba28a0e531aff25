"""From one keypoint schema to another: by shared names, and by a small table of points that go by other names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from mmkp.data.rows import Row, RowTable
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema


def _series(name: str, *indices: int) -> tuple[str, ...]:
    return tuple(f"{name}_{i}" for i in indices)


# Target point -> the source's points whose mean it is; the first entry whose points the source has is taken. Exact
# where one point stands for one; the centre of an eye from its lids is where annotators put it, not where the iris is.
ALIASES: dict[str, tuple[tuple[str, ...], ...]] = {
    **{
        f"{side}_eye": ((f"{side}_pupil",), _series(f"{side}_eye", *range(6)), _series(f"{side}_eyelid", *range(8)))
        for side in ("left", "right")
    },
    **{f"{side}_pupil": ((f"{side}_eye",), _series(f"{side}_eye", *range(6))) for side in ("left", "right")},
    "nose_tip": (("nose_bridge_3",), ("nose",)),
    "nose": (("nose_bridge_3",), ("nose_tip",)),
    "nose_bridge_3": (("nose_tip",),),
    "right_mouth_corner": (("outer_lip_0",),),
    "left_mouth_corner": (("outer_lip_6",),),
    "outer_lip_0": (("right_mouth_corner",),),
    "outer_lip_6": (("left_mouth_corner",),),
    "right_nostril": (("nostril_0",),),
    "left_nostril": (("nostril_4",),),
    "nose_bottom": (("nostril_2",),),
    "right_eye_outer": (("right_eye_0",), ("right_eyelid_0",)),
    "right_eye_inner": (("right_eye_3",), ("right_eyelid_4",)),
    "left_eye_inner": (("left_eye_0",), ("left_eyelid_0",)),
    "left_eye_outer": (("left_eye_3",), ("left_eyelid_4",)),
    "chin": (("jaw_8",), ("contour_16",)),
    # WFLW's 98 hold iBUG's 68: every second point of the contour, the brows' upper edges, lids without their middles.
    **{f"jaw_{i}": ((f"contour_{2 * i}",),) for i in range(17)},
    **{f"right_brow_{i}": ((f"right_brow_upper_{i}",),) for i in range(5)},
    **{f"left_brow_{i}": ((f"left_brow_upper_{4 - i}",),) for i in range(5)},
    **{f"{s}_eye_{i}": ((f"{s}_eyelid_{j}",),) for s in ("right", "left") for i, j in enumerate((0, 1, 3, 4, 5, 7))},
}


def sources_of(source: KeypointSchema, target: KeypointSchema) -> list[tuple[int, ...]]:
    """For every keypoint of the target the keypoints of the source whose mean it is; () where the source has none."""
    index = {name: i for i, name in enumerate(source.keypoints)}
    made: list[tuple[int, ...]] = []
    for name in target.keypoints:
        choices = ((name,), *ALIASES.get(name, ()))
        found = next((c for c in choices if all(point in index for point in c)), ())
        made.append(tuple(index[point] for point in found))
    return made


def convert_table(table: RowTable, schema: KeypointSchema) -> RowTable:
    """The same rows under another schema; keypoints that the source lacks are unlabelled.

    A point that is the mean of several is labelled only where all of them are, and visible only where all are.

    Args:
        table: in its own schema.
        schema: of the result.

    Raises:
        InputError: the schemas share no keypoint.
    """
    if table.schema == schema:
        return table
    sources = sources_of(table.schema, schema)
    if not any(sources):
        raise InputError(
            f"conversion from {table.schema.name} to {schema.name}",
            expected=f"keypoints of the same name in both (as {', '.join(schema.keypoints[:3])} ...)",
            got=f"none shared with {', '.join(table.schema.keypoints[:3])} ...",
            remedy="Rename the keypoints in the dataset's schema.yaml.",
        )  # fmt: skip
    rows = [_convert(row, sources) for row in table.rows]
    return RowTable(name=table.name, schema=schema, rows=rows, faults=table.faults, root=table.root)


def _convert(row: Row, sources: Sequence[tuple[int, ...]]) -> Row:
    points_xy, visible = gather(row.keypoints_xy, row.visible, sources)
    return row.replace(keypoints_xy=points_xy, visible=visible)


def gather(
    keypoints_xy: Float32[np.ndarray, "K 2"], visible: UInt8[np.ndarray, " K"], sources: Sequence[tuple[int, ...]]
) -> tuple[Float32[np.ndarray, "T 2"], UInt8[np.ndarray, " T"]]:
    """Points and flags of a target schema.

    Args:
        keypoints_xy: (K, 2) px, NaN where unlabelled.
        visible: (K,) COCO's flag.
        sources: from `sources_of`, one entry for each of the target's T points.

    Returns:
        (T, 2) px, NaN where unlabelled, and (T,).
    """
    weights = np.zeros((len(sources), len(visible)), np.float64)
    for target, members in enumerate(sources):
        weights[target, list(members)] = 1 / max(len(members), 1)
    used = weights > 0
    flags = np.where(used.any(1), np.where(used, visible[None], 2).min(1), 0).astype(np.uint8)
    points_xy = weights @ np.nan_to_num(keypoints_xy.astype(np.float64))
    points_xy[flags == 0] = np.nan
    return points_xy.astype(np.float32), flags
