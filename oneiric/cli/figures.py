"""Numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

MEBIBYTE: Final = 1_048_576
_SPANS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def number(value: float) -> str:
    """Return *value* with its thousands set apart, and with decimals only where it has some."""
    return f"{value:,.0f}" if value == int(value) else _three_digits(value)


def _three_digits(value: float) -> str:
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def size(value: float) -> str:
    """Return *value*, in bytes, as MiB."""
    return f"{value / MEBIBYTE:,.1f} MiB"


def span(seconds: float) -> str:
    """Return a length of time in the two largest units that it has."""
    if seconds < 60:
        return _short_span(seconds)
    parts: list[str] = []
    rest = round(seconds)
    for length, unit in _SPANS:
        count, rest = divmod(rest, length)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, parts[:2]))


def _short_span(seconds: float) -> str:
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds * 1e6)} µs" if seconds else "0 s"


def ratio(part: float, whole: float) -> str:
    """Return *part* of *whole* as a percentage, rounded down: 100 % means all of it."""
    return f"{math.floor(part / whole * 10_000) / 100:g} %"


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Return the value that *share* of all do not exceed, as Prometheus estimates it; infinite beyond the buckets.

    Args:
        buckets: upper bounds, the last infinite, each with how many are at or under it. There is at least one.
    """
    wanted = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted and count > below:
            return bound if math.isinf(bound) else lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return math.inf


def combined(series: Sequence[Mapping[float, float]]) -> list[tuple[float, float]]:
    """Return several histograms, counts by bound, as one, in the order of the bounds."""
    bounds = sorted({bound for counts in series for bound in counts})
    return [(bound, sum(counts.get(bound, 0) for counts in series)) for bound in bounds]
