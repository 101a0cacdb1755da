"""A drill's report as one HTML page that needs nothing else: verdict, the key metric's curve, what happened when."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from oneiric.drills.run import Report
from oneiric.drills.timeline import Entry, Point

_WIDTH: Final = 960
_HEIGHT: Final = 280
_LEFT: Final = 64
_BOTTOM: Final = 36
_TOP: Final = 72
_MARKED: Final = {"fault": "#c62828", "alert": "#ef6c00", "cure": "#2e7d32", "failed": "#6a1b9a"}
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1b1f; --dim: #5f6368; --line: #d9dce1; --paper: #fff; --well: #2e7d32;
  --bad: #c62828; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --dim: #9aa0a6; --line: #3c4043; --paper: #17181a;
  --well: #81c995; --bad: #f28b82; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
.passed { color: var(--well); } .failed { color: var(--bad); } .dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .75rem .25rem 0;
  vertical-align: top; border-bottom: 1px solid var(--line); } td.n { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; } td.text { overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } svg text { fill: var(--dim); font: 12px system-ui, sans-serif; }
.curve { fill: none; stroke: #1a73e8; stroke-width: 2; } .axis { stroke: var(--line); }
code { font: 13px ui-monospace, monospace; }
"""


def page(reports: Iterable[Report]) -> str:
    """Return the whole page; it loads nothing from anywhere."""
    shown = list(reports)
    passed = sum(report.passed for report in shown)
    rows = "".join(_row(report) for report in shown)
    head = "<tr><th>drill</th><th>alert</th><th>fired</th><th>doctor</th><th>cleared</th><th></th></tr>"
    details = "".join(_details(report) for report in shown)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Oneiric drills</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{passed} of {len(shown)} drills passed</h1>"
        f"<table>{head}{rows}</table>{details}</body></html>\n"
    )


def _row(report: Report) -> str:
    return (
        f'<tr><td><a href="#drill-{escape(report.code)}">{escape(report.code)}</a> {escape(report.title)}</td>'
        f'<td>{escape(report.alert)}</td><td class="n">{_seconds(report.fired)}</td><td>{escape(report.verdict)}</td>'
        f'<td class="n">{_seconds(report.cleared)}</td><td>{_verdict(report)}</td></tr>'
    )


def _details(report: Report) -> str:
    entries = "".join(
        f'<tr><td class="n">{entry.at:.1f} s</td><td>{escape(entry.kind)}</td>'
        f'<td class="text"><code>{escape(entry.text)}</code></td></tr>'
        for entry in report.entries
    )
    failed = f'<p class="failed">{escape(report.failed)}</p>' if report.failed else ""
    return (
        f'<h2 id="drill-{escape(report.code)}">{escape(report.code)} {escape(report.title)} {_verdict(report)}</h2>'
        f"{failed}<p class=dim>{escape(report.plot)}; watched by {escape(report.monitor or 'nobody')}; "
        f"{report.seconds:.0f} s in all</p>{curve(report.points, report.entries)}<table>{entries}</table>"
    )


def _verdict(report: Report) -> str:
    return '<b class="passed">passed</b>' if report.passed else '<b class="failed">failed</b>'


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def curve(points: tuple[Point, ...], entries: tuple[Entry, ...]) -> str:
    """Return an SVG of *points* over time, with a line for each fault, alert and cure among *entries*."""
    end = max([point.at for point in points] + [entry.at for entry in entries] + [1.0])
    values = [point.value for point in points]
    low, high = min([0.0, *values]), max(values, default=1.0)
    high = high if high > low else low + 1.0
    plane_width, plane_height = _WIDTH - _LEFT - 16, _HEIGHT - _TOP - _BOTTOM

    def x(at: float) -> float:
        return round(_LEFT + plane_width * at / end, 1)

    def y(value: float) -> float:
        return round(_TOP + plane_height * (1 - (value - low) / (high - low)), 1)

    line = " ".join(f"{x(point.at)},{y(point.value)}" for point in points)
    ticks = "".join(
        f'<line class="axis" x1="{_LEFT}" y1="{y(value)}" x2="{_WIDTH - 16}" y2="{y(value)}"/>'
        f'<text x="{_LEFT - 8}" y="{y(value) + 4}" text-anchor="end">{_short(value)}</text>'
        for value in (low, (low + high) / 2, high)
    )
    hours = "".join(
        f'<text x="{x(end * part / 4)}" y="{_HEIGHT - 12}" text-anchor="middle">{end * part / 4:.0f} s</text>'
        for part in range(5)
    )
    marked = [entry for entry in entries if entry.kind in _MARKED]
    marks = "".join(_mark(entry, x(entry.at), number) for number, entry in enumerate(marked))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="the key metric over time">{ticks}{hours}'
        f'<polyline class="curve" points="{line}"/>{marks}</svg>'
    )


def _mark(entry: Entry, x: float, number: int) -> str:
    colour = _MARKED[entry.kind]
    anchor = "end" if x > _WIDTH * 0.7 else "start"
    offset = -4 if anchor == "end" else 4
    return (
        f'<line x1="{x}" y1="8" x2="{x}" y2="{_HEIGHT - _BOTTOM}" stroke="{colour}" stroke-dasharray="4 3"/>'
        f'<text x="{x + offset}" y="{18 + 13 * (number % 4)}" text-anchor="{anchor}" style="fill:{colour}">'
        f"{escape(entry.text[:60])}</text>"
    )


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
