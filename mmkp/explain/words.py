"""From tokens back to words, so that what a token contributed can be read."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import ByT5Tokenizer


def token_places(tokenizer: Any, text: str, count: int) -> list[int | None]:
    """For each of `count` tokens the character of the text at which it begins; None for a special one."""
    if isinstance(tokenizer, ByT5Tokenizer):
        places: list[int | None] = [i for i, letter in enumerate(text) for _ in letter.encode()]
    elif getattr(tokenizer, "is_fast", False):
        spans = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        places = [first if end > first else None for first, end in spans]
    else:
        places = []  # a tokenizer that does not say where its tokens come from
    return [*places, *[None] * count][:count]


def by_word(text: str, places: list[int | None], values: Float[np.ndarray, " L"]) -> tuple[list[dict], float]:
    """What each word contributed.

    Args:
        text: as it was given.
        places: of `token_places`.
        values: of the tokens.

    Returns:
        `word` and `attribution` for each word in order, split at blanks, and the sum of the tokens that belong to no
        word: blanks and special tokens.
    """
    words = [(match.group(), match.start(), match.end()) for match in re.finditer(r"\S+", text)]
    at = np.array([-1 if p is None else p for p in places])
    sums = [float(values[(at >= first) & (at < end)].sum()) for _, first, end in words]
    found = [{"word": word, "attribution": value} for (word, _, _), value in zip(words, sums, strict=True)]
    return found, float(values.sum()) - sum(sums)
