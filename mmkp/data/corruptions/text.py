"""Faults of the text. The cursor stays in place; the controls (the same words at other times) go with the words.

Texts are short (two to five words in a window), so a share of their words or letters is rounded up or down at random:
over many items it holds on average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mmkp.data import augment_text
from mmkp.data.corruptions.base import Change, pick
from mmkp.data.sample import Sample
from mmkp.data.timing import CURSOR

Words = Callable[[str, float, np.random.Generator], str | None]
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # of a keyboard
_BESIDE = {key: row[max(0, i - 1) : i] + row[i + 1 : i + 2] for row in _ROWS for i, key in enumerate(row)}


def words(change: Words) -> Change:
    """A corruption of the text alone, from the function that makes it; None makes the text absent."""
    return partial(_change, change)


def _change(change: Words, sample: Sample, value: float, rng: np.random.Generator, _: object) -> Sample:
    assert sample.text is not None
    return sample.replace(text=change(sample.text, value, rng), text_controls={})


def typos(text: str, share: float, rng: np.random.Generator) -> str:
    """That share of the letters is mistyped: a key beside it, left out, typed twice, or swapped with the next."""
    letters = list(text)
    places = [i for i, letter in enumerate(letters) if letter.isalnum()]
    chosen = rng.permutation(places)[: _about(share * len(places), rng)]
    for place, kind in zip(chosen.tolist(), rng.integers(4, size=len(chosen)), strict=True):
        after = place + 1
        if kind == 0:
            letters[place] = ""
        elif kind == 1:
            letters[place] *= 2
        elif kind == 2 and after < len(letters) and letters[after].isalnum() and letters[after] != letters[place]:
            letters[place], letters[after] = letters[after], letters[place]
        else:
            letters[place] = _beside(letters[place], rng)
    return "".join(letters)


def _beside(letters: str, rng: np.random.Generator) -> str:
    """A key beside that of a letter, in its case; twice the letter where no such key is known."""
    keys = _BESIDE.get(letters.lower())
    if not keys:
        return letters * 2
    key = keys[int(rng.integers(len(keys)))]
    return key.upper() if letters.isupper() else key


def dropped_words(text: str, probability: float, rng: np.random.Generator) -> str:
    """Each word is left out with a probability; one stays."""
    return augment_text.drop_words(text, probability, rng)


def shuffled_words(text: str, share: float, rng: np.random.Generator) -> str:
    """That share of the words change places, each with another; a lone word cannot. The cursor stays in place."""
    tokens = text.split()
    bare = [token.replace(CURSOR, "") for token in tokens]
    places = np.array([i for i, token in enumerate(tokens) if token != CURSOR], dtype=int)
    count = min(len(places), 2 * _about(share * len(places) / 2, rng))
    order = rng.permutation(places)[:count]
    for place, source in zip(order, np.roll(order, 1), strict=True):
        tokens[place] = _with_cursor(bare[source], tokens[place])
    return " ".join(tokens)


def empty_text(text: str, share: float, rng: np.random.Generator) -> str | None:
    """That share of the words is cut off from the end; a text of which nothing is left is absent."""
    tokens = text.split()
    places = [i for i, token in enumerate(tokens) if token != CURSOR]
    count = _about((1 - share) * len(places), rng)
    if not places and share < 1:  # a pause: nothing is said, and that is known
        return text
    if not count:
        return None
    end = places[count - 1] + 1
    lost = any(CURSOR in token for token in tokens[end:])
    return " ".join(tokens[:end] + [CURSOR] * lost)


def other_text(sample: Sample, share: float, rng: np.random.Generator, donors: Sequence[Sample]) -> Sample | None:
    """That share of the words comes from another clip's text; all of them: the other text with its own cursor."""
    assert sample.text is not None
    speakers = [donor for donor in donors if donor.text and donor.text.replace(CURSOR, "").split()]
    if not speakers:
        return None
    lent = pick(speakers, rng).text or ""
    tokens, others = sample.text.split(), lent.replace(CURSOR, "").split()
    places = [i for i, token in enumerate(tokens) if token != CURSOR]
    if share >= 1:
        return sample.replace(text=like(lent, sample.text), text_controls={})
    count = _about(share * len(places), rng)
    for place, other in zip(rng.permutation(places)[:count].tolist(), rng.permutation(others * count), strict=False):
        tokens[place] = _with_cursor(str(other), tokens[place])
    return sample.replace(text=" ".join(tokens), text_controls={})


def like(lent: str, own: str) -> str:
    """Another text, without its cursor where one's own has none: a lie must not bring times that were not there."""
    return lent if CURSOR in own else " ".join(lent.replace(CURSOR, "").split())


def _with_cursor(word: str, old: str) -> str:
    """`word` with a cursor after the same share of its letters as `old` has one."""
    if CURSOR not in old:
        return word
    at = round(old.index(CURSOR) / (len(old) - 1) * len(word))
    return word[:at] + CURSOR + word[at:]


def _about(number: float, rng: np.random.Generator) -> int:
    """A whole number beside `number`, which it equals on average."""
    return int(number + rng.random())
