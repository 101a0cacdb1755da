"""By how much the event loop is late: everything that waits for it waits that much longer."""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio

INTERVAL: Final = 0.25
WINDOW: Final = 30.0
"""Seconds over which the worst is remembered, so that a scrape does not miss it."""


class LoopLag:
    """Sleeps for a short while again and again, and notes how late it woke."""

    def __init__(self) -> None:
        self._late: deque[float] = deque([0.0], maxlen=round(WINDOW / INTERVAL))
        self._due = float("inf")

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            self._due = anyio.current_time() + INTERVAL
            await anyio.sleep_until(self._due)
            self._late.append(anyio.current_time() - self._due)

    @property
    def worst(self) -> float:
        """The longest delay of late, in seconds; one that still lasts counts."""
        return max(*self._late, anyio.current_time() - self._due)
