"""Explain one answer: which pixels, sounds and words the keypoints of a group went by."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mmkp import geometry
from mmkp.errors import InputError, choose, nearest
from mmkp.evaluation.single import check_where
from mmkp.explain.draw import Shown, draw
from mmkp.explain.gradients import STEPS, TARGETS, UNITS, Attributions, Question, attribute_inputs, check_captum
from mmkp.explain.modalities import ALL, point_groups
from mmkp.explain.run import make_folder
from mmkp.explain.words import by_word, token_places
from mmkp.features import HOP_S, MmkpFeatureExtractor
from mmkp.finding import can_find, find
from mmkp.hub import Loaded
from mmkp.schema import KeypointSchema

DIGITS = 6


@dataclass(frozen=True)
class Given:
    """What goes in; what is None is absent.

    Attributes:
        image: (H, W, 3) RGB.
        audio: samples in [-1, 1] and their rate in Hz.
        audio_time_s: the picture's moment in the sound; its middle when None.
        box_xywh: px, image frame; when None the best face that the model finds, or the whole picture where it finds
            none by design.
        whole: take the whole picture and find nothing.
    """

    image: UInt8[np.ndarray, "H W 3"] | None = None
    text: str | None = None
    audio: tuple[np.ndarray, int] | None = None
    audio_time_s: float | None = None
    box_xywh: list[float] | None = None
    whole: bool = False


def explain_item(
    loaded: Loaded, given: Given, out: Path, group: str | None = None, target: str = "score", steps: int = STEPS,
    finder: Loaded | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Integrated gradients and Grad-CAM for one picture, text and sound: explain.json and explain.png.

    Args:
        loaded: model and processor.
        group: of the schema's keypoints; lips where there are any, else all.
        target: what is explained of them, a name in `mmkp.explain.gradients.TARGETS`.
        steps: of the path of integrated gradients.
        finder: a model that finds the face for one that cannot.

    Returns:
        What explain.json holds.

    Raises:
        MissingExtraError: captum is not installed.
        InputError: no modality that the model has, no such group or target, no face found, a box beside the picture, a
            finder that cannot find, or beside a box.
    """
    check_captum()
    model = loaded.model
    choose("--target", target, TARGETS)
    group = group or ("lips" if "lips" in model.schema.groups else ALL)
    points = group_points(model.schema, group)
    if model.finds_people:
        got = f"the codec {model.config.codec['name']}"
        raise InputError(f"model {loaded.source}", expected="one that finds the keypoints of one person", got=got)
    used = _usable(loaded, given)
    box, how = _box(loaded, used, finder)
    inputs = _inputs(loaded, used, box)
    question = Question(model, inputs, _baseline(loaded, used, inputs), points, target)
    found = attribute_inputs(question, steps)
    with torch.inference_mode():
        outputs = model(**inputs)
    keypoints = loaded.processor.post_process_keypoint_detection(outputs)[0]
    record = {
        "model": loaded.source, "schema": model.schema.name, "group": group, "target": target, "unit": UNITS[target],
        "box": how, "box_xywh": box, "steps": steps, **_numbers(loaded, used, found),
        "keypoints": np.asarray(keypoints["keypoints"]).round(3).tolist(),
        "scores": np.asarray(keypoints["scores"]).round(4).tolist(),
    }  # fmt: skip
    make_folder(out)
    (out / "explain.json").write_text(json.dumps(record, indent=1))
    draw(_shown(loaded, used, inputs, outputs.keypoints_xy[0]), points, found, record, out / "explain.png")
    return record


def group_points(schema: KeypointSchema, group: str) -> np.ndarray:
    """The indices of a group's keypoints; `all` is every one.

    Raises:
        InputError: no such group.
    """
    groups = point_groups(schema)
    if group not in groups:
        expected = f"a group of keypoints of the schema {schema.name}"
        raise InputError("--group", expected=expected, got=repr(group), remedy=nearest(group, groups))
    return groups[group]


def _usable(loaded: Loaded, given: Given) -> Given:
    parts = {"image": given.image, "text": given.text, "audio": given.audio}
    has = loaded.model.modalities
    kept: Any = {m: v if m in has else None for m, v in parts.items()}
    if all(v is None for v in kept.values()):
        got = "none" if all(v is None for v in parts.values()) else "only what the model cannot use"
        raise InputError("explain", expected=f"at least one of {', '.join('--' + m for m in has)}", got=got)
    return replace(given, **kept)


