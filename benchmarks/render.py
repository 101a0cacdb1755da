"""Renders the figures of runs as a page with plots: ``python -m benchmarks.render docs/benchmarks.json``.

The page is written beside the JSON, its plots into a directory of the same name. What it says about a benchmark, and
why a target is missed, is in ``explained.md``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import plot, record, table
from benchmarks.measure import Row
from benchmarks.record import Run

EXPLAINED: Final = Path(__file__).with_name("explained.md")
UNEXPLAINED: Final = "Not explained yet."
_CHAPTER: Final = re.compile(r"^# (?=[a-z-]+: )", re.MULTILINE)
FEWEST_BARS: Final = 4
OURS: Final = ("oneiric", "ours")
TIMES: Final = {1e-9: "ns", 1e-6: "us", 1e-3: "ms", 1.0: "s"}
MEMORY: Final = {1.0: "B", 1e3: "kB", 1e6: "MB", 1e9: "GB"}
RIGHT: Final = ("N", "median", "p10", "times", "memory")


@dataclass
class Section:
    """What ``explained.md`` says about one benchmark: a title, a text, and by row why its target is missed."""

    title: str
    text: str = ""
    missed: dict[str, str] = field(default_factory=dict)


def explained(text: str) -> tuple[str, dict[str, Section]]:
    """Return what stands before the first ``# benchmark: Title``, and the sections, by benchmark."""
    introduction, *chapters = _CHAPTER.split(text)
    sections: dict[str, Section] = {}
    for chapter in chapters:
        head, *rows = chapter.split("\n## ")
        heading, _, body = head.partition("\n")
        name, _, title = heading.partition(": ")
        missed = {row.partition("\n")[0].strip(): row.partition("\n")[2].strip() for row in rows}
        sections[name] = Section(title, body.strip(), missed)
    return introduction.strip(), sections


def unexplained(runs: Mapping[str, Run], sections: Mapping[str, Section]) -> list[str]:
    """Return which missed targets nobody explained."""
    return [
        f"{name}: {row}"
        for name, run in runs.items()
        for row in _missed(run)
        if not (name in sections and sections[name].missed.get(row))
    ]


def _missed(run: Run) -> list[str]:
    return list(dict.fromkeys(row.name for row in run.rows if row.met is False))


def rendered(runs: Mapping[str, Run], text: str, stem: str) -> dict[str, str]:
    """Return the page and its plots by their paths: ``STEM.md`` and ``STEM/*.svg``."""
    introduction, sections = explained(text)
    environments = list(dict.fromkeys(tuple(run.environment.items()) for run in runs.values()))
    plots: dict[str, str] = {}
    lines = [introduction, "", "## Where it was measured", "", *_environments(environments)]
    lines += ["", "## Met and missed", "", *_verdicts(runs)]
    for name, run in runs.items():
        section = sections.get(name, Section(name))
        lines += ["", f"## {section.title}", "", *([section.text, ""] if section.text else []), *_table(run.rows)]
        place = "" if len(environments) == 1 else f" on {_letter(environments.index(tuple(run.environment.items())))}"
        said = f"`--only {name}`: {run.budget} run of {run.seconds:.0f} s{place}, load {run.load:g} when it began."
        lines += ["", said]
        for row in _missed(run):
            lines += ["", f"**Missed: {row}.** {section.missed.get(row) or UNEXPLAINED}"]
        for kind, alternative, drawing in _plots(section.title, run.rows):
            plots[f"{stem}/{name}-{kind}.svg"] = drawing
            lines += ["", f"![{alternative}]({stem}/{name}-{kind}.svg)"]
    return {f"{stem}.md": "\n".join(lines) + "\n", **plots}


def _environments(environments: Sequence[tuple[tuple[str, str], ...]]) -> Iterator[str]:
    for number, environment in enumerate(environments):
        if len(environments) > 1:
            yield from (["", f"{_letter(number)}:", ""] if number else [f"{_letter(number)}:", ""])
        yield from (f"- {name}: {value}" for name, value in environment)


def _letter(number: int) -> str:
    return chr(ord("A") + number)


def _verdicts(runs: Mapping[str, Run]) -> Iterator[str]:
    rows = [row for run in runs.values() for row in run.rows]
    judged = [row for row in rows if row.met is not None]
    met, broken = sum(row.met is True for row in judged), sum(bool(row.error) for row in rows)
    yield f"{len(rows)} lines, {len(judged)} with a target: {met} met, {len(judged) - met} missed."
    if broken:
        yield f"{broken} could not be measured."
    if met < len(judged):
        yield from ["", "| missed | N | is | may be |", "| --- | ---: | --- | --- |"]
    for row in judged:
        if row.met is False:
            yield _line((row.name, f"{row.size:,}", _is(row), table.targets(row)))


