"""Exclusive parts: callers wait for the gap to pass, and a swap waits for the leases of its callers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from oneiric import Runtime
from oneiric.core.states import Activity
from oneiric.errors import OneiricError, SlotUnavailableError
from oneiric.testing import PART, Events, Part, Workshop, answer
from tests.harness.exclusive import fail_to_swap, hold, two
from tests.harness.slots import pause, running, settings_of, use_once

pytestmark = pytest.mark.anyio
CALLERS = 1000


# The gap


async def test_thousand_callers_wait_through_several_swaps_and_none_fails(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    served: dict[str, int] = {"a": 0, "b": 0}

    async def call_on(runtime: Runtime, number: int) -> None:
        await anyio.sleep(number / CALLERS)
        while True:
            served[await use_once(runtime, PART)] += 1
            await anyio.sleep(1)

    async with opened(*two(workshop, sole)) as runtime, anyio.create_task_group() as tasks:
        for number in range(CALLERS):
            tasks.start_soon(call_on, runtime, number)
        for provider in "baba":
            await anyio.sleep(2)
            await runtime.swap(PART, provider=provider)
        await anyio.sleep(2)
        tasks.cancel_scope.cancel()
    assert min(served.values()) > CALLERS


async def test_gap_is_measured_in_the_report(opened: Any, workshop: Workshop, sole: type[Part]) -> None:
    async with opened(*two(workshop, sole)) as runtime:
        await runtime.swap(PART)
        report = await runtime.swap(PART, provider="b")
    assert report.gap == 1.0
    assert str(report) == "adapter/part: a -> b in 1000.0 ms, 1000.0 ms without anybody"


async def test_gap_is_measured_in_the_event(opened: Any, workshop: Workshop, events: Events, sole: type[Part]) -> None:
    async with opened(*two(workshop, sole)) as runtime:
        await runtime.swap(PART)
        await runtime.swap(PART, provider="b")
    assert [event["gap_ms"] for event in events.named("swap-complete")] == [1000.0]


async def test_swap_from_a_part_that_is_not_exclusive_has_no_gap(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with opened(workshop.candidate("a", priority=1), two(workshop, sole)[1]) as runtime:
        await runtime.swap(PART)
        report = await runtime.swap(PART, provider="b")
    assert report.gap == 0.0


async def test_caller_in_the_gap_is_served_as_soon_as_the_successor_is_there(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    waited = []

    async def call(runtime: Runtime) -> None:
        started = anyio.current_time()
        await use_once(runtime, PART)
        waited.append(anyio.current_time() - started)

    async def dawdle(_notice: Any) -> None:
        await anyio.sleep(3)  # callers have moved by then

    async with opened(*two(workshop, sole)) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART)
        runtime.on_swap(PART, after=dawdle)
        tasks.start_soon(lambda: runtime.swap(PART, provider="b"))
        await anyio.sleep(0.5)
        tasks.start_soon(call, runtime)
    assert waited == [0.5]


async def test_caller_in_the_gap_is_refused_when_the_slot_is_paused(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async def refused(runtime: Runtime) -> None:
        with pytest.raises(SlotUnavailableError):
            await use_once(runtime, PART)
        assert anyio.current_time() == paused_at

    async with opened(*two(workshop, sole)) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART)
        tasks.start_soon(lambda: runtime.swap(PART, provider="b"))
        await anyio.sleep(0.2)
        tasks.start_soon(refused, runtime)
        await anyio.sleep(0.2)
        paused_at = anyio.current_time()
        await runtime.set_activity(PART, Activity.PAUSED)


async def test_caller_in_the_gap_is_refused_when_the_runtime_closes(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async def refused(runtime: Runtime) -> None:
        with pytest.raises(SlotUnavailableError):
            await use_once(runtime, PART)

    async def swap(runtime: Runtime) -> None:
        with pytest.raises(SlotUnavailableError):
            await runtime.swap(PART, provider="b")

    async with anyio.create_task_group() as tasks, opened(*two(workshop, sole)) as runtime:
        await runtime.swap(PART)
        tasks.start_soon(swap, runtime)
        await anyio.sleep(0.2)
        tasks.start_soon(refused, runtime)
        await anyio.sleep(0.2)
    workshop.require_closed_once()


async def test_callers_in_the_gap_move_nobody_who_is_in_quarantine(
    workshop: Workshop, events: Events, sole: type[Part]
) -> None:
    ill = iter([False, True])  # the probe before the gap, and the one of the instance that is built again

    async def health() -> bool:
        return next(ill)

    errors: list[OneiricError] = []

    async def call(runtime: Runtime) -> None:
        try:
            await use_once(runtime, PART)
        except OneiricError as error:
            errors.append(error)

    a = workshop.candidate("a", exclusive=True, health=health)
    b = workshop.candidate("b", build=pause, health=answer(False))
    settings = settings_of(selections={"part": "a"}, failure_threshold=1, health_interval=10.0)
    async with running(settings, events, a, b) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, skip_health=True)
        await anyio.sleep(12)
        assert "candidate-quarantined" in events  # so nobody may fill the slot, and a serves on
        tasks.start_soon(fail_to_swap, runtime)
        await anyio.sleep(0.5)
        tasks.start_soon(call, runtime)
    assert errors == []


# Leases


async def test_swap_waits_for_leases_before_it_closes_the_old_instance(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with anyio.create_task_group() as callers, opened(*two(workshop, sole)) as runtime:
        await runtime.swap(PART)
        await callers.start(hold, runtime, 10.0)
        report = await runtime.swap(PART, provider="b")
    assert (report.duration, report.gap) == (11.0, 1.0)


async def test_lease_held_past_the_drain_timeout_fails_the_swap_and_the_old_serves_on(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with anyio.create_task_group() as callers, opened(*two(workshop, sole), drain_timeout=5.0) as runtime:
        await runtime.swap(PART)
        part = await callers.start(hold, runtime, 8.0)
        failure = await fail_to_swap(runtime)
        assert (failure.reason, part.closed, await use_once(runtime, PART)) == ("timeout", 0, "a")
        assert "a is exclusive, with 1 lease still held after 5 s" in str(failure)
        assert failure.hint == "see who holds them: oneiric status; or raise lifecycle.drain_timeout"


async def test_swap_that_failed_over_a_held_lease_built_nothing(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with anyio.create_task_group() as callers, opened(*two(workshop, sole), drain_timeout=5.0) as runtime:
        await runtime.swap(PART)
        await callers.start(hold, runtime, 8.0)
        await fail_to_swap(runtime)
        record = runtime.snapshot().record(PART)
        assert (len(workshop.built), record.state, record.outcomes) == (1, "ready", {"success": 1, "failed": 1})


async def test_callers_who_waited_for_a_lease_held_too_long_are_served_by_the_old_instance(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    served = []

    async def call(runtime: Runtime) -> None:
        served.append(await use_once(runtime, PART))

    async with anyio.create_task_group() as callers, opened(*two(workshop, sole), drain_timeout=5.0) as runtime:
        await runtime.swap(PART)
        await callers.start(hold, runtime, 8.0)
        callers.start_soon(fail_to_swap, runtime)
        await anyio.sleep(1)
        for _ in range(10):
            callers.start_soon(call, runtime)
        await anyio.sleep(5)
        assert served == ["a"] * 10
