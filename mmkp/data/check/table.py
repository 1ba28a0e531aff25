"""A report as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmkp.data.check.findings import Report

SHOWN = 5  # row numbers of a kind; --json lists all


def print_report(report: Report, console: Console) -> None:
    """Kinds with their counts, first rows and an example, then one line that sums up."""
    if report.findings:
        console.print(_table(report))
    speed = f"{report.files} files decoded in {report.seconds:.1f} s"
    warnings = len(report.findings) - report.errors
    verdict = f"{_count(report.errors, 'error')}, {_count(warnings, 'warning')}"
    if not report.findings:
        verdict = "nothing wrong found"
    for line in report.notes:
        console.print(f"note: {escape(line)}", soft_wrap=True)
    if report.splits:
        console.print(
            "splits: " + ", ".join(f"{name} {count}" for name, count in report.splits.items()), soft_wrap=True
        )
    console.print(f"{escape(report.data)}: {_count(report.rows, 'usable row')}, {speed}: {verdict}", soft_wrap=True)


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("kind", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("rows", max_width=26)
    table.add_column("the first", overflow="fold")
    groups = [(kind, severity) for severity in ("error", "warning") for kind in report.counts]
    for kind, severity in groups:
        cases = [f for f in report.findings if (f.kind, f.severity) == (kind, severity)]
        if not cases:
            continue
        numbers = list(dict.fromkeys(str(f.row) if f.row else "whole" for f in cases))
        rows = ", ".join(numbers[:SHOWN]) + (" ..." if len(numbers) > SHOWN else "")
        style = "red" if severity == "error" else "yellow"
        first = escape(f"{cases[0].where}: {cases[0].message}")
        table.add_row(escape(kind), f"[{style}]{severity}[/]", str(len(cases)), rows, first)
    return table


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
