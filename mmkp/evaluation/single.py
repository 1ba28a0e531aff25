"""Predict for one picture, text and sound: a picture with keypoints and predictions.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mmkp.errors import InputError
from mmkp.evaluation.draw import draw_keypoints, person_colour
from mmkp.evaluation.figures import save_png
from mmkp.finding import can_find, check_finder, find
from mmkp.hub import Loaded
from mmkp.hub import find as find_folder

BLANK_PX = 512  # the canvas where there is no picture to draw on


def predict_one(
    loaded: Loaded,
    image: np.ndarray | None = None,
    text: str | None = None,
    audio: tuple[np.ndarray, int] | None = None,
    audio_time_s: float | None = None,
    box_xywh: list[float] | None = None,
    whole: bool = False,
    finder: Loaded | None = None,
) -> dict[str, Any]:
    """Keypoints for any subset of image, text and sound.

    Args:
        image: (H, W, 3) uint8 RGB.
        audio: samples in [-1, 1] and their rate in Hz.
        audio_time_s: the picture's moment in the sound; its middle when None.
        box_xywh: px, image frame. When None, the faces that a model which can find them finds; the whole picture of
            any other.
        whole: take the whole picture and find nothing.
        finder: a model that finds the faces for one that cannot, a fine-tuned one.

    Returns:
        What predictions.json holds: the schema, the box, which modalities were used, and `instances`, each with
        keypoints (K, 2) px in the image frame, scores (K,) and, of a model that tells, visibility (K,). One for each
        face found, best first, with a `score` of its own, and none where there is none; of a model that tells people
        apart one for each person, with a `score` and null for a keypoint that was not found. Text and sound count for
        every face.

    Raises:
        InputError: no modality, or none that the model has; a box that lies outside the picture; a finder that cannot
            find, or beside a box.
    """
    given = {"image": image, "text": text, "audio": audio}
    used = [m for m, v in given.items() if v is not None and m in loaded.model.modalities]
    if not used:
        raise InputError(
            "predict", expected=f"at least one of {', '.join('--' + m for m in loaded.model.modalities)}",
            got="none" if not any(v is not None for v in given.values()) else "only what the model cannot use",
        )  # fmt: skip
    size = (BLANK_PX, BLANK_PX) if image is None else image.shape[:2]
    check_where(box_xywh, whole, finder, None if image is None else (size[0], size[1]))
    searcher = finder or loaded
    result = {
        "model": loaded.source, "schema": loaded.model.schema.model_dump(mode="json"), "image_size_hw": list(size),
        "modalities": used, "box": "given" if box_xywh else "whole image",
    }  # fmt: skip
    parts = {m: given[m] if m in used else None for m in given}
    if image is not None and "image" in used and box_xywh is None and not whole and can_find(searcher.model):
        return {**result, "box": "found", "instances": _found_instances(loaded, searcher, parts, audio_time_s)}
    found = _answers(loaded, parts, audio_time_s, [box_xywh], size)[0]
    box = box_xywh or [-0.5, -0.5, float(size[1]), float(size[0])]
    return {**result, "instances": [_plain(one, box) for one in found.get("instances", [found])]}


def learned_whole(loaded: Loaded) -> bool:
    """Whether a model was fine-tuned on whole pictures alone, as its facts.json says."""
    path = find_folder(loaded.source) / "facts.json"
    try:
        plain = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError):
        return False
    return isinstance(plain, dict) and plain.get("boxes") == "whole pictures"


def check_where(
    box_xywh: list[float] | None, whole: bool, finder: Loaded | None, image_hw: tuple[int, int] | None
) -> None:
    """Refuse a box beside the picture, two places to look at, and a finder that cannot find.

    Raises:
        InputError: so it is.
    """
    if box_xywh is not None and image_hw is not None:
        x, y, width, height = box_xywh
        if x >= image_hw[1] or y >= image_hw[0] or x + width <= 0 or y + height <= 0:
            raise InputError("--box", expected=f"a box within {image_hw[1]} x {image_hw[0]} px", got=str(box_xywh))
    if box_xywh is not None and whole:
        raise InputError("--whole", expected="no --box beside it", got=str(box_xywh))
    if finder is None:
        return
    if box_xywh is not None or whole:
        raise InputError("--find-with", expected="neither --box nor --whole beside it", got="one of them")
    check_finder(finder.model, f"--find-with {finder.source}")


def learned_from(loaded: Loaded) -> str | None:
    """The dataset that a run's recipe names."""
    path = find_folder(loaded.source) / "recipe.yaml"
    try:
        plain = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else {}
        return str(plain["data"]["dataset"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None


def _answers(
    loaded: Loaded, parts: dict[str, Any], audio_time_s: float | None, boxes: list, size_hw: tuple[int, int]
) -> list[dict[str, Any]]:
    """One answer for each box, in the image frame."""
    count, audio = len(boxes), parts["audio"]
    inputs = loaded.processor(
        images=None if parts["image"] is None else [parts["image"]] * count,
        text=None if parts["text"] is None else [parts["text"]] * count,
        audio=None if audio is None else [audio[0]] * count, sampling_rate=None if audio is None else audio[1],
        boxes=None if boxes[0] is None else boxes, audio_times=None if audio is None else [audio_time_s] * count,
    )  # fmt: skip
    with torch.inference_mode():
        outputs = loaded.model(**inputs)
    return loaded.processor.post_process_keypoint_detection(outputs, target_sizes=[size_hw] * count)


def _found_instances(
    loaded: Loaded, searcher: Loaded, parts: dict[str, Any], audio_time_s: float | None
) -> list[dict[str, Any]]:
    image = parts["image"]
    faces = find(searcher.model, searcher.processor, image)
    if not len(faces):
        return []
    answers = _answers(loaded, parts, audio_time_s, faces.boxes_xywh.tolist(), (image.shape[0], image.shape[1]))
    return [
        {**_plain(one, [round(float(v), 3) for v in box]), "score": round(float(score), 4)}
        for one, box, score in zip(answers, faces.boxes_xywh, faces.scores, strict=True)
    ]


def _plain(found: dict[str, Any], box: list[float]) -> dict[str, Any]:
    """One instance as JSON: of several, each with its own box and score; null for a keypoint that was not found."""
    points = np.asarray(found["keypoints"].cpu(), np.float64)
    known: Any = np.isfinite(points).all(-1)
    if "score" in found and known.any():
        low, high = points[known].min(0), points[known].max(0)
        box = [*low, *(high - low)]
    return {
        "box_xywh": [round(float(v), 3) for v in box] if "score" in found else [float(v) for v in box],
        "keypoints": [[round(float(v), 3) if k else None for v in p] for p, k in zip(points, known, strict=True)],
        "scores": [round(float(v), 4) for v in found["scores"]],
        **({"visibility": [round(float(v), 4) for v in found["visibility"]]} if "visibility" in found else {}),
        **({"score": round(float(found["score"]), 4)} if "score" in found else {}),
    }


def write_prediction(result: dict[str, Any], image: np.ndarray | None, loaded: Loaded, out: Path) -> tuple[Path, Path]:
    """predictions.json and picture.png in `out`.

    Raises:
        InputError: `out` cannot be written.
    """
    canvas = np.full((*result["image_size_hw"], 3), 255, np.uint8) if image is None else image
    for number, instance in enumerate(result["instances"]):
        points, scores = np.array(instance["keypoints"], float), np.array(instance["scores"])
        canvas = draw_keypoints(canvas, points, loaded.model.schema, person_colour(number), scores=scores)
    try:
        out.mkdir(parents=True, exist_ok=True)
        picture, file = out / "picture.png", out / "predictions.json"
        save_png(canvas, picture)
        file.write_text(json.dumps(result, indent=1))
    except OSError as error:
        raise InputError(f"--out {out}", expected="a folder that can be written", got=str(error)) from error
    return picture, file
