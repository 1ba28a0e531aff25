"""What the talker says: command sentences of GRID's grammar and everyday ones, each bound to one split."""

from __future__ import annotations

import hashlib

import numpy as np

# The grammar of GRID (Cooke et al., JASA 2006, table 1), so that recipes move between talker and GRID unchanged.
COMMANDS = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
EVERYDAY = (
    (
        "we",
        "you",
        "they",
        "my mother",
        "your father",
        "the farmer",
        "a teacher",
        "some people",
        "the woman",
        "both boys",
    ),
    ("often", "always", "never", "may", "should", "would", "could", "must"),
    ("bring", "buy", "choose", "find", "move", "watch", "push", "follow", "wash", "remember", "paint", "hear"),
    ("five", "warm", "old", "wooden", "small", "purple", "brown", "beautiful", "heavy", "cheap", "fresh", "famous"),
    ("apples", "shoes", "books", "boats", "music", "fish", "bowls", "maps", "horses", "flowers", "windows", "pumpkins"),
    ("before lunch", "in the room", "at home", "for me", "by the river", "on monday", "with fever", "above the shop"),
)
EVERYDAY_SHARE = 0.6
# Sentences of a split: sha1 modulo 10, as the protocol divides GRID's clips.
SPLIT_OF_DIGIT = ("train",) * 7 + ("validation",) + ("test",) * 2
SPLITS = ("train", "validation", "test")


def split_of(sentence: str) -> str:
    """The one split in which a sentence may be spoken."""
    return SPLIT_OF_DIGIT[int(hashlib.sha1(sentence.encode()).hexdigest(), 16) % 10]


def draw_sentence(split: str, rng: np.random.Generator) -> str:
    """A sentence of the split, in lower case, words parted by single blanks."""
    while True:
        grammar = EVERYDAY if rng.random() < EVERYDAY_SHARE else COMMANDS
        sentence = " ".join(slot[rng.integers(len(slot))] for slot in grammar)
        if split_of(sentence) == split:
            return sentence
