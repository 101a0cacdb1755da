"""Which decisions are worth a log line: the first, every change, and failures at most once a second a slot."""

from __future__ import annotations

from time import monotonic
from typing import Any

from oneiric.core.candidate import Slot
from oneiric.core.resolution import Resolution
from oneiric.observability.logs import Emit

INTERVAL = 1.0
REMEMBERED = 10_000


class Decisions:
    """Reports ``resolver-decision`` without flooding the log."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._last: dict[Slot[Any], tuple[str, float, int]] = {}

    def note(self, resolution: Resolution) -> None:
        """Report *resolution* if it is news."""
        slot = resolution.slot
        provider = resolution.winner.provider if resolution.winner is not None else ""
        known, at, suppressed = self._last.get(slot, ("?", -INTERVAL, 0))
        now = monotonic()
        if known == provider and (provider or now - at < INTERVAL):
            self._last[slot] = (known, at, suppressed + 1)
            return
        if len(self._last) >= REMEMBERED:
            self._last.clear()
        self._last[slot] = (provider, now, 0)
        self._emit(
            "resolver-decision",
            domain=slot.domain,
            key=slot.key,
            provider=provider,
            outcome="success" if provider else "failed",
            error="" if provider else f"No candidate found for {slot}: {resolution.summary}",
            reason=resolution.failure or "",
            suppressed=suppressed,
        )
