"""Label Studio: its JSON export of key points, with rectangles as boxes and text areas as text.

Source: labelstud.io, "Label Studio JSON format of annotated tasks" and the tags KeyPointLabels, RectangleLabels and
TextArea: tasks with `data` and `annotations` [{`was_cancelled`, `ground_truth`, `result`: [{`id`, `type`, `parentID`,
`original_width`, `original_height`, `image_rotation`, `value`}]}]; before 1.0 `completions`.

Frame. Coordinates are percent of the picture's size, measured from its corner: x / 100 * width - 0.5 px.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from mmkp.data.paths import PathFault
from mmkp.data.readers.labels import scalars, usable_box
from mmkp.data.readers.lines import UNLABELLED, Collector, Place, check_option
from mmkp.data.readers.naming import chosen_schema, natural
from mmkp.data.readers.objects import LabelledObject, NamedPoint, add_rows, share_out
from mmkp.data.readers.sources import Pictures, RowFault, annotation_files, read_json
from mmkp.data.rows import RowTable
from mmkp.errors import InputError

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # put before the names of uploaded files
_PICTURE = re.compile(r"\.(jpe?g|png|bmp|gif|webp|tiff?)($|[?&#])", re.IGNORECASE)


def read_labelstudio(
    path: str | Path, *, schema: str | None = None, images: str | Path | None = None, text: str | None = None,
    unlabelled: str = "skip",
) -> RowTable:  # fmt: skip
    """A row for each rectangle with key points, or for the picture's key points where there is no rectangle.

    A point belongs to the rectangle that is its parent, else to the smallest one about it. Of several annotations of a
    task the ground truth is taken, else the first that was not cancelled. Points count as visible: there are no flags.

    Args:
        path: the exported .json, or its folder.
        schema: one with the labels' names; by default it is made of them, in natural order.
        images: the folder of the pictures; by default it is looked for. URLs are never opened: their last part counts.
        text: the field of a task's `data` that is the text; by default what was typed in text areas.
        unlabelled: `skip` leaves out rows without a labelled keypoint (the default), or `keep`.

    Raises:
        InputError: nothing that can be read, no key points, an option's value that is none.
    """
    check_option("unlabelled", unlabelled, UNLABELLED)
    collector = Collector(unlabelled == "keep")
    file = annotation_files(path, "labelstudio", ("*.json",))[0]
    listed = read_json(file, "labelstudio")
    if not isinstance(listed, list):
        raise InputError(
            f"data labelstudio:{file}", expected="a list of tasks", got=f"a {type(listed).__name__}",
            remedy="Export as JSON; coco:FILE reads COCO's form.",
        )  # fmt: skip
    pictures = Pictures(file, "labelstudio", images)
    found = list(_tasks(collector, file, listed, pictures, text))
    names = sorted({point.name for *_, objects in found for o in objects for point in o.points}, key=natural)
    meaning, order = chosen_schema(schema, "labelstudio", names, where=f"data labelstudio:{file}")
    for place, image, group, objects in found:
        add_rows(collector, place, objects, meaning, order, {"image": image, "group": group})
    return RowTable("labelstudio", meaning, collector.rows, collector.faults, pictures.root)


def _tasks(
    collector: Collector, file: Path, listed: list[Any], pictures: Pictures, field: str | None
) -> Iterator[tuple[Place, Path, str, list[LabelledObject]]]:
    """The objects of each usable task, with its picture and its group."""
    for number, task in enumerate(listed, 1):
        named = task.get("id") if isinstance(task, dict) else None
        key = str(number if named is None else named)[:60]
        place = Place(f"{file.name} task {key}", number, key)
        try:
            if not isinstance(task, dict):
                raise RowFault("bad row", f"expected an object, got {str(task)[:40]!r}")
            data = task["data"] if isinstance(task.get("data"), dict) else task
            objects = list(_objects(_results(task)))
            said = data.get(field) if field else None
            if isinstance(said, str) and said.strip():
                for item in objects:
                    item.text = said
            image, group = _find(pictures, _picture_url(data))
        except (RowFault, PathFault) as fault:
            collector.note(fault.kind, place, str(fault))
            continue
        yield place, image, group, objects


def _results(task: dict[str, Any]) -> list[dict[str, Any]]:
    """What was drawn and typed, of the annotation that counts.

    Raises:
        RowFault: nobody annotated the task.
    """
    listed = task.get("annotations", task.get("completions"))
    made = listed if isinstance(listed, list) else []
    usable = [a for a in made if isinstance(a, dict) and not a.get("was_cancelled")]
    usable.sort(key=lambda a: not a.get("ground_truth"))
    result = usable[0].get("result") if usable else None
    if not isinstance(result, list):
        raise RowFault("no keypoints", "expected `annotations` with a `result` (the export JSON, not JSON-MIN)")
    return [entry for entry in result if isinstance(entry, dict) and isinstance(entry.get("value"), dict)]


def _objects(results: list[dict[str, Any]]) -> Iterator[LabelledObject]:
    """The rectangles with their points and texts, or one object of all points where there is no rectangle.

    Raises:
        RowFault: coordinates that are none, or a point that belongs nowhere.
    """
    drawn: dict[Any, LabelledObject] = {}
    for i, entry in enumerate(results):
        if entry.get("type") in ("rectanglelabels", "rectangle"):
            label = next(iter(_strings(entry["value"].get("rectanglelabels"))), None)
            drawn[str(entry.get("id", i))] = LabelledObject(box_xywh=_box(entry), info={"label": label})
    loose: list[NamedPoint] = []
    typed: list[str] = []
    for entry in results:
        value, parent = entry["value"], drawn.get(str(entry.get("parentID")))
        if entry.get("type") == "keypointlabels":
            names = _strings(value.get("keypointlabels"))
            if len(names) != 1:
                raise RowFault("bad row", f"expected one label at a point, got {str(value.get('keypointlabels'))[:40]}")
            x, y = _scaled(entry, "x", "y")
            (parent.points if parent else loose).append(NamedPoint(names[0], x - 0.5, y - 0.5))
        elif entry.get("type") == "textarea":
            parent = parent or drawn.get(str(entry.get("id")))
            words = " ".join(_strings(value.get("text"))).strip()
            if parent:
                parent.text = " ".join(filter(None, (parent.text, words))) or None
            else:
                typed.append(words)
    objects = list(drawn.values()) or [LabelledObject()]
    share_out(loose, objects)
    with_points = [item for item in objects if item.points] or objects[:1]
    for item in with_points:
        item.text = item.text or " ".join(filter(None, typed)) or None
    yield from with_points


def _strings(value: Any) -> list[str]:
    listed = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [entry for entry in listed if isinstance(entry, str) and entry]


def _scaled(entry: dict[str, Any], *names: str) -> list[float]:
    """Percent of the picture's width (x, width) or height (y, height) as px from its corner.

    Raises:
        RowFault: not numbers, or a picture that was turned while it was labelled.
    """
    if entry.get("image_rotation"):
        raise RowFault("bad row", f"image_rotation {entry['image_rotation']}: turn the picture itself, then export")
    sizes = scalars([entry.get("original_width"), entry.get("original_height")], "original_width, original_height")
    percent = scalars([entry["value"].get(name) for name in names], ", ".join(names))
    if len(sizes) != 2 or len(percent) != len(names):
        raise RowFault("not a number", "expected one number each, got lists")
    if not (np.isfinite(sizes).all() and min(sizes) > 0):
        raise RowFault("not a number", f"expected original_width and original_height above 0, got {sizes.tolist()}")
    return [float(p * sizes[int(name in ("y", "height"))] / 100) for name, p in zip(names, percent, strict=True)]


def _box(entry: dict[str, Any]) -> np.ndarray | None:
    """xywh px; a turned rectangle's, which turns clockwise about its top left corner, is what holds it."""
    x, y, width, height = _scaled(entry, "x", "y", "width", "height")
    degrees = scalars([entry["value"].get("rotation") or 0], "rotation")[0]
    if not np.isfinite(degrees):
        raise RowFault("bad box", f"expected a rotation in degrees, got {degrees}")
    turn = math.radians(degrees)
    along, down = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    corners = np.array([a * width * along + b * height * down for a in (0, 1) for b in (0, 1)])
    low, high = corners.min(0), corners.max(0)
    return usable_box([x + low[0] - 0.5, y + low[1] - 0.5, *(high - low)])


