"""Contact sheets: keypoints on each picture, its sound as a spectrogram with the picture's moment, its text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from mmkp import geometry
from mmkp.data import open_dataset
from mmkp.data.check.source import named, open_source
from mmkp.data.rows import RowDataset
from mmkp.data.sample import KeypointDataset, Sample
from mmkp.data.timing import WINDOW_S
from mmkp.errors import InputError
from mmkp.evaluation.draw import BITS, sheet
from mmkp.schema import KeypointSchema

SIDE, MARGIN, LINE, PER_SHEET, COLUMNS = 320, 10, 19, 24, 3  # px of the picture's panel; items
SOUND_HW = (96, SIDE - 2 * MARGIN)
LONGEST_S = 4.0  # of sound shown, around the moment
FRAME_S, HOP_S, TOP_HZ, FLOOR_DB = 0.025, 0.005, 8000.0, -70.0
# Okabe and Ito's palette: told apart by colour-blind readers too.
LEFT, RIGHT, MIDDLE, BOX = (230, 159, 0), (86, 180, 233), (0, 200, 140), (255, 255, 255)
INK, PALE, EMPTY = (40, 40, 40), (150, 150, 150), (236, 236, 236)


def preview(spec: str, out: Path, n: int = 24, split: str = "all", **options: Any) -> list[Path]:
    """Write contact sheets of a dataset.

    Args:
        spec: as `open_dataset` takes it.
        out: folder; sheets of an earlier preview in it are replaced.
        n: items, spread evenly over the split.
        split: train, validation, test or all.
        options: of the dataset.

    Returns:
        The sheets, PNG, of up to 24 items each.

    Raises:
        InputError: no such data, no such split, a folder that cannot be written.
    """
    dataset = _open(spec, split, options)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(n, len(dataset))).round().astype(int))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}", expected="a folder to write into", got=str(error)) from error
    paths = []
    for page, start in enumerate(range(0, len(chosen), PER_SHEET)):
        part = chosen[start : start + PER_SHEET]
        tiles = [item(dataset[int(i)], dataset.schema) for i in part]
        title = f"{spec} ({split}): {len(chosen)} of {len(dataset)} samples, {start + 1} to {start + len(part)}"
        columns = min(COLUMNS, len(tiles))
        body = sheet(tiles, columns, gap=8)
        paths.append(out / ("preview.png" if len(chosen) <= PER_SHEET else f"preview_{page + 1:02d}.png"))
        Image.fromarray(np.concatenate([_header(title, dataset.schema, body.shape[1]), body])).save(paths[-1])
    return paths


def item(sample: Sample, schema: KeypointSchema) -> UInt8[np.ndarray, "H W 3"]:
    """One sample as a tile: the picture on the left; on the right its name, text and sound."""
    tile = np.full((SIDE, 2 * SIDE, 3), 255, np.uint8)
    tile[:, :SIDE] = picture(sample, schema)
    canvas = Image.fromarray(tile)
    pen = ImageDraw.Draw(canvas)
    left = SIDE + MARGIN
    count = int((sample.visible > 0).sum())
    facts = f"{count} of {schema.num_keypoints} keypoints"
    if sample.image is not None:
        facts += f", {sample.image.shape[1]} x {sample.image.shape[0]} px"
    pen.text((left, 6), _fit(sample.id, 36), INK, _font(13, bold=True))
    pen.text((left, 6 + LINE), _fit(f"group {sample.group}", 38), PALE, _font(12))
    pen.text((left, 6 + 2 * LINE), facts, PALE, _font(12))
    top = 12 + 3 * LINE
    lines = ["no text"] if sample.text is None else wrapped(sample.text, 38, 6)
    for number, line in enumerate(lines):
        pen.text((left, top + number * LINE), line, PALE if sample.text is None else INK, _font(14))
    sound_top = SIDE - SOUND_HW[0] - 2 * MARGIN - 8
    if sample.audio is None:
        pen.text((left, SIDE - MARGIN - 18), "no sound", PALE, _font(14))
        return np.asarray(canvas)
    shown, note = spectrogram(sample.audio, sample.rate_hz, sample.audio_time_s)
    canvas.paste(Image.fromarray(shown), (left, sound_top))
    pen.text((left, sound_top + SOUND_HW[0] + 4), note, PALE, _font(11))
    return np.asarray(canvas)


def picture(sample: Sample, schema: KeypointSchema) -> UInt8[np.ndarray, "side side 3"]:
    """The picture, or the part around a small box, fitted into the panel, with its keypoints."""
    panel = geometry.crop_affine(geometry.square_box(_view(sample)), (SIDE, SIDE))
    if sample.image is None:
        canvas = np.full((SIDE, SIDE, 3), EMPTY, np.uint8)
        cv2.putText(canvas, "no picture", (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.5, PALE, 1, cv2.LINE_AA)
    else:
        canvas = np.ascontiguousarray(geometry.warp(sample.image, panel, (SIDE, SIDE), EMPTY[0]))
        if sample.box_xywh is not None:
            x, y, width, height = sample.box_xywh
            corners = geometry.transform(np.array([[x, y], [x + width, y + height]]), panel)
            first, last = np.rint(np.clip(corners, -9999, 9999)).astype(int).tolist()
            cv2.rectangle(canvas, first, last, INK, 3, cv2.LINE_AA)
            cv2.rectangle(canvas, first, last, BOX, 1, cv2.LINE_AA)
    _draw(canvas, geometry.transform(sample.keypoints_xy.astype(float), panel), sample.visible, schema)
    return canvas


def spectrogram(samples: np.ndarray, rate_hz: int, time_s: float | None) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
    """Power over time and frequency, low below, the window that a model hears marked; and a line that says what it is.

    Args:
        samples: (T,) mono.
        time_s: the picture's moment; the middle without.
    """
    length_s = len(samples) / rate_hz
    moment_s = length_s / 2 if time_s is None else time_s
    start_s = float(np.clip(moment_s - LONGEST_S / 2, 0, max(length_s - LONGEST_S, 0)))
    span_s = min(length_s, LONGEST_S)
    part = samples[round(start_s * rate_hz) : round((start_s + span_s) * rate_hz)]
    size, hop = max(round(FRAME_S * rate_hz), 2), max(round(HOP_S * rate_hz), 1)
    padded = np.pad(part, size // 2, mode="constant")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, max(size, 512))) ** 2
    power = power[:, : max(int(power.shape[1] * min(1.0, TOP_HZ / (rate_hz / 2))), 2)]
    decibels = 10 * np.log10(power / max(float(power.max()), 1e-12) + 1e-12)
    level = np.clip((decibels - FLOOR_DB) / -FLOOR_DB, 0, 1).T[::-1]
    resized = cv2.resize(level.astype(np.float32), SOUND_HW[::-1], interpolation=cv2.INTER_AREA)
    shown = (matplotlib.colormaps["magma"](resized)[..., :3] * 255).astype(np.uint8)
    at = [(moment_s + shift - start_s) / span_s * SOUND_HW[1] for shift in (-WINDOW_S / 2, 0, WINDOW_S / 2)]
    for x, colour in zip((int(np.clip(v, 0, SOUND_HW[1] - 1)) for v in at), (PALE, BOX, PALE), strict=True):
        shown[:, x] = colour
    middle = ", the middle" if time_s is None else ""
    part_of = f", {start_s:.2f} to {start_s + span_s:.2f} s shown" if span_s < length_s else ""
    return shown, f"{length_s:.2f} s, {rate_hz} Hz{part_of}; picture at {moment_s:.2f} s{middle}"


def wrapped(text: str, width: int, most: int) -> list[str]:
    """Lines of at most `width` letters, at most `most` of them; the last ends in dots where some are missing."""
    lines = textwrap.wrap(" ".join(text.split()), width, break_long_words=True) or ["(empty text)"]
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][: width - 4] + " ..."]


def sides(schema: KeypointSchema) -> np.ndarray:
    """(K,) -1 left, 1 right, 0 neither: by the names, or else in the order that most of the named pairs have."""
    order = [_first_is_right(schema.keypoints[a], schema.keypoints[b]) for a, b in schema.flip_pairs]
    usual = 1 if sum(order) > 0 else -1
    side = np.zeros(schema.num_keypoints, int)
    for (a, b), first in zip(schema.flip_pairs, order, strict=True):
        side[a], side[b] = (first or usual), -(first or usual)
    return side


def _first_is_right(first: str, second: str) -> int:
    """1 yes, -1 no, 0 the names do not say."""
    words = [[word in name.lower() for word in ("right", "left")] for name in (first, second)]
    return int(words[0][0] and words[1][1]) - int(words[0][1] and words[1][0])


def _open(spec: str, split: str, options: dict[str, Any]) -> KeypointDataset:
    from mmkp.data import READERS

    if named(spec)[0] in READERS:
        return RowDataset(open_source(spec, **options), split)
    return open_dataset(spec, split, **options)


def _view(sample: Sample) -> np.ndarray:
    """xywh px: what is shown. The whole picture; around its box where that is small; around the points without one."""
    if sample.image is None:
        known = sample.keypoints_xy[np.isfinite(sample.keypoints_xy).all(-1)]
        if not len(known):
            return np.array([0.0, 0.0, 1.0, 1.0])
        low, size = known.min(0), np.maximum(np.ptp(known, axis=0), 1)
        return np.concatenate([low - 0.1 * size, 1.2 * size]).astype(float)
    whole = geometry.whole_image_box((sample.image.shape[0], sample.image.shape[1])).astype(float)
    box = np.asarray(sample.box_xywh, dtype=float)
    if not (np.isfinite(box).all() and 0 < max(box[2:]) < max(whole[2:]) / 2):
        return _around_points(sample, whole)
    return np.array([box[0] - 0.25 * box[2], box[1] - 0.25 * box[3], 1.5 * box[2], 1.5 * box[3]])


def _around_points(sample: Sample, whole: np.ndarray) -> np.ndarray:
    """The whole picture, or six times the points' extent where they take less than a tenth of its longer side."""
    known = sample.keypoints_xy[np.isfinite(sample.keypoints_xy).all(-1)].astype(float)
    extent = float(np.ptp(known, axis=0).max()) if len(known) > 1 else 0.0
    if not 0 < extent < max(whole[2:]) / 10:
        return whole
    middle = (known.min(0) + known.max(0)) / 2
    return np.concatenate([middle - 3 * extent, [6 * extent, 6 * extent]])


