"""One figure for one explained answer: the picture with its heat, the spectrogram, the words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.patches import Rectangle

from mmkp import geometry
from mmkp.explain.gradients import Attributions

SIDE_PX = 448  # of the shown crop's longer side
SIGNED, HEAT = "RdBu_r", "inferno"  # red raises the target, blue lowers it
TOP_PERCENTILE = 99.5  # where a colour scale ends, so that one pixel does not decide it
SMOOTH_PX = 1.5  # of the input: integrated gradients differ from pixel to pixel
OPAQUE = 0.85  # of the strongest heat
LINE_LETTERS = 84
GROUP_COLOUR, OTHER_COLOUR = "#ffb000", "#dddddd"


@dataclass(frozen=True)
class Shown:
    """What the figure shows beside the attributions.

    Attributes:
        image: RGB, and image_to_input (2, 3): what the network saw of it.
        keypoints_xy: (K, 2) px, input frame.
        features: (F, M) of the sound, as the network got them.
        window_s: of the sound, centred on the picture; None where the features are another extractor's.
    """

    image: UInt8[np.ndarray, "H W 3"] | None
    image_to_input: Float[np.ndarray, "2 3"] | None
    input_size_hw: tuple[int, ...]
    keypoints_xy: Float[np.ndarray, "K 2"]
    features: np.ndarray | None
    window_s: float | None


def draw(shown: Shown, points: np.ndarray, found: Attributions, record: dict[str, Any], path: Path) -> None:
    """Write the figure; what is absent has no row.

    Args:
        points: indices of the explained keypoints.
        record: what explain.json holds.
    """
    lines = _lines(record["words"]) if "words" in record else []
    heights = [3.5] * (shown.image is not None) + [2.4] * (shown.features is not None)
    heights += [0.5 + 0.42 * len(lines)] * bool(lines)
    figure = plt.figure(figsize=(10.5, sum(heights) + 0.9), layout="constrained")
    rows = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    figure.suptitle(_title(record), fontsize=10)
    if shown.image is not None:
        _picture_row(next(rows), shown, points, found, record)
    if shown.features is not None:
        _sound_row(next(rows), shown, found, record)
    if lines:
        _words_row(next(rows), lines, record)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _title(record: dict[str, Any]) -> str:
    unit = f" {record['unit']}" if record["unit"] else ""
    relative = record["completeness_error"]["relative"]
    missed = "" if relative is None else f" (the contributions miss {100 * relative:.1f} % of the change)"
    what = {"score": "mean score", "x": "mean x", "y": "mean y", "height": "height"}[record["target"]]
    change = f"{record['baseline_value']:.3f} from nothing, {record['value']:.3f}{unit} from these inputs"
    return f"{record['model']}: {what} of {record['group']}: {change}{missed}\nred raises it, blue lowers it"


def _signed_title(name: str, record: dict[str, Any], modality: str) -> str:
    return f"{name}: {record['modalities'][modality]:+.2g} {record['unit']}".rstrip()


def _picture_row(figure: Any, shown: Shown, points: np.ndarray, found: Attributions, record: dict[str, Any]) -> None:
    assert shown.image is not None and shown.image_to_input is not None
    height, width = shown.input_size_hw
    scale = SIDE_PX / max(height, width)
    size = (round(height * scale), round(width * scale))
    enlarge = geometry.crop_affine(geometry.whole_image_box((height, width)), size)
    crop = geometry.warp(shown.image, geometry.compose(enlarge, shown.image_to_input), size)
    grey = np.repeat(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None], 3, -1)
    xy = geometry.transform(shown.keypoints_xy.astype(np.float64), enlarge)
    axes = figure.subplots(1, 3)
    axes[0].imshow(crop)
    axes[0].set_title(f"what the network saw; {record['group']} marked", fontsize=9)
    others = np.delete(xy, points, axis=0)
    axes[0].scatter(*others.T, s=5, color=OTHER_COLOUR, linewidths=0)
    axes[0].scatter(*xy[points].T, s=9, color=GROUP_COLOUR, linewidths=0)
    heat = np.zeros((height, width)) if found.grad_cam is None else found.grad_cam
    _overlay(axes[1], grey, cv2.resize(heat.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR), False)
    axes[1].set_title("Grad-CAM", fontsize=9)
    smooth = cv2.GaussianBlur(found.parts["image"].astype(np.float32), (0, 0), SMOOTH_PX)
    _overlay(axes[2], grey, cv2.resize(smooth, size[::-1], interpolation=cv2.INTER_LINEAR), True)
    axes[2].set_title(_signed_title("integrated gradients of the pixels", record, "image"), fontsize=9)
    for axis in axes:
        axis.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))
        axis.set_axis_off()


def _overlay(axis: Any, picture: np.ndarray, heat: np.ndarray, signed: bool) -> None:
    """Heat over a grey picture, more opaque where it is stronger; of signed heat the colour tells the sign alone."""
    strength = np.clip(np.abs(heat) / _limit(heat), 0, 1)
    colours = plt.get_cmap(SIGNED)(np.where(heat > 0, 0.95, 0.05)) if signed else plt.get_cmap(HEAT)(strength)
    axis.imshow(picture)
    axis.imshow(np.dstack([colours[..., :3], OPAQUE * strength]))


def _limit(values: np.ndarray) -> float:
    return max(float(np.percentile(np.abs(values), TOP_PERCENTILE)), 1e-12)


def _sound_row(figure: Any, shown: Shown, found: Attributions, record: dict[str, Any]) -> None:
    """The features and their attribution, time to the right; a raw wave as a line."""
    assert shown.features is not None
    features, values = np.squeeze(shown.features), np.squeeze(found.parts["audio"])
    left, right = figure.subplots(1, 2, sharex=True)
    if features.ndim == 1:
        left.plot(features, linewidth=0.6)
        right.plot(values, linewidth=0.6)
    else:
        extent = None
        if shown.window_s is not None:  # our frames are (F, M); other extractors' are (M, F) as a rule
            features, values = features.T, values.T
            half_ms = 500 * shown.window_s
            extent = (-half_ms, half_ms, -0.5, len(features) - 0.5)
        plain: Any = {"aspect": "auto", "origin": "lower", "extent": extent, "interpolation": "nearest"}
        left.imshow(features, cmap="gray", **plain)
        limit = _limit(values)
        right.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, **plain)
        left.set_ylabel("mel bin", fontsize=8)
    left.set_title("spectrogram" if features.ndim > 1 else "sound", fontsize=9)
    right.set_title(_signed_title("integrated gradients of the sound", record, "audio"), fontsize=9)
    for axis in (left, right):
        axis.tick_params(labelsize=7)
        if shown.window_s is not None:
            axis.axvline(0, color=GROUP_COLOUR, linewidth=1)
            axis.set_xlabel("ms from the picture", fontsize=8)


def _lines(words: list[dict]) -> list[list[dict]]:
    """Words broken into lines."""
    lines: list[list[dict]] = [[]]
    used = 0
    for word in words:
        if used and used + len(word["word"]) > LINE_LETTERS:
            lines.append([])
            used = 0
        lines[-1].append(word)
        used += len(word["word"]) + 2
    return lines


def _words_row(figure: Any, lines: list[list[dict]], record: dict[str, Any]) -> None:
    axis = figure.subplots(1, 1)
    axis.set(xlim=(0, LINE_LETTERS + 2), ylim=(len(lines), -0.1))
    axis.set_axis_off()
    axis.set_title(_signed_title("integrated gradients of the words", record, "text"), fontsize=9)
    limit = max((abs(w["attribution"]) for w in record["words"]), default=0) or 1.0
    colours = plt.get_cmap(SIGNED)
    for row, line in enumerate(lines):
        at = max(0.0, (LINE_LETTERS - sum(len(w["word"]) + 2 for w in line)) / 2)
        for word in line:
            share, wide = word["attribution"] / limit, len(word["word"]) + 1
            axis.add_patch(Rectangle((at, row + 0.08), wide, 0.8, color=colours(0.5 + 0.35 * share), linewidth=0))
            axis.text(at + wide / 2, row + 0.36, word["word"], ha="center", va="center", family="monospace",
                      fontsize=11, parse_math=False)  # fmt: skip
            axis.text(at + wide / 2, row + 0.73, f"{word['attribution']:+.2g}", ha="center", va="center", fontsize=5.5)
            at += wide + 1
