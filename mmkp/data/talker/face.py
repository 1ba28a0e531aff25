"""The features of the face, each drawn through its own landmarks so that a keypoint lies on what it names."""

from __future__ import annotations

from functools import partial

import numpy as np

from mmkp.data.talker.mouth import MouthState
from mmkp.data.talker.paint import Canvas, curve
from mmkp.data.talker.person import Person
from mmkp.data.talker.view import View

_CAVITY, _TEETH, _TONGUE = np.array([62.0, 20, 22]), np.array([238.0, 232, 218]), np.array([196.0, 96, 96])
_TURN = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN), np.zeros(16)], -1)
IRIS_MM = 6.4  # radius; a little above the 5.9 of an adult, since lids of a drawing hide less


def paint_brows(canvas: Canvas, person: Person, view: View, points_mm: np.ndarray) -> None:
    """Brows, tapered towards the temples, their landmarks along the middle."""
    for points, taper in (
        (points_mm[17:22], (0.35, 0.8, 1.0, 1.0, 0.8)),
        (points_mm[22:27], (0.8, 1.0, 1.0, 0.8, 0.35)),
    ):
        half = np.array(taper)[:, None] * [0, 1, 0] * person.brow_mm
        edge = np.concatenate([curve(points - half), curve(points + half)[::-1]])
        tone = 0.75 * person.hair + 0.25 * person.skin * 0.7 if person.style != "bald" else person.hair
        canvas.fill(view.project(edge), tone * 0.85)


