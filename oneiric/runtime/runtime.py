"""The composition root: the one place that holds what changes.

A change (a registration, new settings, a pin) is always: compute the new value, replace one reference, plan the steps
that lead there, carry them out and report each.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from oneiric.config.loader import load, local_candidates
from oneiric.core.candidate import Candidate, Offer, Slot
from oneiric.core.config import PluginsSettings, Settings, keep_trust
from oneiric.core.reconcile import Build, Change, plan
from oneiric.core.resolution import Resolution
from oneiric.core.states import Activity
from oneiric.errors import OneiricError
from oneiric.lifecycle.health import HealthWatch
from oneiric.lifecycle.lease import Lease
from oneiric.lifecycle.manager import Manager
from oneiric.lifecycle.proxy import proxy_for
from oneiric.lifecycle.reports import DrainReport, Health, Hook, SwapReport, SwapRequest
from oneiric.observability.logs import Reporter, Sink, to_logging
from oneiric.observability.meters import Meters, Reading
from oneiric.plugins import discovery
from oneiric.plugins.discovery import Plugin
from oneiric.runtime.chooser import Chooser
from oneiric.runtime.journal import Journal
from oneiric.runtime.measure import Measure
from oneiric.runtime.remembered import Pin, Remembered, StoredActivity
from oneiric.runtime.snapshot import SlotRecord, Snapshot
from oneiric.runtime.state import StateStore
from oneiric.runtime.tally import Tally

T = TypeVar("T")


class Runtime:
    """Resolve slots, lease what fills them, and swap it while in use."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Path | str | Settings = Path("settings"),
        *,
        store: StateStore | None = None,
        sink: Sink = to_logging,
        eager: bool = False,
        environ: Mapping[str, str] | None = None,
        prepare: Callable[[Runtime], Awaitable[None]] | None = None,
    ) -> AsyncIterator[Runtime]:
        """Open a runtime on a settings directory, which need not exist, or on settings already read.

        Args:
            store: where pins, pauses and history outlive the process; without one nothing is written.
            sink: where events go; the logger ``oneiric`` unless told otherwise.
            eager: activate every slot that settings select or an operator pinned, instead of at its first use.
            prepare: runs before that, to offer more candidates.

        Raises ConfigError for invalid settings. Leaving the context drains and closes every instance.
        """
        environment = os.environ if environ is None else environ
        if isinstance(settings, Settings):
            chosen = settings
        else:
            chosen = await to_thread.run_sync(lambda: load(Path(settings), environ=environment))
        remembered = Remembered({}, {}) if store is None else await to_thread.run_sync(store.load)
        failure: BaseException | None = None
        async with anyio.create_task_group() as tasks:
            runtime = cls(chosen, remembered, tasks=tasks, store=store, sink=sink, eager=eager, environ=environment)
            try:
                await runtime._start(remembered, prepare)
                yield runtime
            except (anyio.get_cancelled_exc_class(), GeneratorExit):
                raise
            except BaseException as error:  # raised below, where no task group wraps it
                failure = error
            finally:
                with anyio.CancelScope(shield=True):
                    await runtime._close()
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def __init__(
        self,
        settings: Settings,
        remembered: Remembered,
        *,
        tasks: TaskGroup,
        store: StateStore | None,
        sink: Sink,
        eager: bool,
        environ: Mapping[str, str],
    ) -> None:
        meters = Meters()
        tally = Tally(meters)
        self.emit = Reporter(sink, meters)
        self.unclosed = 0
        self._tasks = tasks
        self._eager = eager
        self._pins: dict[Slot[Any], Pin] = dict(remembered.pins)
        self._plugins: tuple[Plugin, ...] = ()
        self._chooser = Chooser(
            settings, pins=self._pins, bars=lambda: self._health.bars, emit=self.emit, tally=tally, environ=environ
        )
        self._journal = Journal(store, self.emit)
        self._closing = False
        self._applying = anyio.Lock()
        self._reconciling = anyio.Lock()
        self._manager = Manager(
            choose=self._chooser.choose,
            timeouts=settings.app.lifecycle,
            tasks=tasks,
            emit=self.emit,
            offers={"runtime": self},
            record=self._journal.append,
            scrub=self.emit.scrub,
            committed=self._committed,
            settings=lambda slot: self.settings.slot_settings(*slot),
            is_known=self._chooser.is_known,
            refused=self._chooser.refused,
        )
        self._live = self._manager.slots
        self._answers = self._chooser.answers
        self._measure = Measure(
            meters=meters,
            tally=tally,
            chooser=self._chooser,
            manager=self._manager,
            plugins=lambda: self._plugins,
            emit=self.emit,
        )
        self._health = HealthWatch(
            self._manager, tasks=tasks, emit=self.emit, now=lambda: datetime.now(UTC), changed=self._health_changed
        )

    async def _start(self, remembered: Remembered, prepare: Callable[[Runtime], Awaitable[None]] | None = None) -> None:
        if remembered.discarded:
            self.emit("state-discarded", file=remembered.discarded.partition(":")[0], error=remembered.discarded)
        for record in remembered.history:
            self._manager.recall(record)
        for slot, stored in remembered.activities.items():
            self._manager.admit(slot, stored.activity, stored.note)
        await self._chooser.take_over(self.settings)
        await self._discover(self.settings.app.plugins)
        registry = self._chooser.registry
        self._chooser.offer(registry.with_sources("settings/", local_candidates(self.settings)))
        self._tasks.start_soon(self._journal.run)
        self._tasks.start_soon(self._health.run)
        self._tasks.start_soon(self._measure.run)
        if prepare is not None:
            await prepare(self)
        if self._eager:
            await self.reconcile(by="start")

    async def _close(self) -> None:
        self._closing = True
        self.unclosed = await self._manager.aclose()
        await self._journal.flush()

    # What a program calls

    def register(self, *candidates: Offer) -> None:
        """Offer candidates from code. A live slot whose winner they change is swapped soon after.

        Raises ConfigError when one provider is offered twice for a slot.
        """
        offered = cast("tuple[Candidate[Any], ...]", candidates)
        self._chooser.offer(self._chooser.registry.with_added("code", offered))
        if not self._closing and any(candidate.slot in self._live for candidate in offered):
            self._tasks.start_soon(self.reconcile)

    def resolve(
        self, slot: Slot[Any], provider: str | None = None, capabilities: frozenset[str] | None = None
    ) -> Resolution:
        """Say who fills *slot* and why; ``str()`` of the answer is the explanation."""
        if provider is None and capabilities is None:
            try:
                answer = self._answers[slot]
                answer.asked += 1.0  # floats have a free list, so this is cheaper than with an int
                return answer.resolution
            except KeyError:
                pass
        return self._chooser.ask(slot, provider=provider, capabilities=capabilities or frozenset())

    def use(self, slot: Slot[T], *, holder: str = "") -> Lease[T]:
        """Lease what fills *slot*: ``async with runtime.use(slot) as instance``; it is activated at its first use.

        A worker thread writes ``with runtime.use(slot) as instance``.

        Args:
            holder: who uses it; ``status`` shows the last one of an instance that leaks.

        Entering raises NoCandidateError, SwapFailedError when it cannot be activated, or SlotUnavailableError.
        """
        try:
            return Lease(self._live[slot], holder)
        except KeyError:
            return Lease(self._manager.live(slot), holder)

    def proxy(self, slot: Slot[T]) -> T:
        """Return a stand-in whose every (asynchronous) method takes a lease for one call.

        Raises UsageError for an untyped slot or a protocol with synchronous methods.
        """
        stand_in: T = proxy_for(self._manager.live(slot), slot.protocol)
        return stand_in

    async def swap(
        self,
        slot: Slot[Any],
        *,
        provider: str | None = None,
        force: bool = False,
        skip_health: bool = False,
        dry_run: bool = False,
        by: str = "program",
    ) -> SwapReport:
        """Replace the instance behind *slot* without dropping a caller, and pin *provider* if one is named.

        Args:
            provider: whom to swap to; the resolver decides when omitted, and nothing is pinned.
            force: do not wait for the drain and the cleanup of the old instance.
            skip_health: commit without asking the new instance whether it is healthy.
            dry_run: build, probe and close the new one; commit and pin nothing.

        Raises:
            NoCandidateError: nothing eligible is registered for *slot*.
            SwapFailedError: the new instance did not start; the old one, if any, still serves.
        """
        return await self._manager.swap(slot, SwapRequest(provider, by, force, skip_health, dry_run))

    def on_swap(self, slot: Slot[Any], *, before: Hook | None = None, after: Hook | None = None) -> None:
        """Run *before* when a new instance is well and callers have not moved yet, *after* when they have.

        Each is called with a :class:`SwapNotice`, synchronous ones in a thread, for at most ``lifecycle.hook_timeout``
        seconds. One that raises makes the swap fail: callers stay with, or return to, the old instance.
        """
        self._manager.hooks.add(slot, before, after)

    async def _committed(self, slot: Slot[Any], request: SwapRequest, changed: bool) -> str:
        """Pin the provider that a swap named, at its commit: who asked may be gone, and the drain may take long."""
        live = self._live[slot]
        if live.current is not None and changed:  # it was probed just now
            self._health.release(slot, live.current.provider)
        if request.provider is None:
            return ""
        pin = Pin(request.provider, request.by, datetime.now(UTC))
        self._pins[slot] = pin
        self._chooser.renew_pin(slot)
        self.emit("selection-pinned", domain=slot.domain, key=slot.key, provider=pin.provider, by=pin.by)
        return await self._journal.write(lambda store: store.pin(slot, pin))

    async def unpin(self, slot: Slot[Any], *, by: str = "program") -> tuple[Pin | None, SwapReport | None, str]:
        """Take back the pin on *slot* and let precedence choose.

        Returns the pin there was, the swap that followed if any, and why it could not be recorded or "".
        """
        live = self._live.get(slot)
        if live is None or not (live.current is not None or live.queue.working):
            pin, unrecorded = await self._take_back(slot, by)
            return pin, None, unrecorded
        attempt = self._manager.ask(slot, SwapRequest(by=by, first=self._take_back))
        report = await attempt.result()
        pin, unrecorded = attempt.first
        return pin, report if pin is not None else None, unrecorded

    async def _take_back(self, slot: Slot[Any], by: str) -> tuple[Pin | None, str]:
        pin = self._pins.pop(slot, None)
        if pin is None:
            return None, ""
        self._chooser.renew_pin(slot)
        self.emit("selection-unpinned", domain=slot.domain, key=slot.key, provider=pin.provider, by=by)
        return pin, await self._journal.write(lambda store: store.unpin(slot))

    async def set_activity(self, slot: Slot[Any], activity: Activity, *, note: str = "", by: str = "program") -> str:
        """Allow or stop new leases on *slot*; returns "" or why the next start will not know."""
        self._manager.admit(slot, activity, note)
        self.emit("activity-changed", domain=slot.domain, key=slot.key, activity=activity.value, note=note, by=by)
        stored = StoredActivity(activity, note, by, datetime.now(UTC))
        return await self._journal.write(lambda store: store.set_activity(slot, stored))

    async def drain(self, slot: Slot[Any], *, note: str = "", by: str = "program") -> tuple[DrainReport, str]:
        """Stop new leases on *slot* and wait for the last one; also returns why it could not be recorded, or ""."""
        unrecorded = await self.set_activity(slot, Activity.DRAINING, note=note, by=by)
        return await self._manager.drain(slot), unrecorded

    async def probe(self, slot: Slot[Any]) -> Health | None:
        """Ask the live instance of *slot* whether it is healthy now; None when it has none."""
        return await self._manager.probe(slot)

    async def probe_all(self, *, domain: str | None = None, key: str | None = None) -> None:
        """Probe every live instance of a domain, a key or all, at the same time; the answers are in the snapshot."""
        async with anyio.create_task_group() as probes:
            for slot in tuple(self._live):
                if domain in (None, slot.domain) and key in (None, slot.key):
                    probes.start_soon(self._manager.probe, slot)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._chooser.settings

    @property
    def instances(self) -> int:
        """How many instances are open."""
        return sum(len(self._manager.instances.of(slot)) for slot in self._manager.slots)

    @property
    def abandoned_calls(self) -> int:
        """How many calls of foreign code were given up and still run."""
        return self._manager.instances.calls.abandoned

    @property
    def degraded(self) -> str:
        """Why the state directory cannot be written, or ""."""
        return self._journal.degraded

    # Change

    async def offer(self, source: str, candidates: tuple[Candidate[Any], ...]) -> tuple[Change, ...]:
        """Make *candidates* all that *source* offers, and bring live slots to what follows; return the steps."""
        while True:
            registry = self._chooser.registry
            changed = await to_thread.run_sync(registry.with_source, source, candidates)
            if self._chooser.registry is registry:  # else somebody else changed it meanwhile
                break
        self._chooser.offer(changed)
        return await self.reconcile(by=source)

    async def apply(self, settings: Settings, *, by: str = "settings") -> tuple[Change, ...]:
        """Take over *settings* and carry out what follows from them; return the steps.

        Settings that would weaken trust are held until a restart. Raises ConfigError, and changes nothing, when the
        candidates they declare clash.
        """
        async with self._applying:  # two at once could end on the older one
            remote, held = keep_trust(self.settings.app.remote, settings.app.remote)
            local = local_candidates(settings)
            self._chooser.registry.with_sources("settings/", local)  # refuses what clashes before anything changes
            for name in held:
                self.emit("config-held", setting=f"remote.{name}", error="weakens trust: takes effect at a restart")
            if settings.app.plugins != self.settings.app.plugins:
                await self._discover(settings.app.plugins)
            app = _replaced(settings.app, remote=remote)
            await self._chooser.take_over(_replaced(settings, app=app))
            self._chooser.offer(self._chooser.registry.with_sources("settings/", local))
            self._manager.timeouts = app.lifecycle
            self._health.forget(self._chooser.is_built_from)
        return await self.reconcile(by=by)

    async def reconcile(self, *, by: str = "program") -> tuple[Change, ...]:
        """Bring every live slot to what precedence now chooses; return the steps. Failures are reported, not raised."""
        async with self._reconciling:
            live = {
                slot: item.current.build if item.current else None
                for slot, item in self._live.items()
                if item.is_wanted
            }
            eager = self._chooser.policy.selections.keys() if self._eager else ()
            slots = {*live, *eager}
            held = {slot for slot, build in live.items() if build is not None and self._stays(slot, build)}
            steps = plan(live, {slot: self._chooser.wanted(slot) for slot in slots}, eager, held)
            async with anyio.create_task_group() as carrying_out:
                for step in steps:
                    if step.action != "keep":
                        carrying_out.start_soon(self._carry_out, step, by)
            return steps

    def _stays(self, slot: Slot[Any], build: Build) -> bool:
        """Say whether a slot keeps what serves although it is in quarantine: nobody said that others may take over."""
        provider = build.candidate.provider
        if not self._health.is_quarantined(slot, provider) or self.settings.slot_settings(*slot).failover:
            return False
        selection = self._chooser.explain(slot).selection
        return selection is None or selection.provider == provider  # else somebody did say

    def _health_changed(self, slot: Slot[Any]) -> None:
        self._chooser.renew()
        self._chooser.resolve(slot)  # so that who may fill it now is in the log
        if not self._closing:
            self._tasks.start_soon(partial(self.reconcile, by="health"))

    async def _carry_out(self, step: Change, by: str) -> None:
        try:
            await self._manager.swap(step.slot, SwapRequest(by=by, follow=True))
        except OneiricError:
            return  # the attempt has reported itself, and the slot keeps what it had

    async def _discover(self, settings: PluginsSettings) -> None:
        """Load the plugins, each under its own bound, and register what they offer."""
        limit = self.settings.app.lifecycle.activation_timeout
        find = partial(discovery.discover, settings, timeout=limit)
        found = await self._manager.instances.calls.call(find, timeout=math.inf)  # it bounds itself
        registry = self._chooser.registry
        for old in self._plugins:
            registry = registry.without_source(old.source)
        offered, self._plugins = discovery.registered(found)
        for source, candidates in offered.sources.items():
            registry = registry.with_source(source, candidates)
        self._chooser.offer(registry)
        for plugin in self._plugins:
            if plugin.error:
                name, distribution = plugin.entry_point.name, plugin.entry_point.distribution
                self.emit("plugin-failed", plugin=name, distribution=distribution, error=plugin.error)
        for name in discovery.unmatched(settings, self._plugins):
            self.emit("plugin-unmatched", plugin=name, error="plugins.disabled names it, and nothing is called that")

    # Report

    async def readings(self) -> tuple[Reading, ...]:
        """Return every metric of this runtime: what was counted, and what is true now."""
        return await self._measure.read()

    def snapshot(self, *, domain: str | None = None, key: str | None = None) -> Snapshot:
        """Return everything there is to know now, as a value; of slots only those of *domain* and *key*, if given."""
        offered = self._chooser.registry.by_slot
        if domain is not None and key is not None:
            slot = Slot[Any](domain, key)
            slots = [slot] if slot in offered or slot in self._live else []
        else:
            known = {*offered, *self._live}
            slots = sorted(slot for slot in known if domain in (None, slot.domain) and key in (None, slot.key))
        return Snapshot(
            live=True,
            registry=self._chooser.registry,
            policy=self._chooser.policy,
            slots=tuple(self._record(slot) for slot in slots),
            plugins=self._plugins,
        )

    def _record(self, slot: Slot[Any]) -> SlotRecord:
        resolution = self._chooser.explain(slot)
        live = self._live.get(slot)
        if live is None:
            return SlotRecord(slot, resolution, pin=self._pins.get(slot))
        return SlotRecord(
            slot=slot,
            resolution=resolution,
            state=live.shown,
            provider=live.current.provider if live.current else "",
            instance_id=live.current.identifier if live.current else "",
            built_at=live.current.built_at if live.current else None,
            pin=self._pins.get(slot),
            note=live.note,
            leases=live.current.held if live.current else 0,
            leaks=self._manager.instances.leaks(slot),
            memory_bytes=sum(instance.memory_bytes for instance in self._manager.instances.of(slot)),
            instances=len(self._manager.instances.of(slot)),
            outcomes=MappingProxyType(dict(live.outcomes)),
            last_error=live.last_error,
            health=live.health,
            history=tuple(live.history),
        )


def _replaced(value: Any, **changes: Any) -> Any:
    from msgspec.structs import replace as struct_replace

    return struct_replace(value, **changes)
