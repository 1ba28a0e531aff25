"""A dataset checked as a whole: rows from a reader where there is one, samples from any other dataset."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmkp.data.check.duplicates import judge_duplicates, judge_groups
from mmkp.data.check.eyes import judge_eyes
from mmkp.data.check.findings import SEVERITY, Finding, Report, from_fault, ordered
from mmkp.data.check.labels import judge_row, labelled
from mmkp.data.check.probe import Picture, Probes, Progress, probe
from mmkp.data.check.shapes import MIN_ROWS, judge_shapes
from mmkp.data.check.source import is_table, open_source, sample_table
from mmkp.data.rows import Row, RowTable
from mmkp.data.splits import assign_splits

NORMALISED = 1.5  # px: labels that all lie below it, in pictures of usual size, are shares of width and height


@dataclass(frozen=True)
class Checked:
    """A table, what was decoded of it, and the report.

    Attributes:
        table: rows and faults of the reader.
        numbers: of the rows, as the source counts them.
        probes: facts by file.
        report: all findings.
    """

    table: RowTable
    numbers: Sequence[int]
    probes: Probes
    report: Report


def check(spec: str, workers: int | None = None, progress: Progress = lambda jobs: jobs, **options: Any) -> Checked:
    """Read, decode and judge every row of a dataset.

    Args:
        spec: as `open_dataset` takes it.
        workers: threads that decode; the machine's cores without.
        progress: wraps the list of jobs, to show how far it is.
        options: of the dataset.

    Raises:
        InputError: nothing can be read at all.
    """
    started = time.perf_counter()
    if is_table(spec):
        table = open_source(spec, **options)
        probes = probe(table.rows, workers, progress)
    else:
        table, probes = sample_table(spec, progress, **options)
    numbers = [number_of(row, i) for i, row in enumerate(table.rows)]
    findings = ordered(judge(table, numbers, probes))
    files = len(probes.pictures) + len({k[0] if isinstance(k, tuple) else k for k in probes.sounds})
    splits = Counter(assign_splits([r.group for r in table.rows], [r.split for r in table.rows]))
    report = Report(
        spec, len(table.rows), files, time.perf_counter() - started, findings,
        {name: splits[name] for name in sorted(splits)}, _not_judged(table, dict(splits)),
    )  # fmt: skip
    return Checked(table, numbers, probes, report)


def _not_judged(table: RowTable, splits: dict[str, int]) -> list[str]:
    """What the report cannot say, in a line each."""
    lines = []
    labelled_rows = sum(bool(labelled(row).any()) for row in table.rows)
    if 0 < labelled_rows < MIN_ROWS:
        lines.append(
            f"swapped sides and outlying shapes were not judged: {labelled_rows} labelled rows, {MIN_ROWS} needed"
        )
    missing = [name for name in ("train", "validation", "test") if not splits.get(name)]
    if table.rows and missing:
        lines.append(
            f"no rows in the split {' or '.join(missing)}: training wants one of each; give the rows a `split`"
        )
    return lines


def judge(table: RowTable, numbers: Sequence[int], probes: Probes) -> Iterator[Finding]:
    """All findings about a table whose files were decoded."""
    rows, names = table.rows, table.schema.keypoints
    kept = {row.where for row in rows}
    yield from (from_fault(fault, kept) for fault in table.faults)
    if not rows:
        yield _whole("no usable rows", "no row can be used; the faults above say why" if table.faults else "no rows")
        return
    fitting = [i for i, row in enumerate(rows) if np.shape(row.keypoints_xy) == (len(names), 2)]
    chosen = [rows[i] for i in fitting]
    shares = list(_judge_scale(chosen, probes))
    known = {(fault.kind, fault.where) for fault in table.faults}
    known |= {("small shape", row.where) for row in rows if shares}
    for row, number in zip(rows, numbers, strict=True):
        yield from (f for f in judge_row(row, number, names, probes) if (f.kind, f.where) not in known)
    yield from judge_duplicates(rows, numbers, probes)
    yield from judge_groups(rows, numbers)
    yield from judge_shapes(chosen, [numbers[i] for i in fitting], table.schema)
    yield from shares
    yield from (_whole(kind, message) for kind, message in judge_eyes(chosen, table.schema))


def number_of(row: Row, index: int) -> int:
    """The row's number as its source counts: the last number of its place, else its position from 1."""
    found = re.search(r"(\d+)\D*$", row.where)
    return int(found[1]) if found and len(found[1]) < 19 else index + 1


def _judge_scale(rows: Sequence[Row], probes: Probes) -> Iterator[Finding]:
    pictures = [probes.picture(row) for row in rows]
    sides = [max(p.size_hw) for p in pictures if isinstance(p, Picture)]
    points = [np.asarray(row.keypoints_xy)[labelled(row)] for row in rows]
    reach = max((float(np.abs(p[np.isfinite(p)]).max()) for p in points if np.isfinite(p).any()), default=0.0)
    if sides and min(sides) > 16 and 0 < reach < NORMALISED:
        message = f"expected px, got coordinates up to {reach:.3g} in pictures of {min(sides)} px and more"
        yield _whole("normalised coordinates", message)


def _whole(kind: str, message: str) -> Finding:
    return Finding(kind, SEVERITY[kind], "the whole", 0, "", message)