def _is(row: Row) -> str:
    figures = (
        "" if row.target is None or row.ratio is None else f"{row.ratio:.2f}",
        "" if row.median_target is None else table.duration(row.median),
        "" if row.memory_target is None else table.memory(row.memory),
    )
    return " and ".join(figure for figure in figures if figure)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield _line(table.HEADINGS)
    yield _line(tuple("---:" if heading in RIGHT else "---" for heading in table.HEADINGS))
    yield from (_line(table.cells(row)) for row in rows)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _plots(title: str, rows: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """Iterate over the kind, the alternative text and the drawing of each plot that *rows* are good for."""
    figures: tuple[tuple[str, Callable[[Row], float | None], Mapping[float, str]], ...] = (
        ("time", lambda row: row.median, TIMES),
        ("memory", lambda row: row.memory, MEMORY),
    )
    for kind, figure, units in figures:
        if series := _growing(rows, figure):
            heading = f"{title}: {kind} against N"
            tick = partial(_tick, units=units)
            drawing = plot.lines(heading, series, x_label="N (logarithmic)", y_label=f"{kind} (logarithmic)", tick=tick)
            yield kind, f"{heading}, of {', '.join(series)}", drawing
    for number, (baseline, held) in enumerate(_against_one(rows).items(), 1):
        heading = f"{title}: multiples of {baseline}"
        drawing = plot.bars(heading, [_bar(row) for row in held], x_label="times the baseline (logarithmic)")
        shown = ", ".join(f"{_bar(row).label} {row.ratio:.3g}" for row in held)
        yield f"ratios-{number}", f"{heading}: {shown}", drawing


def _tick(value: float, *, units: Mapping[float, str]) -> str:
    """Return a power of ten with the unit that fits."""
    factor = max((each for each in units if each <= value * 1.001), default=min(units))
    return f"{value / factor:g} {units[factor]}"


def _growing(rows: Sequence[Row], figure: Callable[[Row], float | None]) -> Mapping[str, Sequence[tuple[float, float]]]:
    """Return by name what was measured at more than one N."""
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        value = figure(row)
        if row.size > 0 and value is not None and value > 0:
            found.setdefault(row.name, {})[float(row.size)] = value
    return {name: sorted(points.items()) for name, points in found.items() if len(points) > 1}


def _against_one(rows: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
    """Return by baseline what is held against it, at the largest N at which that is enough for a plot."""
    held: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        if row.baseline and row.ratio:
            held.setdefault(row.baseline.partition(", N=")[0], {}).setdefault(row.size, []).append(row)
    largest = {
        name: max((n for n in sizes if len(sizes[n]) >= FEWEST_BARS), default=-1) for name, sizes in held.items()
    }
    return {
        name if largest[name] <= 1 else f"{name}, N={largest[name]:,}": sorted(
            sizes[largest[name]], key=lambda row: row.ratio or 0.0
        )
        for name, sizes in held.items()
        if largest[name] >= 0
    }


def _bar(row: Row) -> plot.Bar:
    """Return the bar of *row*; its label is without the table's name, which all of them begin with."""
    assert row.ratio is not None
    low, high = row.ratio_p10 or row.ratio, row.ratio_p90 or row.ratio
    label = row.name.rpartition(": ")[2]
    return plot.Bar(label, row.ratio, low, high, label.startswith(OURS))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and the plots, and remove plots that are no longer drawn; return 1 if a miss is not explained."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__)
    parser.add_argument("file", type=Path, help="what python -m benchmarks --json or --merge wrote")
    file: Path = parser.parse_args(arguments).file
    runs, text = record.read(file), EXPLAINED.read_text(encoding="utf-8")
    pages = rendered(runs, text, file.stem)
    (file.parent / file.stem).mkdir(exist_ok=True)
    for old in (file.parent / file.stem).glob("*.svg"):
        old.unlink()
    for name, content in pages.items():
        (file.parent / name).write_text(content, encoding="utf-8")
    missing = unexplained(runs, explained(text)[1])
    for each in missing:
        print(f"missed and not explained in {EXPLAINED.name}: {each}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
