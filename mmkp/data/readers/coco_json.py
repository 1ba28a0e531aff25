"""COCO's JSON and its many relatives: one reader, told by a `CocoFormat` in what a relative differs.

Frames. COCO's keypoints are indices of pixels counted from 0, which is this package's frame as it is; its boxes are
measured from the corner of the picture, so that half a pixel comes off x and y. Sources: "0-indexed location x, y" and
"measured from the top left image corner" in cocodataset.org's data format; that keypoints are indices and the rest is
not: detectron2's COCO loader, which adds 0.5 to keypoints only. Both hold for every format whose `box` is `corner`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from mmkp.data.paths import PathFault
from mmkp.data.readers.captions import Caption, choose_caption, read_captions, read_spoken, sibling_captions
from mmkp.data.readers.coco_format import CocoFormat, CocoOptions, categories, order_of, schema_of
from mmkp.data.readers.labels import centre_box, extent_box, numbers, on_a_picture, triples, usable_box
from mmkp.data.readers.sources import Pictures, RowFault, annotation_files, read_json, split_of
from mmkp.data.rows import Fault, Row, RowTable
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema

# What stays out of `info`: it is in the row already, or large.
_NOT_INFO = {"keypoints", "segmentation", "bbox", "id", "image_id", "foot_kpts", "face_kpts", "lefthand_kpts",
             "righthand_kpts"}  # fmt: skip
_NOT_IMAGE_INFO = {"id", "file_name", "license", "coco_url", "flickr_url", "date_captured", "height", "width"}
_LOOSEST = 2.0  # how many times its own extent a box made from keypoints may be


class _Place(NamedTuple):
    """Where an annotation stands: for messages, its number from 1, and its row's id."""

    where: str
    number: int
    id: str


@dataclass
class _Reading:
    """What is known while one file is read."""

    form: CocoFormat
    options: CocoOptions
    schema: KeypointSchema
    file: Path
    prefix: str
    split: str | None
    pictures: Pictures
    order: np.ndarray
    faults: list[Fault] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)

    def note(self, kind: str, place: _Place, message: str) -> None:
        self.faults.append(Fault(kind, place.where, message, place.number, place.id))


def read_coco_json(form: CocoFormat, path: str | Path, options: CocoOptions) -> RowTable:
    """The rows of a file, or of a folder's splits, in a format of COCO's family.

    Raises:
        InputError: nothing that can be read, or keypoints that are not the schema's.
    """
    files = annotation_files(path, form.name, form.patterns)
    rows: list[Row] = []
    faults: list[Fault] = []
    schema: KeypointSchema | None = None
    root = Path(path)
    for file in files:
        document = _document(file, form.name)
        schema = schema or schema_of(form, options, document, file)
        order, renamed = order_of(form, schema, document, file)
        split = split_of(file)
        pictures = Pictures(file, form.name, options.images, split)
        prefix = f"{file.stem}_" if len(files) > 1 else ""
        reading = _Reading(form, options, schema, file, prefix, split, pictures, order, renamed)
        rows += _rows(reading, document)
        faults += [*reading.faults, *_skips(reading, len(document["annotations"]))]
        root = pictures.root
    assert schema is not None
    return RowTable(form.name, schema, rows, faults, root)


def _document(file: Path, name: str) -> dict[str, Any]:
    document = read_json(file, name)
    lists = [k for k in ("images", "annotations") if isinstance(document, dict) and isinstance(document.get(k), list)]
    if len(lists) < 2:
        raise InputError(
            f"data {name}:{file}", expected="COCO's form: an object with the lists `images` and `annotations`",
            got=f"only {', '.join(lists) or 'neither'}",
        )  # fmt: skip
    return document


def _rows(reading: _Reading, document: dict[str, Any]) -> Iterator[Row]:
    images = _images(reading, document["images"])
    captions, faults = _captions(reading)
    reading.faults += faults
    species = {str(category.get("id")): category.get("name") for category in categories(document)}
    found: dict[Any, tuple[Path, str] | None] = {}
    for number, annotation in enumerate(document["annotations"], 1):
        key = str(annotation.get("id", number)) if isinstance(annotation, dict) else str(number)
        place = _Place(f"{reading.file.name} annotation {key}", number, reading.prefix + key)
        try:
            row = _row(reading, annotation, place, images)
        except RowFault as fault:
            reading.note(fault.kind, place, str(fault))
            continue
        if row is None:
            continue
        image_id = annotation["image_id"]
        if image_id not in found:
            found[image_id] = _find_picture(reading, images[image_id])
        picture = found[image_id]
        if picture is not None:
            said = choose_caption(captions.get(image_id, []), reading.options.caption, row.id)
            extra = {k: v for k, v in images[image_id].items() if k not in _NOT_IMAGE_INFO}
            extra |= {"image_id": image_id, "category": species.get(str(annotation.get("category_id")))}
            yield _joined(row, picture, said, extra)


def _joined(row: Row, picture: tuple[Path, str], said: Caption | None, extra: dict[str, Any]) -> Row:
    """A row with its picture, whose name is its group, and with what is said about it."""
    if said and said.speaker:
        extra["speaker"] = said.speaker
    row = row.replace(image=picture[0], group=picture[1], info={**row.info, **extra})
    return row.replace(text=said.text, audio=said.audio) if said else row


def _images(reading: _Reading, listed: list[Any]) -> dict[Any, dict[str, Any]]:
    images: dict[Any, dict[str, Any]] = {}
    for number, image in enumerate(listed, 1):
        where = f"{reading.file.name} image {number}"
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            reading.faults.append(Fault("bad row", where, "expected an object with an id", number))
        elif image["id"] in images:
            reading.faults.append(Fault("duplicate id", where, f"the image id {image['id']} again", number))
        else:
            images[image["id"]] = image
    return images


