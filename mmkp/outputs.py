"""What the pipeline returns, in the forms of others: a drawing, supervision's KeyPoints, COCO's JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from mmkp.errors import InputError, MissingExtraError
from mmkp.evaluation.draw import draw_keypoints, person_colour
from mmkp.schema import KeypointSchema, load_schema, schema_names

Instance = Mapping[str, Any]
CATEGORY_ID = 1
INSTANCE_KEYS = {"score", "schema", "box", "keypoints"}


def draw(
    image: Any, result: Sequence[Instance], schema: KeypointSchema | None = None, boxes: bool = False
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of a picture with the keypoints and edges of its instances, RGB; a low score is drawn paler.

    Args:
        image: the picture in any form that the pipeline takes; None for a white canvas of 512 x 512 px.
        result: what the pipeline returned for it.
        schema: needed for the edges of a schema that is not built in.
        boxes: draw the boxes, too.

    Raises:
        InputError: no picture, not a result of one picture, or keypoints that the schema does not have.
    """
    from mmkp.media import load_image  # here: the other forms need no torch
    from mmkp.pipeline_items import BLANK_PX

    canvas = np.full((BLANK_PX, BLANK_PX, 3), 255, np.uint8) if image is None else load_image(image).copy()
    for number, instance in enumerate(_of_one_picture(result)):
        meaning = _schema_of([instance], schema)
        points, scores, known = _arrays([instance], meaning)
        colour = person_colour(number)
        if boxes:
            x, y, width, height = _box(instance)
            corners = np.rint([x, y, x + width, y + height]).astype(int).tolist()
            cv2.rectangle(canvas, corners[:2], corners[2:], colour, 1)
        points = np.where(known[..., None], points, np.nan)[0]
        canvas = draw_keypoints(canvas, points, meaning, colour, scores[0])
    return canvas


def to_supervision(result: Sequence[Instance], schema: KeypointSchema | None = None) -> Any:
    """The instances of one picture as `supervision.KeyPoints`, for its annotators, trackers and metrics.

    `xy`, `keypoint_confidence` and `visible` have a column per keypoint of the schema; what is not in the result is at
    (0, 0), not visible. `detection_confidence` is the instance's score, `data` holds `class_name` and `box_xywh`. The
    schema's edges for an EdgeAnnotator count from 1: [(a + 1, b + 1) for a, b in schema.edges].

    Raises:
        InputError: not a result of one picture.
        MissingExtraError: supervision is not installed.
    """
    try:
        from supervision import KeyPoints
    except ImportError as error:
        raise MissingExtraError("to_supervision", "supervision", "outputs") from error
    result = _of_one_picture(result)
    if not result:
        return KeyPoints.empty()
    meaning = _schema_of(result, schema)
    points, scores, known = _arrays(result, meaning)
    return KeyPoints(
        xy=np.where(known[..., None], points, 0).astype(np.float32),
        class_id=np.zeros(len(result), int),
        keypoint_confidence=scores.astype(np.float32),
        detection_confidence=np.array([one["score"] for one in result], np.float32),
        visible=known,
        data={
            "class_name": np.array([meaning.name] * len(result)),
            "box_xywh": np.array([_box(one) for one in result], np.float32),
        },
    )


def to_coco(
    results: Sequence[Sequence[Instance]],
    images: Sequence[int | str | os.PathLike | Mapping[str, Any]],
    schema: KeypointSchema | None = None,
) -> dict[str, Any]:
    """Results of several pictures as a COCO annotation file: images, annotations with a score, one category.

    COCO measures boxes from the corner of the picture and keypoints from the centre of its first pixel: half a pixel is
    added to x and y of boxes. A keypoint has flag 2, or 0 at (0, 0) where the result lacks it.

    Args:
        results: of each picture; a list, or the iterator that the pipeline returns for a dataset.
        images: of each picture its id, its file name (ids then count from 1), or its COCO entry.
        schema: needed where there is no instance at all, and for a schema that is not built in: its edges, and the
            keypoints that no instance has.

    Raises:
        InputError: lists of different lengths, ids that repeat, or instances of different schemas.
    """
    results, images = list(results), list(images)
    entries = _image_entries(results, images)
    meaning = _schema_of([one for result in results for one in result], schema)
    annotations: list[dict[str, Any]] = []
    for row in _rows(results, entries, meaning):
        _, _, width, height = row["bbox"]
        counted = sum(flag > 0 for flag in row["keypoints"][2::3])
        extra = {"num_keypoints": counted, "area": width * height, "iscrowd": 0, "segmentation": []}
        annotations.append({"id": len(annotations) + 1, **row, **extra})
    category = {
        "id": CATEGORY_ID, "name": meaning.name, "supercategory": "keypoints", "keypoints": list(meaning.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in meaning.edges],
    }  # fmt: skip
    return {"images": entries, "annotations": annotations, "categories": [category]}


def coco_results(
    results: Sequence[Sequence[Instance]],
    images: Sequence[int | str | os.PathLike | Mapping[str, Any]],
    schema: KeypointSchema | None = None,
) -> list[dict[str, Any]]:
    """Results of several pictures as a COCO result file, which pycocotools' `loadRes` and `read_coco` take.

    Args:
        results, images, schema: as of `to_coco`; give the ids of the ground truth.

    Raises:
        InputError: as `to_coco`.
    """
    results, images = list(results), list(images)
    entries = _image_entries(results, images)
    return list(_rows(results, entries, _schema_of([one for result in results for one in result], schema)))


