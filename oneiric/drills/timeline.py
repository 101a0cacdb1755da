"""What happened in a drill, and when."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened: seconds since the beginning, what kind of thing, and in words."""

    at: float
    kind: str
    text: str


class Point(msgspec.Struct, frozen=True):
    """The key metric at one moment; ``at`` in seconds since the beginning."""

    at: float
    value: float


class Timeline:
    """Collects entries and points.

    Args:
        told: hears each entry as it is noted.
    """

    def __init__(
        self, *, told: Callable[[Entry], None] = lambda _entry: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._told = told
        self._clock = clock
        self._begun = clock()
        self.entries: list[Entry] = []
        self.points: list[Point] = []

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return round(self._clock() - self._begun, 3)

    def note(self, kind: str, text: str) -> None:
        """Note that something happened now."""
        entry = Entry(self.now(), kind, text)
        self.entries.append(entry)
        self._told(entry)

    def plot(self, value: float) -> None:
        """Note what the key metric is now."""
        self.points.append(Point(self.now(), value))
