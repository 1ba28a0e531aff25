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
    whole = [0, *(i for i in range(1, len(text)) if text[i - 1].isspace() != text[i].isspace()), len(text)]
    for places in (whole, range(len(text) + 1)):
        before = [i for i in places if i <= at][::-1]
        after = [i for i in places if i > at]
        least, most = 0, max(len(before), len(after))
        while least < most:  # the most steps to both sides
            half = (least + most + 1) // 2
            if fits(_within(text, before, after, half)):
                least = half
            else:
                most = half - 1
        made = _within(text, before, after, least)
        if made.replace(CURSOR, ""):
            return made
    return ""


def _within(text: str, before: Sequence[int], after: Sequence[int], steps: int) -> str:
    """The text from `steps` places before the cursor to `steps` after it."""
    if not steps:
        return ""
    return text[before[min(steps, len(before)) - 1] : after[min(steps, len(after)) - 1]].strip()
