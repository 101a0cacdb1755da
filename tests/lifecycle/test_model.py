"""One slot against a simple model, whatever is asked in whatever order; and proof that the model notices mistakes."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import anyio
import pytest
import trio
from anyio.from_thread import start_blocking_portal
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from oneiric import Runtime
from oneiric.core.states import Activity
from oneiric.errors import OneiricError, SlotUnavailableError
from oneiric.lifecycle.exchange import Exchange
from oneiric.lifecycle.instances import Instances
from oneiric.lifecycle.live import Instance
from oneiric.testing import PART, Events, Part, Workshop, answer, bare_settings, fail, hang, swallow

LONG = 30.0  # longer than all timeouts below together
TIMEOUTS = {"activation_timeout": 2.0, "health_timeout": 2.0, "cleanup_timeout": 2.0, "drain_timeout": 5.0}


async def late() -> None:
    """Take longer than the activation timeout, whoever cancels."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(6)


PROVIDERS: dict[str, dict[str, Any]] = {
    "good": {"priority": 10},
    "spare": {"priority": 9},
    "messy": {"cleanup": fail(OSError("stuck"))},
    "stuck": {"cleanup": hang},
    "sick": {"health": answer(False)},
    "mute": {"health": hang},
    "sick-and-messy": {"health": fail(ValueError("ill")), "cleanup": fail(OSError("stuck"))},
    "unbuildable": {"build": fail(SystemExit(1))},
    "slow": {"build": hang},
    "deaf": {"build": swallow},
    "late": {"build": late},
}
SERVING = {"good", "spare", "messy", "stuck"}
BUILT = SERVING | {"sick", "mute", "sick-and-messy"}


