"""How often slots were resolved: counted in plain cells where it happens, gathered here, and told once a minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from oneiric.core.candidate import Slot
from oneiric.core.resolution import Resolution
from oneiric.observability.catalog import OTHER
from oneiric.observability.meters import Meters

_SAMPLES: Final = 100  # lines a minute at most


class Answer:
    """One remembered resolution, and how often it was asked for since someone gathered that."""

    __slots__ = ("asked", "resolution")

    def __init__(self, resolution: Resolution) -> None:
        self.resolution = resolution
        self.asked = 0.0


class Tally:
    """Puts resolutions into the meters, each under a name that is registered or configured."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._succeeded: Counter[Slot[Any]] = Counter()

    def admit(self, slots: Iterable[Slot[Any]]) -> None:
        """Tell these apart, in so far as there is room."""
        for slot in slots:
            self._meters.admit(slot.domain, slot.key)

    def add(self, slot: Slot[Any], failure: str, times: int = 1, *, known: bool) -> None:
        """Count *times* resolutions of *slot*.

        Args:
            failure: why nobody fills it; "" for success.
            known: whether it is registered or configured.
        """
        if known:
            self.admit((slot,))
        key = self._meters.names.key(slot.domain, slot.key) if known else OTHER
        if not failure:
            self._meters.add("oneiric_resolution_total", "success", slot.domain, key, by=times)
            self._succeeded[slot] += times
            return
        reason = failure if known else "unknown-key"
        self._meters.add("oneiric_resolution_total", "failed", slot.domain, key, by=times)
        self._meters.add("oneiric_resolution_failures_total", slot.domain, reason, by=times)

    def answered(self, resolution: Resolution, times: int = 1) -> None:
        """Count *times* answers."""
        known = bool(resolution.placings) or resolution.selection is not None
        self.add(resolution.slot, resolution.failure or "", times, known=known)

    def ranked(self, slot: Slot[Any], duration: float) -> None:
        """Note that the answer took *duration* seconds."""
        self._meters.observe("oneiric_resolution_duration_seconds", duration, slot.domain)

    def take_succeeded(self) -> tuple[tuple[Slot[Any], int], ...]:
        """Return the slots that were resolved most often since the last call, and how often."""
        most, self._succeeded = self._succeeded.most_common(_SAMPLES), Counter()
        return tuple(most)
