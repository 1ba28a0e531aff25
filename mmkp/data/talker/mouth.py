"""Where speech and expression take the face: the twenty lip points, the jaw, the lids and the brows, in 3D."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mmkp.data.talker.person import Person

JAW_MM = 24.0  # drop of the lower front teeth at `open` = 1: emphatic speech, as on a stage; a wide yawn reaches 50
# How much of the jaw's drop each of the 17 jaw-line points takes: the joint (0 and 16) turns, the chin falls.
_JAW_SHARE = np.array([0, 0, 0.03, 0.1, 0.24, 0.48, 0.78, 0.96, 1.0])
_JAW_SHARE = np.concatenate([_JAW_SHARE, _JAW_SHARE[7::-1]])


@dataclass(frozen=True)
class MouthState:
    """What the face does at one moment.

    `open` (jaw, 0 to about 1.3), `wide` (-1 to 1), `round`, `press`, `tuck`, `tongue` (0 to 1) come from speech;
    `smile` (-0.5 to 1), `skew` (-1 to 1), `brows` (-1 to 1) and `lids` (0 shut, 1 open) from expression.
    """

    open: float = 0.0
    wide: float = 0.0
    round: float = 0.0
    press: float = 0.0
    tuck: float = 0.0
    tongue: float = 0.0
    smile: float = 0.0
    skew: float = 0.0
    brows: float = 0.0
    lids: float = 1.0

    @property
    def jaw_mm(self) -> float:
        """How far the chin has dropped."""
        return JAW_MM * self.open

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for `Sample.info`."""
        return {name: round(float(value), 4) for name, value in vars(self).items()}


def landmarks(person: Person, state: MouthState) -> Float[np.ndarray, "68 3"]:
    """The 68 points of a face at one moment, mm, head frame (see `person.py`)."""
    base = person.base.copy()
    drop = _JAW_SHARE * state.jaw_mm
    base[:17, 1] += drop
    base[:17, 2] -= 0.3 * drop  # the jaw turns about its joint, so the chin also goes back
    base[17:27, 1] -= 5.0 * state.brows + 1.0 * max(0.0, state.smile)
    smile = max(0.0, state.smile)
    for eye in (slice(36, 42), slice(42, 48)):
        upper, lower = ([1, 2], [4, 5])
        points = base[eye]
        line = np.interp(points[:, 0], np.sort(points[[0, 3], 0]), points[[0, 3], 1][np.argsort(points[[0, 3], 0])])
        points[upper, 1] = line[upper] + (points[upper, 1] - line[upper]) * (state.lids + 0.12 * state.brows)
        points[lower, 1] = line[lower] + (points[lower, 1] - line[lower]) * (0.35 + 0.65 * state.lids) - 2.2 * smile
        points[lower, 1] = np.maximum(points[lower, 1], points[upper[::-1], 1] + 0.4)
    base[[31, 35], 0] *= 1 + 0.06 * smile
    return np.concatenate([base, lips(person, state)]) * person.scale


def lips(person: Person, state: MouthState) -> Float[np.ndarray, "20 3"]:
    """Lip points 48-67, mm, head frame before the person's scale."""
    half, line_y, upper_mm, lower_mm = person.mouth
    jaw, smile = state.jaw_mm, state.smile
    half = half + 5.5 * state.wide - 7.0 * state.round - 0.12 * jaw + 7.0 * smile
    thin = (1 - 0.5 * state.press) * (1 - 0.18 * smile) * (1 + 0.18 * state.round) * (1 - 0.1 * state.wide)
    upper_mm, lower_mm = upper_mm * thin, lower_mm * thin * (1 - 0.4 * state.tuck)
    gap = max(0.0, jaw * (1 - state.press)) * (1 - 0.75 * state.tuck) + 1.2 * state.tuck
    middle_y = line_y + 0.3 * jaw * state.press
    inner_top = middle_y - 0.16 * gap - 2.0 * state.tuck - 1.2 * smile
    inner_low = inner_top + gap
    corner_y = middle_y + 0.38 * jaw * (1 - 0.6 * state.press) - 6.5 * smile
    across = np.array([-1, -0.62, -0.25, 0, 0.25, 0.62, 1, 0.62, 0.28, 0, -0.28, -0.62,
                       -0.84, -0.34, 0, 0.34, 0.84, 0.34, 0, -0.34])  # fmt: skip
    top, low = inner_top - upper_mm, inner_low + lower_mm
    middle = np.array([0, top, top, top + 1.6, top, top, 0, low, low, low, low, low,
                       0, inner_top, inner_top, inner_top, 0, inner_low, inner_low, inner_low])  # fmt: skip
    to_corner = np.array([1, 0.42, 0.02, 0, 0.02, 0.42, 1, 0.42, 0.08, 0, 0.08, 0.42,
                          1, 0.12, 0, 0.12, 1, 0.12, 0, 0.12])  # fmt: skip
    y = middle + (corner_y - middle) * to_corner + 3.0 * state.skew * across
    front = np.array([13.0] * 7 + [11.0] * 5 + [11.0] * 5 + [9.0] * 3) + 7.0 * state.round - 2.5 * np.abs(smile)
    lower = np.array([0.0] * 7 + [1.0] * 5 + [0.0] * 5 + [1.0] * 3)
    z = front - 12.0 * across**2 * (half / 25) - 0.3 * jaw * lower * (1 - state.press)
    x = across * half * (1 + 0.06 * state.skew * np.sign(across))
    return np.stack([x, y, z], -1)
