"""All people of a picture as one sample: the rows of any format, joined by picture. `people:coco:PATH`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmkp import geometry
from mmkp.data.sample import Sample
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema


class PeopleDataset:
    """Another dataset's rows, those of one picture in one sample, the largest person first; no person boxes.

    Args:
        spec: of the other dataset, `coco:PATH`; one made of rows that name their pictures.
        split: train, validation, test or all.
        options: of the other dataset.

    Raises:
        InputError: a dataset that is not made of rows, or rows without pictures.
    """

    def __init__(self, spec: str, split: str = "train", **options: Any) -> None:
        from mmkp.data import open_table
        from mmkp.data.rows import RowDataset

        self._rows = RowDataset(open_table(spec, **options), split)
        self.name = f"people:{self._rows.name}"
        self.schema: KeypointSchema = self._rows.schema
        pictures: dict[tuple[Any, Any], list[int]] = {}
        for index, row in enumerate(self._rows.rows):
            if row.image is not None:
                pictures.setdefault((row.image, row.frame), []).append(index)
        if not pictures:
            raise InputError(f"people {spec}", expected="rows with pictures", got=f"{len(self._rows)} without")
        self._members = [sorted(m, key=self._area, reverse=True) for m in pictures.values()]

    @property
    def problems(self) -> Sequence[str]:
        """What was skipped or masked while reading."""
        return self._rows.problems

    @property
    def fingerprint(self) -> str:
        """Changes whenever a row or one of its files would."""
        return hashlib.sha1(f"people {self._rows.fingerprint}".encode()).hexdigest()[:16]

    def _area(self, index: int) -> float:
        """px^2: what the source says, else the box's, else that of the labelled points' extent."""
        row = self._rows.rows[index]
        said = row.info.get("area")
        if isinstance(said, int | float) and np.isfinite(said) and said > 0:
            return float(said)
        if row.box_xywh is not None:
            return float(row.box_xywh[2] * row.box_xywh[3])
        known = row.keypoints_xy[row.visible > 0]
        return float(np.ptp(known, axis=0).prod()) if len(known) else 0.0

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> Sample:
        members = self._members[index]
        first = self._rows[members[0]]
        rows = [self._rows.rows[i] for i in members]
        flags = np.stack([r.visible for r in rows])
        size = (1, 1) if first.image is None else first.image.shape[:2]
        return first.replace(
            box_xywh=geometry.whole_image_box((size[0], size[1])),
            people_xy=np.stack([r.keypoints_xy for r in rows]).astype(np.float32),
            people_visible=flags if first.image is not None else np.zeros_like(flags),
            info={**first.info, "people": len(rows), "people_area": [self._area(i) for i in members]},
        )