def lid_curves(eye_xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower lid, from the eye's first corner in the picture to its second and back."""
    return curve(eye_xy[[0, 1, 2, 3]], steps=4), curve(eye_xy[[3, 4, 5, 0]], steps=4)


def paint_eyes(canvas: Canvas, person: Person, view: View, points_mm: np.ndarray, gaze: np.ndarray) -> None:
    """Eyeball, iris, pupil and glint within the lids; lashes and the crease of the lid."""
    for eye in (points_mm[36:42], points_mm[42:48]):
        eye_xy = view.project(eye)
        upper, lower = lid_curves(eye_xy)
        centre = (eye[0] + eye[3]) / 2 + [gaze[0], gaze[1] - 0.8, 4.0]
        canvas.inside(np.concatenate([upper, lower]), partial(_eyeball, person=person, view=view, centre=centre))
        crease = curve(eye[:4] + [[0, -1.5, 0], [0, -4.6, 0], [0, -4.6, 0], [0, -2.5, 0]], steps=4)
        canvas.line(view.project(crease), person.skin * 0.62, 0.35 * view.scale)
        canvas.line(upper, person.skin * 0.16 + 12, 1.7 * view.scale)
        canvas.line(lower, person.skin * 0.55, 0.5 * view.scale)


def _eyeball(canvas: Canvas, person: Person, view: View, centre: np.ndarray) -> None:
    ball = view.project(centre + _CIRCLE * 26)
    canvas.fill(ball, np.array([232.0, 228, 224]))
    canvas.fill(view.project(centre + _CIRCLE * (IRIS_MM + 0.8)), person.iris * 0.55)
    canvas.fill(view.project(centre + _CIRCLE * IRIS_MM * 0.92), person.iris)
    canvas.fill(view.project(centre + _CIRCLE * IRIS_MM * 0.48), np.array([14.0, 12, 12]))
    canvas.fill(view.project(centre + [-2.2, -2.4, 1] + _CIRCLE * 1.5), np.array([250.0, 250, 250]))


def paint_nose(canvas: Canvas, person: Person, view: View, points_mm: np.ndarray, bright: float) -> None:
    """Nostrils and the folds of the wings; the bridge is left to the light."""
    dark, soft = person.skin * 0.34 * bright, person.skin * 0.66 * bright
    base = points_mm[31:36]
    for side, near, far in ((-1, base[1], base[0]), (1, base[3], base[4])):
        hole = near * 0.62 + far * 0.38 + [0, -1.8, 0]
        canvas.fill(view.project(hole + _CIRCLE * [4.2, 1.9, 0] + _CIRCLE[:, :1] * [0, 0.25 * side, 0]), dark)
        wing = np.stack([far + [side * 1.5, -10, -3], far + [side * 3.4, -5, -2], far + [side * 1.6, 0.4, 0], near])
        canvas.line(view.project(curve(wing, steps=4)), soft, 0.9 * view.scale)
    canvas.line(view.project(curve(base[1:4], steps=4)), soft, 1.0 * view.scale)


def lip_curves(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the 20 lip points: the outer upper, outer lower, inner upper and inner lower edge, each left to right."""
    outer, inner = points[:12], points[12:]
    return (
        curve(outer[:7]), curve(outer[[0, 11, 10, 9, 8, 7, 6]]),
        curve(inner[:5]), curve(inner[[0, 7, 6, 5, 4]]),
    )  # fmt: skip


def paint_lips(canvas: Canvas, person: Person, view: View, points_mm: np.ndarray) -> None:
    """Both lips, before the light."""
    outer_top, outer_low, inner_top, inner_low = lip_curves(view.project(points_mm[48:]))
    canvas.fill(np.concatenate([outer_top, inner_top[::-1]]), person.lips * 0.9)
    canvas.fill(np.concatenate([inner_low, outer_low[::-1]]), person.lips * 1.04)


def paint_mouth(
    canvas: Canvas, person: Person, view: View, points_mm: np.ndarray, state: MouthState, bright: float
) -> None:
    """What shows between the lips, and the dark line where they meet."""
    lips_mm = points_mm[48:]
    _, _, inner_top, inner_low = lip_curves(view.project(lips_mm))
    region = np.concatenate([inner_top, inner_low[::-1]])
    canvas.inside(region, partial(_mouth_inside, person=person, view=view, state=state, bright=bright))
    gap_px = float(np.linalg.norm(view.project(lips_mm[18]) - view.project(lips_mm[14])))
    if gap_px < 1.2:
        canvas.line(inner_top, person.lips * 0.42 * bright, 0.8 * view.scale)


def _mouth_inside(canvas: Canvas, person: Person, view: View, state: MouthState, bright: float) -> None:
    line_y, jaw = person.mouth[1] * person.scale[1], state.jaw_mm
    canvas.fill(view.project(np.array([0, line_y + jaw / 2, 0]) + _CIRCLE * [60, 60, 0]), _CAVITY * bright)
    across = np.linspace(-1, 1, 9)
    back = -9.0 * across**2
    tongue_y = line_y + jaw * (0.95 - 0.55 * state.tongue)
    tongue = np.array([0, tongue_y + 7, -2]) + _CIRCLE * [17, 9, 0]
    canvas.fill(view.project(tongue), _TONGUE * bright * 0.9)
    for top, bottom in (
        (line_y - 9, line_y + 2.4 - 1.5 * across**2),
        (line_y + jaw + 3.5 + across**2, line_y + jaw + 12),
    ):
        upper = np.stack([across * 23, np.broadcast_to(top, 9), back], -1)
        lower = np.stack([across * 23, np.broadcast_to(bottom, 9), back], -1)
        canvas.fill(view.project(np.concatenate([upper, lower[::-1]])), _TEETH * bright * 0.92)


def paint_glasses(canvas: Canvas, person: Person, view: View, points_mm: np.ndarray) -> None:
    """A frame with clear panes: the eyes stay in sight."""
    if not person.glasses:
        return
    power = {1: 2.0, 2: 4.0, 3: 3.0}[person.glasses]  # 2 is an ellipse, more is nearer to a rectangle
    rim = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2 / power)
    colour = np.array([30.0, 26, 26]) if person.glasses != 1 else person.hair * 0.6 + 40
    width = {1: 1.6, 2: 2.6, 3: 4.0}[person.glasses] * view.scale
    centres = [points_mm[36:42].mean(0) + [-1, 3, 14], points_mm[42:48].mean(0) + [1, 3, 14]]
    for centre in centres:
        canvas.line(view.project(centre + rim * [24, 17, 0]), colour, width, closed=True)
    bridge = np.stack([centres[0] + [24, -3, 0], (centres[0] + centres[1]) / 2 + [0, -6, 4], centres[1] + [-24, -3, 0]])
    canvas.line(view.project(curve(bridge, steps=4)), colour, width)
    for side, centre in ((-1, centres[0]), (1, centres[1])):
        arm = np.stack([centre + [side * 24, -4, 0], np.array([side * 72.0, -6, -55])])
        canvas.line(view.project(arm), colour, width)
