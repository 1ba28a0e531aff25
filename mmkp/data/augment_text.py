"""Augmentation of text: left and right change places, words fall out; the cursor stays with what is being said."""

from __future__ import annotations

import re

import numpy as np

from mmkp.data.timing import CURSOR

# "left" or "right" as whole words, with or without the cursor between their letters. `[^\W\d_]` is a letter of any
# script, so that an underscore ends a word (left_wrist) and a letter does not (leftover), also across a cursor.
_SIDE = re.compile(r"(?<![^\W\d_])(?<![^\W\d_]\|)(l\|?e\|?f\|?t|r\|?i\|?g\|?h\|?t)(?!\|?[^\W\d_])", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def swap_sides(text: str) -> str:
    """Put right for left and left for right, in their own case; a cursor within the word keeps its share of it."""
    return _SIDE.sub(_swapped, text)


def _swapped(match: re.Match[str]) -> str:
    found = match.group()
    word = found.replace(CURSOR, "")
    other = _OTHER[word.lower()]
    if word.isupper():
        other = other.upper()
    elif word[0].isupper():
        other = other.capitalize()
    if CURSOR not in found:
        return other
    at = round(found.index(CURSOR) / len(word) * len(other))
    return other[:at] + CURSOR + other[at:]


def drop_words(text: str, probability: float, rng: np.random.Generator) -> str:
    """Leave each word out with `probability`, at least one stays; the cursor of a lost word stands alone."""
    words = text.split()
    if not words or not probability:
        return text
    keep = rng.random(len(words)) >= probability
    spoken = [i for i, word in enumerate(words) if word != CURSOR]
    if spoken and not keep[spoken].any():
        keep[spoken[int(rng.integers(len(spoken)))]] = True
    kept = (word if stays else CURSOR for word, stays in zip(words, keep, strict=True) if stays or CURSOR in word)
    return " ".join(kept)
