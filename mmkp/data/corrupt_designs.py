"""What covers look like: masks, rectangles, hands and microphones, drawn before anything is known of a face.

Lengths in units of the outer-eye distance d are called `_d`; the *face frame* has its origin in the middle of the
eyes, u to the right and v down, turned with the eyes' roll, in units of d. Colours are RGB.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

# The protocol: the edges of a cover, below the middle of the eyes, and its half width.
TOP_D, BOTTOM_D, HALF_WIDTH_D = (0.42, 0.55), (1.35, 1.55), (0.50, 0.70)
MASK_SHARE, RECTANGLE_SHARE, HAND_SHARE = 0.5, 0.4, 0.05  # the rest are microphones
ACROSS = np.linspace(-1, 1, 9)  # nine points make a curve of a pleat
SHADE_V, SHADE_U = np.mgrid[-1:1:5j, -1:1:7j]

MASK_COLOURS = np.array(  # RGB: light blue, white, black, green, pink, grey, navy
    [(150, 200, 228), (238, 240, 240), (32, 32, 36), (128, 190, 158), (232, 172, 186), (140, 146, 152), (44, 58, 100)]
)
SKIN_COLOURS = np.array(
    [(240, 205, 180), (222, 176, 146), (196, 146, 112), (150, 104, 76), (104, 70, 50), (70, 48, 36)]
)


@dataclass(frozen=True)
class Line:
    """A stroke: (N, 2) points in the face frame, its width in units of d, its RGB colour."""

    points_d: np.ndarray
    width_d: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class CoverDesign:
    """How a cover looks, drawn before anything is known of the face it lies on.

    Attributes:
        kind: mask, rectangle, hand or microphone.
        top_d: upper edge of the body, in d below the middle of the eyes.
        bottom_d: its lower edge.
        half_width_d: half its width.
        outline_d: (N, 2) the body's outline, face frame.
        tile: (n, m, 3) uint8 RGB, stretched over the body: its colour, shading and texture.
        details: strokes on the body.
        attachments: strokes behind the body, which may leave its extent: ear straps, a handle.
    """

    kind: str
    top_d: float
    bottom_d: float
    half_width_d: float
    outline_d: Float[np.ndarray, "N 2"]
    tile: UInt8[np.ndarray, "n m 3"]
    details: tuple[Line, ...] = ()
    attachments: tuple[Line, ...] = ()


def draw_design(rng: np.random.Generator) -> CoverDesign:
    """A random cover; what it looks like depends on `rng` alone."""
    top, bottom, half = (float(rng.uniform(*limits)) for limits in (TOP_D, BOTTOM_D, HALF_WIDTH_D))
    which = rng.random()
    if which < MASK_SHARE:
        return _mask(rng, top, bottom, half)
    if which < MASK_SHARE + RECTANGLE_SHARE:
        return _rectangle(rng, top, bottom, half)
    if which < MASK_SHARE + RECTANGLE_SHARE + HAND_SHARE:
        return _hand(rng, top, bottom, half)
    return _microphone(rng, top, bottom, half)


def _shaded(rng: np.random.Generator, colour: np.ndarray, strength: float) -> UInt8[np.ndarray, "5 7 3"]:
    """A tile of one colour, darker towards the sides and one random edge."""
    v, u = SHADE_V, SHADE_U
    lean_u, lean_v = rng.uniform(-0.5, 0.5, 2)
    light = 1 - strength * (u**2 + lean_u * u + lean_v * v)
    return _as_colour(light[..., None] * colour)


def _as_colour(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _tint(colour: Iterable[float], factor: float) -> tuple[int, int, int]:
    """A darker (below 1) or lighter shade."""
    red, green, blue = (min(255, max(0, round(float(value) * factor))) for value in colour)
    return red, green, blue


def _jittered(rng: np.random.Generator, colours: np.ndarray, spread: float) -> np.ndarray:
    """One of `colours`, RGB, with a little of chance."""
    return (colours[rng.integers(len(colours))] + rng.normal(0, spread, 3)).clip(0, 255)


def _mask(rng: np.random.Generator, top: float, bottom: float, half: float) -> CoverDesign:
    """A surgical mask seen from the front: pleats, a nose wire, a hem, straps to the ears."""
    colour = _jittered(rng, MASK_COLOURS, 8)
    height = bottom - top
    drop = rng.uniform(0.04, 0.14)  # how far the upper corners lie below the top edge: more, the fuller the nose
    right = np.array(
        [(0.12 * half, top), (0.45 * half, top + 0.4 * drop), (half, top + drop), (half, top + 0.45 * height),
         (0.92 * half, top + 0.68 * height), (0.72 * half, bottom - 0.12 * height), (0.38 * half, bottom)]
    )  # fmt: skip
    outline = np.concatenate([right, (right * (-1, 1))[::-1]])
    centre = (0, top + height / 2)
    hem = (np.concatenate([outline, outline[:1]]) - centre) * 0.93 + centre
    across = ACROSS
    details = [Line(hem, 0.012, _tint(colour, 0.88))]
    for share in np.linspace(0.3, 0.68, rng.integers(2, 4)) if rng.random() < 0.85 else ():
        sag = top + height * (share + 0.04 * (1 - across**2))
        pleat = np.stack([0.95 * half * across, sag], axis=1)
        details += [Line(pleat, 0.03, _tint(colour, 0.8)), Line(pleat - (0, 0.025), 0.015, _tint(colour + 12, 1.04))]
    wire = np.stack([0.3 * half * across, top + 0.06 + 0.03 * across**2], axis=1)
    details.append(Line(wire, 0.02, _tint(colour + 15, 1.05)))
    strap = _tint(colour.clip(60, 240), rng.uniform(0.9, 1.05))
    ear_u, ear_v = 0.85, 0.35  # about where the ears join the head, in d
    straps = []
    for side in (-1, 1):
        for start_v, end_v in ((top + drop + 0.02, ear_v - 0.1), (top + 0.6 * height, ear_v + 0.2)):
            straps.append(Line(np.array([(side * 0.97 * half, start_v), (side * ear_u, end_v)]), 0.025, strap))
    return CoverDesign(
        "mask", top, bottom, half, outline, _shaded(rng, colour, 0.14), tuple(details), tuple(straps)
    )  # fmt: skip


def _rectangle(rng: np.random.Generator, top: float, bottom: float, half: float) -> CoverDesign:
    """A plain rectangle of any colour, or of coloured noise of some grain."""
    outline = np.array([(-half, top), (half, top), (half, bottom), (-half, bottom)])
    grain = (1, 1, 1, 4, 8, 24)[rng.integers(6)]  # cells a side; 1 is a plain colour
    colours = rng.integers(0, 256, (grain, grain, 3), dtype=np.uint8)
    if grain > 1 and rng.random() < 0.5:
        colours = np.repeat(colours[..., :1], 3, axis=2)
    return CoverDesign("rectangle", top, bottom, half, outline, colours)


def _hand(rng: np.random.Generator, top: float, bottom: float, half: float) -> CoverDesign:
    """A hand laid across the mouth, four fingers to one side."""
    colour = _jittered(rng, SKIN_COLOURS, 6)
    edges = np.linspace(top, bottom, 5)
    lengths = half * rng.permutation([1.0, 0.95, 0.97, 0.9])
    turn = np.linspace(-np.pi / 2, np.pi / 2, 7)
    radius = (bottom - top) / 8
    tip_u = 0.05  # a fingertip's roundness, in d: short, so that no gap between fingers opens over the lips
    fingers = [
        np.stack([length - tip_u + tip_u * np.cos(turn), edge + radius + radius * np.sin(turn)], axis=1)
        for length, edge in zip(lengths, edges[:-1], strict=True)
    ]
    palm = superellipse(top, bottom, half, exponent=4.0)
    outline = np.concatenate([*fingers, palm[palm[:, 0] < 0]])
    side = 1 if rng.random() < 0.5 else -1
    details = []
    for index, edge in enumerate(edges[1:-1]):
        end = min(lengths[index], lengths[index + 1])
        gap = np.array([(end, edge), (0.4 * end, edge + 0.01), (rng.uniform(-0.4, -0.1) * half, edge)])
        details.append(Line(gap * (side, 1), 0.022, _tint(colour, 0.66)))
    for length, edge in zip(lengths, edges[:-1], strict=True):
        nail = np.array([(length - 0.1, edge + radius), (length - 0.05, edge + radius)])
        details.append(Line(nail * (side, 1), 0.07, _tint(colour + (18, 8, 10), 1.05)))
        knuckle = np.array([(0.3 * length, edge + 0.6 * radius), (0.3 * length, edge + 1.4 * radius)])
        details.append(Line(knuckle * (side, 1), 0.012, _tint(colour, 0.8)))
    return CoverDesign("hand", top, bottom, half, outline * (side, 1), _shaded(rng, colour, 0.2), tuple(details))


def _microphone(rng: np.random.Generator, top: float, bottom: float, half: float) -> CoverDesign:
    """A dark microphone held before the mouth: a grille with a ring, and its handle below."""
    shade = rng.uniform(30, 70)
    v, u = np.mgrid[-1:1:28j, -1:1:28j]
    mesh = 1 + 0.35 * ((np.arange(28)[:, None] + np.arange(28)[None]) % 2 * 2 - 1)
    light = np.clip(1.25 - 0.6 * (u**2 + v**2), 0.3, None) * mesh
    tile = _as_colour(np.repeat((shade * light)[..., None], 3, axis=2))
    middle = (top + bottom) / 2
    ring = np.stack([ACROSS * half, middle + 0.05 * (1 - ACROSS**2)], axis=1)
    colour = np.full(3, shade)
    slant = rng.uniform(-0.25, 0.25)
    handle = Line(np.array([(0, bottom - 0.2), (slant, bottom + 0.8)]), 0.24, _tint(colour, 0.6))
    return CoverDesign(
        "microphone", top, bottom, half, superellipse(top, bottom, half, exponent=2.6), tile,
        (Line(ring, 0.06, _tint(colour, 1.6)),), (handle,),
    )  # fmt: skip


def superellipse(top: float, bottom: float, half: float, exponent: float) -> Float[np.ndarray, "40 2"]:
    """A rounded outline that fills the given extent: an ellipse at exponent 2, a rectangle at infinity."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    around = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    unit = np.sign(around) * np.abs(around) ** (2 / exponent)
    return unit * (half, (bottom - top) / 2) + (0, (top + bottom) / 2)
