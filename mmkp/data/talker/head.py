"""Everything of the head that is not a landmark: skull, hairline, ears, hair. Head frame, mm."""

from __future__ import annotations

import numpy as np

from mmkp.data.talker.paint import OVERSAMPLE, Canvas, curve
from mmkp.data.talker.person import Person
from mmkp.data.talker.view import View


def _sphere(rows: int = 9, columns: int = 20) -> np.ndarray:
    tilt, turn = np.meshgrid(np.linspace(-np.pi / 2, np.pi / 2, rows), np.arange(columns) / columns * 2 * np.pi)
    return np.stack([np.cos(tilt) * np.sin(turn), np.sin(tilt), np.cos(tilt) * np.cos(turn)], -1).reshape(-1, 3)


_SPHERE = _sphere()
_SKULL_MM, _SKULL_RADII_MM = np.array([0.0, -24.0, -76.0]), np.array([75.0, 82.0, 90.0])
_CHEEKS = np.array([[-66.0, 12, -34], [-62, 34, -28], [-68, -14, -38], [66, 12, -34], [62, 34, -28], [68, -14, -38]])
_EAR_TURN = np.linspace(0, 2 * np.pi, 14, endpoint=False)
# How far hair stands off the skull and how long it hangs (mm below the eyes; 0 for none), by style.
_HAIR_SHAPE = {
    "bald": (1.0, 0), "cropped": (1.025, 0), "short": (1.08, 0), "fringe": (1.09, 0), "parted": (1.1, 0),
    "bob": (1.12, 85), "long": (1.12, 175), "curly": (1.26, 40),
}  # fmt: skip


def skull(person: Person, grow: float = 1.0) -> np.ndarray:
    """(n, 3) points of the skull, or of hair that stands off it."""
    width = np.abs(person.base[[0, 16], 0]).mean() / 72.0
    return (_SKULL_MM + _SPHERE * _SKULL_RADII_MM * [width * grow, grow, grow]) * person.scale


def hairline(person: Person) -> np.ndarray:
    """(n, 3) the upper border of the face, from the ear on the picture's left over the forehead to the other."""
    top, side = person.hairline, np.abs(person.base[[0, 16], 0]).mean()
    half = np.array(
        [[-side, 2, -62], [-side + 1, -20, -54], [-side + 5, -42, -40], [-50, top + 4, -18], [-25, top - 3, -4]]
    )
    whole = np.concatenate([half, [[0, top - 5, 0]], (half * [-1, 1, 1])[::-1]])
    return curve(whole, steps=4) * person.scale


def face_outline(person: Person, points_mm: np.ndarray) -> np.ndarray:
    """(n, 3) points whose projected hull is the skin of the face: jaw line, cheeks, forehead."""
    forehead = np.array([[-44.0, -40, -6], [44, -40, -6], [-24, -52, 2], [24, -52, 2]])
    return np.concatenate(
        [curve(points_mm[:17]), (np.concatenate([_CHEEKS, forehead])) * person.scale, hairline(person)]
    )


def ear(person: Person, side: int) -> np.ndarray:
    """(14, 3) the rim of an ear; `side` -1 is the one on the picture's left."""
    edge = np.abs(person.base[[0, 16], 0]).mean()
    wave = np.cos(_EAR_TURN)
    height = 30 - 5 * (np.sin(_EAR_TURN) > 0)
    rim = np.stack([side * (edge + 3 + 8 * wave), 10 + height * np.sin(_EAR_TURN), -70 - 12 * wave], -1)
    return rim * person.scale


