"""What is said about COCO's pictures: captions_*.json, and SpokenCOCO's recordings of them."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkp.data.paths import PathFault, inside
from mmkp.data.readers.sources import read_json
from mmkp.data.rows import Fault
from mmkp.errors import InputError

CHOICES = ("first", "all", "random-by-id")
_LAST_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class Caption:
    """One sentence about a picture; `audio` is where somebody reads it aloud."""

    text: str
    audio: Path | None = None
    speaker: str | None = None


def choose_caption(captions: list[Caption], how: str, row_id: str) -> Caption | None:
    """One of a picture's captions for a row, the same in every run.

    Args:
        captions: in the order of their ids.
        how: `first`; `all`, joined by spaces, without sound; `random-by-id`, drawn by the sha1 of the row's id.
    """
    if not captions:
        return None
    if how == "all":
        return Caption(" ".join(caption.text for caption in captions))
    if how == "first":
        return captions[0]
    return captions[int(hashlib.sha1(row_id.encode()).hexdigest(), 16) % len(captions)]


def sibling_captions(file: Path) -> Path | None:
    """captions_train2017.json beside person_keypoints_train2017.json; None where there is none."""
    matches = [p for p in file.parent.glob("captions_*.json") if file.stem.endswith(p.stem.removeprefix("captions"))]
    return matches[0] if len(matches) == 1 else None


def read_captions(file: Path, name: str) -> tuple[dict[Any, list[Caption]], list[Fault]]:
    """COCO's captions by image id, each picture's in the order of their ids.

    Source: the caption annotation of cocodataset.org's data format: id, image_id, caption.

    Raises:
        InputError: not that format.
    """
    document = read_json(file, name)
    listed = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise InputError(f"data {name} captions {file}", expected="COCO captions: a list `annotations`", got="none")
    found: dict[Any, list[tuple[int, str]]] = defaultdict(list)
    faults = []
    for number, entry in enumerate(listed, 1):
        text = entry.get("caption") if isinstance(entry, dict) else None
        if isinstance(text, str) and text.strip() and isinstance(entry.get("image_id"), int | str):
            key = entry.get("id")
            found[entry["image_id"]].append((key if isinstance(key, int) else number, " ".join(text.split())))
        else:
            kind = "empty text" if isinstance(text, str) else "bad row"
            faults.append(Fault(kind, f"{file.name} caption {number}", f"expected a sentence, got {text!r}"))
    return {image: [Caption(text) for _, text in sorted(pairs)] for image, pairs in found.items()}, faults


def read_spoken(file: Path, name: str) -> tuple[dict[Any, list[Caption]], list[Fault]]:
    """SpokenCOCO's captions with their recordings, by image id. Recordings lie beside the file.

    Source: SpokenCOCO_train.json as its owners give it: {"data": [{"image":
    "train2014/COCO_train2014_000000000009.jpg", "captions": [{"text", "speaker", "uttid", "wav"}]}]}; the number at
    the end of a picture's name is COCO's image id.

    Raises:
        InputError: not that format.
    """
    document = read_json(file, name)
    listed = document.get("data") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise InputError(f"data {name} spoken {file}", expected="SpokenCOCO: a list `data`", got="none")
    found: dict[Any, list[Caption]] = defaultdict(list)
    faults = []
    for number, entry in enumerate(listed, 1):
        entry = entry if isinstance(entry, dict) else {}
        image = _LAST_NUMBER.search(Path(str(entry.get("image"))).stem)
        captions = entry.get("captions")
        if image is None or not isinstance(captions, list):
            faults.append(Fault("bad row", f"{file.name} entry {number}", "expected an image and its captions"))
            continue
        for said in captions:
            try:
                audio, speaker = inside(file.absolute().parent, str(said["wav"])), said.get("speaker")
                name_of_speaker = None if speaker is None else str(speaker)
                found[int(image[1])].append(Caption(str(said["text"]), audio, name_of_speaker))
            except (PathFault, KeyError, TypeError, AttributeError) as error:
                kind = error.kind if isinstance(error, PathFault) else "bad row"
                faults.append(Fault(kind, f"{file.name} entry {number}", str(error)))
    return found, faults
