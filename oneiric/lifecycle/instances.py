"""Every instance there is: built, probed, drained and closed here, each closed once or known to be leaked."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any, Final

import anyio

from oneiric.core.candidate import Slot
from oneiric.core.config import LifecycleSettings
from oneiric.core.words import plural
from oneiric.errors import ActivationError, ConfigError
from oneiric.lifecycle import factory
from oneiric.lifecycle.foreign import ForeignCalls
from oneiric.lifecycle.live import Instance, LiveSlot
from oneiric.lifecycle.memory import resident_bytes
from oneiric.lifecycle.reports import Choice, Health, Leak
from oneiric.observability.describe import describe
from oneiric.observability.logs import Emit

REMEMBERED: Final = 256
SETTLED: Final = 60.0
"""Seconds after which a closed instance that is still referenced counts as a leak."""
FENCE: Final = 3
"""Calls of one provider that never ended, after which it is not called again."""
_FENCED: Final = f"{FENCE} earlier calls of it never ended; it is not called again"


class Instances:
    """Builds and closes instances.

    Args:
        timeouts: how long foreign code may take; replaced when the settings change.
        offers: what a factory may take by parameter name besides its settings.
        scrub: removes secrets from what foreign code said, before anyone is told.
    """

    def __init__(
        self,
        *,
        timeouts: LifecycleSettings,
        emit: Emit,
        offers: Mapping[str, Any],
        scrub: Callable[[str], str],
        now: Callable[[], datetime],
    ) -> None:
        self.timeouts = timeouts
        self.calls = ForeignCalls()
        self._open: dict[Slot[Any], set[Instance]] = {}
        self._emit = emit
        self._offers = offers
        self._scrub = scrub
        self._now = now
        self._numbers = count(1)
        self._gone: deque[tuple[weakref.ref[Any], Leak, Slot[Any], datetime]] = deque(maxlen=REMEMBERED)

    # In

    async def build(self, live: LiveSlot, choice: Choice, *, aside: bool = False) -> Instance:
        """Return an instance of what was chosen: the pooled one if it is the same and well.

        Args:
            aside: build a new one, which will never serve.

        Raises ActivationError.
        """
        candidate = choice.build.candidate
        if not aside and (pooled := await self._from_pool(live, choice)) is not None:
            return pooled
        owner = (live.slot, candidate.provider)
        if self._is_fenced(owner):
            raise ActivationError(
                f"{live.slot} {candidate.provider}: {_FENCED}",
                reason="timeout",
                hint="correct the provider, then restart the process: threads cannot be ended from outside",
            )
        if candidate.exclusive:
            await self._make_room(live.slot)
        try:
            settings = await self._settings(choice, owner)
        except ConfigError as error:
            raise ActivationError(f"{live.slot} {candidate.provider}: {error}", hint=error.hint) from error
        except TimeoutError as error:
            raise ActivationError(
                f"{live.slot} {candidate.provider}: {describe(error)} (a file that its provider_settings refer to)",
                reason="timeout",
                hint="see where the file lies, or raise lifecycle.activation_timeout; then swap again",
            ) from error
        before = resident_bytes()
        value = await factory.build(
            candidate,
            settings,
            offers=self._offers,
            calls=self.calls,
            timeout=self.timeouts.activation_timeout,
            late=partial(self._close_late, live.slot, candidate.provider),
        )
        instance = Instance(
            value,
            choice,
            identifier=f"{live.slot}#{next(self._numbers)}",
            built_at=self._now(),
            memory_bytes=max(0, resident_bytes() - before),
            aside=aside,
        )
        self._open.setdefault(live.slot, set()).add(instance)
        return instance

    async def _from_pool(self, live: LiveSlot, choice: Choice) -> Instance | None:
        pooled = live.pooled
        if pooled is None or pooled.build.identity != choice.build.identity:
            return None
        live.pooled = None
        if await self.complaint_of(pooled):
            await self.dispose(pooled)
            return None
        pooled.build = choice.build  # its rank may have changed
        self._emit("instance-reused", **names(live.slot, pooled.provider), instance_id=pooled.identifier)
        return pooled

    async def _settings(self, choice: Choice, owner: object) -> Mapping[str, Any]:
        """Read the secrets that the settings refer to; a file may lie on a mount that hangs."""
        if "${file:" not in choice.build.settings:
            return choice.settings()
        read: Mapping[str, Any] = await self.calls.call(
            choice.settings, timeout=self.timeouts.activation_timeout, owner=owner
        )
        return read

    async def _make_room(self, slot: Slot[Any]) -> None:
        """Wait until every other exclusive instance is closed: one that was rolled back may still have leases."""
        others = [instance for instance in self.of(slot) if instance.build.candidate.exclusive]
        limit = self.timeouts.drain_timeout
        with anyio.move_on_after(limit):
            for other in others:
                await other.wait_idle()
                await self.dispose(other)
        for other in others:
            if other.closed is None:
                raise still_held(other, limit)

    def _is_fenced(self, owner: object) -> bool:
        return self.calls.stuck(owner) >= FENCE

    async def complaint_of(self, instance: Instance) -> str:
        """Probe *instance*; return "" when it is healthy, else what was wrong, which is reported."""
        owner = (instance.slot, instance.provider)
        said = _FENCED
        if not self._is_fenced(owner):
            timeout = self.timeouts.health_timeout
            said = await factory.probe(instance.value, calls=self.calls, timeout=timeout, owner=owner)
        complaint = self._scrub(said)
        if complaint:
            self._emit("health-check-failed", **names(instance.slot, instance.provider), error=complaint)
        return complaint

    async def require_health(self, instance: Instance) -> Health:
        """Probe *instance*; raises ActivationError unless it is healthy."""
        complaint = await self.complaint_of(instance)
        if complaint:
            raise ActivationError(
                complaint,
                reason="health-check",
                hint=f"correct provider_settings of {instance.provider}, or raise lifecycle.health_timeout; swap again",
            )
        return Health(self._now(), "")

    # Out

    async def retire(
        self,
        instance: Instance,
        *,
        told: Callable[[str], None] = lambda _text: None,
        keep_in: LiveSlot | None = None,
    ) -> None:
        """Wait for the last lease, then close, or keep what is poolable in *keep_in* in place of what was kept before.

        Past the drain timeout the wait goes on, but as a leak that is reported. *told* hears, once, what went wrong, or
        "" when all is done.
        """
        with anyio.move_on_after(self.timeouts.drain_timeout):
            await instance.wait_idle()
        if instance.held:
            limit = self.timeouts.drain_timeout
            text = f"{plural(instance.held, 'lease')} still held after {limit:g} s; closed when the last ends"
            self.report_leak(instance, text)
            told(f"{instance.provider}: {text}")
            await instance.wait_idle()
            instance.leaked = False
        if keep_in is not None and instance.build.candidate.poolable:
            instance, keep_in.pooled = keep_in.pooled or instance, instance
            if instance is keep_in.pooled:
                told("")
                return
        complaint = await self.dispose(instance)
        told(f"{instance.provider}: cleanup failed: {complaint}" if complaint else "")

    def report_leak(self, instance: Instance, text: str) -> None:
        """Note that *instance* should be gone and is not."""
        instance.leaked = True
        self._emit(
            "instance-leaked",
            **names(instance.slot, instance.provider),
            instance_id=instance.identifier,
            leases=instance.held,
            error=text,
        )

    async def dispose(self, instance: Instance, *, timeout: float | None = None) -> str:
        """Close *instance* and report it; return "" or what went wrong. It is never closed twice."""
        if instance.closed is not None:
            await instance.closed.wait()
            return ""
        instance.closed = anyio.Event()
        complaint = ""
        with anyio.CancelScope(shield=True):  # cut short, it would keep those who wait for `closed` waiting for ever
            complaint = await self._close(
                instance.value,
                instance.slot,
                instance.provider,
                instance.identifier,
                aside=instance.aside,
                timeout=timeout,
            )
        remaining = self._open[instance.slot]
        remaining.discard(instance)
        if not remaining:
            del self._open[instance.slot]
        self._remember(instance, complaint)
        instance.closed.set()
        return complaint

    async def _close_late(self, slot: Slot[Any], provider: str, value: Any) -> None:
        """Close what a factory delivered after its time was up."""
        await self._close(value, slot, provider, f"{slot}#{next(self._numbers)}-late", aside=True)

    async def _close(
        self,
        value: Any,
        slot: Slot[Any],
        provider: str,
        identifier: str,
        *,
        aside: bool,
        timeout: float | None = None,
    ) -> str:
        told = {**names(slot, provider), "instance_id": identifier, "aside": aside}
        self._emit("cleanup-started", **told)
        started = anyio.current_time()
        limit = self.timeouts.cleanup_timeout if timeout is None else timeout
        said = await factory.close(value, calls=self.calls, timeout=limit, owner=(slot, provider))
        complaint = self._scrub(said)
        if complaint:
            self._emit("cleanup-failed", **told, error=complaint)
        else:
            milliseconds = round((anyio.current_time() - started) * 1000, 3)
            self._emit("cleanup-complete", **told, duration_ms=milliseconds)
        return complaint

    # Leaks

    def held_leases(self, slot: Slot[Any]) -> int:
        """Return how many leases there are on *slot*, those on instances already swapped away included."""
        return sum(instance.held for instance in self.of(slot))

    def of(self, slot: Slot[Any]) -> tuple[Instance, ...]:
        """Return the open instances of *slot*."""
        return tuple(self._open.get(slot, ()))

    def leaks(self, slot: Slot[Any]) -> tuple[Leak, ...]:
        """Return the instances of *slot* that should be gone."""
        held = [Leak(i.provider, i.identifier, i.built_at, "held", i.held, i.holder) for i in self.of(slot) if i.leaked]
        now = self._now()
        gone = [
            leak
            for reference, leak, where, at in self._gone
            if where == slot
            and reference() is not None
            and (leak.kind == "not-closed" or (now - at).total_seconds() > SETTLED)
        ]
        return (*held, *gone)

    def _remember(self, instance: Instance, complaint: str) -> None:
        kind = "not-closed" if complaint else "referenced"
        leak = Leak(instance.provider, instance.identifier, instance.built_at, kind, 0, instance.holder)  # type: ignore[arg-type]
        try:
            reference = weakref.ref(instance.value)
        except TypeError:  # its type has no weak references: whether it is still there cannot be told
            return
        self._gone.append((reference, leak, instance.slot, self._now()))


def still_held(instance: Instance, limit: float) -> ActivationError:
    """Return why nothing can be built beside *instance*, which is exclusive and did not drain."""
    return ActivationError(
        f"{instance.provider} is exclusive, with {plural(instance.held, 'lease')} still held after {limit:g} s",
        reason="timeout",
        hint="see who holds them: oneiric status; or raise lifecycle.drain_timeout",
    )


def names(slot: Slot[Any], provider: str) -> dict[str, str]:
    """Return the fields by which every event names an instance."""
    return {"domain": slot.domain, "key": slot.key, "provider": provider}
