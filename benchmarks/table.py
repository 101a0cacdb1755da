"""The table of a run, as text for people, and how its figures are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.measure import Row

HEADINGS: Final = ("benchmark", "N", "median", "p10", "times", "baseline", "target", "", "memory", "note")


def as_text(rows: Sequence[Row]) -> str:
    """Return the table as aligned columns."""
    legend = "times: median over all rounds of what it took / what its baseline took in the same round"
    lines = [HEADINGS, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join([*(_aligned(line, widths) for line in lines), "", legend])


def cells(row: Row) -> tuple[str, ...]:
    """Return the line of *row*, a text for each heading."""
    if row.error:
        return (row.name, f"{row.size:,}", "", "", "", "", "", "not run", "", row.error)
    return (
        row.name,
        f"{row.size:,}",
        duration(row.median),
        duration(row.p10),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        row.baseline,
        targets(row),
        {True: "met", False: "MISSED", None: ""}[row.met],
        memory(row.memory),
        row.note,
    )


def targets(row: Row) -> str:
    """Return what the ratio, the median and the memory may be at most."""
    most = ("" if row.target is None else f"{row.target:g}", duration(row.median_target), memory(row.memory_target))
    return " and ".join(f"<= {figure}" for figure in most if figure)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = ("benchmark", "baseline", "target", "", "note")
    return "  ".join(
        cell.ljust(width) if heading in left else cell.rjust(width)
        for heading, cell, width in zip(HEADINGS, cells, widths, strict=True)
    ).rstrip()


def duration(seconds: float | None) -> str:
    """Return *seconds* with three digits and the unit that fits."""
    if seconds is None:
        return ""
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds)} s"


def memory(number: float | None) -> str:
    """Return a number of bytes with the unit that fits."""
    if number is None:
        return ""
    if number >= 999.5 * 1024:
        return f"{number / 2**20:.1f} MiB"
    return f"{number:.0f} B" if number < 10_000 else f"{number / 1024:.1f} KiB"


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"
