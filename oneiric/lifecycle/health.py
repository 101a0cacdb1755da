"""Probes of what serves, at intervals; what fails again and again is quarantined until it is well."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import anyio
from anyio.abc import TaskGroup

from oneiric.core.candidate import Slot
from oneiric.core.pulse import Pulse
from oneiric.core.resolution import Bar
from oneiric.errors import OneiricError, SwapFailedError
from oneiric.lifecycle.instances import names
from oneiric.lifecycle.live import Instance, LiveSlot
from oneiric.lifecycle.manager import Manager
from oneiric.lifecycle.reports import Health, SwapRequest
from oneiric.observability.logs import Emit

Place = tuple[Slot[Any], str]


class Ward:
    """One provider in quarantine: why, since when, what it was built from, and when it is tried again."""

    __slots__ = ("identity", "pulse", "reason", "since")

    def __init__(self, identity: tuple[str, ...], reason: str, since: datetime, pulse: Pulse) -> None:
        self.identity = identity
        self.reason = reason
        self.since = since
        self.pulse = pulse


class HealthWatch:
    """Probes every live instance each ``lifecycle.health_interval``.

    Args:
        changed: runs when a provider was quarantined or released, or is ill for another reason, with its slot.
    """

    def __init__(
        self,
        manager: Manager,
        *,
        tasks: TaskGroup,
        emit: Emit,
        now: Callable[[], datetime],
        changed: Callable[[Slot[Any]], None],
    ) -> None:
        self._manager = manager
        self._tasks = tasks
        self._emit = emit
        self._now = now
        self._changed = changed
        self._wards: dict[Place, Ward] = {}
        self._busy: set[Place] = set()

    @property
    def bars(self) -> dict[Place, Bar]:
        """Who is in quarantine, as the resolver takes it."""
        return {place: Bar(self._words(ward), "unhealthy") for place, ward in self._wards.items()}

    def is_quarantined(self, slot: Slot[Any], provider: str) -> bool:
        """Say whether a provider is in quarantine."""
        return (slot, provider) in self._wards

    def release(self, slot: Slot[Any], provider: str) -> None:
        """Let a provider out of quarantine."""
        if self._wards.pop((slot, provider), None) is not None:
            self._emit("candidate-released", **names(slot, provider))
            self._changed(slot)

    def forget(self, is_current: Callable[[Slot[Any], str, tuple[str, ...]], bool]) -> None:
        """Let out every provider that would be built from something else now: its settings or its code changed."""
        for (slot, provider), ward in tuple(self._wards.items()):
            if not is_current(slot, provider, ward.identity):
                self.release(slot, provider)

    async def run(self) -> None:
        """Probe for ever. A probe that hangs delays no other."""
        while True:
            await anyio.sleep(self._manager.timeouts.health_interval / 2)
            now = anyio.current_time()
            for live in tuple(self._manager.slots.values()):
                instance = live.current
                if instance is not None and instance.closed is None and live.pulse.next_at <= now:
                    self._begin((live.slot, instance.provider), self._probe, live, instance)
            for (slot, provider), ward in tuple(self._wards.items()):
                live = self._manager.live(slot)
                serves = live.current is not None and live.current.provider == provider
                if ward.pulse.next_at <= now and not serves:
                    self._begin((slot, provider), self._try_again, live, ward, provider)

    def _begin(self, place: Place, work: Callable[..., Any], *arguments: Any) -> None:
        if place in self._busy:
            return
        self._busy.add(place)

        async def run() -> None:
            try:
                await work(*arguments)
            finally:
                self._busy.discard(place)

        self._tasks.start_soon(run)

    async def _probe(self, live: LiveSlot, instance: Instance) -> None:
        complaint = await self._manager.instances.complaint_of(instance)
        if live.current is not instance or instance.closed is not None:
            return
        live.health = Health(self._now(), complaint)
        live.pulse = self._after(live.pulse, healthy=not complaint)
        if not complaint:
            self.release(live.slot, instance.provider)
        elif live.pulse.failures >= self._manager.timeouts.failure_threshold:
            self._quarantine(live, instance, complaint)

    def _quarantine(self, live: LiveSlot, instance: Instance, complaint: str) -> None:
        place = (live.slot, instance.provider)
        if place in self._wards:
            self._renew(live.slot, self._wards[place], complaint)
            return
        self._wards[place] = Ward(instance.build.identity, complaint, self._now(), live.pulse)
        told = names(live.slot, instance.provider)
        self._emit("candidate-quarantined", **told, error=complaint, failures=live.pulse.failures)
        self._changed(live.slot)

    def _renew(self, slot: Slot[Any], ward: Ward, reason: str) -> None:
        if ward.reason != reason:
            ward.reason = reason
            self._changed(slot)

    async def _try_again(self, live: LiveSlot, ward: Ward, provider: str) -> None:
        """Build and probe a quarantined provider off to the side."""
        try:
            await self._manager.swap(live.slot, SwapRequest(provider, by="health", dry_run=True))
        except OneiricError as error:
            if isinstance(error, SwapFailedError):  # else nobody tried: what serves is exclusive, or the runtime closes
                self._renew(live.slot, ward, str(error.__cause__))
            ward.pulse = self._after(ward.pulse, healthy=False)
            return
        self.release(live.slot, provider)

    def _after(self, pulse: Pulse, *, healthy: bool) -> Pulse:
        timeouts = self._manager.timeouts
        return pulse.after(
            healthy=healthy,
            now=anyio.current_time(),
            interval=timeouts.health_interval,
            threshold=timeouts.failure_threshold,
        )

    def _words(self, ward: Ward) -> str:
        since = ward.since.isoformat(timespec="seconds").replace("+00:00", "Z")
        return f"quarantined since {since}: {ward.reason}"
