"""ICDAR 2015's incidental scene text: a picture and one of its words as text; the keypoints are that word's corners.

Frame. The owners give whole px counted from the picture's top left; they are taken as indices of pixels from 0, which
is this package's frame as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from mmkp.data import card_of
from mmkp.data.paths import PathFault
from mmkp.data.readers.lines import Collector, Place, cell_numbers, check_option, flagged, read_lines
from mmkp.data.readers.sources import Pictures, RowFault, split_of
from mmkp.data.rows import Fault, Row, RowTable
from mmkp.errors import InputError
from mmkp.schema import load_schema

ILLEGIBLE = "###"
PICTURE_SUFFIXES = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".gif")
CHOICES = ("keep", "skip")
_LABELS = re.compile(r"gt_.+\.txt", re.IGNORECASE)


def read_icdar(
    path: str | Path, *, images: str | Path | None = None, illegible: str = "skip", repeats: str = "keep"
) -> RowTable:
    """Words with their four corners, in the file's order: clockwise from the word's top left.

    A row a word, the word its text, the whole picture its box; all words of a picture are one group.

    Args:
        path: the folder of gt/ and images/ (or of the owners' ch4_*_gt and ch4_*_images), the folder of the gt_*.txt,
            or one of these files.
        images: the folder of the pictures; by default it is looked for.
        illegible: `skip` leaves out words marked `###` (the default), `keep` takes them, without text.
        repeats: `skip` leaves out words that stand twice in their picture, whose text does not decide which is meant;
            `keep` (the default) takes them and names them.

    Raises:
        InputError: nothing that can be read, an option's value that is none.
    """
    check_option("illegible", illegible, CHOICES)
    check_option("repeats", repeats, CHOICES)
    root, collector, marked = Path(path).expanduser(), Collector(), 0
    for folder, files in _label_files(root).items():
        pictures = Pictures(files[0], "icdar", _picture_folder(folder, files[0], images))
        split = split_of(folder)
        for file in files:
            marked += _add_words(collector, file, pictures, split, illegible == "keep")
    if marked:
        kept = "have no text" if illegible == "keep" else "are left out; illegible=keep takes them"
        message = f"{marked} words are marked {ILLEGIBLE} and {kept}"
        collector.faults.append(Fault("empty text", root.name, message))
    _name_repeats(collector, repeats == "keep")
    root = root if root.is_dir() else root.parent
    return RowTable("icdar", load_schema("quad4"), collector.rows, collector.faults, root)


def _label_files(path: Path) -> dict[Path, list[Path]]:
    """The label files by the folder that they lie in, pictures in the order of their numbers.

    Raises:
        InputError: there are none.
    """
    if path.is_file():
        return {path.absolute().parent: [path]}
    below = sorted(path.iterdir()) if path.is_dir() else []
    folders = [path, *(d for d in below if d.is_dir() and d.name.lower().endswith(("gt", "labels", "annotations")))]
    found = {f: sorted(filter(_is_labels, f.iterdir()), key=_by_number) for f in folders if f.is_dir()}
    found = {folder: files for folder, files in found.items() if files}
    if not found:
        raise InputError(
            f"data icdar:{path}", expected="gt/gt_*.txt and images/", got="none there",
            remedy=f"{card_of('icdar')} says how to get it and how it must lie.",
        )  # fmt: skip
    return found


def _is_labels(file: Path) -> bool:
    return file.is_file() and _LABELS.fullmatch(file.name) is not None


def _by_number(file: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", file.stem)
    return int(digits[-1][:18]) if digits else 0, file.name


def _picture_names(file: Path) -> list[str]:
    return [re.sub("^gt_", "", file.stem, flags=re.IGNORECASE) + suffix for suffix in PICTURE_SUFFIXES]


def _picture_folder(folder: Path, file: Path, images: str | Path | None) -> str | Path:
    """The first folder that holds the file's picture: images/ beside, the owners' folder of the same part, its own."""
    if images is not None:
        return images
    owners = [d for d in sorted(folder.parent.iterdir()) if d.is_dir() and "images" in d.name.lower()]
    same_part = [d for d in owners if split_of(d) == split_of(folder)]
    candidates = [folder.parent / "images", folder / "images", *same_part, folder, folder.parent]
    return next((d for d in candidates if any((d / name).is_file() for name in _picture_names(file))), folder.parent)


def _add_words(collector: Collector, file: Path, pictures: Pictures, split: str | None, keep: bool) -> int:
    """The words of one picture; returns how many of them are marked as illegible."""
    name = next((n for n in _picture_names(file) if any((f / n).is_file() for f in pictures.folders)), None)
    try:
        image, group = pictures.find(name or _picture_names(file)[0])
    except PathFault as fault:
        collector.faults.append(Fault(fault.kind, file.name, str(fault)))
        return 0
    marked = 0
    for number, line in read_lines(file, "icdar"):
        if line is not None and not line.strip():
            continue
        transcript = (line or "").split(",", 8)[-1].strip()
        is_marked = line is not None and line.count(",") >= 8 and transcript == ILLEGIBLE
        marked += is_marked
        if is_marked and not keep:
            continue

        def make(place: Place, line: str | None = line, text: str | None = None if is_marked else transcript) -> Row:
            points, visible, lost = flagged(cell_numbers(_corners(line)).reshape(4, 2))
            if lost or not visible.all():
                raise RowFault("not a number", "expected eight coordinates that a picture can have")
            if text == "":
                raise RowFault("empty text", "expected a word after the eighth comma")
            return Row(place.id, group, place.where, points, visible, None, image, text=text, split=split)

        collector.attempt(Place(f"{file.name} line {number}", number, f"{image.stem}_{number}"), make)
    return marked


def _corners(line: str | None) -> list[str]:
    if line is None:
        raise RowFault("encoding", "the line is not UTF-8")
    cells = line.split(",", 8)  # the transcript may hold commas
    if len(cells) < 9:
        raise RowFault("keypoint count", f"expected x1,y1,...,x4,y4,transcript, got {len(cells)} values")
    return [cell.strip() for cell in cells[:8]]


def _name_repeats(collector: Collector, keep: bool) -> None:
    """Note, or leave out, words that stand twice in their picture."""
    counts = Counter((row.group, row.text or "") for row in collector.rows if row.text)
    repeated = [row for row in collector.rows if counts[row.group, row.text or ""] > 1]
    for row in repeated:
        place = Place(row.where, int(row.where.rpartition(" ")[2]), row.id)
        times = counts[row.group, row.text or ""]
        outcome = "" if keep else "; left out, repeats=keep takes it"
        collector.note("ambiguous text", place, f"{row.text!r} stands {times} times in the picture{outcome}")
    if not keep:
        collector.rows = [row for row in collector.rows if counts[row.group, row.text or ""] < 2]