def paint_back_hair(canvas: Canvas, person: Person, view: View, mask: np.ndarray) -> None:
    """Hair (or the bald skull) behind the face."""
    grow, length = _HAIR_SHAPE[person.style]
    colour = person.skin if person.style == "bald" else person.hair
    points = skull(person, grow)
    if length:
        fall = np.array(
            [[-82.0, 0, -75], [82, 0, -75], [-84, length * 0.7, -70], [84, length * 0.7, -70], [-66, length, -60],
             [66, length, -60]]
        )  # fmt: skip
        points = np.concatenate([points, fall * person.scale])
    outline = canvas.hull(view.project(points))
    canvas.fill(outline, colour)
    canvas.fill(outline, np.array([255]), mask)
    if person.style == "curly":
        rng = np.random.default_rng(person.fringe_seed)
        lumps = outline[:: max(1, len(outline) // 18)]
        for lump in lumps + rng.normal(0, 1.5 * view.scale, lumps.shape):
            ball = lump + rng.uniform(10, 17) * view.scale * np.stack([np.cos(_EAR_TURN), np.sin(_EAR_TURN)], -1)
            canvas.fill(ball, colour * rng.uniform(0.85, 1.05))
            canvas.fill(ball, np.array([255]), mask)
    if person.style != "bald":
        _streaks(canvas, person, view, grow)


def _streaks(canvas: Canvas, person: Person, view: View, grow: float) -> None:
    """Strands over the top of the head, lighter and darker than the hair."""
    rng = np.random.default_rng(person.fringe_seed)
    start = np.array([rng.uniform(-25, 25), -92.0, -45.0])
    ends = np.stack([np.linspace(-68, 68, 11) + rng.normal(0, 3, 11), np.full(11, -42.0), np.full(11, -45.0)], -1)
    bend = np.stack([ends[:, 0] * 0.7 + start[0] * 0.3, np.full(11, -76.0), np.full(11, -25.0)], -1)
    for end, middle, tone in zip(ends, bend, rng.uniform(0.72, 1.3, 11), strict=True):
        canvas.line(view.project(curve(np.stack([start, middle, end]), steps=4)), person.hair * tone, 0.9)


def paint_ears(canvas: Canvas, person: Person, view: View, mask: np.ndarray) -> None:
    """Ears, unless hair hides them."""
    if person.style in ("bob", "long"):
        return
    for side in (-1, 1):
        rim = view.project(ear(person, side))
        canvas.fill(rim, person.skin * 0.97)
        canvas.fill(rim, np.array([255]), mask)
        inner = rim.mean(0) + (rim - rim.mean(0)) * 0.58
        canvas.fill(inner, person.skin * 0.78)


def paint_front_hair(canvas: Canvas, person: Person, view: View) -> None:
    """What falls over the forehead and the cheeks."""
    rng = np.random.default_rng(person.fringe_seed + 1)
    line = hairline(person)
    low = {"fringe": 26.0, "bob": 20.0 * rng.random(), "parted": 14.0, "long": 10.0 * rng.random(), "short": 5.0}.get(
        person.style, 0.0
    )
    if low:
        count = len(line)
        inner = line[count // 5 : -(count // 5)].copy()
        drop = low * (0.75 + 0.25 * rng.random(len(inner)))
        if person.style in ("parted", "long"):
            centre = rng.uniform(-25, 25)
            drop = low * np.clip(np.abs(inner[:, 0] - centre) / 40, 0, 1.6)
        edge = inner + np.stack([np.zeros_like(drop), drop, 0.35 * drop], -1)
        canvas.fill(view.project(np.concatenate([inner + [0, -14.0, -6], edge[::-1]])), person.hair * 0.96)
    for lock in side_locks(person):
        canvas.fill(view.project(lock), person.hair * 0.93)


def side_locks(person: Person) -> list[np.ndarray]:
    """(n, 3) outlines of the hair that hangs over the cheeks' edges; none for short hair."""
    if person.style not in ("bob", "long"):
        return []
    length = _HAIR_SHAPE[person.style][1]
    half = np.array(
        [[66, -50, -24], [77, -15, -44], [79, 30, -50], [82, length * 0.6, -50], [76, length, -46], [64, length, -40],
         [66, 40, -44], [65, 0, -34]], dtype=float,
    )  # fmt: skip
    return [curve(half * [side, 1, 1] * person.scale, closed=True, steps=4) for side in (-1, 1)]


def under_locks(person: Person, view: View, points_xy: np.ndarray, size: int) -> np.ndarray:
    """(K,) which points of the picture the locks cover."""
    hidden = np.zeros(len(points_xy), bool)
    for lock in side_locks(person):
        canvas = Canvas(np.zeros((size * OVERSAMPLE, size * OVERSAMPLE, 3), np.uint8))
        canvas.fill(view.project(lock), np.full(3, 255.0))
        x, y = np.clip(np.round(points_xy * OVERSAMPLE).astype(int), 0, size * OVERSAMPLE - 1).T
        hidden |= canvas.pixels[y, x, 0] > 127
    return hidden
