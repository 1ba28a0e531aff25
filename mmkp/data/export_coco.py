"""Any dataset as COCO's JSON: annotations/person_keypoints_SPLIT.json, captions_SPLIT.json and images/."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.data.export_items import (
    Exported,
    Item,
    Progress,
    attempt,
    encode_png,
    items_of,
    keypoint_triples,
    new_folder,
    report_progress,
    root_of,
    write_schema,
)
from mmkp.data.rows import Row, RowTable
from mmkp.data.sample import KeypointDataset
from mmkp.data.splits import SPLITS, canonical
from mmkp.schema import KeypointSchema

NAMES = {"train": "train", "validation": "val", "test": "test"}
CATEGORIES = {"coco17": "person", "wholebody133": "person", "mpii16": "person", "crowdpose14": "person"}


def export_coco(
    dataset: RowTable | KeypointDataset, out: str | Path, split: str | None = None, progress: Progress | None = None
) -> Exported:
    """Write a dataset as COCO does: an annotation a row, the text as the picture's caption.

    COCO measures boxes from the corner of the picture, and keypoints from the centre of its first pixel: half a pixel
    is added to x and y of boxes, keypoints stay. `area` is what the source says, else the box's. COCO has no sound:
    rows keep their pictures and texts, those without a picture are left out.

    Args:
        dataset: a table of rows (all of them are written), or a dataset.
        out: a new or empty folder outside the dataset's.
        split: the split that every row is put in. Rows without one stand in the train files.
        progress: called with rows done and rows in all.

    Raises:
        InputError: `out` is not such a folder.
    """
    made = Exported(Path(out))
    total, items = items_of(dataset, split)
    with new_folder(out, root_of(dataset)) as folder:
        (folder / "images").mkdir()
        (folder / "annotations").mkdir()
        documents: dict[str, _Document] = defaultdict(lambda: _Document(dataset.schema))
        pictures: dict[Any, dict[str, Any]] = {}
        for number, item in enumerate(items, 1):
            picture = _picture(item, number, folder, pictures, made)
            if picture is not None:
                named = canonical(item.row.split)
                documents[named if named in SPLITS[:3] else "train"].add(item.row, picture)
                made.rows += 1
            report_progress(progress, number, total)
        for name, document in documents.items():
            document.write(folder / "annotations", NAMES[name])
        write_schema(dataset.schema, folder)
    return made


def _picture(
    item: Item, number: int, folder: Path, pictures: dict[Any, dict[str, Any]], made: Exported
) -> dict[str, Any] | None:
    """COCO's image entry, its file written once; None where there is no picture."""
    source, frame = item.row.image, item.row.frame
    key = number if source is None else (source, frame)
    if key in pictures:
        return pictures[key]
    if not item.present[0]:
        made.problems.append(f"{item.row.where}: row left out: COCO has no rows without a picture")
        return None
    image = attempt(made, item, "row", Item.image)
    if image is None:
        return None
    name = f"{number:012d}{source.suffix.lower() if source is not None and frame is None else '.png'}"
    if source is not None and frame is None:
        shutil.copyfile(source, folder / "images" / name)
    else:
        (folder / "images" / name).write_bytes(encode_png(image))
    pictures[key] = {"id": number, "file_name": name, "height": image.shape[0], "width": image.shape[1]}
    return pictures[key]


@dataclass
class _Document:
    """One split's annotations and captions."""

    schema: KeypointSchema
    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    captions: list[dict[str, Any]] = field(default_factory=list)
    said: set[tuple[int, str]] = field(default_factory=set)

    def add(self, row: Row, picture: dict[str, Any]) -> None:
        """A row's annotation, and its text where the picture has no such caption yet."""
        self.images[picture["id"]] = picture
        self.annotations.append(_annotation(row, picture, len(self.annotations) + 1))
        if row.text is not None and (picture["id"], row.text) not in self.said:
            self.said.add((picture["id"], row.text))
            self.captions.append({"id": len(self.captions) + 1, "image_id": picture["id"], "caption": row.text})

    def write(self, folder: Path, name: str) -> None:
        """person_keypoints_NAME.json, and captions_NAME.json where something is said."""
        info = {"description": f"{self.schema.name} keypoints, written by mmkp"}
        head: dict[str, Any] = {"info": info, "licenses": [], "images": list(self.images.values())}
        keypoints = {**head, "annotations": self.annotations, "categories": [_category(self.schema)]}
        _dump(keypoints, folder / f"person_keypoints_{name}.json")
        if self.captions:
            _dump({**head, "annotations": self.captions}, folder / f"captions_{name}.json")


def _annotation(row: Row, picture: dict[str, Any], number: int) -> dict[str, Any]:
    whole = (-0.5, -0.5, picture["width"], picture["height"])
    x, y, width, height = (float(v) for v in (whole if row.box_xywh is None else row.box_xywh))
    triples = keypoint_triples(row) or [[0.0, 0.0, 0]] * len(row.visible)
    return {
        "id": number, "image_id": picture["id"], "category_id": 1, "name": row.id, "group": row.group,
        "keypoints": [value for triple in triples for value in triple],
        "num_keypoints": int(np.count_nonzero(row.visible)), "bbox": [x + 0.5, y + 0.5, width, height],
        "area": float(row.info.get("area") or width * height), "iscrowd": int(row.info.get("iscrowd") or 0),
        "segmentation": [],
    }  # fmt: skip


def _category(schema: KeypointSchema) -> dict[str, Any]:
    return {
        "id": 1, "name": CATEGORIES.get(schema.name, schema.name), "supercategory": "keypoints",
        "keypoints": list(schema.keypoints), "skeleton": [[a + 1, b + 1] for a, b in schema.edges],
    }  # fmt: skip


def _dump(document: dict[str, Any], path: Path) -> None:
    text = json.dumps(document, ensure_ascii=False)
    path.write_text(text, encoding="utf-8", errors="replace")
