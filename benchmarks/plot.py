"""Plots as SVG, written by hand: the same figures give the same bytes, text is text, light and dark by the reader's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Final

WIDTH: Final = 980
LEFT: Final = 90
PLOT: Final = 470
TOP: Final = 56
HEIGHT: Final = 300
ROW: Final = 26
LIGHT: Final = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#9a6700", "#0e7c86", "#bf3989", "#57606a")
DARK: Final = ("#58a6ff", "#ff7b72", "#3fb950", "#bc8cff", "#d29922", "#39c5cf", "#f778ba", "#8b949e")
DASHES: Final = ("", "7 3", "2 3", "9 3 2 3")
STYLE: Final = "\n".join(
    [
        "text{font:13px system-ui,sans-serif;fill:#1f2328} .title{font-weight:600;font-size:15px}",
        ".card{fill:#fff} .grid{stroke:#d8dee4} .guide{stroke:#6e7781;stroke-dasharray:4 4} .line{fill:none}",
        *(f".c{number}{{stroke:{colour}}} .f{number}{{fill:{colour}}}" for number, colour in enumerate(LIGHT)),
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3} .card{fill:#0d1117} .grid{stroke:#30363d}",
        *(f".c{number}{{stroke:{colour}}} .f{number}{{fill:{colour}}}" for number, colour in enumerate(DARK)),
        "}",
    ]
)


@dataclass(frozen=True)
class Bar:
    """A ratio to the baseline, and where four of five of its rounds lay."""

    label: str
    ratio: float
    low: float
    high: float
    is_ours: bool


@dataclass(frozen=True)
class _Scale:
    """A logarithmic axis of whole decades, from *begin* to *end* on the page."""

    first: int
    last: int
    begin: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float) -> _Scale:
        first, last = floor(log10(min(values)) + 1e-9), ceil(log10(max(values)) - 1e-9)
        return cls(first, max(last, first + 1), begin, end)

    def at(self, value: float) -> float:
        share = (log10(value) - self.first) / (self.last - self.first)
        return round(self.begin + share * (self.end - self.begin), 1)

    @property
    def decades(self) -> list[float]:
        return [10.0**power for power in range(self.first, self.last + 1)]


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    tick: Callable[[float], str],
) -> str:
    """Draw what grows with N, both axes logarithmic: flat is level, linear rises as the dashed guide does."""
    points = [point for each in series.values() for point in each]
    across = _Scale.over([x for x, _ in points], LEFT, LEFT + PLOT)
    up = _Scale.over([y for _, y in points], TOP + HEIGHT, TOP)
    bottom, right = TOP + HEIGHT, LEFT + PLOT
    parts = [_text(x, bottom + 20, f"{value:,.0f}", "middle") for value in across.decades for x in [across.at(value)]]
    parts += [_line(across.at(value), TOP, across.at(value), bottom, "grid") for value in across.decades]
    for value in up.decades:
        parts += [_line(LEFT, up.at(value), right, up.at(value), "grid")]
        parts += [_text(LEFT - 8, up.at(value) + 4, tick(value), "end")]
    decades = min(across.last - across.first, up.last - up.first)
    corner = across.at(10.0 ** (across.first + decades)), up.at(10.0 ** (up.first + decades))
    parts.append(_line(LEFT, bottom, *corner, "guide"))
    parts.append(_text(LEFT + PLOT / 2, bottom + 44, x_label, "middle"))
    parts.append(f'<g transform="rotate(-90)">{_text(-(TOP + HEIGHT / 2), 18, y_label, "middle")}</g>')
    for number, (name, each) in enumerate(series.items()):
        colour, dash = number % len(LIGHT), DASHES[number % len(DASHES)]
        path = " ".join(f"{across.at(x)},{up.at(y)}" for x, y in each)
        parts.append(f'<polyline class="line c{colour}" stroke-width="2" stroke-dasharray="{dash}" points="{path}"/>')
        parts += [f'<circle class="f{colour}" cx="{across.at(x)}" cy="{up.at(y)}" r="3.5"/>' for x, y in each]
        y = TOP + 10 + 22 * number
        parts.append(_line(right + 16, y, right + 44, y, f"c{colour}", f' stroke-width="2" stroke-dasharray="{dash}"'))
        parts.append(_text(right + 50, y + 4, name))
    y = TOP + 10 + 22 * len(series)
    parts += [_line(right + 16, y, right + 44, y, "guide"), _text(right + 50, y + 4, "grows linearly")]
    return _drawing(title, max(bottom + 60, y + 20), parts)


def bars(title: str, rows: Sequence[Bar], *, x_label: str) -> str:
    """Draw ratios as bars that begin at 1, which is the baseline; ours in a colour of its own."""
    left = 300
    across = _Scale.over([value for row in rows for value in (row.low, row.high, row.ratio, 1.0)], left, WIDTH - 80)
    bottom = TOP + ROW * len(rows)
    parts = [_line(across.at(value), TOP, across.at(value), bottom, "grid") for value in across.decades]
    parts += [_text(across.at(value), bottom + 18, f"{value:g}", "middle") for value in across.decades]
    for number, row in enumerate(rows):
        y, colour = TOP + ROW * number, 0 if row.is_ours else 7
        begin, end = sorted((across.at(1.0), across.at(row.ratio)))
        size = f'width="{max(end - begin, 1):.1f}" height="{ROW - 10}"'
        parts.append(f'<rect class="f{colour}" x="{begin}" y="{y + 5}" {size}/>')
        middle = y + ROW / 2
        parts.append(_line(across.at(row.low), middle, across.at(row.high), middle, "c1", ' stroke-width="2"'))
        parts.append(_text(left - 10, middle + 4, row.label, "end"))
        parts.append(_text(max(end, across.at(row.high)) + 8, middle + 4, f"{row.ratio:.3g}"))
    parts.append(_text((left + WIDTH - 80) / 2, bottom + 40, x_label, "middle"))
    return _drawing(title, bottom + 56, parts)


def _drawing(title: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img">'
    card = f'<rect class="card" width="{WIDTH}" height="{height:g}" rx="6"/>'
    heading = f'<text class="title" x="20" y="28">{escape(title)}</text>'
    lines = [head, f"<title>{escape(title)}</title>", f"<style>\n{STYLE}\n</style>", card, heading, *parts, "</svg>"]
    return "\n".join(lines) + "\n"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, more: str = "") -> str:
    return f'<line class="{kind}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"{more}/>'
