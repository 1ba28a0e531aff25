"""Tables: one form, written as Markdown, CSV and LaTeX, each with the caption that says where its numbers come from."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NONE = "-"
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {c: f"${c}$" for c in "<>|"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, where there is one, and its standard deviation over seeds; `mark` is for readers."""

    mean: float | None
    ci95: tuple[float, float] | list[float] | None = None
    spread: float | None = None
    digits: int = 4
    mark: str = ""

    def __str__(self) -> str:
        if self.mean is None:
            return NONE
        text = f"{self.mean:.{self.digits}f}"
        if self.ci95 is not None:
            text += f" [{self.ci95[0]:.{self.digits}f}, {self.ci95[1]:.{self.digits}f}]"
        return (text if self.spread is None else f"{text} ±{self.spread:.{self.digits}f}") + self.mark

    def columns(self) -> list[float | None]:
        """mean, low, high, standard deviation over seeds."""
        low, high = self.ci95 or (None, None)
        return [self.mean, low, high, self.spread]


@dataclass(frozen=True)
class PValue:
    """A p: in full in a CSV, no smaller than 0.001 for readers."""

    value: float

    def __str__(self) -> str:
        return "< 0.001" if self.value < 0.001 else f"{self.value:.3f}"


@dataclass
class Table:
    """A table.

    Attributes:
        name: of its files.
        title: of its section.
        caption: what the numbers are and where they come from.
        head: the columns; a cell is a string, a number, an `Estimate`, a `PValue` or None.
        bold: rows that stand out.
    """

    name: str
    title: str
    caption: str
    head: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    bold: set[int] = field(default_factory=set)

    def markdown(self) -> str:
        """With the caption below."""
        lines = ["| " + " | ".join(self.head) + " |", "|" + " --- |" * len(self.head)]
        for number, row in enumerate(self.rows):
            cells = [_shown(c).replace("|", r"\|") for c in row]
            if number in self.bold:
                cells[0] = f"**{cells[0]}**"
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join([*lines, "", f"*{self.caption}*"])

    def csv(self) -> str:
        """Numbers in full; an estimate takes four columns."""
        estimates = [any(isinstance(r[i], Estimate) for r in self.rows) for i in range(len(self.head))]
        head: list[str] = []
        for name, is_estimate in zip(self.head, estimates, strict=True):
            head += [f"{name} mean", f"{name} low", f"{name} high", f"{name} seed sd"] if is_estimate else [name]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        for row in self.rows:
            made: list[Any] = []
            for cell, is_estimate in zip(row, estimates, strict=True):
                if is_estimate:
                    made += cell.columns() if isinstance(cell, Estimate) else [cell, None, None, None]
                else:
                    made.append(cell.value if isinstance(cell, PValue) else cell)
            writer.writerow(["" if v is None else v for v in made])
        return file.getvalue()

    def latex(self) -> str:
        """A `table` with booktabs' rules."""
        body = []
        for number, row in enumerate(self.rows):
            cells = [_shown(c).translate(_LATEX).replace("±", r"$\pm$") for c in row]
            if number in self.bold:
                cells[0] = rf"\textbf{{{cells[0]}}}"
            body.append(" & ".join(cells) + r" \\")
        head = " & ".join(h.translate(_LATEX) for h in self.head) + r" \\"
        return "\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{self.caption.translate(_LATEX)}}}",
            rf"\label{{tab:{self.name}}}", rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}", r"\toprule", head,
            r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
        ])  # fmt: skip

    def write(self, folder: Path) -> None:
        """NAME.md, NAME.csv and NAME.tex."""
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, text in ((".md", self.markdown() + "\n"), (".csv", self.csv()), (".tex", self.latex())):
            (folder / f"{self.name}{suffix}").write_text(text, encoding="utf-8")


def _shown(cell: Any) -> str:
    if cell is None:
        return NONE
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 999.5 else f"{cell:.3g}"
    return str(cell)


def p_value(p: float | None) -> PValue | None:
    """For a table; None where nothing was tested."""
    return None if p is None else PValue(p)
