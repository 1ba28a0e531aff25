"""A cleaned copy of a dataset in the custom format, with a log of what was dropped or fixed, and why."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.data.check import Checked, Finding, check, is_table
from mmkp.data.check.duplicates import duplicates, home_splits
from mmkp.data.check.findings import NEVER_ERRORS, from_fault
from mmkp.data.check.labels import labelled, outside
from mmkp.data.check.probe import Picture, Progress
from mmkp.data.check.shapes import ONLY_SOME
from mmkp.data.export import export_folder
from mmkp.data.rows import Row, RowTable
from mmkp.data.splits import SPLITS, canonical
from mmkp.errors import InputError

LOG = "cleaning_log.jsonl"
SOUND = ("audio", "audio_time_s", "audio_start_s", "audio_end_s")
LEFT_OUT = {"undecodable image": ("image", "frame"), "undecodable audio": SOUND, "audio time": SOUND}


@dataclass(frozen=True)
class Change:
    """One line of the log. `action` is dropped, fixed or kept (only reported)."""

    action: str
    kind: str
    where: str
    row: int
    id: str
    message: str


@dataclass(frozen=True)
class Cleaned:
    """What was done."""

    out: Path
    rows: int
    changes: Sequence[Change] = field(default_factory=tuple)

    def lines(self) -> list[str]:
        """The summary, by action and kind."""
        counts = Counter((c.action, c.kind) for c in self.changes)
        made = [f"  {action:<8} {kind:<24} {count}" for (action, kind), count in sorted(counts.items())]
        return [f"{self.rows} rows written to {self.out}", *made, f"log: {self.out / LOG}"]


def clean(
    spec: str,
    out: Path,
    *,
    keep_duplicates: bool = False,
    drop_outliers: bool = False,
    fix_swapped: bool = False,
    workers: int | None = None,
    progress: Progress = lambda jobs: jobs,
    options: dict[str, Any] | None = None,
) -> Cleaned:
    """Check a dataset and write what is usable of it into a new folder.

    Args:
        spec: as `open_dataset` takes it, of a dataset in one of the formats.
        out: a new or empty folder outside the dataset.
        keep_duplicates: keep rows whose picture is a copy of another's.
        drop_outliers: drop shapes far from the mean shape.
        fix_swapped: exchange left and right where a row fits the mean shape better so.
        workers, progress: as `check` takes them.
        options: of the dataset.

    Raises:
        InputError: a dataset with its own reader, an `out` that is not new or lies inside the data, nothing usable.
    """
    if not is_table(spec):
        raise InputError(
            f"clean {spec}", expected="a dataset in one of the formats", got="one with its own reader",
            remedy=f"First write it as files: mmkp data export {spec} --to folder --out DIR",
        )  # fmt: skip
    given = spec if Path(spec).expanduser().exists() else spec.partition(":")[2]
    check_out(out, Path(given).expanduser().resolve() if given else None)
    checked = check(spec, workers, progress, **(options or {}))
    check_out(out, checked.table.root if checked.table.root != Path(".") else None)
    rows, changes = decide(checked, keep_duplicates, drop_outliers, fix_swapped)
    if not rows:
        first = f"; first: {checked.report.findings[0]}" if checked.report.findings else ""
        raise InputError(f"clean {spec}", expected="usable rows", got=f"none{first}")
    table = checked.table
    made = export_folder(RowTable(table.name, table.schema, rows, root=table.root), out)
    with (out / LOG).open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(json.dumps(asdict(change), ensure_ascii=False) + "\n" for change in changes)
    return Cleaned(out, made.rows, changes)


def check_out(out: Path, source: Path | None) -> None:
    """Refuse a folder that holds something, or that lies within the data.

    Raises:
        InputError: so it is.
    """
    folder = source if source is None or source.is_dir() else source.parent
    if folder is not None and out.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"--out {out}", expected="a folder outside the data", got=f"one inside {folder}", remedy="Choose another."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}", expected="a new or empty folder", got="one that holds something")


def decide(
    checked: Checked, keep_duplicates: bool = False, drop_outliers: bool = False, fix_swapped: bool = False
) -> tuple[list[Row], list[Change]]:
    """The rows to keep, mended, and one change for each fault."""
    table = checked.table
    by_row: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    places = {row.where for row in table.rows}
    reported = dict.fromkeys(from_fault(fault, places) for fault in table.faults)
    for finding in checked.report.findings:
        if finding not in reported:
            by_row[finding.where, finding.id].append(finding)
    changes = [_changed(_action(finding, places), finding) for finding in reported]
    homes = home_splits(table.rows)
    kept: list[Row] = []
    for row, number in zip(table.rows, checked.numbers, strict=True):
        found = by_row.pop((row.where, row.id), [])
        mended, done = _mend(row, found, checked, homes, fix_swapped, drop_outliers)
        changes += done
        if mended is not None and mended.image is None and mended.audio is None and mended.text is None:
            message = "no picture, sound or text is left"
            changes.append(Change("dropped", "nothing left", row.where, number, row.id, message))
        elif mended is not None:
            kept.append(mended)
    changes += [_changed("kept", finding) for rest in by_row.values() for finding in rest]
    if not keep_duplicates:
        earlier = duplicates(kept, checked.probes)
        gone = {(kept[i].where, kept[i].id) for i, j in enumerate(earlier) if j >= 0}
        kept = [row for row, j in zip(kept, earlier, strict=True) if j < 0]
        changes = [_drop_copies(c, gone) for c in changes]
    return kept, changes


def _mend(
    row: Row, found: Sequence[Finding], checked: Checked, homes: dict[str, str], fix_swapped: bool, drop_outliers: bool
) -> tuple[Row | None, list[Change]]:
    """The row without its faults, None where it has to go, and a change for each finding, in their order."""
    fatal = ("keypoint count", *(("shape outlier",) if drop_outliers else ()))
    if any(f.kind in fatal for f in found):
        return None, [_changed("dropped" if f.kind in fatal else "kept", f) for f in found]
    changes = []
    picture = checked.probes.picture(row)
    if canonical(row.split) not in SPLITS[:3]:  # a word that no split goes by, which the reader has reported
        row = row.replace(split=None)
    for finding in found:
        kind, action = finding.kind, "fixed"
        if kind in LEFT_OUT:
            row = row.replace(**dict.fromkeys(LEFT_OUT[kind]))
        elif kind in ("outside image", "not a number"):
            row = _unlabel(row, picture.size_hw if isinstance(picture, Picture) else None)
        elif kind == "bad box":
            row = row.replace(box_xywh=None)
        elif kind == "empty text":
            row = row.replace(text=None)
        elif kind == "group in two splits":
            row = row.replace(split=homes[row.group])
        elif kind == "left right swapped" and fix_swapped and not finding.message.startswith(ONLY_SOME):
            flip = checked.table.schema.flip_index
            row = row.replace(keypoints_xy=row.keypoints_xy[flip], visible=row.visible[flip])
        else:
            action = "kept"
        changes.append(_changed(action, finding))
    return row, changes


def _unlabel(row: Row, size_hw: tuple[int, int] | None) -> Row:
    wrong = labelled(row) & ~np.isfinite(row.keypoints_xy).all(-1)
    if size_hw:
        wrong |= outside(row, size_hw)
    xy, visible = row.keypoints_xy.copy(), row.visible.copy()
    xy[wrong], visible[wrong] = np.nan, 0
    return row.replace(keypoints_xy=xy, visible=visible)


def _action(finding: Finding, places: Collection[str]) -> str:
    """What a reader has done about a fault: left the row out, or taken it without the faulty part."""
    if not finding.row or finding.kind in NEVER_ERRORS:
        return "kept"
    return "fixed" if finding.where in places else "dropped"


def _changed(action: str, finding: Finding) -> Change:
    return Change(action, finding.kind, finding.where, finding.row, finding.id, finding.message)


def _drop_copies(change: Change, gone: set[tuple[str, str]]) -> Change:
    if change.kind == "duplicate image" and (change.where, change.id) in gone:
        return Change(**{**asdict(change), "action": "dropped"})
    return change