def _rows(results: Any, entries: list[dict[str, Any]], schema: KeypointSchema) -> list[dict[str, Any]]:
    """The keys that annotations and results share."""
    made = []
    for result, entry in zip(results, entries, strict=True):
        points, _, known = _arrays(result, schema)
        triples = np.concatenate([np.where(known[..., None], points, 0), 2.0 * known[..., None]], axis=2)
        for one, numbers in zip(result, triples, strict=True):
            x, y, width, height = _box(one)
            flat = [int(v) if i % 3 == 2 else float(v) for i, v in enumerate(numbers.ravel())]
            row = {"image_id": entry["id"], "category_id": CATEGORY_ID, "keypoints": flat}
            made.append({**row, "bbox": [x + 0.5, y + 0.5, width, height], "score": float(one["score"])})
    return made


def _image_entries(results: Any, images: Any) -> list[dict[str, Any]]:
    if any(isinstance(result, Mapping) for result in results):
        raise InputError("results", expected="a list of instances for each picture", got="the instances of one picture")
    if len(results) != len(images):
        raise InputError("images", expected=f"one for each of {len(results)} results", got=str(len(images)))
    for result in results:
        _of_one_picture(result)
    made = []
    for number, image in enumerate(images, 1):
        if isinstance(image, Mapping) and "id" in image:
            made.append(dict(image))
        elif isinstance(image, (str, os.PathLike)):
            made.append({"id": number, "file_name": os.fspath(image)})
        elif isinstance(image, (int, np.integer)) and not isinstance(image, bool):
            made.append({"id": int(image)})
        else:
            raise InputError(f"image {number}", expected="an id, a file name or a COCO entry", got=repr(image)[:80])
    if len({entry["id"] for entry in made}) < len(made):
        raise InputError("images", expected="ids that differ", got="one that repeats")
    return made


def _of_one_picture(result: Any) -> Sequence[Instance]:
    """The instances, looked through."""
    if isinstance(result, Mapping):
        return _of_one_picture([result])
    for one in result if isinstance(result, (list, tuple)) else [result]:
        if not isinstance(one, Mapping) or not set(one) >= INSTANCE_KEYS:
            raise InputError(
                "result", expected=f"instances of one picture, each with {', '.join(sorted(INSTANCE_KEYS))}",
                got="results of several" if isinstance(one, (list, tuple)) else repr(one)[:80],
            )  # fmt: skip
    return result


def _schema_of(instances: Sequence[Instance], schema: KeypointSchema | None) -> KeypointSchema:
    """The schema that all instances have: as given, the built-in one of that name, or their names without edges."""
    if not instances:
        if schema is None:
            raise InputError("schema", expected="one, where there are no instances to tell it", got="none")
        return schema
    names = {one["schema"] for one in instances}
    if len(names) > 1 or (schema is not None and names != {schema.name}):
        wanted = "one schema" if schema is None else f"the schema {schema.name}"
        raise InputError("result", expected=f"instances of {wanted}", got=", ".join(sorted(names)))
    if schema is not None:
        return schema
    name = names.pop()
    found = dict.fromkeys(point["name"] for one in instances for point in one["keypoints"])
    known = _built_in(name)
    if known is not None and set(found) <= set(known.keypoints):
        return known
    lists = {tuple(point["name"] for point in one["keypoints"]) for one in instances}
    if len(lists) > 1:  # some were left out by a threshold: nobody could tell the order of the rest
        raise InputError(
            "schema", expected=f"{name} itself, which is not built in: the instances differ in their keypoints",
            got="none", remedy="Give schema=pipe.model.schema.",
        )  # fmt: skip
    return KeypointSchema(name=name, keypoints=tuple(found) or ("none",))  # a schema has at least one


def _built_in(name: str) -> KeypointSchema | None:
    return load_schema(name) if name in schema_names() else None


def _arrays(
    instances: Sequence[Instance], schema: KeypointSchema
) -> tuple[Float64[np.ndarray, "N K 2"], Float64[np.ndarray, "N K"], Bool[np.ndarray, "N K"]]:
    """Keypoints px, image frame, their scores, and which there are; the others are 0."""
    index = {name: k for k, name in enumerate(schema.keypoints)}
    points, scores = np.zeros((len(instances), len(index), 2)), np.zeros((len(instances), len(index)))
    known = np.zeros(scores.shape, bool)
    for n, one in enumerate(instances):
        strange = [p["name"] for p in one["keypoints"] if p["name"] not in index]
        if strange:
            raise InputError("result", expected=f"keypoints of the schema {schema.name}", got=repr(strange[0]))
        at = [index[p["name"]] for p in one["keypoints"]]
        points[n, at] = [(p["x"], p["y"]) for p in one["keypoints"]] or np.zeros((0, 2))
        scores[n, at] = [p["score"] for p in one["keypoints"]]
        known[n, at] = True
    return points, scores, known


def _box(instance: Instance) -> list[float]:
    return [float(instance["box"][key]) for key in ("x", "y", "width", "height")]
