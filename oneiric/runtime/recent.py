"""The last events and how the process grew, kept at hand for whoever has to find out what is wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import anyio

from oneiric.doctor.vitals import Happening, MemorySample
from oneiric.lifecycle.memory import resident_bytes
from oneiric.observability.logs import Sink

EVENTS: Final = 2000
"""How many events are kept."""
_INTERVAL: Final = 1.0
_FINE: Final = 300
_COARSE: Final = 60  # every so many fine samples one is kept for longer
_LONG: Final = 360


class Recent:
    """Remembers events as they pass to the log, above ``debug``."""

    def __init__(self) -> None:
        self._kept: deque[Happening] = deque(maxlen=EVENTS)

    @property
    def happenings(self) -> tuple[Happening, ...]:
        """What is remembered, oldest first."""
        return tuple(self._kept)

    def beside(self, sink: Sink) -> Sink:
        """Return *sink* with this memory beside it."""

        def remember(level: str, event: str, fields: Mapping[str, Any]) -> None:
            if level != "debug":
                happening = Happening(at=datetime.now(UTC), level=level, event=event, fields=dict(fields))
                self._kept.append(happening)
            sink(level, event, fields)

        return remember


class Growth:
    """Notes each second how much memory the process has: each second of the last minutes, each minute of hours.

    Args:
        instances: says how many instances there are.
    """

    def __init__(self, instances: Callable[[], int]) -> None:
        self._instances = instances
        self._fine: deque[MemorySample] = deque(maxlen=_FINE)
        self._coarse: deque[MemorySample] = deque(maxlen=_LONG)

    @property
    def fine(self) -> tuple[MemorySample, ...]:
        """A second apart, oldest first."""
        return tuple(self._fine)

    @property
    def coarse(self) -> tuple[MemorySample, ...]:
        """A minute apart, oldest first."""
        return tuple(self._coarse)

    async def run(self) -> None:
        """Note for ever."""
        number = 0
        while True:
            sample = MemorySample(at=datetime.now(UTC), resident_bytes=resident_bytes(), instances=self._instances())
            self._fine.append(sample)
            if number % _COARSE == 0:
                self._coarse.append(sample)
            number += 1
            await anyio.sleep(_INTERVAL)
