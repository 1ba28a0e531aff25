"""CVAT for images 1.1: points and skeletons of an XML export.

Source: docs.cvat.ai "XML annotation format" (image: name, width, height; box: label, xtl, ytl, xbr, ybr, occluded;
points: label, points "x0,y0;x1,y1", occluded; attribute: name) and cvat's own writer, dataset_manager/formats/cvat.py
(skeleton: label, with points of their own label, outside and occluded; group_id; subset). The names and edges of a
skeleton: meta's labels of type `points` with `parent`, and the `svg` of the skeleton's label.

Frame. Coordinates run from the picture's corner (the owners' own example has a line that ends at y = height): half a
pixel comes off.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from mmkp.data.paths import PathFault
from mmkp.data.readers.labels import numbers, usable_box
from mmkp.data.readers.lines import UNLABELLED, Collector, Place, cell_numbers, check_option
from mmkp.data.readers.naming import chosen_schema, natural
from mmkp.data.readers.objects import LabelledObject, NamedPoint, add_rows, share_out
from mmkp.data.readers.sources import Pictures, RowFault, annotation_files
from mmkp.data.rows import Fault, RowTable
from mmkp.data.splits import SPLITS, canonical
from mmkp.errors import InputError

Element = ElementTree.Element
_ENDS = ("data-node-from", "data-node-to")  # of an edge in a skeleton's svg


def read_cvat(
    path: str | Path, *, schema: str | None = None, images: str | Path | None = None, label: str | None = None,
    text: str = "text", unlabelled: str = "skip",
) -> RowTable:  # fmt: skip
    """A row for each skeleton, or each shape of several points, or each picture's (each box's) single points.

    A skeleton's point that is `outside` is unlabelled, an `occluded` one hidden. The box is the `box` of the same
    group, else the one that single points lie in, else the extent of the points, or the whole picture where the object
    is alone. Points of a shape of several points are called LABEL_0, LABEL_1 and so on.

    Args:
        path: annotations.xml, or its folder.
        schema: one with the points' names; by default it is made of them: in the order of the skeleton's label.
        images: the folder of the pictures; by default it is looked for.
        label: of the skeletons (or shapes) to take; by default the most frequent one.
        text: the attribute of an object that is its text.
        unlabelled: `skip` leaves out rows without a labelled keypoint (the default), or `keep`.

    Raises:
        InputError: nothing that can be read, a document type in it, no points, an option's value that is none.
    """
    check_option("unlabelled", unlabelled, UNLABELLED)
    file = annotation_files(path, "cvat", ("annotations.xml", "*.xml"))[0]
    root, collector = _parse(file), Collector(unlabelled == "keep")
    entries = root.findall("image")
    if root.tag != "annotations" or not entries:
        raise InputError(
            f"data cvat:{file}", expected="CVAT for images 1.1: <annotations> with <image>",
            got="tracks of a video" if root.find("track") is not None else f"<{root.tag[:40]}> without an image",
            remedy="Export as `CVAT for images 1.1`.",
        )  # fmt: skip
    label = label or _commonest(root)
    pictures = Pictures(file, "cvat", images)
    found = list(_images(collector, file, entries, pictures, label, text))
    used = {point.name for _, objects, _ in found for item in objects for point in item.points}
    told, edges = _skeleton(root, label)
    names = [*told, *sorted(used - {*told}, key=natural)]
    meaning, order = chosen_schema(schema, label or "cvat", names, edges, f"data cvat:{file}")
    for place, objects, picture in found:
        add_rows(collector, place, objects, meaning, order, picture)
    _tell_others(collector, entries, label, file)
    return RowTable("cvat", meaning, collector.rows, collector.faults, pictures.root)


def _parse(file: Path) -> Element:
    """The document's root. A document type, and with it every entity, is refused before anything is expanded.

    Raises:
        InputError: no XML, or XML with a document type.
    """
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: Any) -> None:
        raise InputError(
            f"data cvat:{file}", expected="CVAT's XML, which declares no document type", got="a <!DOCTYPE>",
            remedy="Entities could make a small file fill the memory; take the declaration out.",
        )  # fmt: skip

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(file.read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, OSError, ValueError, LookupError, AssertionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"data cvat:{file}", expected="a readable XML file", got=str(error)) from error


def _commonest(root: Element) -> str | None:
    """The most frequent label of skeletons, else of shapes of several points; None where points stand alone."""
    skeletons = Counter(e.get("label", "") for e in root.iterfind("image/skeleton"))
    shapes = Counter(e.get("label", "") for e in root.iterfind("image/points") if ";" in e.get("points", ""))
    return next((counted.most_common(1)[0][0] for counted in (skeletons, shapes) if counted), None)


def _skeleton(root: Element, label: str | None) -> tuple[list[str], list[tuple[str, str]]]:
    """The names of a skeleton's points in the order of its label, and the edges between them."""
    labels = [e for e in root.iterfind("meta//label") if e.find("name") is not None]
    names = [e.findtext("name", "").strip() for e in labels if label and e.findtext("parent", "").strip() == label]
    drawn = next((e.findtext("svg", "") for e in labels if e.findtext("name", "").strip() == label), "")
    tags = [dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) for tag in re.findall(r"<(?:line|circle)\b[^>]*>", drawn)]
    known = {tag.get("data-node-id"): tag.get("data-label-name") for tag in tags}
    numbered = {str(i): name for i, name in enumerate(names, 1)}
    ends = [tuple(known.get(t[end]) or numbered.get(t[end], "") for end in _ENDS) for t in tags if _ENDS[1] in t]
    return list(dict.fromkeys(names)), [(a, b) for a, b in ends]


