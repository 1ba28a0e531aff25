"""From phonemes to the mouth's shape: targets per phoneme, blended as neighbours claim the lips (coarticulation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mmkp.data.talker.speech import Phoneme

PARAMETERS = ("open", "wide", "round", "press", "tuck", "tongue")
STEP_S = 0.01
# One row per viseme: open 0-1 (jaw), wide -1-1 (corners), round 0-1 (protrusion), press 0-1 (lips shut), tuck 0-1
# (lower lip under the upper teeth), tongue 0-1 (tip raised). Ordered after the visemes of MPEG-4 (ISO 14496-2, table
# C.1); the numbers are ours, set by eye so that each viseme can be told in a drawing.
_TARGETS = {
    "rest": (0.04, 0.0, 0.0, 0.25, 0.0, 0.0),
    "pbm": (0.10, 0.0, 0.05, 1.0, 0.0, 0.0),
    "fv": (0.20, 0.10, 0.0, 0.0, 1.0, 0.0),
    "th": (0.26, 0.05, 0.0, 0.0, 0.0, 1.0),
    "tdn": (0.22, 0.15, 0.0, 0.0, 0.0, 0.8),
    "kg": (0.34, 0.10, 0.0, 0.0, 0.0, 0.1),
    "sh": (0.20, -0.45, 0.70, 0.0, 0.0, 0.3),
    "sz": (0.12, 0.50, 0.0, 0.0, 0.0, 0.4),
    "l": (0.34, 0.10, 0.0, 0.0, 0.0, 1.0),
    "r": (0.24, -0.35, 0.55, 0.0, 0.0, 0.3),
    "w": (0.16, -0.70, 1.0, 0.0, 0.0, 0.0),
    "y": (0.20, 0.60, 0.0, 0.0, 0.0, 0.2),
    "aa": (1.00, 0.05, 0.0, 0.0, 0.0, 0.0),
    "ae": (0.85, 0.60, 0.0, 0.0, 0.0, 0.0),
    "uh": (0.60, 0.0, 0.0, 0.0, 0.0, 0.0),
    "schwa": (0.38, 0.0, 0.05, 0.0, 0.0, 0.0),
    "eh": (0.58, 0.45, 0.0, 0.0, 0.0, 0.0),
    "ih": (0.34, 0.55, 0.0, 0.0, 0.0, 0.1),
    "ee": (0.28, 1.0, 0.0, 0.0, 0.0, 0.2),
    "er": (0.40, -0.30, 0.45, 0.0, 0.0, 0.2),
    "oh": (0.62, -0.55, 0.75, 0.0, 0.0, 0.0),
    "aw": (0.85, -0.35, 0.55, 0.0, 0.0, 0.0),
    "uu": (0.34, -0.70, 0.85, 0.0, 0.0, 0.0),
    "oo": (0.24, -0.85, 1.0, 0.0, 0.0, 0.0),
}
# espeak-ng's English mnemonics (docs/phonemes.md of espeak-ng 1.52), without stress, digits and marks. Two visemes
# are a diphthong.
_VISEMES = {
    "p": "pbm", "b": "pbm", "m": "pbm", "f": "fv", "v": "fv", "T": "th", "D": "th", "t": "tdn", "d": "tdn", "n": "tdn",
    "k": "kg", "g": "kg", "N": "kg", "h": "schwa", "x": "kg", "S": "sh", "Z": "sh", "tS": "sh", "dZ": "sh", "s": "sz",
    "z": "sz", "l": "l", "r": "r", "r-": "r", "w": "w", "j": "y", "?": "schwa", "@L": "schwa l", "@": "schwa",
    "a": "ae", "aa": "ae", "A:": "aa", "A": "aa", "A@": "aa er", "V": "uh", "VR": "uh r", "0": "aw", "O": "aw",
    "O:": "oh", "O@": "oh er", "o@": "oh er", "o": "oh", "E": "eh", "e": "eh", "e@": "eh er", "I": "ih", "i": "ee",
    "i:": "ee", "i@": "ih schwa", "IR": "ih r", "U": "uu", "u": "oo", "u:": "oo", "U@": "uu er", "3:": "er", "3": "er",
    "aI": "aa ih", "aI@": "aa schwa", "aU": "aa uu", "OI": "oh ih", "oU": "oh uu", "eI": "eh ee", "l^": "l",
}  # fmt: skip
# How far a segment's claim reaches, in seconds, per parameter, and how strong it is: lip closure is short and cannot
# be overruled, rounding starts early and yields little (Cohen and Massaro, "Modeling coarticulation in synthetic
# visual speech", 1993, for the form; the numbers are ours).
_REACH_S = np.array([0.035, 0.050, 0.090, 0.025, 0.028, 0.035])
_STRONG = 6.0


def visemes_of(phoneme: str) -> tuple[str, ...]:
    """The viseme of a phoneme, two for a diphthong; an unknown mnemonic falls back on its shorter beginnings."""
    if phoneme.startswith("_"):
        return ("rest",)
    for length in range(len(phoneme), 0, -1):
        if phoneme[:length] in _VISEMES:
            return tuple(_VISEMES[phoneme[:length]].split())
    return ("schwa",)


def viseme_targets(viseme: str) -> Float[np.ndarray, " 6"]:
    """What a viseme asks of the mouth, in the order of `PARAMETERS`."""
    return np.array(_TARGETS[viseme])


def segments(
    phonemes: Sequence[Phoneme], taken_for: Mapping[str, str] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Visemes in a row: their middles (S,) s, their half lengths (S,) s, their targets (S, 6), their names.

    `taken_for` puts one viseme in the place of another.
    """
    taken_for = taken_for or {}
    middles, halves, names = [], [], []
    for phoneme in phonemes:
        parts = visemes_of(phoneme.name)
        length = (phoneme.end_s - phoneme.start_s) / len(parts)
        for i, name in enumerate(parts):
            middles.append(phoneme.start_s + (i + 0.5) * length)
            halves.append(length / 2)
            names.append(taken_for.get(name, name))
    return np.array(middles), np.array(halves), np.array([_TARGETS[name] for name in names]), names


def trajectory(
    phonemes: Sequence[Phoneme], duration_s: float, taken_for: Mapping[str, str] | None = None
) -> Float[np.ndarray, "F 6"]:
    """The mouth's parameters every `STEP_S` seconds: a mean of all targets, weighted by closeness in time and strength.

    A segment holds its weight over its own length and loses it outside by a Gaussian of `_REACH_S`.
    """
    middles, halves, targets, names = segments(phonemes, taken_for)
    strength = np.ones((len(names), len(PARAMETERS)))
    closed = np.array([name == "pbm" for name in names])
    strength[closed, 0] = 2.0
    strength[closed, 3] = strength[np.array([name == "fv" for name in names]), 4] = _STRONG
    strength[targets[:, 2] >= 0.5, 2] = 2.5  # rounded ones claim their neighbours before their time
    times = np.arange(0.0, duration_s + STEP_S, STEP_S)
    away = np.maximum(0.0, np.abs(times[:, None] - middles) - 0.6 * halves)
    weight = strength * np.exp(-0.5 * (away[:, :, None] / _REACH_S) ** 2) + 1e-9
    return (weight * targets).sum(1) / weight.sum(1)