def _find_picture(reading: _Reading, image: dict[str, Any]) -> tuple[Path, str] | None:
    try:
        return reading.pictures.find(image.get("file_name"))
    except (PathFault, RowFault) as fault:
        reading.faults.append(Fault(fault.kind, f"{reading.file.name} image {image['id']}", str(fault)))
        return None


def _captions(reading: _Reading) -> tuple[dict[Any, list[Caption]], list[Fault]]:
    options, name = reading.options, reading.form.name
    if options.spoken:
        return read_spoken(Path(options.spoken).expanduser(), name)
    file = sibling_captions(reading.file) if options.captions == "auto" else Path(options.captions).expanduser()
    return ({}, []) if file is None or options.captions == "none" else read_captions(file, name)


def _row(reading: _Reading, annotation: Any, place: _Place, images: dict[Any, dict[str, Any]]) -> Row | None:
    """The annotation's row without its picture; None where an option leaves it out.

    Raises:
        RowFault: it cannot be used.
    """
    if not isinstance(annotation, dict):
        raise RowFault("bad row", f"expected an object, got {str(annotation)[:40]!r}")
    if place.id in reading.seen:
        raise RowFault("duplicate id", "an annotation before has the same id; this one is left out")
    reading.seen.add(place.id)
    image_id = annotation.get("image_id")
    if not isinstance(image_id, int | str) or image_id not in images:
        raise RowFault("bad row", f"image_id {str(image_id)[:40]} is none of `images`")
    if annotation.get("iscrowd", annotation.get("is_crowd")) and reading.options.crowd == "skip":
        reading.skipped["crowd region"] += 1
        return None
    points, visible = _keypoints(reading, annotation)
    lost = (visible > 0) & ~on_a_picture(points)
    visible[lost] = 0
    points[visible == 0] = np.nan
    if lost.any():
        reading.note("not a number", place, f"{lost.sum()} labelled keypoints lie nowhere and count as unlabelled")
    if not visible.any() and reading.options.unlabelled == "skip":
        reading.skipped["no keypoints"] += 1
        return None
    box, problem = _box(reading.form, annotation, points[visible > 0])
    if problem:
        reading.note("bad box", place, problem)
    info = {k: v for k, v in annotation.items() if k not in _NOT_INFO}
    return Row(place.id, "", place.where, points.astype(np.float32), visible, box, split=reading.split, info=info)


def _keypoints(
    reading: _Reading, annotation: dict[str, Any]
) -> tuple[Float64[np.ndarray, "K 2"], UInt8[np.ndarray, K]]:
    """Points, px, and flags in the schema's order.

    Raises:
        RowFault: not numbers, or another number of them.
    """
    count, parts = reading.schema.num_keypoints, reading.form.parts
    whole = numbers(annotation.get("keypoints") or [0] * (3 * count), "keypoints")
    sizes = [size or count for _, size in parts]
    if len(whole) == 3 * count:  # also WholeBody, where it was written as one list
        flats = [whole] if len(parts) == 1 else np.split(whole, 3 * np.cumsum(sizes[:-1]))
    elif len(parts) > 1:
        flats = [numbers(annotation.get(name) or [0] * (3 * size), name) for name, size in parts]
    else:
        flats = [whole]
    for (name, _), size, flat in zip(parts, sizes, flats, strict=True):
        if len(flat) != 3 * size:
            raise RowFault(
                "keypoint count", f"expected {3 * size} numbers for {size} points in {name}, got {len(flat)}"
            )
    told = [triples(flat, name in reading.form.labelled_only) for (name, _), flat in zip(parts, flats, strict=True)]
    points, visible = told[0] if len(told) == 1 else map(np.concatenate, zip(*told, strict=True))
    return points[reading.order], visible[reading.order]


def _box(form: CocoFormat, annotation: dict[str, Any], labelled: np.ndarray) -> tuple[np.ndarray | None, str]:
    """The box in our frame, and what is wrong with the one given.

    Without a usable one: the square of `center` and `scale`, else the extent of the labelled keypoints with a margin,
    else None, the whole picture.
    """
    if "bbox" not in annotation:
        square = centre_box(annotation.get("center"), annotation.get("scale"))
        if square is None or not len(labelled):
            return extent_box(labelled) if square is None else square, ""
        if _outside(square, labelled) > len(labelled) / 2:  # MPII-TRB's scale is another one
            return extent_box(labelled), "center and scale leave most keypoints out; their extent is used"
        return square, ""
    box = usable_box(annotation["bbox"])
    if box is None:
        return extent_box(labelled), f"expected x, y, width, height above 0, got {str(annotation['bbox'])[:60]}"
    if form.box == "corner":
        return box - [0.5, 0.5, 0, 0], ""
    extent, outside = extent_box(labelled), _outside(box, labelled)
    if outside:
        return extent, f"it leaves {outside} of {len(labelled)} keypoints out; their extent is used"
    if extent is not None and (box[2:] > _LOOSEST * extent[2:]).all():
        return extent, "it is more than twice the keypoints' extent, which is used"
    return box, ""


def _outside(box: np.ndarray, points: np.ndarray) -> int:
    return int(((points < box[:2] - 1e-6) | (points > box[:2] + box[2:] + 1e-6)).any(-1).sum())


def _skips(reading: _Reading, total: int) -> list[Fault]:
    """One line for each reason by which an option left annotations out: they are many in COCO, and no mistake."""
    option = {"crowd region": "crowd", "no keypoints": "unlabelled"}
    return [
        Fault(kind, reading.file.name, f"{n} of {total} annotations left out; {option[kind]}=keep takes them")
        for kind, n in reading.skipped.items()
    ]
