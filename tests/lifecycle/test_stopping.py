"""Slots that stop: paused, drained, and closed with the runtime."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from oneiric import Runtime, Slot
from oneiric.core.states import Activity
from oneiric.errors import SlotUnavailableError
from oneiric.testing import PART, Events, Workshop, bare_settings, drag, fail
from tests.harness.slots import hold, pause, use_once

pytestmark = pytest.mark.anyio


# Pause, resume, drain


async def test_paused_slot_refuses_new_leases(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        await use_once(runtime)
        await runtime.set_activity(PART, Activity.PAUSED, note="lunch")
        with pytest.raises(SlotUnavailableError, match=r"adapter/part is paused \(lunch\)"):
            await use_once(runtime)


async def test_paused_slot_keeps_its_leases_and_its_instance(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime, runtime.use(PART) as part:
        await runtime.set_activity(PART, Activity.PAUSED)
        await anyio.sleep(1000)
        assert await part.work() == "a"


async def test_resumed_slot_serves_the_same_instance(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        await use_once(runtime)
        await runtime.set_activity(PART, Activity.PAUSED)
        await runtime.set_activity(PART, Activity.OPEN)
        await use_once(runtime)
    assert len(workshop.built) == 1


async def test_swap_while_paused_is_done_and_serves_after_resume(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime:
        await runtime.swap(PART, provider="a")
        await runtime.set_activity(PART, Activity.PAUSED)
        await runtime.swap(PART, provider="b")
        with pytest.raises(SlotUnavailableError):
            await use_once(runtime)
        await runtime.set_activity(PART, Activity.OPEN)
        async with runtime.use(PART) as part:
            assert await part.work() == "b"


async def test_pause_before_the_first_use_builds_nothing(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        await runtime.set_activity(PART, Activity.PAUSED)
        with pytest.raises(SlotUnavailableError):
            await use_once(runtime)
    assert not workshop.built


async def test_caller_waiting_for_an_activation_is_refused_when_the_slot_is_paused(
    opened: Any, workshop: Workshop
) -> None:
    async with opened(workshop.candidate("a", build=pause)) as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(_refused, runtime)
        await anyio.sleep(0.5)
        await runtime.set_activity(PART, Activity.PAUSED)


async def _refused(runtime: Runtime) -> None:
    with pytest.raises(SlotUnavailableError):
        await use_once(runtime)


async def test_drain_waits_for_the_last_lease(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a")) as runtime, anyio.create_task_group() as tasks:
        await tasks.start(hold, runtime, release)
        tasks.start_soon(_after, 5, release)
        started = anyio.current_time()
        report, _ = await runtime.drain(PART)
        assert (report.drained, 5 <= anyio.current_time() - started < 6) == (True, True)


async def test_drain_waits_for_leases_on_an_instance_already_swapped_away(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        await tasks.start(hold, runtime, release)
        await runtime.swap(PART, provider="b", force=True)
        tasks.start_soon(_after, 5, release)
        started = anyio.current_time()
        report, _ = await runtime.drain(PART)
        assert (report.drained, 5 <= anyio.current_time() - started < 6) == (True, True)


async def test_drain_gives_up_at_its_timeout_and_says_how_many_are_left(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a")) as runtime, anyio.create_task_group() as tasks:
        await tasks.start(hold, runtime, release)
        report, _ = await runtime.drain(PART)
        assert (report.drained, report.leases) == (False, 1)
        release.set()


async def test_draining_slot_refuses_new_leases(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        await use_once(runtime)
        await runtime.drain(PART)
        with pytest.raises(SlotUnavailableError, match="draining"):
            await use_once(runtime)


async def _after(seconds: float, event: anyio.Event) -> None:
    await anyio.sleep(seconds)
    event.set()


# The end


async def test_close_closes_everything_once(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime:
        for provider in "abab":
            await runtime.swap(PART, provider=provider, force=True)
    workshop.require_closed_once()


async def test_close_closes_services_before_adapters(opened: Any, workshop: Workshop, events: Events) -> None:
    slots = [Slot[Any](domain, "part") for domain in ("adapter", "service", "task", "event", "workflow", "action")]
    async with opened(*(workshop.candidate("a", slot=slot, cleanup=pause) for slot in slots)) as runtime:
        for slot in slots:
            await use_once(runtime, slot)
    closed = [event["domain"] for event in events.named("cleanup-complete")]
    assert closed == ["action", "workflow", "event", "task", "service", "adapter"]


async def test_close_waits_for_leases_but_not_past_the_drain_timeout(opened: Any, workshop: Workshop) -> None:
    async with anyio.create_task_group() as tasks:
        async with opened(workshop.candidate("a", cleanup=drag)) as runtime:
            await tasks.start(hold, runtime, anyio.Event())
            started = anyio.current_time()
        assert 30 <= anyio.current_time() - started <= 41
        tasks.cancel_scope.cancel()


async def test_close_counts_what_could_not_be_closed(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", cleanup=fail(OSError("stuck")))) as runtime:
        await use_once(runtime)
    assert runtime.unclosed == 1


async def test_close_ends_an_activation_under_way(opened: Any, workshop: Workshop) -> None:
    async with anyio.create_task_group() as tasks, opened(workshop.candidate("a", build=pause)) as runtime:
        tasks.start_soon(_refused, runtime)
        await anyio.sleep(0.5)
    assert not workshop.open


async def test_use_after_close_is_refused(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        await use_once(runtime)
    with pytest.raises(SlotUnavailableError):
        await use_once(runtime)


async def test_first_use_after_close_is_refused(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        pass
    with pytest.raises(SlotUnavailableError):
        await use_once(runtime)


async def test_swap_after_close_is_refused(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        pass
    with pytest.raises(SlotUnavailableError):
        await runtime.swap(PART)


async def test_registering_after_close_is_harmless(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        await use_once(runtime)
    runtime.register(workshop.candidate("b", priority=1))
    assert len(workshop.built) == 1


async def test_cancelled_program_still_closes_everything_once(workshop: Workshop, events: Events) -> None:
    with anyio.CancelScope() as program:
        async with Runtime.open(bare_settings(), sink=events, environ={}) as runtime:
            runtime.register(workshop.candidate("a", cleanup=pause), workshop.candidate("b"))
            await runtime.swap(PART, provider="a")
            program.deadline = anyio.current_time() + 0.5
            await runtime.swap(PART, provider="b")  # cancelled while the old instance is being closed
    workshop.require_closed_once()


async def test_cancelled_program_does_not_wait_for_more_than_its_bounds(workshop: Workshop, events: Events) -> None:
    with anyio.CancelScope() as program:
        async with Runtime.open(bare_settings(), sink=events, environ={}) as runtime:
            runtime.register(workshop.candidate("a", cleanup=drag), workshop.candidate("b", build=drag))
            await runtime.swap(PART, provider="a")
            started = anyio.current_time()
            program.deadline = started + 0.5
            await runtime.swap(PART, provider="b")
    assert anyio.current_time() - started < 45


async def test_error_in_the_program_leaves_the_runtime_as_itself(workshop: Workshop) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Runtime.open(bare_settings(), environ={}):
            raise ZeroDivisionError


async def test_group_raised_by_the_program_leaves_the_runtime_as_itself() -> None:
    with pytest.raises(ExceptionGroup, match="mine") as caught:
        async with Runtime.open(bare_settings(), environ={}):
            raise ExceptionGroup("mine", [ZeroDivisionError()])
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