def _draw(canvas: np.ndarray, points_xy: np.ndarray, visible: np.ndarray, schema: KeypointSchema) -> None:
    """Edges, then points with a dark rim; a hidden point is hollow."""
    known = np.isfinite(points_xy).all(-1) & (visible > 0)
    fixed = np.rint(np.clip(np.nan_to_num(points_xy), -9999, 9999) * (1 << BITS)).astype(int)
    side = sides(schema)
    colours = {-1: LEFT, 1: RIGHT, 0: MIDDLE}
    radius, rim = (round(r * (1 << BITS)) for r in ((3, 4) if schema.num_keypoints < 40 else (1.8, 2.6)))
    for a, b in (e for e in schema.edges if known[list(e)].all()):
        colour = colours[int(side[a])] if side[a] == side[b] else MIDDLE
        cv2.line(canvas, fixed[a].tolist(), fixed[b].tolist(), colour, 1, cv2.LINE_AA, BITS)
    for k in np.flatnonzero(known):
        at, colour = fixed[k].tolist(), colours[int(side[k])]
        cv2.circle(canvas, at, rim, (0, 0, 0), -1, cv2.LINE_AA, BITS)
        cv2.circle(canvas, at, radius, colour, -1 if visible[k] > 1 else 1, cv2.LINE_AA, BITS)


def _header(title: str, schema: KeypointSchema, width: int) -> np.ndarray:
    canvas = Image.new("RGB", (width, 56), (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, 6), _fit(title, width // 9), INK, _font(16, bold=True))
    left = MARGIN
    legend: Sequence[tuple[str, tuple[int, int, int]]] = ((f"schema {schema.name}", INK),)
    if schema.flip_pairs:
        legend = (*legend, ("left", LEFT), ("right", RIGHT), ("middle", MIDDLE), ("hollow: hidden", INK))
    for word, colour in legend:
        if colour != INK:
            pen.ellipse((left, 35, left + 10, 45), fill=colour)
            left += 15
        pen.text((left, 31), word, INK, _font(13))
        left += int(pen.textlength(word, _font(13))) + 18
    return np.asarray(canvas)


def _fit(text: str, width: int) -> str:
    """The text, its middle left out where it is longer than `width`."""
    plain = " ".join(text.split())
    return plain if len(plain) <= width else f"{plain[: width // 2 - 1]}...{plain[len(plain) - width // 2 + 2 :]}"


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: Latin, Greek, Cyrillic and more."""
    name = f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