def _picture_url(data: dict[str, Any]) -> str:
    """The value of `data` that names the picture.

    Raises:
        RowFault: there is none.
    """
    texts = [v for k, v in sorted(data.items(), key=lambda kv: kv[0] != "image") if isinstance(v, str)]
    url = next((text for text in texts if _PICTURE.search(text)), None)
    if url is None:
        raise RowFault("bad row", "expected `data` with a picture's name or URL")
    return url


def _find(pictures: Pictures, url: str) -> tuple[Path, str]:
    """The file that a URL means: /data/upload/1/0a1b2c3d-x.jpg, /data/local-files/?d=folder/x.jpg, s3://..., x.jpg.

    Raises:
        PathFault: no such file here, or a name that leads out.
    """
    try:
        parts = urlsplit(url)
        local = parse_qs(parts.query).get("d")
    except ValueError as error:
        raise RowFault("bad row", f"{url[:60]!r} is no URL: {error}") from error
    if local:
        names = [local[0]]
    elif parts.scheme or parts.path.startswith("/data/"):
        names = []
    else:
        names = [url]
    base = unquote(local[0] if local else parts.path if parts.scheme or not names else url).rpartition("/")[2]
    names += [base, _UPLOADED.sub("", base)]
    first: PathFault | None = None
    for name in names:
        try:
            return pictures.find(name)
        except PathFault as fault:
            if fault.kind == "path escape":
                raise
            first = first or fault
        except RowFault:
            continue
    raise first or PathFault("missing file", f"{url[:60]!r} names no file")