def _box(loaded: Loaded, given: Given, finder: Loaded | None) -> tuple[list[float] | None, str]:
    """The box and where it comes from, as in `mmkp.evaluation.single`, but of one face."""
    size = None if given.image is None else (given.image.shape[0], given.image.shape[1])
    check_where(given.box_xywh, given.whole, finder, size)
    if given.image is None or size is None or given.box_xywh is not None:
        return given.box_xywh, "given" if given.box_xywh else "none"
    searcher = finder or loaded
    if given.whole or not can_find(searcher.model):
        return geometry.whole_image_box(size).tolist(), "whole image"
    faces = find(searcher.model, searcher.processor, given.image, most=1)
    if not len(faces):
        expected = "a face that covers a sixth of the picture's width"
        raise InputError("--image", expected=expected, got="none found", remedy="Say where one is with --box.")
    return faces.boxes_xywh[0].round(3).tolist(), "found"


def _inputs(loaded: Loaded, given: Given, box: list[float] | None) -> dict[str, Tensor]:
    audio = given.audio
    made = loaded.processor(
        images=None if given.image is None else [given.image], text=None if given.text is None else [given.text],
        audio=None if audio is None else [audio[0]], sampling_rate=None if audio is None else audio[1],
        boxes=None if box is None else [box], audio_times=None if audio is None else [given.audio_time_s],
    )  # fmt: skip
    return {k: v.to(loaded.model.device) for k, v in made.items()}


def _baseline(loaded: Loaded, given: Given, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inputs that say nothing: the mean colour of the training's pictures, as many blanks, silence of the same length.

    Special tokens stay; a tokenizer without a token for the blank gives its padding.
    """
    made = {}
    if given.image is not None:
        made["pixel_values"] = torch.zeros_like(inputs["pixel_values"])
    if given.text is not None:
        tokenizer, ids = loaded.processor.tokenizer, inputs["input_ids"]
        blank = tokenizer(" ", add_special_tokens=False, verbose=False)["input_ids"]
        special = torch.isin(ids, ids.new_tensor(tokenizer.all_special_ids))
        made["input_ids"] = torch.where(special, ids, blank[0] if len(blank) == 1 else tokenizer.pad_token_id or 0)
    if given.audio is not None:
        samples, rate = given.audio
        silence = loaded.processor(audio=[np.zeros_like(samples)], sampling_rate=rate, audio_times=[given.audio_time_s])
        made["input_features"] = silence["input_features"].to(inputs["input_features"])
    return made


def _numbers(loaded: Loaded, given: Given, found: Attributions) -> dict[str, Any]:
    """The figures of explain.json: the target, how exact the path was, and what each part contributed."""
    relative = found.relative_error
    made: dict[str, Any] = {
        "value": round(found.value, DIGITS), "baseline_value": round(found.baseline_value, DIGITS),
        "completeness_error": {
            "absolute": round(found.error, 9), "relative": None if relative is None else round(relative, DIGITS),
        },
        "modalities": {m: round(float(part.sum()), DIGITS) for m, part in found.parts.items()},
    }  # fmt: skip
    if given.text is not None:
        values = found.parts["text"]
        words, rest = by_word(given.text, token_places(loaded.processor.tokenizer, given.text, len(values)), values)
        rounded = [{**w, "attribution": round(w["attribution"], DIGITS)} for w in words]
        made |= {"words": rounded, "blanks_and_special_tokens": round(rest, DIGITS)}
    extractor = loaded.processor.feature_extractor
    if given.audio is not None and isinstance(extractor, MmkpFeatureExtractor):
        frames = found.parts["audio"].sum(-1)
        made["audio_frames"] = {
            "time_s": frame_times(len(frames), extractor.window_s).round(4).tolist(),
            "attribution": frames.astype(float).round(DIGITS).tolist(),
        }
    return made


def frame_times(count: int, window_s: float) -> Float[np.ndarray, " F"]:
    """The moments of an extractor's frames, in seconds from the picture's."""
    return np.arange(count) * HOP_S - window_s / 2


def _shown(loaded: Loaded, given: Given, inputs: dict[str, Tensor], keypoints_xy: Tensor) -> Shown:
    affine = None if given.image is None else inputs["image_to_input"][0].cpu().numpy().astype(np.float64)
    ours = isinstance(loaded.processor.feature_extractor, MmkpFeatureExtractor)
    features = inputs["input_features"][0].float().cpu().numpy() if given.audio is not None else None
    window = loaded.processor.feature_extractor.window_s if ours and features is not None else None
    return Shown(
        image=given.image, image_to_input=affine, input_size_hw=tuple(loaded.model.config.input_size_hw),
        keypoints_xy=keypoints_xy.float().cpu().numpy(), features=features, window_s=window,
    )  # fmt: skip
