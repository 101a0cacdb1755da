"""What drills found out, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from oneiric.drills.run import Report
from oneiric.drills.timeline import Entry


def line(entry: Entry) -> str:
    """Return one entry of a timeline as a line."""
    return f"  {entry.at:7.1f} s  {entry.kind:<12} {entry.text}"


def summary(reports: Iterable[Report]) -> str:
    """Return a table: the drill, its alert, when it fired, what the doctor said, when it cleared."""
    rows = [("DRILL", "", "ALERT", "FIRED", "DOCTOR", "IN", "CLEARED", "")]
    rows += [
        (
            report.code,
            "passed" if report.passed else "FAILED",
            report.alert,
            _seconds(report.fired),
            report.verdict or "-",
            _seconds(report.doctor_seconds),
            _seconds(report.cleared),
            report.failed,
        )
        for report in reports
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
