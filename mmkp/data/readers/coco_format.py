"""What tells the formats of COCO's family apart, what a user may choose, and whose keypoints a file holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmkp.data.readers.captions import CHOICES
from mmkp.data.readers.labels import numbers
from mmkp.data.rows import Fault
from mmkp.errors import InputError, nearest
from mmkp.schema import KeypointSchema, load_schema, parse_schema

# What official files call a keypoint, and what our schemas call it: CrowdPose, AP-10K.
SYNONYMS = {"head": "head_top", "top_head": "head_top", "root_of_tail": "tail_root"}


@dataclass(frozen=True)
class CocoFormat:
    """In what a format differs from the others.

    Attributes:
        name: in READERS.
        schema: built-in schema of its keypoints.
        patterns: of annotation file names, the best first.
        parts: the fields that hold keypoints one after the other, and how many points each holds (0: all of them).
        labelled_only: of these fields a flag above 0 means labelled and nothing more; such points count as visible.
        box: `corner`, measured from the picture's corner; `points`, made from the keypoints, in their frame.
    """

    name: str
    schema: str
    patterns: tuple[str, ...]
    parts: tuple[tuple[str, int], ...] = (("keypoints", 0),)
    labelled_only: tuple[str, ...] = ()
    box: Literal["corner", "points"] = "corner"


@dataclass(frozen=True)
class CocoOptions:
    """Options of every reader of this family.

    Attributes:
        images: the folder that file names are relative to; by default it is looked for.
        captions: a captions file; `auto` takes captions_X.json beside person_keypoints_X.json, `none` none.
        spoken: a SpokenCOCO file; its recordings lie beside it, and its texts replace the captions.
        caption: which of several: `first`, `all`, `random-by-id`.
        schema: a built-in name, a YAML file, or `file`: names, edges and left / right as the JSON has them.
        crowd: `skip` leaves regions with `iscrowd` out (the default; they have no keypoints of one person), or `keep`.
        unlabelled: `skip` leaves out what has no labelled keypoint (the default), or `keep`.

    Raises:
        InputError: a word that is none of these.
    """

    images: str | Path | None = None
    captions: str | Path = "auto"
    spoken: str | Path | None = None
    caption: str = "first"
    schema: str | None = None
    crowd: str = "skip"
    unlabelled: str = "skip"

    def __post_init__(self) -> None:
        words = {"caption": CHOICES, "crowd": ("skip", "keep"), "unlabelled": ("skip", "keep")}
        for name, known in words.items():
            got = getattr(self, name)
            if got not in known:
                raise InputError(
                    f"option {name}", expected=" or ".join(known), got=repr(got), remedy=nearest(str(got), known)
                )


def categories(document: dict[str, Any]) -> list[dict[str, Any]]:
    listed = document.get("categories")
    return [category for category in listed if isinstance(category, dict)] if isinstance(listed, list) else []


def category_names(document: dict[str, Any]) -> list[str]:
    """The first category's names of keypoints; many conversions leave them out."""
    for category in categories(document):
        names = category.get("keypoints")
        if isinstance(names, list) and names:
            return ["_".join(str(name).lower().replace("-", " ").split()) for name in names]
    return []


def schema_of(form: CocoFormat, options: CocoOptions, document: dict[str, Any], file: Path) -> KeypointSchema:
    """The schema asked for, the format's own, or with `file` one made from the first category that has keypoints."""
    if options.schema != "file":
        return load_schema(options.schema or form.schema)
    names = category_names(document)
    if not names:
        raise InputError(f"data {form.name}:{file}", expected="names in categories[0].keypoints", got="none")
    mirrored = [name.replace("left", "right") for name in names]
    pairs = [(i, names.index(m)) for i, m in enumerate(mirrored) if m != names[i] and m in names]
    skeleton = next((c.get("skeleton") for c in categories(document) if c.get("keypoints")), None)
    try:
        ends = numbers(skeleton or [], "skeleton").astype(int).reshape(-1, 2) - 1
    except ValueError as error:
        raise InputError(f"data {form.name}:{file}", expected="a skeleton of pairs", got=str(error)) from error
    made = {"name": file.stem, "keypoints": names, "flip_pairs": pairs, "edges": ends.tolist()}
    return parse_schema(made, where=str(file))


def order_of(
    form: CocoFormat, schema: KeypointSchema, document: dict[str, Any], file: Path
) -> tuple[np.ndarray, list[Fault]]:
    """(K,) where in the file each of the schema's keypoints stands, and a fault if names had to be ignored.

    Raises:
        InputError: another number of keypoints than the schema's.
    """
    straight = np.arange(schema.num_keypoints)
    names = [SYNONYMS.get(n, n) if n not in schema.keypoints else n for n in category_names(document)]
    if len(form.parts) > 1 or not names or names == list(schema.keypoints):
        return straight, []
    if len(names) != schema.num_keypoints:
        raise InputError(
            f"data {form.name}:{file}", expected=f"the {schema.num_keypoints} keypoints of {schema.name}",
            got=f"{len(names)}: {', '.join(names[:4])} ...",
            remedy="schema=file takes them as the file has them, schema=FILE.yaml as you say.",
        )  # fmt: skip
    if set(names) == set(schema.keypoints):
        return np.array([names.index(name) for name in schema.keypoints]), []
    ours = [name for name in schema.keypoints if name not in names]
    theirs = [name for name in names if name not in schema.keypoints]
    message = f"{', '.join(theirs[:4])} taken for {', '.join(ours[:4])} of {schema.name}, by their place"
    return straight, [Fault("keypoint names", file.name, message)]