class OneSlot(RuleBasedStateMachine):
    """What an operator and callers may do with a slot, and what the model says has to come of it."""

    engine: ClassVar[type[Any] | None] = None

    @initialize()
    def open(self) -> None:
        self.current, self.pin, self.activity = "", "", Activity.OPEN
        self.outcomes: Counter[str] = Counter()
        self.leases: list[tuple[Part, anyio.Event]] = []
        self.events, self.workshop = Events(), Workshop()
        self.clock = trio.testing.MockClock()
        self.exits = ExitStack()
        self.portal = self.exits.enter_context(start_blocking_portal("trio", {"clock": self.clock}))
        self.life = self.ask(self.live)
        while not hasattr(self, "runtime"):  # reading the plugins takes a thread
            self.portal.call(trio.testing.wait_all_tasks_blocked)
        for part in (self.runtime._manager.instances, self.runtime._manager._exchange):
            if self.engine is not None and issubclass(self.engine, type(part)):
                part.__class__ = self.engine
        self.runtime.register(*(self.workshop.candidate(name, **told) for name, told in PROVIDERS.items()))

    def teardown(self) -> None:
        with self.exits:
            for _, release in self.leases:
                self.portal.call(release.set)
            self.portal.call(self.stop.set)
            self.done(self.life, 2 * LONG)
        self.workshop.require_closed_once()

    # The world

    async def live(self) -> None:
        self.stop = anyio.Event()
        async with Runtime.open(bare_settings(**TIMEOUTS), sink=self.events, environ={}) as self.runtime:
            await self.stop.wait()

    def pass_time(self, seconds: float) -> None:
        async def passing() -> None:
            left = seconds
            while left > 0:
                await trio.testing.wait_all_tasks_blocked()
                step = min(left, max(trio.lowlevel.current_statistics().seconds_to_next_deadline, 0.0))
                self.clock.jump(step)
                left -= step
            await trio.testing.wait_all_tasks_blocked()

        self.portal.call(passing)

    def done(self, future: Future[Any], seconds: float = LONG) -> Any:
        self.pass_time(seconds)
        assert future.done(), "nothing may take longer than its bounds"
        return None if isinstance(future.exception(), OneiricError) else future.result()

    def ask(self, function: Any, *arguments: Any, **named: Any) -> Future[Any]:
        asked = self.portal.start_task_soon(partial(function, *arguments, **named))
        self.portal.call(trio.testing.wait_all_tasks_blocked)
        return asked

    async def hold(self, entered: list[tuple[Part, anyio.Event]]) -> None:
        release = anyio.Event()
        async with self.runtime.use(PART) as part:
            entered.append((part, release))
            await release.wait()
            await part.work()

    def serving(self) -> list[Part]:
        live = self.runtime._live.get(PART)
        return [live.current.value] if live is not None and live.current is not None else []

    # The model

    def expect_swap(self, provider: str, *, pin: bool) -> None:
        if provider in SERVING:
            self.outcomes["success"] += self.current != provider
            self.current = provider
            self.pin = provider if pin else self.pin
        else:
            self.outcomes["rollback" if provider in BUILT and self.current else "failed"] += 1

    # What may happen

    @rule(provider=st.sampled_from(list(PROVIDERS)), force=st.booleans())
    def swap(self, provider: str, force: bool) -> None:
        self.done(self.ask(self.runtime.swap, PART, provider=provider, force=force))
        self.expect_swap(provider, pin=True)

    @rule(providers=st.lists(st.sampled_from(list(PROVIDERS)), min_size=2, max_size=4))
    def swap_at_once(self, providers: list[str]) -> None:
        begun: list[str] = []
        waiting = ""
        asked: list[Future[Any]] = []
        for provider in providers:
            live = self.runtime._live.get(PART)
            is_free = live is None or not live.queue.working
            asked.append(self.ask(self.runtime.swap, PART, provider=provider))
            if is_free:
                begun.append(provider)
            else:  # takes the place of whoever waited
                waiting = provider
        for future in asked:
            self.done(future)
        for provider in filter(None, (*begun, waiting)):
            self.expect_swap(provider, pin=True)

    @rule(provider=st.sampled_from(list(PROVIDERS)))
    def rehearse(self, provider: str) -> None:
        self.done(self.ask(self.runtime.swap, PART, provider=provider, dry_run=True))

    @rule(provider=st.sampled_from(list(PROVIDERS)), wait=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    def swap_and_stop_waiting(self, provider: str, wait: float) -> None:
        asked = self.ask(self.runtime.swap, PART, provider=provider)
        self.pass_time(wait)
        asked.cancel()
        self.pass_time(LONG)
        self.expect_swap(provider, pin=True)

    @rule(callers=st.integers(1, 3))
    def use(self, callers: int) -> None:
        entered: list[tuple[Part, anyio.Event]] = []
        asked = [self.ask(self.hold, entered) for _ in range(callers)]
        self.pass_time(LONG)
        if self.activity is not Activity.OPEN:
            assert all(isinstance(future.exception(0), SlotUnavailableError) for future in asked)
            return
        if not self.current:
            self.expect_swap(self.pin or "good", pin=False)
        assert [part.provider for part, _ in entered] == [self.current] * callers
        self.leases += entered

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        _, release = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        self.portal.call(release.set)
        self.pass_time(LONG)

    @rule(activity=st.sampled_from([Activity.PAUSED, Activity.OPEN, Activity.OPEN]))
    def admit(self, activity: Activity) -> None:
        self.done(self.ask(self.runtime.set_activity, PART, activity))
        self.activity = activity

    @rule()
    def drain(self) -> None:
        report, _ = self.done(self.ask(self.runtime.drain, PART))
        self.activity = Activity.DRAINING
        assert (report.drained, report.leases) == (not self.leases, len(self.leases))

    @rule()
    def unpin(self) -> None:
        self.done(self.ask(self.runtime.unpin, PART))
        if self.pin and self.current:
            self.expect_swap("good", pin=False)
        self.pin = ""

    # What always holds

    @invariant()
    def no_lease_sees_a_closed_instance(self) -> None:
        assert not [part for part, _ in self.leases if part.closed]

    @invariant()
    def what_serves_is_what_was_asked_for_and_open(self) -> None:
        record = self.runtime.snapshot().record(PART)
        assert (record.provider, record.pin.provider if record.pin else "") == (self.current, self.pin)
        assert [part.closed for part in self.serving()] == ([0] if self.current else [])

    @invariant()
    def everything_else_is_closed_once_or_held(self) -> None:
        expected = {id(part) for part in self.serving()} | {id(part) for part, _ in self.leases}
        assert {id(part) for part in self.workshop.open} == expected
        assert max((part.closed for part in self.workshop.built), default=0) <= 1

    @invariant()
    def every_attempt_has_one_outcome(self) -> None:
        record = self.runtime.snapshot().record(PART)
        assert Counter(record.outcomes) == +self.outcomes
        counted = Counter({"success": len(self.events.named("instance-activated"))})
        counted["rollback"] = len(self.events.named("swap-rollback"))
        counted["failed"] = len(self.events.named("swap-failed")) - counted["rollback"]
        assert +counted == +self.outcomes

    @invariant()
    def leases_and_leaks_are_counted(self) -> None:
        record = self.runtime.snapshot().record(PART)
        held = Counter(id(part) for part, _ in self.leases)
        serving = {id(part) for part in self.serving()}
        assert record.leases == sum(held[part] for part in serving)
        assert sum(leak.kind == "held" for leak in record.leaks) == len(held.keys() - serving)


class TestOneSlot(OneSlot.TestCase):  # type: ignore[name-defined, misc]
    """The engine obeys the model."""

    settings = settings(max_examples=40, stateful_step_count=25)


class ClosesAtOnce(Instances):
    """Closes the old instance without waiting for its leases."""

    async def retire(self, instance: Instance, **named: Any) -> None:
        await self.dispose(instance)


class NeverCloses(Instances):
    """Forgets the old instance."""

    async def retire(self, instance: Instance, **named: Any) -> None:
        return


class ClosesTwice(Instances):
    """Closes an instance again when it is asked again."""

    async def dispose(self, instance: Instance, *, timeout: float | None = None) -> str:
        await instance.value.aclose() if instance.provider == "good" else None
        return await super().dispose(instance, timeout=timeout)


class AsksNobody(Instances):
    """Takes every instance, healthy or not."""

    async def complaint_of(self, instance: Instance) -> str:
        return ""


class LosesWhatArrivesLate(Instances):
    """Forgets what a factory delivers after its timeout."""

    async def _close_late(self, slot: Any, provider: str, value: Any) -> None:
        return


class CountsTwice(Exchange):
    """Counts a success twice."""

    def _commit(self, move: Any, health: Any) -> None:
        super()._commit(move, health)
        move.live.outcomes["success"] += 1


class GivesUpTheOldOne(Exchange):
    """Takes the old instance away when the new one fails."""

    async def _give_up(self, move: Any, error: Any) -> Any:
        failed = await super()._give_up(move, error)
        move.live.point(None)
        return failed


class ForgetsLeaks(Instances):
    """Does not report an instance that is held too long."""

    def report_leak(self, instance: Instance, text: str) -> None:
        return


@pytest.mark.parametrize(
    "broken",
    [
        ClosesAtOnce,
        NeverCloses,
        ClosesTwice,
        AsksNobody,
        LosesWhatArrivesLate,
        CountsTwice,
        GivesUpTheOldOne,
        ForgetsLeaks,
    ],
)
def test_model_notices_a_broken_engine(broken: type[Any]) -> None:
    class Broken(OneSlot):
        engine = broken

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - an assertion, or a group of them
        run_state_machine_as_test(
            Broken,
            settings=settings(
                max_examples=200,
                stateful_step_count=15,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )
    assert _assertions(caught.value)


def _assertions(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_assertions(inner) for inner in error.exceptions)
    return isinstance(error, AssertionError)
