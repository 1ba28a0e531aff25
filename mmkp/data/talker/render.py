"""One picture of one person at one moment."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from mmkp.data.talker import face, head
from mmkp.data.talker.mouth import MouthState
from mmkp.data.talker.paint import OVERSAMPLE, Canvas, curve
from mmkp.data.talker.person import Person
from mmkp.data.talker.shade import Light, light_map
from mmkp.data.talker.view import View


@dataclass(frozen=True)
class Scene:
    """What surrounds a clip: light, the background as a small picture, the camera's noise in grey levels."""

    light: Light
    background: UInt8[np.ndarray, "b b 3"]
    noise: float


def draw_scene(rng: np.random.Generator) -> Scene:
    """A lamp from above or the side, a blurred room, a camera."""
    turn, rise = rng.normal(0, 40), rng.normal(25, 18)
    turn, rise = np.radians([np.clip(turn, -80, 80), np.clip(rise, -15, 65)])
    direction = np.array([np.sin(turn) * np.cos(rise), -np.sin(rise), np.cos(turn) * np.cos(rise)])
    warm = rng.normal(0, 0.06)
    light = Light(
        direction, float(rng.uniform(0.5, 0.75)), np.array([1 + warm, 1.0, 1 - warm]), float(rng.uniform(0.85, 1.12))
    )
    base, other = _muted(rng), _muted(rng)
    ramp = np.linspace(0, 1, 12)[:, None, None]
    room = base + (other - base) * (ramp if rng.random() < 0.5 else ramp.transpose(1, 0, 2))
    room = room + rng.normal(0, rng.uniform(1, 12), (12, 12, 1)) + rng.normal(0, 2, (12, 12, 3))
    for _ in range(rng.integers(0, 4)):
        x, y, w, h = rng.integers(0, 12, 4)
        room[y : y + h, x : x + w] = _muted(rng)
    return Scene(light, np.clip(room, 0, 255).astype(np.uint8), float(rng.uniform(0.5, 4.0)))


def _muted(rng: np.random.Generator) -> np.ndarray:
    """A colour of walls and furniture: any brightness, little saturation."""
    return np.clip(rng.uniform(25, 230) + rng.normal(0, 22, 3), 5, 250)


def render(
    person: Person, state: MouthState, points_mm: np.ndarray, view: View, scene: Scene, gaze: np.ndarray, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Draw the head.

    Args:
        points_mm: (68, 3) `mouth.landmarks(person, state)`.
        gaze: (2,) mm that the irises are off the middle.
        size: side of the picture, px.
    """
    side = size * OVERSAMPLE
    canvas = Canvas(cv2.resize(scene.background, (side, side), interpolation=cv2.INTER_CUBIC))
    lit = np.zeros((side, side), np.uint8)
    head.paint_back_hair(canvas, person, view, lit)
    _paint_neck(canvas, person, view, points_mm, lit)
    head.paint_ears(canvas, person, view, lit)
    outline = canvas.hull(view.project(head.face_outline(person, points_mm)))
    canvas.fill(outline, person.skin)
    canvas.fill(outline, np.array([255]), lit)
    _paint_beard(canvas, person, view, points_mm)
    face.paint_lips(canvas, person, view, points_mm)
    face.paint_brows(canvas, person, view, points_mm)
    head.paint_front_hair(canvas, person, view)
    bright = _shine(canvas, points_mm, state, view, scene.light, lit, size)
    face.paint_nose(canvas, person, view, points_mm, bright)
    face.paint_mouth(canvas, person, view, points_mm, state, bright)
    face.paint_eyes(canvas, person, view, points_mm, gaze)
    face.paint_glasses(canvas, person, view, points_mm)
    return canvas.finish(size)


def _shine(
    canvas: Canvas, points_mm: np.ndarray, state: MouthState, view: View, light: Light, lit: np.ndarray, size: int
) -> float:
    """Light what has been drawn so far; returns how bright the middle of the face came out."""
    anchors = points_mm[[0, 16, 36, 45, 48, 54, 27, 8]]
    bright = light_map(view, anchors, state, light, size)
    share = lit.astype(np.float32) / 255
    factor = (1 + (bright - 1) * share)[..., None] * (light.colour * light.exposure).astype(np.float32)
    canvas.pixels = np.clip(canvas.pixels * factor, 0, 255).astype(np.uint8)
    x, y = np.clip((view.project(points_mm[33]) * OVERSAMPLE).astype(int), 0, bright.shape[0] - 1)
    return float(np.clip(bright[y, x] * light.exposure, 0.35, 1.1))


def _paint_neck(canvas: Canvas, person: Person, view: View, points_mm: np.ndarray, lit: np.ndarray) -> None:
    """Neck and clothes; they stand upright whatever the head does."""
    root = view.project(np.array([0.0, 110, -75]))
    below, unit = canvas.side / OVERSAMPLE + 5, view.scale
    width = 46 * np.abs(person.base[0, 0]) / 72
    neck = np.array(
        [[-width, -90], [-width * 0.98, 30], [-width * 1.25, 70], [width * 1.25, 70], [width * 0.98, 30], [width, -90]]
    )
    neck_xy = root + neck * unit
    canvas.fill(neck_xy, person.skin * 0.86)
    canvas.fill(neck_xy, np.array([255]), lit)
    drop = points_mm[8, 1] - person.base[8, 1]
    shadow = np.array(
        [[-width, -60], [-width, 6], [-20, 24 + drop * 0.6], [20, 24 + drop * 0.6], [width, 6], [width, -60]]
    )
    canvas.fill(root + shadow * unit, person.skin * 0.6)
    collar = np.array(
        [[-260.0, 110], [-150, 62], [-62, 46], [-30, 66], [0, 74], [30, 66], [62, 46], [150, 62], [260, 110]]
    )
    top = root + curve(collar, steps=3) * unit
    cloth = np.concatenate([top, [[top[-1, 0], below], [top[0, 0], below]]])
    canvas.fill(cloth, person.clothes)
    canvas.fill(cloth, np.array([0]), lit)


def _paint_beard(canvas: Canvas, person: Person, view: View, points_mm: np.ndarray) -> None:
    """Stubble to full beard along the jaw, and a moustache; soft, under the lips."""
    if not (person.beard or person.moustache):
        return
    mask = np.zeros((canvas.side, canvas.side), np.float32)
    lips_mm, jaw = points_mm[48:], points_mm[:17]
    if person.beard:
        inner = np.stack(
            [jaw[2] * [0.9, 1, 0.8], jaw[3] * [0.86, 1, 0.7], lips_mm[0] + [-12, -2, 0], lips_mm[0] + [-3, 8, 0],
             lips_mm[9] + [0, 4, 0], lips_mm[6] + [3, 8, 0], lips_mm[6] + [12, -2, 0], jaw[13] * [0.86, 1, 0.7],
             jaw[14] * [0.9, 1, 0.8]]
        )  # fmt: skip
        area = np.concatenate([inner, curve(jaw[2:15])[::-1]])
        mask = np.maximum(mask, canvas.mask(view.project(area), 2.0 * view.scale) * person.beard)
    if person.moustache:
        top = points_mm[33] + [[-6, 2, 0], [6, 2, 0]]
        area = np.stack(
            [lips_mm[0] + [-5, 3, 0], top[0], top[1], lips_mm[6] + [5, 3, 0], lips_mm[4], lips_mm[3], lips_mm[2]]
        )
        mask = np.maximum(mask, canvas.mask(view.project(area), 1.0 * view.scale) * person.moustache)
    canvas.blend(person.hair * 0.8 + person.skin * 0.1, mask * 0.85)