def _images(
    collector: Collector, file: Path, entries: list[Element], pictures: Pictures, label: str | None, text: str
) -> Iterator[tuple[Place, list[LabelledObject], dict[str, Any]]]:
    """The objects of each usable picture, and the picture's part of their rows."""
    for number, entry in enumerate(entries, 1):
        key = str(entry.get("id") or number)[:60]
        if entry.get("task_id"):
            key = f"{entry.get('task_id')}_{key}"
        place = Place(f"{file.name} image {key}", number, key)
        try:
            objects = list(_objects(collector, place, entry, label, text))
            if not objects:
                continue
            image, group = pictures.find(entry.get("name"))
        except (RowFault, PathFault) as fault:
            collector.note(fault.kind, place, str(fault))
            continue
        split = canonical(entry.get("subset"))
        yield place, objects, {"image": image, "group": group, "split": split if split in SPLITS[:3] else None}


def _objects(
    collector: Collector, place: Place, entry: Element, label: str | None, text: str
) -> Iterator[LabelledObject]:
    """An object that cannot be read costs itself."""
    boxes = {e: _box(e) for e in entry.iterfind("box")}
    grouped = {e.get("group_id"): box for e, box in boxes.items() if e.get("group_id")}
    shapes = [e for e in entry if e.tag in ("skeleton", "points") and e.get("label") == label]
    for shape in shapes:
        try:
            points = list(_skeleton_points(shape) if shape.tag == "skeleton" else _shape_points(shape))
        except RowFault as fault:
            collector.note(fault.kind, place, f"{shape.tag} {label}: {fault}")
            continue
        yield LabelledObject(points, grouped.get(shape.get("group_id")), _attribute(shape, text))
    if label is None:
        singles = [
            NamedPoint(e.get("label", ""), *_xy(e.get("points")), _on(e, "occluded")) for e in entry.iterfind("points")
        ]
        objects = [LabelledObject([], box, _attribute(e, text), {"label": e.get("label")}) for e, box in boxes.items()]
        objects = objects or [LabelledObject()]
        share_out(singles, objects)
        yield from (item for item in objects if item.points)


def _tell_others(collector: Collector, entries: list[Element], label: str | None, file: Path) -> None:
    """One line for each label that was not taken."""
    others = Counter(e.get("label", "") for i in entries for e in i if e.tag in ("skeleton", "points"))
    for other, count in others.items() if label is not None else ():
        if other != label:
            message = f"{count} objects of the label {other[:40]!r} left out; label={other[:40]} takes them instead"
            collector.faults.append(Fault("unknown field", file.name, message))


def _skeleton_points(shape: Element) -> Iterator[NamedPoint]:
    for point in shape.iterfind("points"):
        if not _on(point, "outside"):
            yield NamedPoint(point.get("label", ""), *_xy(point.get("points")), _on(point, "occluded"))


def _shape_points(shape: Element) -> Iterator[NamedPoint]:
    for i, pair in enumerate(shape.get("points", "").split(";")):
        yield NamedPoint(f"{shape.get('label')}_{i}", *_xy(pair), _on(shape, "occluded"))


def _xy(pair: str | None) -> tuple[float, float]:
    """px in our frame.

    Raises:
        RowFault: not two numbers.
    """
    values = cell_numbers([cell.strip() for cell in (pair or "").split(",")])
    if len(values) != 2:
        raise RowFault("keypoint count", f"expected x,y, got {str(pair)[:40]!r}")
    return float(values[0]) - 0.5, float(values[1]) - 0.5


def _box(entry: Element) -> Any:
    """xywh px in our frame; None for one that is none."""
    try:
        x1, y1, x2, y2 = cell_numbers([entry.get(side, "") for side in ("xtl", "ytl", "xbr", "ybr")])
    except RowFault:
        return None
    return usable_box(numbers([x1 - 0.5, y1 - 0.5, x2 - x1, y2 - y1], "box"))


def _on(entry: Element, name: str) -> bool:
    return entry.get(name, "0").strip().lower() in ("1", "true")


def _attribute(entry: Element, name: str) -> str | None:
    said = next((e.text for e in entry.iterfind("attribute") if e.get("name") == name), None)
    return said.strip() if said and said.strip() else None
