"""A schema made of the names that a labelling tool gives: left and right found by their words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mmkp.errors import InputError
from mmkp.schema import KeypointSchema, load_schema, parse_schema

_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}
# leftEar, ear_left; l_ear, ear.R; earL
_SIDE = re.compile(r"(?i:left|right)|(?<![A-Za-z])[lrLR](?![A-Za-z])|(?<=[a-z])[LR](?![A-Za-z])")


def mirrored(name: str) -> str:
    """The name with left and right exchanged: `leftEar` becomes `rightEar`, `ear_L` becomes `ear_R`."""
    return _SIDE.sub(lambda found: _cased(_OTHER[found[0].lower()], found[0]), name)


def _cased(word: str, like: str) -> str:
    return word.upper() if like.isupper() else word.capitalize() if like[0].isupper() else word


def schema_of_names(name: str, names: Sequence[str], edges: Iterable[tuple[str, str]] = ()) -> KeypointSchema:
    """A schema with flip pairs by the words left and right, and the edges between names that it has.

    Args:
        name: of the schema.
        names: of the keypoints, in order.
        edges: pairs of names.

    Raises:
        InputError: no names, or the same one twice.
    """
    index = {n: i for i, n in enumerate(names)}
    found = {n: index.get(mirrored(n)) for n in names}
    pairs = [(i, j) for n, j in found.items() if j is not None and (i := index[n]) < j and mirrored(names[j]) == n]
    lines = {(index[a], index[b]) for a, b in edges if a in index and b in index and a != b}
    plain = {"name": name, "keypoints": tuple(names), "flip_pairs": pairs, "edges": sorted(lines)}
    return parse_schema(plain, where=f"of {name}")


def order_in_schema(schema: KeypointSchema, names: Sequence[str], where: str) -> dict[str, int]:
    """Where each name stands in a schema; upper and lower case, blanks, `-` and `_` do not count.

    Raises:
        InputError: a name that the schema has not.
    """
    known = {_plain(n): i for i, n in enumerate(schema.keypoints)}
    strange = [n for n in names if _plain(n) not in known]
    if strange:
        raise InputError(
            where, expected=f"names of the schema {schema.name} ({', '.join(schema.keypoints[:6])} ...)",
            got=", ".join(strange[:6]), remedy="Without the option schema the names make their own.",
        )  # fmt: skip
    return {n: known[_plain(n)] for n in names}


def chosen_schema(
    schema: str | None, made: str, names: Sequence[str], edges: Iterable[tuple[str, str]] = (), where: str = "schema"
) -> tuple[KeypointSchema, dict[str, int]]:
    """The schema that the user names, else one made of the names, and the place of each name in it.

    Raises:
        InputError: no names; no such schema, or one without some of the names.
    """
    if not names:
        raise InputError(where, expected="labelled keypoints", got="none")
    meaning = load_schema(schema) if schema else schema_of_names(made, names, edges)
    return meaning, order_in_schema(meaning, names, where) if schema else {n: i for i, n in enumerate(names)}


def natural(name: str) -> tuple:
    """Sorts `p2` before `p10`."""
    return tuple(
        (0, int(part[:18]), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name)
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).lower()
