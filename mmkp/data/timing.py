"""Words with times, and the text of a moment: the words of a window with a cursor in the one being spoken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

CURSOR = "|"
WINDOW_S = 0.5


@dataclass(frozen=True)
class Word:
    """A word and when it is spoken, in seconds."""

    text: str
    start_s: float
    end_s: float


def text_at(words: Sequence[Word], time_s: float, window_s: float = WINDOW_S) -> str:
    """The words that the window centred on `time_s` touches, with `|` at that moment's place.

    Within a word the cursor stands after the share of its letters that has been spoken, between words where the pause
    is: "bin bl|ue at", "|bin", "soon |".
    """
    before, after = time_s - window_s / 2, time_s + window_s / 2
    parts, placed = [], False
    for word in words:
        if word.end_s <= before or word.start_s >= after:
            continue
        if not placed and time_s < word.start_s:
            parts.append(CURSOR + word.text)
            placed = True
        elif not placed and time_s < word.end_s:
            share = (time_s - word.start_s) / (word.end_s - word.start_s)
            at = round(share * len(word.text))
            parts.append(word.text[:at] + CURSOR + word.text[at:])
            placed = True
        else:
            parts.append(word.text)
    if not placed:
        parts.append(CURSOR)
    return " ".join(parts)


def evenly_spaced(words: Sequence[str], duration_s: float) -> list[Word]:
    """The same words, equally long, over the whole of `duration_s`: times that know nothing of the sound."""
    step = duration_s / max(1, len(words))
    return [Word(word, i * step, (i + 1) * step) for i, word in enumerate(words)]


def sentence(words: Sequence[Word]) -> str:
    """The words alone, without a cursor."""
    return " ".join(word.text for word in words)


def around_cursor(text: str, fits: Callable[[str], bool]) -> str:
    """The longest part of a text that fits, in whole words around the cursor; from its beginning without a cursor.

    A word that is too long by itself is cut.

    Args:
        fits: whether a text is short enough; a part of a text that fits must fit too.

    Returns:
        The text itself where it fits; an empty one where not even a letter does.
    """
    if fits(text):
        return text
    at = max(text.find(CURSOR), 0)
    words = [0, *(i for i in range(1, len(text)) if text[i - 1].isspace() != text[i].isspace()), len(text)]
    for places in (words, range(len(text) + 1)):
        before = [i for i in places if i <= at][::-1]  # ever further from the cursor
        after = [i for i in places if i > at]
        both = _most(max(len(before), len(after)), lambda n, b=before, a=after: fits(_within(text, b, a, n, n)))
        left = _most(len(before), lambda n, b=before, a=after, k=both: fits(_within(text, b, a, n, k)), both)
        right = _most(len(after), lambda n, b=before, a=after, k=left: fits(_within(text, b, a, k, n)), both)
        made = _within(text, before, after, left, right)
        if made.replace(CURSOR, ""):
            return made
    return ""


def _most(most: int, fits: Callable[[int], bool], least: int = 0) -> int:
    """The largest number from `least`, which fits, to `most` that fits, where smaller ones do as well."""
    least = min(least, most)
    while least < most:
        half = (least + most + 1) // 2
        if fits(half):
            least = half
        else:
            most = half - 1
    return least


def _within(text: str, before: Sequence[int], after: Sequence[int], left: int, right: int) -> str:
    """The text from `left` places before the cursor to `right` after it; nothing without a place on either side."""
    if not left or not right:
        return ""
    return text[before[min(left, len(before)) - 1] : after[min(right, len(after)) - 1]].strip()
