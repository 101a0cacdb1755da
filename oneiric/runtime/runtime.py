"""The composition root: the one place that holds what changes.

A change (a registration, new settings, a pin) is always: compute the new value, replace one reference, plan the steps
that lead there, carry them out and report each.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from oneiric.config.host import this_host
from oneiric.config.loader import load, local_candidates, policy
from oneiric.config.secrets import resolve_references, secret_values
from oneiric.core.candidate import Candidate, Offer, Slot
from oneiric.core.config import PluginsSettings, Settings, keep_trust
from oneiric.core.reconcile import Build, Change, plan
from oneiric.core.registry import Registry
from oneiric.core.resolution import Policy, Resolution, resolve
from oneiric.core.states import Activity, State
from oneiric.errors import OneiricError
from oneiric.lifecycle.lease import Lease
from oneiric.lifecycle.live import LiveSlot
from oneiric.lifecycle.manager import Manager
from oneiric.lifecycle.proxy import proxy_for
from oneiric.lifecycle.reports import Choice, DrainReport, Health, SwapReport, SwapRequest
from oneiric.observability.logs import Reporter, Sink, to_logging
from oneiric.plugins import discovery
from oneiric.plugins.discovery import Plugin
from oneiric.runtime.decisions import Decisions
from oneiric.runtime.journal import Journal
from oneiric.runtime.remembered import Pin, Remembered, StoredActivity
from oneiric.runtime.snapshot import SlotRecord, Snapshot
from oneiric.runtime.state import StateStore

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
    ) -> AsyncIterator[Runtime]:
        """Open a runtime on a settings directory, which need not exist, or on settings already read.

        Args:
            store: where pins, pauses and history outlive the process; without one nothing is written.
            sink: where events go; the logger ``oneiric`` unless told otherwise.
            eager: activate every slot that settings select or an operator pinned, instead of at its first use.

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
                await runtime._start(remembered)
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
        self.settings = settings
        self.emit = Reporter(sink)
        self.unclosed = 0
        self._tasks = tasks
        self._eager = eager
        self._environ = environ
        self._host = this_host()
        self._pins: dict[Slot[Any], Pin] = dict(remembered.pins)
        self._plugins: tuple[Plugin, ...] = ()
        self._registry = Registry()
        self._policy = self._new_policy()
        self._resolutions: dict[Slot[Any], Resolution] = {}
        self._decisions = Decisions(self.emit)
        self._journal = Journal(store, self.emit)
        self._closing = False
        self._reconciling = anyio.Lock()
        self._manager = Manager(
            choose=self._choose,
            timeouts=settings.app.lifecycle,
            tasks=tasks,
            emit=self.emit,
            offers={"runtime": self},
            record=self._journal.append,
            scrub=self.emit.scrub,
            committed=self._pin,
        )
        self._live = self._manager.slots

    async def _start(self, remembered: Remembered) -> None:
        if remembered.discarded:
            self.emit("state-discarded", file=remembered.discarded.partition(":")[0], error=remembered.discarded)
        for record in remembered.history:
            self._manager.live(record.slot).history.append(record)
        for slot, stored in remembered.activities.items():
            self._manager.live(slot).admit(stored.activity, stored.note)
        await self._discover(self.settings.app.plugins)
        self._registry = self._registry.with_sources("settings/", local_candidates(self.settings))
        self._tasks.start_soon(self._journal.run)
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
        self._registry = self._registry.with_added("code", offered)
        self._resolutions.clear()
        if not self._closing and any(candidate.slot in self._live for candidate in offered):
            self._tasks.start_soon(self.reconcile)

    def resolve(
        self, slot: Slot[Any], *, provider: str | None = None, capabilities: frozenset[str] = frozenset()
    ) -> Resolution:
        """Say who fills *slot* and why; ``str()`` of the answer is the explanation."""
        if provider is None and not capabilities:
            try:
                return self._resolutions[slot]
            except KeyError:
                pass
        resolution = resolve(self._registry, self._policy, slot, provider=provider, capabilities=capabilities)
        if provider is None and not capabilities:
            if resolution.placings:  # an unknown slot is not remembered: anyone could ask for any number of them
                self._resolutions[slot] = resolution
            self._decisions.note(resolution)
        return resolution

    def use(self, slot: Slot[T]) -> Lease[T]:
        """Lease what fills *slot*: ``async with runtime.use(slot) as instance``; it is activated at its first use.

        Entering raises NoCandidateError, SwapFailedError when it cannot be activated, or SlotUnavailableError.
        """
        return Lease(self._live.get(slot) or self._manager.live(slot))

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

    async def _pin(self, slot: Slot[Any], request: SwapRequest) -> str:
        """Pin the provider that a swap named, at its commit: who asked may be gone, and the drain may take long."""
        if request.provider is None:
            return ""
        pin = Pin(request.provider, request.by, datetime.now(UTC))
        self._pins[slot] = pin
        self._new_decisions()
        self.emit("selection-pinned", domain=slot.domain, key=slot.key, provider=pin.provider, by=pin.by)
        return await self._journal.write(lambda store: store.pin(slot, pin))

    async def unpin(self, slot: Slot[Any], *, by: str = "program") -> tuple[Pin | None, SwapReport | None, str]:
        """Take back the pin on *slot* and let precedence choose.

        Returns the pin there was, the swap that followed if any, and why it could not be recorded or "".
        """
        pin = self._pins.pop(slot, None)
        if pin is None:
            return None, None, ""
        self._new_decisions()
        self.emit("selection-unpinned", domain=slot.domain, key=slot.key, provider=pin.provider, by=by)
        unrecorded = await self._journal.write(lambda store: store.unpin(slot))
        live = self._live.get(slot)
        if live is None or live.current is None:
            return pin, None, unrecorded
        return pin, await self._manager.swap(slot, SwapRequest(by=by)), unrecorded

    async def set_activity(self, slot: Slot[Any], activity: Activity, *, note: str = "", by: str = "program") -> str:
        """Allow or stop new leases on *slot*; returns "" or why the next start will not know."""
        self._manager.live(slot).admit(activity, note)
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
    def abandoned_calls(self) -> int:
        """How many calls of foreign code were given up and still run."""
        return self._manager.calls.abandoned

    @property
    def degraded(self) -> str:
        """Why the state directory cannot be written, or ""."""
        return self._journal.degraded

    # Change

    async def apply(self, settings: Settings, *, by: str = "settings") -> tuple[Change, ...]:
        """Take over *settings* and carry out what follows from them; return the steps.

        Settings that would weaken trust are held until a restart. Raises ConfigError, and changes nothing, when the
        candidates they declare clash.
        """
        remote, held = keep_trust(self.settings.app.remote, settings.app.remote)
        registry = self._registry.with_sources("settings/", local_candidates(settings))
        for name in held:
            self.emit("config-held", setting=f"remote.{name}", error="weakens trust: takes effect at a restart")
        if settings.app.plugins != self.settings.app.plugins:
            await self._discover(settings.app.plugins)
            registry = self._registry.with_sources("settings/", local_candidates(settings))
        app = _replaced(settings.app, remote=remote)
        self.settings = _replaced(settings, app=app)
        self._registry = registry
        self._manager.timeouts = app.lifecycle
        self._new_decisions()
        return await self.reconcile(by=by)

    async def reconcile(self, *, by: str = "program") -> tuple[Change, ...]:
        """Bring every live slot to what precedence now chooses; return the steps. Failures are reported, not raised."""
        async with self._reconciling:
            live = {
                slot: item.current.build if item.current else None for slot, item in self._live.items() if _asked(item)
            }
            eager = self._policy.selections.keys() if self._eager else ()
            slots = {*live, *eager}
            steps = plan(live, {slot: self._wanted(slot) for slot in slots}, eager)
            async with anyio.create_task_group() as carrying_out:
                for step in steps:
                    if step.action != "keep":
                        carrying_out.start_soon(self._carry_out, step, by)
            return steps

    async def _carry_out(self, step: Change, by: str) -> None:
        try:
            await self._manager.swap(step.slot, SwapRequest(by=by, force=True))
        except OneiricError:
            return  # the attempt has reported itself, and the slot keeps what it had

    def _wanted(self, slot: Slot[Any]) -> tuple[Resolution, Build | None]:
        resolution = self.resolve(slot)
        return resolution, None if resolution.winner is None else self._build_of(resolution.winner)

    def _choose(self, slot: Slot[Any], provider: str | None) -> Choice:
        candidate = self.resolve(slot, provider=provider).require()
        declared = self._declared_settings(candidate)

        def settings() -> Mapping[str, Any]:
            resolved: Mapping[str, Any] = resolve_references(declared, environ=self._environ, base=Path())
            self.emit.hide(secret_values(resolved))
            return resolved

        return Choice(self._build_of(candidate), settings)

    def _declared_settings(self, candidate: Candidate[Any]) -> Mapping[str, Any]:
        return self.settings.provider_settings(candidate.slot.domain, candidate.slot.key, candidate.provider)

    def _build_of(self, candidate: Candidate[Any]) -> Build:
        return Build(candidate, json.dumps(self._declared_settings(candidate), sort_keys=True, default=str))

    def _new_decisions(self) -> None:
        self._policy = self._new_policy()
        self._resolutions.clear()

    def _new_policy(self) -> Policy:
        pins = {slot: pin.selection for slot, pin in self._pins.items()}
        return policy(self.settings, host=self._host, pins=pins, environ=self._environ)

    async def _discover(self, settings: PluginsSettings) -> None:
        """Load the plugins, each under its own bound, and register what they offer."""
        limit = self.settings.app.lifecycle.activation_timeout
        find = partial(discovery.discover, settings, timeout=limit)
        found = await self._manager.calls.call(find, timeout=math.inf)  # it bounds itself, entry point by entry point
        for old in self._plugins:
            self._registry = self._registry.without_source(old.source)
        offered, self._plugins = discovery.registered(found)
        for source, candidates in offered.sources.items():
            self._registry = self._registry.with_source(source, candidates)
        for plugin in self._plugins:
            if plugin.error:
                name, distribution = plugin.entry_point.name, plugin.entry_point.distribution
                self.emit("plugin-failed", plugin=name, distribution=distribution, error=plugin.error)

    # Report

    def snapshot(self) -> Snapshot:
        """Return everything there is to know now, as a value."""
        slots = sorted({*self._registry.by_slot, *self._live})
        return Snapshot(
            live=True,
            registry=self._registry,
            policy=self._policy,
            slots=tuple(self._record(slot) for slot in slots),
            plugins=self._plugins,
        )

    def _record(self, slot: Slot[Any]) -> SlotRecord:
        resolution = self._resolutions.get(slot) or resolve(self._registry, self._policy, slot)
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
            leases=live.current.leases if live.current else 0,
            leaked=live.leaked,
            outcomes=MappingProxyType(dict(live.outcomes)),
            last_error=live.last_error,
            health=live.health,
            history=tuple(live.history),
        )


def _asked(live: LiveSlot) -> bool:
    """Say whether someone wants the slot filled: it is, or the last attempt to fill it failed."""
    return live.current is not None or live.state is State.FAILED


def _replaced(value: Any, **changes: Any) -> Any:
    from msgspec.structs import replace as struct_replace

    return struct_replace(value, **changes)
