"""The engine room: puts instances in place and takes them away.

A swap runs ``build, probe, point callers at the new one | COMMIT | drain the old one, clean it up``. Before the commit
the old instance is untouched, so rolling back is doing nothing; after it nothing rolls back, and a cleanup that fails
is reported. Each attempt runs in a task of the runtime: a caller that stops waiting does not stop the swap.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

import anyio
from anyio.abc import TaskGroup

from oneiric.core.candidate import Slot
from oneiric.core.config import LifecycleSettings
from oneiric.core.domain import DOMAINS
from oneiric.core.states import Step
from oneiric.errors import ActivationError, ConfigError, OneiricError, SlotUnavailableError, SwapFailedError
from oneiric.lifecycle import factory
from oneiric.lifecycle.foreign import ForeignCalls
from oneiric.lifecycle.live import Instance, LiveSlot
from oneiric.lifecycle.reports import Choice, DrainReport, Health, Outcome, SwapRecord, SwapReport, SwapRequest
from oneiric.observability.logs import Emit


async def _nothing_to_do(_slot: Slot[Any], _request: SwapRequest) -> str:
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
        committed: Callable[[Slot[Any], SwapRequest], Awaitable[str]] = _nothing_to_do,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.slots: dict[Slot[Any], LiveSlot] = {}
        self.timeouts = timeouts
        self.calls = ForeignCalls()
        self._choose = choose
        self._tasks = tasks
        self._emit = emit
        self._offers = offers
        self._record = record
        self._scrub = scrub
        self._committed = committed
        self._now = now
        self._numbers = count(1)
        self._open: set[Instance] = set()
        self._activations: dict[Slot[Any], _Attempt] = {}
        self._attempts: set[_Attempt] = set()
        self._closing = False

    # Slots and leases

    def live(self, slot: Slot[Any]) -> LiveSlot:
        """Return the live slot for *slot*, made at the first question."""
        try:
            return self.slots[slot]
        except KeyError:
            made = self.slots[slot] = LiveSlot(slot, self.activate)
            if self._closing:
                made.step(Step.STOP)
            return made

    async def activate(self, live: LiveSlot, *, by: str = "first use") -> None:
        """Bring the slot an instance unless it has one; all who ask at once share one attempt and its outcome."""
        if live.current is not None:
            return
        attempt = self._activations.get(live.slot)
        if attempt is None:
            attempt = self._activations[live.slot] = self._start(live, SwapRequest(by=by))
        await attempt.done.wait()
        attempt.result()

    async def swap(self, slot: Slot[Any], request: SwapRequest) -> SwapReport:
        """Replace what fills *slot*, as *request* says.

        Raises NoCandidateError, ConfigError, or SwapFailedError when the new instance did not take over.
        """
        attempt = self._start(self.live(slot), request)
        await attempt.done.wait()
        return attempt.result()

    def _start(self, live: LiveSlot, request: SwapRequest) -> _Attempt:
        if self._closing:
            raise SlotUnavailableError(f"{live.slot} is stopped: the runtime is closing")
        attempt = _Attempt()
        self._attempts.add(attempt)
        self._tasks.start_soon(self._run, live, request, attempt)
        return attempt

    async def _run(self, live: LiveSlot, request: SwapRequest, attempt: _Attempt) -> None:
        """Carry out one attempt; whatever happens, who waits for it is told."""
        attempt.error = SlotUnavailableError(f"{live.slot}: the runtime closed before the swap was done")
        try:
            with attempt.scope:
                await self._attempt(live, request, attempt)
        except OneiricError as error:
            attempt.error = error
        finally:
            self._attempts.discard(attempt)
            if self._activations.get(live.slot) is attempt:
                del self._activations[live.slot]
            attempt.done.set()

    async def _attempt(self, live: LiveSlot, request: SwapRequest, attempt: _Attempt) -> None:
        async with live.lock:
            report, old = await self._replace(live, request)
            if not request.dry_run:
                with anyio.CancelScope(shield=True):  # what was committed is also recorded
                    report = replace(report, pin_error=await self._committed(live.slot, request))
            attempt.report, attempt.error = report, None
        if old is None:
            return
        retirement = _Attempt()
        self._tasks.start_soon(self._retire, live, old, retirement)
        if request.force:
            return
        await retirement.done.wait()
        attempt.report = replace(report, cleanup_error=retirement.text)

    async def _replace(self, live: LiveSlot, request: SwapRequest) -> tuple[SwapReport, Instance | None]:
        """Build, probe and commit. Runs under the slot's lock; returns the report and the instance to retire."""
        choice = self._choose(live.slot, request.provider)
        provider = choice.build.candidate.provider
        previous = live.current.provider if live.current is not None else ""
        if live.current is not None and live.current.build.identity == choice.build.identity and not request.dry_run:
            live.current.build = choice.build
            return SwapReport(live.slot, previous, provider, 0.0, changed=False), None
        started = anyio.current_time()
        if not request.dry_run:
            live.step(Step.BUILD)
        fresh: Instance | None = None
        try:
            fresh = await self._build(live, choice)
            if not request.skip_health:
                await self._require_health(live, fresh)
        except ActivationError as error:
            error.message = self._scrub(error.message)
            disposal = await self._dispose(live, fresh) if fresh is not None else ""
            self._fail(live, request, error, provider, anyio.current_time() - started, built=fresh is not None)
            raise SwapFailedError(
                _failure_text(live, error, provider, disposal),
                reason=error.reason,
                rolled_back=fresh is not None and live.current is not None,
                hint=error.hint,
            ) from error
        except BaseException:  # the runtime closes
            with anyio.CancelScope(shield=True):
                if fresh is not None:
                    await self._dispose(live, fresh)
            if not request.dry_run:
                live.step(Step.GIVE_UP)
            raise
        duration = anyio.current_time() - started
        if request.dry_run:
            error_text = await self._dispose(live, fresh)
            return SwapReport(live.slot, previous, provider, duration, dry_run=True, cleanup_error=error_text), None
        old = live.point(fresh)
        live.step(Step.COMMIT)
        live.health = None if request.skip_health else Health(self._now(), "")
        self._succeed(live, request, fresh, previous, duration)
        return SwapReport(live.slot, previous, provider, duration), old

    async def _build(self, live: LiveSlot, choice: Choice) -> Instance:
        candidate = choice.build.candidate
        try:
            settings = choice.settings()
        except ConfigError as error:
            raise ActivationError(f"{live.slot} {candidate.provider}: {error}", hint=error.hint) from error
        value = await factory.build(
            candidate,
            settings,
            offers=self._offers,
            calls=self.calls,
            timeout=self.timeouts.activation_timeout,
            late=partial(self._close_late, live, candidate.provider),
        )
        identifier = f"{live.slot}#{next(self._numbers)}"
        instance = Instance(value, choice.build, identifier=identifier, built_at=self._now())
        self._open.add(instance)
        return instance

    async def _require_health(self, live: LiveSlot, instance: Instance) -> None:
        complaint = await factory.probe(instance.value, calls=self.calls, timeout=self.timeouts.health_timeout)
        if complaint:
            self._emit("health-check-failed", **_names(live, instance.provider), error=complaint)
            raise ActivationError(
                complaint,
                reason="health-check",
                hint=f"correct provider_settings of {instance.provider}, or raise lifecycle.health_timeout; swap again",
            )

    # Outcomes: each attempt has exactly one

    def _succeed(self, live: LiveSlot, request: SwapRequest, fresh: Instance, previous: str, duration: float) -> None:
        live.last_error = ""
        names = _names(live, fresh.provider)
        milliseconds = round(duration * 1000, 3)
        self._emit("instance-activated", **names, instance_id=fresh.identifier, duration_ms=milliseconds)
        if previous:
            self._emit("swap-complete", **names, previous_provider=previous, duration_ms=milliseconds, by=request.by)
        self._note(live, fresh.provider, previous, "success", duration=duration, by=request.by)

    def _fail(
        self,
        live: LiveSlot,
        request: SwapRequest,
        error: ActivationError,
        provider: str,
        duration: float,
        *,
        built: bool,
    ) -> None:
        if request.dry_run:
            return
        live.step(Step.GIVE_UP)
        serving = live.current.provider if live.current is not None else ""
        rolled_back = built and bool(serving)
        live.last_error = f"{provider}: {error.message}"
        milliseconds = round(duration * 1000, 3)
        self._emit(
            "swap-failed",
            **_names(live, provider),
            error=error.message,
            reason=error.reason,
            duration_ms=milliseconds,
            rolled_back=rolled_back,
        )
        if rolled_back:
            self._emit("swap-rollback", **_names(live, serving), failed_provider=provider, error=error.message)
        outcome: Outcome = "rollback" if rolled_back else "failed"
        self._note(live, provider, serving, outcome, error=error, duration=duration, by=request.by)

    def _note(
        self,
        live: LiveSlot,
        provider: str,
        previous: str,
        outcome: Outcome,
        *,
        duration: float,
        by: str,
        error: ActivationError | None = None,
    ) -> None:
        reason, text = (error.reason, error.message) if error is not None else ("", "")
        record = SwapRecord(self._now(), live.slot, provider, previous, outcome, reason, text, duration, by)
        live.outcomes[record.outcome] += 1
        live.history.append(record)
        self._record(record)

    # Retirement

    async def _retire(self, live: LiveSlot, old: Instance, retirement: _Attempt) -> None:
        """Wait for the last lease, then close. Past the drain timeout the wait goes on, as a leak that is reported."""
        try:
            with anyio.move_on_after(self.timeouts.drain_timeout):
                await old.wait_idle()
            if old.leases:
                text = (
                    f"{old.leases} leases are still held after {self.timeouts.drain_timeout:g} s; closed when they end"
                )
                self._leak(live, old, text)
                retirement.text = f"{old.provider}: {text}"
                retirement.done.set()
                await old.wait_idle()
                live.leaked -= 1
            complaint = await self._dispose(live, old)
            if complaint:
                live.last_error = f"cleanup of {old.provider}: {complaint}"
                retirement.text = f"{old.provider}: cleanup failed: {complaint}"
        finally:
            retirement.done.set()

    def _leak(self, live: LiveSlot, instance: Instance, text: str) -> None:
        live.leaked += 1
        names = _names(live, instance.provider)
        self._emit("instance-leaked", **names, instance_id=instance.identifier, leases=instance.leases, error=text)

    async def _dispose(self, live: LiveSlot, instance: Instance, *, timeout: float | None = None) -> str:
        """Close *instance* and report it; return "" or what went wrong. It is never closed twice."""
        if instance.closed is not None:
            await instance.closed.wait()
            return ""
        instance.closed = anyio.Event()
        names = {**_names(live, instance.provider), "instance_id": instance.identifier}
        self._emit("cleanup-started", **names)
        started = anyio.current_time()
        limit = self.timeouts.cleanup_timeout if timeout is None else timeout
        complaint = ""
        with anyio.CancelScope(shield=True):  # cut short, it would keep those who wait for `closed` waiting for ever
            complaint = self._scrub(await factory.close(instance.value, calls=self.calls, timeout=limit))
        self._open.discard(instance)
        instance.closed.set()
        if complaint:
            self._emit("cleanup-failed", **names, error=complaint)
        else:
            milliseconds = round((anyio.current_time() - started) * 1000, 3)
            self._emit("cleanup-complete", **names, duration_ms=milliseconds)
        return complaint

    async def _close_late(self, live: LiveSlot, provider: str, value: Any) -> None:
        """Close what a factory delivered after its time was up."""
        names = {**_names(live, provider), "instance_id": f"{live.slot}#late"}
        self._emit("cleanup-started", **names)
        complaint = await factory.close(value, calls=self.calls, timeout=self.timeouts.cleanup_timeout)
        if complaint:
            self._emit("cleanup-failed", **names, error=complaint)
        else:
            self._emit("cleanup-complete", **names, duration_ms=0.0)

    # Operators

    async def probe(self, slot: Slot[Any]) -> Health | None:
        """Ask the live instance of *slot* whether it is healthy; None when it has none."""
        live = self.slots.get(slot)
        if live is None or live.current is None:
            return None
        instance = live.current
        said = await factory.probe(instance.value, calls=self.calls, timeout=self.timeouts.health_timeout)
        complaint = self._scrub(said)
        health = Health(self._now(), complaint)
        if live.current is instance:
            live.health = health
        if complaint:
            self._emit("health-check-failed", **_names(live, instance.provider), error=complaint)
        return health

    async def drain(self, slot: Slot[Any]) -> DrainReport:
        """Wait for the last lease on *slot*, which must not admit new ones, for at most the drain timeout."""
        with anyio.move_on_after(self.timeouts.drain_timeout):
            for instance in [i for i in self._open if i.build.candidate.slot == slot]:
                await instance.wait_idle()
        leases = self._leases(slot)
        return DrainReport(slot, drained=not leases, leases=leases)

    def _leases(self, slot: Slot[Any]) -> int:
        """Return how many leases there are on *slot*, those on instances already swapped away included."""
        return sum(instance.leases for instance in self._open if instance.build.candidate.slot == slot)

    async def aclose(self) -> int:
        """Stop every slot, drain and close every instance; return how many could not be closed.

        Services before adapters, for they call them. Bounded by one drain and one cleanup timeout for all together.
        """
        self._closing = True
        for attempt in tuple(self._attempts):
            attempt.scope.cancel()
        for attempt in tuple(self._attempts):
            await attempt.done.wait()
        begun = anyio.current_time()
        drain_until = begun + self.timeouts.drain_timeout
        close_until = drain_until + self.timeouts.cleanup_timeout
        unclosed = 0
        for domain in reversed(tuple(DOMAINS)):
            stage = [live for live in self.slots.values() if live.slot.domain == domain]
            for live in stage:
                live.step(Step.STOP)
                live.serving = None
            instances = [(live, i) for live in stage for i in self._open if i.build.candidate.slot == live.slot]
            results: list[str] = []
            async with anyio.create_task_group() as closing:
                for live, instance in instances:
                    closing.start_soon(self._shut, live, instance, drain_until, close_until, results)
            for live in stage:
                live.current = None
            unclosed += sum(bool(result) for result in results)
        settle_until = min(close_until, anyio.current_time() + self.timeouts.cleanup_timeout)
        return unclosed + await self.calls.settle(until=settle_until)

    async def _shut(
        self, live: LiveSlot, instance: Instance, drain_until: float, close_until: float, results: list[str]
    ) -> None:
        with anyio.move_on_at(drain_until):
            await instance.wait_idle()
        if instance.leases:
            self._leak(
                live, instance, f"{instance.leases} leases are held while the runtime closes; closed all the same"
            )
        remaining = max(1.0, close_until - anyio.current_time())
        results.append(await self._dispose(live, instance, timeout=min(remaining, self.timeouts.cleanup_timeout)))


class _Attempt:
    """Something under way that others wait for."""

    __slots__ = ("done", "error", "report", "scope", "text")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.scope = anyio.CancelScope()
        self.report: SwapReport | None = None
        self.error: OneiricError | None = None
        self.text = ""

    def result(self) -> SwapReport:
        """Return the report or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.report is not None  # noqa: S101 - set before `done`
        return self.report


def _names(live: LiveSlot, provider: str) -> dict[str, str]:
    return {"domain": live.slot.domain, "key": live.slot.key, "provider": provider}


def _failure_text(live: LiveSlot, error: ActivationError, provider: str, disposal: str) -> str:
    serving = f"{live.current.provider} still serves" if live.current is not None else "nothing serves"
    parts = [f"{live.slot}: {provider} did not take over ({error.reason}): {error.message}", serving]
    return "; ".join([*parts, *([f"its cleanup failed: {disposal}"] if disposal else [])])
