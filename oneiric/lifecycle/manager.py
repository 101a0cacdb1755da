"""The engine room: puts instances in place and takes them away, one attempt at a time for each slot.

A caller that stops waiting does not stop an attempt: each runs in a task of the runtime. What is asked of a slot while
one is under way waits in its queue, where the latest decision takes the place of earlier ones.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

import anyio
import anyio.from_thread
from anyio.abc import TaskGroup

from oneiric.core.budget import wait_before
from oneiric.core.candidate import Slot
from oneiric.core.config import LifecycleSettings, SlotSettings
from oneiric.core.domain import DOMAINS
from oneiric.core.states import Activity, Step
from oneiric.core.words import plural
from oneiric.errors import OneiricError, SlotUnavailableError
from oneiric.lifecycle.exchange import Exchange
from oneiric.lifecycle.hooks import Hooks
from oneiric.lifecycle.instances import Instances, names
from oneiric.lifecycle.live import Instance, LiveSlot
from oneiric.lifecycle.queue import Attempt
from oneiric.lifecycle.reports import Choice, DrainReport, Health, SwapRecord, SwapReport, SwapRequest
from oneiric.observability.logs import Emit


async def _nothing_to_do(_slot: Slot[Any], _request: SwapRequest, _changed: bool) -> str:
    return ""


class Manager:
    """Holds every live slot.

    Args:
        choose: says what to build for a slot and an explicit provider; raises NoCandidateError or ConfigError.
        tasks: where attempts and cleanups run.
        offers: what a factory may take by parameter name besides its settings.
        record: receives every finished attempt.
        scrub: removes secrets from what foreign code said, before anyone is told.
        committed: runs at each commit, before the next attempt on the slot may begin; says what it could not do, or "".
        settings: how a slot is swapped.
        is_known: says whether a slot is registered or configured; of others nothing is kept that nobody needs.
        refused: hears of each caller who got no instance, and why.
    """

    def __init__(
        self,
        *,
        choose: Callable[[Slot[Any], str | None], Choice],
        timeouts: LifecycleSettings,
        tasks: TaskGroup,
        emit: Emit,
        offers: Mapping[str, Any],
        record: Callable[[SwapRecord], None] = lambda _record: None,
        scrub: Callable[[str], str] = str,
        committed: Callable[[Slot[Any], SwapRequest, bool], Awaitable[str]] = _nothing_to_do,
        settings: Callable[[Slot[Any]], SlotSettings] = lambda _slot: SlotSettings(),
        is_known: Callable[[Slot[Any]], bool] = lambda _slot: False,
        refused: Callable[[Slot[Any], OneiricError], None] = lambda _slot, _error: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.slots: dict[Slot[Any], LiveSlot] = {}
        self._held: WeakValueDictionary[Slot[Any], LiveSlot] = WeakValueDictionary()  # also by leases and proxies alone
        self.instances = Instances(timeouts=timeouts, emit=emit, offers=offers, scrub=scrub, now=now)
        self.hooks = Hooks(self.instances.calls, settings)
        self._exchange = Exchange(
            choose=choose,
            instances=self.instances,
            hooks=self.hooks,
            tasks=tasks,
            emit=emit,
            record=record,
            scrub=scrub,
            settings=settings,
            now=now,
        )
        self._tasks = tasks
        self._emit = emit
        self._committed = committed
        self._is_known = is_known
        self._refused = refused
        self._now = now
        self._token = anyio.lowlevel.current_token()
        self._thread = threading.get_ident()
        self._activations: dict[Slot[Any], Attempt] = {}
        self._attempts: set[Attempt] = set()
        self._closing = False

    @property
    def timeouts(self) -> LifecycleSettings:
        """How long foreign code may take."""
        return self.instances.timeouts

    @timeouts.setter
    def timeouts(self, timeouts: LifecycleSettings) -> None:
        self.instances.timeouts = timeouts

    # Slots and leases

    def live(self, slot: Slot[Any]) -> LiveSlot:
        """Return the live slot for *slot*: one and the same for as long as anybody holds it."""
        try:
            return self.slots[slot]
        except KeyError:
            if threading.get_ident() != self._thread:  # two threads must not make two of one slot
                return anyio.from_thread.run_sync(self.live, slot, token=self._token)
            live = self._held.get(slot)
            if live is None:
                live = self._held[slot] = LiveSlot(slot, self.activate, self._token)
                if self._closing:
                    live.step(Step.STOP)
            return live

    def _settle(self, live: LiveSlot) -> None:
        """Keep *live* while there is something to tell of it; else it is kept by its leases and proxies, if any."""
        if live.is_blank and not self._is_known(live.slot):
            self.slots.pop(live.slot, None)
        else:
            self.slots[live.slot] = live

    async def activate(self, live: LiveSlot) -> None:
        """Bring the slot, which has none, an instance; all who ask at once share one attempt and its outcome."""
        attempt = self._activations.get(live.slot)
        if attempt is None:
            attempt = self._activations[live.slot] = self.ask(live.slot, SwapRequest(by="first use", follow=True))
        while live.current is None and not attempt.done.is_set():  # another attempt may bring one before this one does
            await live.wait_change()
        if live.current is None and attempt.error is not None:
            self._refused(live.slot, attempt.error)
            raise attempt.error

    async def swap(self, slot: Slot[Any], request: SwapRequest) -> SwapReport:
        """Replace what fills *slot*, as *request* says.

        Raises NoCandidateError, ConfigError, SupersededError, or SwapFailedError when the new one did not take over.
        """
        return await self.ask(slot, request).result(early=request.force or request.follow)

    def ask(self, slot: Slot[Any], request: SwapRequest) -> Attempt:
        """Queue *request* and return its attempt; raises SlotUnavailableError when the runtime closes."""
        live = self.live(slot)
        if self._closing:
            raise SlotUnavailableError(f"{live.slot} is stopped: the runtime is closing")
        attempt = live.queue.put(request)
        if not live.queue.working:
            live.queue.working = True
            self._settle(live)
            self._tasks.start_soon(self._work, live)
        return attempt

    async def _work(self, live: LiveSlot) -> None:
        """Do what waits in the slot's queue, one after the other."""
        try:
            while (attempt := live.queue.peek()) is not None:
                if attempt.request.follow and not await self._within_budget(live, attempt):
                    continue  # something else is next now, or nothing any more
                live.queue.take(attempt)
                self._attempts.add(attempt)
                await self._run(live, attempt)
        finally:
            live.queue.working = False
            self._settle(live)

    async def _within_budget(self, live: LiveSlot, attempt: Attempt) -> bool:
        """Wait until the slot may swap by itself once more; return false when *attempt* is no longer next.

        First activations are not held back: callers wait for them.
        """
        if live.current is None or not self._exchange.would_change(live):
            return True
        limit = self.timeouts.max_swaps_per_minute
        delay = wait_before(live.automatic, now=anyio.current_time(), per_minute=limit)
        if delay:
            told = names(live.slot, live.current.provider)
            text = f"more than {limit} automatic swaps a minute; the last state asked for follows in {delay:.0f} s"
            if not attempt.answered.is_set():
                self._emit("swap-throttled", **told, reason="budget", delay_ms=round(delay * 1000), error=text)
            provider = live.current.provider
            live.queue.postpone(SwapReport(live.slot, provider, provider, 0.0, changed=False))
            with anyio.move_on_after(delay):
                await live.queue.asked.wait()
            if live.queue.peek() is not attempt:  # another one was asked for, or the runtime closes
                return False
        live.automatic.append(anyio.current_time())
        return True

    async def _run(self, live: LiveSlot, attempt: Attempt) -> None:
        """Carry out one attempt; whatever happens, who waits for it is told."""
        error: OneiricError | None = SlotUnavailableError(f"{live.slot}: the runtime closed before the swap was done")
        old: Instance | None = None
        try:
            with attempt.scope:
                error, old = await self._carry_out(live, attempt)
        finally:
            self._attempts.discard(attempt)
            if self._activations.get(live.slot) is attempt:
                del self._activations[live.slot]
            attempt.error = error
            attempt.done.set()
            live.announce()
            attempt.answered.set()
            if old is None:
                attempt.retired.set()
        if old is not None:  # the slot is free for its next attempt while the old instance drains
            self._tasks.start_soon(self._retire, live, old, attempt)

    async def _carry_out(self, live: LiveSlot, attempt: Attempt) -> tuple[OneiricError | None, Instance | None]:
        """Replace what fills the slot; return what went wrong and the instance to retire."""
        request = attempt.request
        try:
            if request.first is not None:
                attempt.first = await request.first(live.slot, request.by)
            report, old = await self._exchange.carry_out(live, attempt)
        except OneiricError as error:
            return error, None
        unrecorded = ""
        with anyio.CancelScope(shield=True):  # what was committed is also recorded
            unrecorded = "" if request.dry_run else await self._committed(live.slot, request, report.changed)
        attempt.report = replace(report, pin_error=unrecorded)
        if report.changed and not request.dry_run and not self._closing and self._exchange.would_change(live):
            live.queue.put(SwapRequest(by="settings", follow=True))  # they changed while it was built
        return None, old

    async def _retire(self, live: LiveSlot, old: Instance, attempt: Attempt) -> None:
        def told(text: str) -> None:
            assert attempt.report is not None  # noqa: S101 - it was committed
            attempt.report = replace(attempt.report, cleanup_error=text)
            live.last_error = text and f"after the swap: {text}"
            attempt.retired.set()

        try:
            await self.instances.retire(old, told=told, keep_in=live)
        finally:
            attempt.retired.set()

    # Operators

    def admit(self, slot: Slot[Any], activity: Activity, note: str = "") -> None:
        """Allow new leases on *slot* or stop them."""
        live = self.live(slot)
        live.admit(activity, note)
        self._settle(live)

    def recall(self, record: SwapRecord) -> None:
        """Take in a swap of an earlier process."""
        live = self.live(record.slot)
        live.history.append(record)
        self._settle(live)

    async def probe(self, slot: Slot[Any]) -> Health | None:
        """Ask the live instance of *slot* whether it is healthy; None when it has none."""
        live = self.slots.get(slot)
        if live is None or live.current is None:
            return None
        instance = live.current
        health = Health(self._now(), await self.instances.complaint_of(instance))
        if live.current is instance:
            live.health = health
        return health

    async def drain(self, slot: Slot[Any]) -> DrainReport:
        """Wait for the last lease on *slot*, which must not admit new ones, for at most the drain timeout."""
        with anyio.move_on_after(self.timeouts.drain_timeout):
            for instance in self.instances.of(slot):
                await instance.wait_idle()
        leases = self.instances.held_leases(slot)
        return DrainReport(slot, drained=not leases, leases=leases)

    async def aclose(self) -> int:
        """Stop every slot, drain and close every instance; return how many could not be closed.

        Services before adapters, for they call them. Bounded by one drain and one cleanup timeout for all together.
        """
        self._closing = True
        for live in self.slots.values():
            live.queue.drop(SlotUnavailableError(f"{live.slot} is stopped: the runtime is closing"))
        running = tuple(self._attempts)
        for attempt in running:
            attempt.scope.cancel()
        for attempt in running:
            await attempt.done.wait()
        begun = anyio.current_time()
        drain_until = begun + self.timeouts.drain_timeout
        close_until = drain_until + self.timeouts.cleanup_timeout
        unclosed = 0
        for domain in reversed(tuple(DOMAINS)):
            stage = [live for live in self.slots.values() if live.slot.domain == domain]
            for live in stage:
                live.step(Step.STOP)
                live.point(live.current)
            results: list[str] = []
            async with anyio.create_task_group() as closing:
                for instance in (instance for live in stage for instance in self.instances.of(live.slot)):
                    closing.start_soon(self._shut, instance, drain_until, close_until, results)
            for live in stage:
                live.point(None)
            unclosed += sum(bool(result) for result in results)
        settle_until = min(close_until, anyio.current_time() + self.timeouts.cleanup_timeout)
        return unclosed + await self.instances.calls.settle(until=settle_until)

    async def _shut(self, instance: Instance, drain_until: float, close_until: float, results: list[str]) -> None:
        with anyio.move_on_at(drain_until):
            await instance.wait_idle()
        if instance.held:
            text = f"{plural(instance.held, 'lease')} held while the runtime closes; closed all the same"
            self.instances.report_leak(instance, text)
        remaining = max(1.0, close_until - anyio.current_time())
        limit = min(remaining, self.timeouts.cleanup_timeout)
        results.append(await self.instances.dispose(instance, timeout=limit))
