"""What survives a restart, as values. Light: the command line reads them without the engine or a database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from oneiric.core.candidate import Slot
from oneiric.core.resolution import Selection
from oneiric.core.states import Activity
from oneiric.lifecycle.reports import HISTORY, SwapRecord


class Pin(NamedTuple):
    """An operator's choice of a provider."""

    provider: str
    by: str
    since: datetime

    @property
    def selection(self) -> Selection:
        """The choice as the resolver takes it."""
        return Selection(self.provider, "pin", str(self))

    def __str__(self) -> str:
        return f"by {self.by} since {self.since.isoformat(timespec='seconds').replace('+00:00', 'Z')}"


class StoredActivity(NamedTuple):
    """An operator's decision about new leases."""

    activity: Activity
    note: str
    by: str
    since: datetime


class Remembered(NamedTuple):
    """All that a start needs; ``discarded`` says why an earlier file was moved aside, or is empty."""

    pins: dict[Slot[Any], Pin]
    activities: dict[Slot[Any], StoredActivity]
    history: tuple[SwapRecord, ...] = ()
    discarded: str = ""

    def swaps(self, slot: Slot[Any]) -> tuple[SwapRecord, ...]:
        """Return the last swaps of *slot*, as many as are kept at hand."""
        return tuple(record for record in self.history if record.slot == slot)[-HISTORY:]
