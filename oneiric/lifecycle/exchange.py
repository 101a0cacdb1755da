"""One exchange of what fills a slot: ``build, probe, hooks, point callers at the new one, soak | COMMIT``.

Before the commit the old instance is untouched, so rolling back is pointing at it again; after it nothing rolls back.
An old instance that is ``exclusive`` is the exception: it is stopped first, and built again when its successor fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import anyio
from anyio.abc import TaskGroup

from oneiric.core.candidate import Slot
from oneiric.core.config import SlotSettings
from oneiric.core.pulse import Pulse
from oneiric.core.states import Step
from oneiric.errors import ActivationError, OneiricError, SwapFailedError
from oneiric.lifecycle.hooks import Hooks
from oneiric.lifecycle.instances import Instances, names, still_held
from oneiric.lifecycle.live import Instance, LiveSlot
from oneiric.lifecycle.queue import Attempt
from oneiric.lifecycle.reports import Choice, Health, Outcome, SwapNotice, SwapRecord, SwapReport, SwapRequest
from oneiric.observability.logs import Emit


class _Move:
    """How far one exchange has come."""

    def __init__(self, live: LiveSlot, request: SwapRequest, choice: Choice) -> None:
        self.live = live
        self.request = request
        self.choice = choice
        self.provider = choice.build.candidate.provider
        self.old = live.current
        self.old_health = live.health
        self.previous = live.current.provider if live.current is not None else ""
        self.started = anyio.current_time()
        self.stopped_at: float | None = None  # when the old one, exclusive, was taken from callers
        self.moved_at: float | None = None
        self.fresh: Instance | None = None
        self.complaint = ""  # what went wrong when the old one, exclusive, was closed

    @property
    def duration(self) -> float:
        """Seconds until callers moved, or until now."""
        return (anyio.current_time() if self.moved_at is None else self.moved_at) - self.started

    @property
    def gap(self) -> float:
        """Seconds in which nobody served."""
        return 0.0 if self.stopped_at is None or self.moved_at is None else self.moved_at - self.stopped_at

    def report(self) -> SwapReport:
        """Return what was done so far."""
        told = self.live.slot, self.previous, self.provider, self.duration
        return SwapReport(*told, gap=self.gap, cleanup_error=self.complaint)


class Exchange:
    """Carries out what a queue hands over; the caller sees to it that a slot has one exchange at a time."""

    def __init__(
        self,
        *,
        choose: Callable[[Slot[Any], str | None], Choice],
        instances: Instances,
        hooks: Hooks,
        tasks: TaskGroup,
        emit: Emit,
        record: Callable[[SwapRecord], None],
        scrub: Callable[[str], str],
        settings: Callable[[Slot[Any]], SlotSettings],
        now: Callable[[], datetime],
    ) -> None:
        self._choose = choose
        self._instances = instances
        self._hooks = hooks
        self._tasks = tasks
        self._emit = emit
        self._record = record
        self._scrub = scrub
        self._settings = settings
        self._now = now

    def would_change(self, live: LiveSlot) -> bool:
        """Say whether following precedence would replace what serves."""
        try:
            choice = self._choose(live.slot, None)
        except OneiricError:
            return False
        return live.current is None or live.current.build.identity != choice.build.identity

    async def carry_out(self, live: LiveSlot, attempt: Attempt) -> tuple[SwapReport, Instance | None]:
        """Put in place what was asked for; return the report and the instance to retire.

        Raises NoCandidateError, ConfigError, or SwapFailedError when the new instance did not take over.
        """
        request = attempt.request
        move = _Move(live, request, self._choose(live.slot, request.provider))
        if request.dry_run:
            return await self._rehearse(move), None
        if move.old is not None and move.old.build.identity == move.choice.build.identity:
            move.old.build = move.choice.build  # its rank may have changed
            return replace(move.report(), duration=0.0, changed=False), None
        live.step(Step.BUILD)
        try:
            if move.old is not None and move.old.build.candidate.exclusive:
                await self._stop_first(move, move.old)
            health = await self._move_callers(move)
            health = await self._soak(move, attempt, health)
        except ActivationError as error:
            raise await self._give_up(move, error) from error
        except BaseException:  # the runtime closes, and with it every open instance
            live.step(Step.GIVE_UP)
            raise
        self._commit(move, health)
        return move.report(), None if move.stopped_at is not None else move.old

    # Up to the commit

    async def _move_callers(self, move: _Move) -> Health | None:
        fresh = move.fresh = await self._instances.build(move.live, move.choice)
        health = None if move.request.skip_health else await self._instances.require_health(fresh)
        notice = SwapNotice(move.live.slot, move.previous, move.provider, move.old and move.old.value, fresh.value)
        timeout = self._instances.timeouts.hook_timeout
        await self._hooks.run("before", notice, timeout=timeout)
        self._point(move.live, fresh, health)
        move.moved_at = anyio.current_time()
        await self._hooks.run("after", notice, timeout=timeout)
        return health

    def _point(self, live: LiveSlot, instance: Instance | None, health: Health | None) -> None:
        """Give callers *instance*, whose probes said *health* and begin anew."""
        live.point(instance)
        live.health = health
        live.pulse = Pulse(0, anyio.current_time() + self._instances.timeouts.health_interval)

    async def _soak(self, move: _Move, attempt: Attempt, health: Health | None) -> Health | None:
        """Keep the old instance warm for a while; raises ActivationError when the new one turns unhealthy meanwhile.

        A later decision ends the wait, and so commits this one. Who asked is answered when the wait begins. Returns
        what the last probe said, *health* if there was none.
        """
        seconds = 0.0 if move.request.skip_health else self._settings(move.live.slot).soak
        fresh, old, queue = move.fresh, move.old, move.live.queue
        if not seconds or fresh is None or old is None or move.stopped_at is not None:
            return health
        attempt.postpone(replace(move.report(), soak=seconds))
        queue.postpone(replace(move.report(), duration=0.0, changed=False))
        told = names(move.live.slot, move.provider)
        self._emit("swap-soaking", **told, previous_provider=move.previous, soak_ms=seconds * 1000)
        until = anyio.current_time() + seconds
        interval = min(self._instances.timeouts.health_interval, seconds / 4)
        try:
            while (left := until - anyio.current_time()) > 0:
                with anyio.move_on_after(min(left, interval)):
                    await queue.decided.wait()
                    break
                health = await self._instances.require_health(fresh)
        finally:
            queue.postpone(None)
        return health

    async def _stop_first(self, move: _Move, old: Instance) -> None:
        """Take an exclusive instance away before its successor is built; raises ActivationError if callers hold it."""
        limit = self._instances.timeouts.drain_timeout
        move.live.point(None)
        with anyio.move_on_after(limit):
            await old.wait_idle()
        if old.held:
            move.live.point(old)
            raise still_held(old, limit)
        move.stopped_at = anyio.current_time()
        complaint = await self._instances.dispose(old)
        move.complaint = _uncleaned(old.provider, complaint)

    async def _rehearse(self, move: _Move) -> SwapReport:
        """Build, probe and close; raises SwapFailedError when it would have failed."""
        live = move.live
        if move.old is not None and move.old.build.candidate.exclusive:
            raise OneiricError(
                f"{live.slot}: {move.previous} is exclusive, so another one cannot be tried beside it",
                hint=f"swap without --dry-run: {move.previous} is built again if {move.provider} fails",
            )
        try:
            fresh = move.fresh = await self._instances.build(live, move.choice, aside=True)
            if not move.request.skip_health:
                await self._instances.require_health(fresh)
        except ActivationError as error:
            error.message = self._scrub(error.message)
            complaint = await self._instances.dispose(move.fresh) if move.fresh is not None else ""
            raise _failure(move, error, _uncleaned(move.provider, complaint)) from error
        complaint = await self._instances.dispose(fresh)
        return replace(move.report(), dry_run=True, cleanup_error=complaint)

    # Outcomes: each attempt has exactly one

    def _commit(self, move: _Move, health: Health | None) -> None:
        live, fresh = move.live, move.fresh
        assert fresh is not None  # noqa: S101 - callers moved to it
        live.step(Step.COMMIT)
        live.health = health
        live.last_error = move.complaint and f"after the swap: {move.complaint}"
        self._tell_activated(fresh, move.duration)
        if move.previous:
            self._emit(
                "swap-complete",
                **names(live.slot, fresh.provider),
                previous_provider=move.previous,
                duration_ms=_milliseconds(move.duration),
                gap_ms=_milliseconds(move.gap),
                by=move.request.by,
            )
        self._note(move, "success", move.previous)

    async def _give_up(self, move: _Move, error: ActivationError) -> SwapFailedError:
        """Bring callers back to the old instance; return the error that says so."""
        live, fresh = move.live, move.fresh
        error.message = self._scrub(error.message)
        notes = [move.complaint]
        if move.moved_at is not None and fresh is not None:
            self._point(live, move.old if move.stopped_at is None else None, move.old_health)
            self._tasks.start_soon(self._instances.retire, fresh)  # callers may hold leases on it
        elif fresh is not None:
            notes.append(_uncleaned(move.provider, await self._instances.dispose(fresh)))
        if move.old is not None and move.stopped_at is not None:
            notes.append(await self._restore(move, move.old))
        live.step(Step.LOSE if move.old is not None and live.current is None else Step.GIVE_UP)
        serving = live.current.provider if live.current is not None else ""
        rolled_back = fresh is not None and bool(serving)
        live.last_error = f"{move.provider}: {error.message}"
        self._tell_failed(move, move.provider, error, built=fresh is not None, rolled_back=rolled_back)
        if rolled_back:
            told = names(live.slot, serving)
            self._emit("swap-rollback", **told, failed_provider=move.provider, error=error.message)
        self._note(move, "rollback" if rolled_back else "failed", serving, error)
        return _failure(move, error, *notes)

    async def _restore(self, move: _Move, old: Instance) -> str:
        """Build an exclusive instance again, an attempt of its own; return "" or why it could not be."""
        again: Instance | None = None
        begun = anyio.current_time()
        try:
            again = await self._instances.build(move.live, old.choice)
            health = await self._instances.require_health(again)
        except ActivationError as error:
            error.message = self._scrub(error.message)
            if again is not None:
                await self._instances.dispose(again)
            self._tell_failed(move, old.provider, error, built=again is not None, rolled_back=False)
            self._point(move.live, None, None)
            return f"{old.provider} could not be built again: {error.message}"
        self._tell_activated(again, anyio.current_time() - begun)
        self._point(move.live, again, health)
        return ""

    def _tell_activated(self, instance: Instance, duration: float) -> None:
        told = names(instance.slot, instance.provider)
        milliseconds = _milliseconds(duration)
        self._emit("instance-activated", **told, instance_id=instance.identifier, duration_ms=milliseconds)

    def _tell_failed(
        self, move: _Move, provider: str, error: ActivationError, *, built: bool, rolled_back: bool
    ) -> None:
        self._emit(
            "swap-failed",
            **names(move.live.slot, provider),
            error=error.message,
            reason=error.reason,
            duration_ms=_milliseconds(move.duration),
            built=built,
            rolled_back=rolled_back,
        )

    def _note(self, move: _Move, outcome: Outcome, previous: str, error: ActivationError | None = None) -> None:
        live = move.live
        reason, text = (error.reason, error.message) if error is not None else ("", "")
        record = SwapRecord(
            self._now(), live.slot, move.provider, previous, outcome, reason, text, move.duration, move.request.by
        )
        live.outcomes[outcome] += 1
        live.history.append(record)
        self._record(record)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _uncleaned(provider: str, complaint: str) -> str:
    return complaint and f"{provider}: cleanup failed: {complaint}"


def _failure(move: _Move, error: ActivationError, *notes: str) -> SwapFailedError:
    live = move.live
    serving = f"{live.current.provider} still serves" if live.current is not None else "nothing serves"
    parts = [f"{live.slot}: {move.provider} did not take over ({error.reason}): {error.message}", serving, *notes]
    return SwapFailedError(
        "; ".join(filter(None, parts)),
        reason=error.reason,
        rolled_back=move.fresh is not None and live.current is not None,
        hint=error.hint,
    )
