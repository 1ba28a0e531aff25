"""Where a public dataset lies on disk: its annotation files, the split that a file's name tells, its pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmkp.data import card_of
from mmkp.data.paths import PathFault, inside
from mmkp.errors import InputError

ANNOTATION_FOLDERS = ("annotations", "annotation", "annot", "labels")
PICTURE_FOLDERS = (
    "images", "data", "imgs", "WFLW_images", "train2017", "val2017", "test2017", "train", "val", "valid", "test",
)  # fmt: skip
_OTHER_TASKS = ("captions_", "instances_", "image_info", "stuff_", "panoptic_")  # of COCO's annotations
_SPLIT = r"(train|training|val|valid|validation|test)"
_SAYS_SPLIT = re.compile(rf"(?:^|[^a-z]){_SPLIT}(?![a-z])")
_WHOLE_SPLIT = re.compile(rf"(?:^|[^a-z]){_SPLIT}(?:\d{{4}})?(?:_v\d[\d.]*)?(?:-split1)?$")


class RowFault(ValueError):
    """What is wrong with one row: `kind` as in `Fault`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def annotation_files(path: str | Path, name: str, patterns: Sequence[str]) -> list[Path]:
    """The annotation files that `NAME:PATH` means: a file itself, or those of a folder that are whole splits.

    Of a folder that holds more than the splits (a test set's hard part, a second fold) only the files whose name ends
    in a split's name are taken; the others are read when they are named.

    Args:
        path: a file, or the folder that holds it or holds `annotations/`.
        name: of the format, for messages.
        patterns: of file names, the best first; the first one that is met counts.

    Raises:
        InputError: nothing there, or files of which none can be preferred.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return [path]
    where, remedy = f"data {name}:{path}", f"{card_of(name)} says how to get it and how it must lie."
    if not path.is_dir():
        raise InputError(where, expected="an annotation file or its folder", got="none there", remedy=remedy)
    folders = [folder for folder in (path, *(path / f for f in ANNOTATION_FOLDERS)) if folder.is_dir()]
    for pattern in patterns:
        met = sorted(file for folder in folders for file in folder.glob(pattern) if file.is_file())
        found = [file for file in met if not file.name.startswith(_OTHER_TASKS)]
        whole = [file for file in found if _WHOLE_SPLIT.search(file.stem.lower())]
        if whole or len(found) == 1:
            return whole or found
        if found:
            names = ", ".join(file.name for file in found[:6])
            raise InputError(where, expected="one annotation file", got=names, remedy=f"Name it: {name}:FILE.")
    raise InputError(
        where, expected=f"{' or '.join(patterns)}, there or in annotations/", got="none there", remedy=remedy
    )


def split_of(file: Path) -> str | None:
    """The split that a file's name, or else its folder's, tells; None where neither does."""
    for name in (file.stem, file.parent.name):
        found = set(_SAYS_SPLIT.findall(name.lower()))
        if len(found) == 1:
            return found.pop()
    return None


def read_json(file: Path, name: str) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it cannot be read, is not UTF-8 or not JSON; says the line.
    """
    where = f"data {name}:{file}"
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(
            where, expected="JSON", got=f"{error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(where, expected="JSON in UTF-8", got=f"a byte that is not, at {error.start}") from error
    except (OSError, RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise InputError(where, expected="a readable JSON file", got=str(error) or "one nested too deeply") from error


class Pictures:
    """Finds the pictures that an annotation file names: beside it, in the usual sub-folders, or where it is told.

    Args:
        file: the annotation file.
        name: of the format, for messages.
        images: the folder that the names are relative to; None looks for it.
        split: folders of that split's name come first.

    Raises:
        InputError: `images` is no folder.
    """

    def __init__(self, file: Path, name: str, images: str | Path | None = None, split: str | None = None) -> None:
        self.name = name
        beside = file.absolute().parent
        if images is None:
            self.root = beside.parent if beside.name.lower() in ANNOTATION_FOLDERS else beside
            bases = (self.root, self.root / "images")
            folders = [*(base / sub for base in bases for sub in ("", *PICTURE_FOLDERS)), beside]
        else:
            self.root = Path(images).expanduser()
            folders = [self.root]
            if not self.root.is_dir():
                raise InputError(
                    f"data {name} images", expected="a folder", got=str(images),
                    remedy=f"{card_of(name)} says how it must lie.",
                )  # fmt: skip
        folders.sort(key=lambda folder: not (split and folder.name.lower().startswith(split[:3])))
        self.folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]

    def find(self, file_name: Any) -> tuple[Path, str]:
        """The picture's file, and its name within the dataset, which tells its group.

        Raises:
            PathFault: no such file, or a name that leads out.
            RowFault: no file name at all.
        """
        if not isinstance(file_name, str) or not file_name:
            raise RowFault("bad row", f"expected a picture's file name, got {str(file_name)[:40]!r}")
        for folder in self.folders:
            try:
                path = inside(folder, file_name)
            except PathFault as fault:
                if fault.kind == "path escape":
                    raise
                continue
            return path, (folder / file_name).relative_to(self.root).as_posix()
        looked = ", ".join(folder.relative_to(self.root).as_posix() for folder in self.folders)
        raise PathFault(
            "missing file",
            f"no {file_name!r} in {looked} of {self.root}; images=DIR says where the pictures are "
            f"({card_of(self.name)})",
        )
