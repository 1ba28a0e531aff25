"""Who talks: the shape of the face in 3D and how it is dressed. Nobody in particular; all of it is drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Right half of an adult face (negative x), mm, the middle of the eyes at the origin, x to the picture's right, y down,
# z towards the camera. Proportions after common anthropometric means (outer-eye distance 90, face width 144, eyes to
# chin 115 mm), rounded by hand; the mouth's twenty points are made by `mouth.py`.
_JAW = np.array(
    [[-72, 0, -62], [-71.5, 17, -60], [-70, 34, -55], [-66.5, 51, -48], [-60, 67, -38], [-49.5, 82, -27],
     [-35.5, 96.5, -15], [-18.5, 108, -5], [0, 112, -1]], dtype=float,
)  # fmt: skip
_BROW = np.array([[-57, -17, -10], [-49, -24, -1], [-38, -27, 5], [-26, -25, 8], [-14, -21, 9]], dtype=float)
_BRIDGE = np.array([[0, -4, 9], [0, 10, 15], [0, 24, 22], [0, 37, 28]], dtype=float)
_NOSTRILS = np.array([[-15, 45, 10], [-8, 48.5, 15], [0, 50, 17]], dtype=float)
_EYE = np.array(
    [[-45, 0, -9], [-37, -5.5, -3], [-25.5, -5.5, -1], [-16.5, 1.5, -3], [-25.5, 5, -2], [-36.5, 5, -4]], dtype=float
)
HAIR_STYLES = ("bald", "cropped", "short", "fringe", "parted", "bob", "long", "curly")
_SKINS = np.array(
    [[255, 224, 200], [244, 205, 176], [233, 188, 152], [214, 163, 124], [186, 132, 94], [152, 102, 70], [112, 74, 52],
     [84, 56, 42]], dtype=float,
)  # fmt: skip
_HAIRS = np.array(
    [[24, 20, 20], [48, 34, 26], [78, 52, 34], [112, 76, 46], [160, 118, 70], [206, 172, 116], [132, 62, 34],
     [150, 146, 142], [206, 204, 200]], dtype=float,
)  # fmt: skip
_IRISES = np.array(
    [[70, 44, 26], [52, 34, 22], [96, 74, 40], [74, 96, 70], [78, 110, 140], [100, 122, 134]], dtype=float
)


def mirrored(half: Float[np.ndarray, "n 3"], order: slice | list[int]) -> np.ndarray:
    """The left counterpart of right-half points, in the given order."""
    return (half * [-1, 1, 1])[order]


@dataclass(frozen=True)
class Person:
    """One identity. Lengths in mm, colours RGB 0-255, shares 0-1.

    Attributes:
        base: (48, 3) landmarks 0-47 of the resting face.
        scale: (3,) of the whole head against the mean one.
        mouth: half width, height of the lip line below the eyes, thickness of the upper and the lower lip.
        style: one of `HAIR_STYLES`; `hairline` is its height above the eyes (negative y).
        glasses: 0 none, 1 thin round, 2 angular, 3 thick.
        brow_mm: half the thickness of the brows.
        fringe_seed: of the strands.
    """

    base: np.ndarray
    scale: np.ndarray
    mouth: np.ndarray
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    clothes: np.ndarray
    style: str
    hairline: float
    glasses: int
    beard: float
    moustache: float
    brow_mm: float
    fringe_seed: int


def draw_person(rng: np.random.Generator) -> Person:
    """A person of their own; features vary independently, but hair follows skin and beards are not on every face."""
    skin = _mix(_SKINS, rng) + rng.normal(0, 4, 3)
    dark = skin.mean() < 130
    hair = _mix(_HAIRS[:3] if dark and rng.random() < 0.9 else _HAIRS, rng)
    bearded = rng.random() < 0.28
    lips = skin * [0.86, 0.62, 0.62] + rng.normal(0, 6, 3) + (np.array([40, -14, -4]) if rng.random() < 0.25 else 0)
    return Person(
        base=_draw_base(rng),
        scale=np.array([1.0, rng.normal(1.0, 0.02), rng.normal(1.0, 0.06)]),
        mouth=np.array([rng.normal(25, 1.1), rng.normal(70, 1.0), rng.normal(7.6, 0.9), rng.normal(9.6, 1.0)]),
        skin=np.clip(skin, 40, 250), hair=hair, iris=_mix(_IRISES, rng), lips=np.clip(lips, 30, 245),
        clothes=np.clip(rng.uniform(20, 220) + rng.normal(0, 40, 3), 5, 245),
        style=str(rng.choice(HAIR_STYLES, p=[0.06, 0.12, 0.2, 0.14, 0.14, 0.12, 0.14, 0.08])),
        hairline=float(rng.normal(-62, 5)), glasses=int(rng.choice([0, 1, 2, 3], p=[0.72, 0.12, 0.1, 0.06])),
        beard=float(rng.uniform(0.25, 0.95)) if bearded else 0.0,
        moustache=float(rng.uniform(0.3, 0.95)) if bearded or rng.random() < 0.06 else 0.0,
        brow_mm=float(rng.uniform(2.2, 4.2)), fringe_seed=int(rng.integers(2**31)),
    )  # fmt: skip


def _mix(palette: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    i = rng.integers(len(palette) - 1)
    return palette[i] + rng.random() * (palette[i + 1] - palette[i])


def _draw_base(rng: np.random.Generator) -> Float[np.ndarray, "48 3"]:
    """The mean face with a person's width of jaw, length of chin, eyes, nose and brows."""
    jaw, brow, bridge, nostrils, eye = _JAW.copy(), _BROW.copy(), _BRIDGE.copy(), _NOSTRILS.copy(), _EYE.copy()
    low = np.linspace(0, 1, 9) ** 1.5
    jaw[:, 0] *= rng.normal(1.0, 0.035) * (1 + rng.normal(0, 0.05) * np.sin(np.linspace(0, np.pi, 9)))
    jaw[:, 1] += low * rng.normal(0, 3.5)
    nose_length, nose_width, nose_depth = rng.normal(1, 0.06), rng.normal(1, 0.12), rng.normal(1, 0.12)
    for part in (bridge, nostrils):
        part *= [nose_width, nose_length, nose_depth]
    centre = np.array([-31.0, 0, -3])
    eye = (eye - centre) * [rng.normal(1, 0.025), rng.normal(1, 0.15), 1] + centre
    eye[:, 0] += rng.normal(0, 0.6)
    eye[:, 1] += (eye[:, 0] - centre[0]) * rng.normal(0, 0.04)
    brow[:, 1] += rng.normal(0, 2.2) + (brow[:, 0] - brow[:, 0].mean()) * rng.normal(0, 0.05)
    brow[2, 1] -= abs(rng.normal(0, 1.5))
    jaw = np.concatenate([jaw, mirrored(jaw, slice(7, None, -1))])
    brow = np.concatenate([brow, mirrored(brow, slice(None, None, -1))])
    nostrils = np.concatenate([nostrils, mirrored(nostrils, [1, 0])])
    left_eye = mirrored(eye, [3, 2, 1, 0, 5, 4])
    return np.concatenate([jaw, brow, bridge, nostrils, eye, left_eye])
