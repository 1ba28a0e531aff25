"""What a check finds: one line per fault, and all of them with their counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mmkp.data.rows import Fault, Row

Severity = Literal["error", "warning"]

# An error costs something: a row, its picture, its sound, or the worth of the test score. All else is a warning.
SEVERITY: dict[str, Severity] = {
    "no usable rows": "error",
    "unreadable": "error",
    "missing file": "error",
    "path escape": "error",
    "undecodable image": "error",
    "undecodable audio": "error",
    "audio time": "error",
    "keypoint count": "error",
    "not a number": "error",
    "bad box": "error",
    "bad json": "error",
    "bad row": "error",
    "group in two splits": "error",
    "no keypoints": "warning",
    "outside image": "warning",
    "normalised coordinates": "warning",
    "odd box": "warning",
    "small shape": "warning",
    "sides exchanged": "warning",
    "x and y exchanged": "warning",
    "encoding": "warning",
    "duplicate id": "warning",
    "bad flag": "warning",
    "unknown field": "warning",
    "crowd region": "warning",
    "ambiguous text": "warning",
    "one group": "warning",
    "keypoint names": "warning",
    "noted by the reader": "warning",
    "empty text": "warning",
    "long text": "warning",
    "short audio": "warning",
    "clipped audio": "warning",
    "silent audio": "warning",
    "duplicate image": "warning",
    "near duplicate": "warning",
    "left right swapped": "warning",
    "shape outlier": "warning",
}
NEVER_ERRORS = ("no keypoints", "unknown field", "duplicate image")  # rows that a reader leaves out with good reason
MENDED = ("bad box",)  # a reader that keeps the row has put something sensible in its place


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: a key of `SEVERITY`, or a reader's own word.
        severity: an error costs a row, its picture, its sound or the worth of the test score; a warning does not.
        where: the row's place in the source.
        row: its number there, 0 for the whole.
        id: the row's id where it has one.
        message: what was expected and what came.
    """

    kind: str
    severity: Severity
    where: str
    row: int
    id: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.message}"


def found(kind: str, row: Row, number: int, message: str) -> Finding:
    """A finding about a usable row."""
    return Finding(kind, SEVERITY.get(kind, "error"), row.where, number, row.id, message)


def from_fault(fault: Fault, kept: Collection[str]) -> Finding:
    """A reader's fault as a finding: an error too when the reader left the row out.

    Args:
        kept: places of the rows that the reader kept.
    """
    severity = SEVERITY.get(fault.kind, "error")
    if fault.row and fault.kind not in NEVER_ERRORS and fault.where not in kept:
        severity = "error"
    elif fault.kind in MENDED:
        severity = "warning"
    return Finding(fault.kind, severity, fault.where, fault.row, fault.id, fault.message)


@dataclass(frozen=True)
class Report:
    """All findings about a dataset.

    Attributes:
        data: the dataset as the user named it.
        rows: usable rows that were judged.
        files: distinct pictures and sounds that were decoded.
        seconds: what it took.
        findings: errors first, then in the source's order.
        splits: rows by split, as `open_dataset` would give them.
        notes: what was not judged, and why.
    """

    data: str
    rows: int
    files: int
    seconds: float
    findings: Sequence[Finding]
    splits: dict[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(f.severity == "error" for f in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind, errors first, the most frequent kind first."""
        ranked = Counter(f.kind for f in self.findings).most_common()
        severe = {f.kind for f in self.findings if f.severity == "error"}
        return dict(sorted(ranked, key=lambda item: item[0] not in severe))

    def to_json(self) -> dict[str, Any]:
        """The plain form."""
        return {
            "data": self.data,
            "rows": self.rows,
            "files": self.files,
            "errors": self.errors,
            "warnings": len(self.findings) - self.errors,
            "counts": self.counts,
            "splits": self.splits,
            "notes": list(self.notes),
            "findings": [asdict(f) for f in self.findings],
        }


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then by row."""
    return sorted(findings, key=lambda f: (f.severity != "error", f.row))
