"""The circuit breaker: who goes, who is refused, and what is remembered."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from oneiric.core.breaker import Breaker, BreakerState, Permit
from oneiric.testing import virtual_clock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=60)


def failing(times: int, breaker: Breaker | None = None, *, now: datetime = NOW) -> Breaker:
    """Return a breaker after so many failures in a row."""
    breaker = breaker or Breaker()
    for _ in range(times):
        breaker, permit = breaker.ask(now, force=True)
        breaker = breaker.failed(now, permit)
    return breaker


def test_breaker_stays_closed_below_the_threshold() -> None:
    assert failing(2).state(NOW) is BreakerState.CLOSED


def test_breaker_opens_at_the_threshold() -> None:
    assert failing(3).state(NOW) is BreakerState.OPEN


def test_breaker_success_in_between_starts_the_count_again() -> None:
    assert failing(2, failing(2).succeeded()).state(NOW) is BreakerState.CLOSED


def test_open_breaker_refuses_until_the_reset_timeout() -> None:
    assert failing(3).ask(LATER - timedelta(microseconds=1))[1] is Permit.REFUSED


def test_open_breaker_says_how_long_it_waits() -> None:
    assert failing(3).wait(NOW + timedelta(seconds=18)) == 42.0


def test_breaker_is_half_open_after_the_reset_timeout() -> None:
    assert failing(3).state(LATER) is BreakerState.HALF_OPEN


@given(callers=st.integers(2, 200))
def test_half_open_breaker_lets_exactly_one_of_many_callers_through(callers: int) -> None:
    breaker, permits = failing(3), []
    for _ in range(callers):
        breaker, permit = breaker.ask(LATER)
        permits.append(permit)
    assert permits == [Permit.PROBE] + [Permit.REFUSED] * (callers - 1)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [virtual_clock()], ids=["virtual"])
async def test_half_open_breaker_lets_one_of_a_hundred_waiting_callers_through() -> None:
    breaker, gone, opened = failing(3), [], anyio.Event()

    async def caller() -> None:
        nonlocal breaker
        await opened.wait()
        breaker, permit = breaker.ask(LATER)
        if permit.is_granted:
            gone.append(permit)
            await anyio.sleep(10)

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(caller)
        await anyio.wait_all_tasks_blocked()
        opened.set()
    assert gone == [Permit.PROBE]


def test_probe_that_succeeds_closes_the_breaker() -> None:
    assert failing(3).ask(LATER)[0].succeeded() == Breaker()


def test_probe_that_fails_starts_the_wait_again() -> None:
    breaker, permit = failing(3).ask(LATER)
    assert breaker.failed(LATER, permit).wait(LATER) == 60.0


def test_probe_that_was_cancelled_does_not_count() -> None:
    breaker, permit = failing(3).ask(LATER)
    assert breaker.withdrawn(permit) == failing(3)


def test_probe_that_was_cancelled_makes_room_for_the_next() -> None:
    breaker, permit = failing(3).ask(LATER)
    assert breaker.withdrawn(permit).ask(LATER)[1] is Permit.PROBE


def test_forced_call_passes_an_open_breaker() -> None:
    assert failing(3).ask(NOW, force=True)[1] is Permit.FORCED


def test_forced_call_that_is_cancelled_leaves_the_probe_alone() -> None:
    breaker, _ = failing(3).ask(LATER)
    assert breaker.withdrawn(Permit.FORCED).is_probing


def test_forced_call_that_succeeds_closes_the_breaker() -> None:
    assert failing(3).ask(NOW, force=True)[0].succeeded().state(NOW) is BreakerState.CLOSED


def test_late_failure_of_an_early_call_does_not_lengthen_the_wait() -> None:
    later = NOW + timedelta(seconds=59)
    assert failing(3).failed(later, Permit.CALL).wait(later) == 1.0


def test_late_failure_of_an_early_call_does_not_let_a_second_probe_through() -> None:
    breaker, _ = failing(3).ask(LATER)
    assert breaker.failed(LATER, Permit.CALL).ask(LATER)[1] is Permit.REFUSED


def test_clock_set_back_does_not_lengthen_the_wait() -> None:
    assert failing(3).wait(NOW - timedelta(days=1)) == 0.0


@given(failures=st.integers(0, 50))
def test_restart_keeps_the_count(failures: int) -> None:
    assert failing(failures).restarted().failures == failures


def test_restart_of_an_open_breaker_lets_one_caller_try_at_once() -> None:
    breaker, first = failing(3).restarted().ask(NOW)
    assert (first, breaker.ask(NOW)[1]) == (Permit.PROBE, Permit.REFUSED)


@given(failures=st.integers(0, 50), threshold=st.integers(1, 10), timeout=st.floats(0.1, 86_400))
def test_record_gives_the_same_breaker_back(failures: int, threshold: int, timeout: float) -> None:
    breaker = failing(failures, Breaker(failure_threshold=threshold, reset_timeout=timeout))
    record = json.loads(json.dumps(breaker.to_record()))
    assert Breaker.from_record(record, failure_threshold=threshold, reset_timeout=timeout) == breaker


def test_record_does_not_keep_a_probe_that_its_process_took_along() -> None:
    breaker, _ = failing(3).ask(LATER)
    assert Breaker.from_record(breaker.to_record()).ask(LATER)[1] is Permit.PROBE


JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@given(record=st.dictionaries(st.sampled_from(["failures", "opened_at", "other"]), JSON))
def test_record_that_is_damaged_gives_a_breaker_that_works(record: dict[str, Any]) -> None:
    breaker = Breaker.from_record(record)
    assert breaker.ask(NOW, force=True)[1].is_granted


def test_record_with_an_instant_of_no_zone_gives_a_breaker_that_may_try() -> None:
    assert Breaker.from_record({"failures": 3, "opened_at": "2026-01-01T00:00:00"}).ask(NOW)[1] is Permit.PROBE


class AgainstTheRules(RuleBasedStateMachine):
    """Random callers against the breaker, compared with the rules kept as plain facts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.breaker = Breaker()
        self.in_a_row = 0
        self.open: list[Permit] = []

    @rule(seconds=st.sampled_from([1, 30, 59, 60, 61]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(force=st.booleans())
    def ask(self, force: bool) -> None:
        before = self.breaker.state(self.now)
        self.breaker, permit = self.breaker.ask(self.now, force=force)
        assert permit.is_granted or before is not BreakerState.CLOSED
        assert permit.is_granted or not force
        if permit.is_granted:
            self.open.append(permit)

    @rule(data=st.data(), outcome=st.sampled_from(["succeeded", "failed", "withdrawn"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        if not self.open:
            return
        permit = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        if outcome == "succeeded":
            self.breaker, self.in_a_row = self.breaker.succeeded(), 0
        elif outcome == "failed":
            self.breaker, self.in_a_row = self.breaker.failed(self.now, permit), self.in_a_row + 1
        else:
            self.breaker = self.breaker.withdrawn(permit)

    @rule()
    def restart(self) -> None:
        self.breaker, self.open = Breaker.from_record(self.breaker.to_record()).restarted(), []

    @invariant()
    def count_is_true(self) -> None:
        assert self.breaker.failures == self.in_a_row

    @invariant()
    def one_probe_is_under_way_at_most_between_two_successes(self) -> None:
        assert not self.breaker.is_probing or Permit.PROBE in self.open

    @invariant()
    def wait_is_bounded(self) -> None:
        assert 0.0 <= self.breaker.wait(self.now) <= 60.0


TestAgainstTheRules = AgainstTheRules.TestCase
