"""Exclusive parts: the old one is closed before its successor is built, and callers wait for the gap to pass."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from oneiric import Runtime, SwapFailedError
from oneiric.core.states import Activity
from oneiric.errors import OneiricError, SlotUnavailableError
from oneiric.testing import PART, Events, Part, Workshop, answer, fail, hang, virtual_clock
from tests.harness.slots import running, settings_of, settle, use_once

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", virtual_clock()], ids=["asyncio", "trio"])
CALLERS = 1000
STEPS = 60


async def second() -> None:
    await anyio.sleep(1)


@pytest.fixture
def sole() -> type[Part]:
    """A kind of part of which there may be one; building another raises."""

    class Sole(Part):
        there: list[Any] = []

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            if self.there:
                raise OSError(f"address in use by {self.there}")
            self.there.append(self)

        async def aclose(self) -> None:
            await super().aclose()
            self.there.remove(self)

    return Sole


def two(workshop: Workshop, sole: type[Part], **of_b: Any) -> list[Any]:
    """Two that own the same thing; a is chosen."""
    return [
        workshop.candidate("a", exclusive=True, kind=sole, build=second, priority=1),
        workshop.candidate("b", **{"exclusive": True, "kind": sole, "build": second, **of_b}),
    ]


async def hold(runtime: Runtime, seconds: float, *, task_status: Any) -> None:
    async with runtime.use(PART) as part:
        task_status.started(part)
        await anyio.sleep(seconds)
        await part.work()


async def fail_to_swap(runtime: Runtime, provider: str = "b") -> SwapFailedError:
    with pytest.raises(SwapFailedError) as caught:
        await runtime.swap(PART, provider=provider)
    return caught.value


# Never two


async def test_old_instance_is_closed_before_its_successor_is_built(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with opened(*two(workshop, sole)) as runtime:
        for provider in "abab":
            await runtime.swap(PART, provider=provider)
        assert [part.closed for part in workshop.built] == [1, 1, 1, 0]
    workshop.require_closed_once()


async def test_old_instance_is_closed_before_the_same_is_built_with_new_settings(
    workshop: Workshop, events: Events, sole: type[Part]
) -> None:
    async with running(settings_of(), events, *two(workshop, sole)) as runtime:
        await runtime.swap(PART)
        await runtime.apply(settings_of(provider_settings={"a": {"port": 2}}))
        async with runtime.use(PART) as part:
            assert part.settings == {"port": 2}


async def test_successor_waits_for_the_cleanup_of_the_old_instance(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    candidates = [workshop.candidate("a", exclusive=True, cleanup=second), workshop.candidate("b")]
    async with opened(*candidates) as runtime:
        await runtime.swap(PART, provider="a")
        report = await runtime.swap(PART, provider="b")
    assert report.duration == 1.0


async def test_new_instance_that_moved_and_failed_is_closed_before_the_old_one_is_built_again(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async def refuse(_notice: Any) -> None:
        raise ValueError("no")

    async with opened(*two(workshop, sole)) as runtime:
        await runtime.swap(PART)
        runtime.on_swap(PART, after=refuse)
        await fail_to_swap(runtime)
        assert await use_once(runtime, PART) == "a"


async def test_new_instance_that_moved_and_failed_is_waited_for_while_it_is_held(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with anyio.create_task_group() as callers, opened(*two(workshop, sole)) as runtime:
        await runtime.swap(PART)

        async def refuse(_notice: Any) -> None:
            await callers.start(hold, runtime, 10.0)
            raise ValueError("no")

        runtime.on_swap(PART, after=refuse)
        await fail_to_swap(runtime)
        assert await use_once(runtime, PART) == "a"


async def test_exclusive_one_that_was_rolled_back_and_is_held_is_waited_for(
    workshop: Workshop, events: Events, sole: type[Part]
) -> None:
    well = True

    async def health() -> bool:
        return well

    plain, new = workshop.candidate("a", priority=1), two(workshop, sole, health=health)[1]
    async with anyio.create_task_group() as callers, running(settings_of({"soak": 60}), events, plain, new) as runtime:
        await runtime.swap(PART)
        await runtime.swap(PART, provider="b")
        await callers.start(hold, runtime, 50.0)
        well = False
        await anyio.sleep(30)  # rolled back, still held
        well = True
        await runtime.swap(PART, provider="b")
        assert await use_once(runtime, PART) == "b"


async def test_rehearsal_is_refused_with_a_remedy(opened: Any, workshop: Workshop, sole: type[Part]) -> None:
    async with opened(*two(workshop, sole)) as runtime:
        await runtime.swap(PART)
        with pytest.raises(OneiricError, match="a is exclusive, so another one cannot be tried beside it") as caught:
            await runtime.swap(PART, provider="b", dry_run=True)
        assert caught.value.hint == "swap without --dry-run: a is built again if b fails"
        assert (runtime.snapshot().record(PART).outcomes, len(workshop.built)) == ({"success": 1}, 1)


async def test_rehearsal_of_an_exclusive_one_beside_another_is_done(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with opened(workshop.candidate("a", priority=1), two(workshop, sole)[1]) as runtime:
        await runtime.swap(PART)
        report = await runtime.swap(PART, provider="b", dry_run=True)
        assert (report.dry_run, await use_once(runtime, PART)) == (True, "a")


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
    b = workshop.candidate("b", build=second, health=answer(False))
    settings = settings_of(selections={"part": "a"}, failure_threshold=1, health_interval=10.0)
    async with running(settings, events, a, b) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, skip_health=True)
        await anyio.sleep(12)
        assert "candidate-quarantined" in events  # so nobody may fill the slot, and a serves on
        tasks.start_soon(fail_to_swap, runtime)
        await anyio.sleep(0.5)
        tasks.start_soon(call, runtime)
    assert errors == []


# Failures


async def test_old_instance_is_built_again_when_its_successor_is_unhealthy(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with opened(*two(workshop, sole, health=answer(False))) as runtime:
        await runtime.swap(PART)
        failure = await fail_to_swap(runtime)
        record = runtime.snapshot().record(PART)
        assert (await use_once(runtime, PART), len(workshop.by("a"))) == ("a", 2)
        assert (failure.rolled_back, record.outcomes) == (True, {"success": 1, "rollback": 1})


async def test_old_instance_is_built_again_when_its_successor_cannot_be_built(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with opened(*two(workshop, sole, build=fail(OSError("no")))) as runtime:
        await runtime.swap(PART)
        failure = await fail_to_swap(runtime)
        assert await use_once(runtime, PART) == "a"
        assert str(failure).endswith("factory oneiric.testing:factory_of_b); a still serves")


async def test_old_instance_that_is_built_again_has_the_settings_it_had(
    workshop: Workshop, events: Events, sole: type[Part]
) -> None:
    settings = settings_of(provider_settings={"a": {"port": 1}})
    async with running(settings, events, *two(workshop, sole, health=answer(False))) as runtime:
        await runtime.swap(PART)
        await fail_to_swap(runtime)
        async with runtime.use(PART) as part:
            assert part.settings == {"port": 1}


async def test_failed_swap_pins_nothing_and_reports_who_serves_again(
    opened: Any, workshop: Workshop, events: Events, sole: type[Part]
) -> None:
    async with opened(*two(workshop, sole, health=answer(False))) as runtime:
        await runtime.swap(PART)
        await fail_to_swap(runtime)
        assert runtime.snapshot().record(PART).pin is None
    assert [(event["provider"], event["failed_provider"]) for event in events.named("swap-rollback")] == [("a", "b")]


def brittle(workshop: Workshop, sole: type[Part], **how: Any) -> list[Any]:
    """As two, but a fails after its first time as told, and b always does."""
    times = {"build": 0, "health": 0}

    def first_well(name: str) -> Any:
        async def behave() -> Any:
            times[name] += 1
            return await how[name]() if times[name] > 1 and name in how else (True if name == "health" else None)

        return behave

    return [
        workshop.candidate(
            "a", exclusive=True, kind=sole, priority=1, build=first_well("build"), health=first_well("health")
        ),
        workshop.candidate("b", exclusive=True, kind=sole, build=second, health=answer(False)),
    ]


BRITTLE = {
    "cannot be built": {"build": fail(OSError("gone"))},
    "is unhealthy": {"health": answer(False)},
    "hangs": {"build": hang},
}


@pytest.mark.parametrize("how", BRITTLE.values(), ids=BRITTLE)
async def test_slot_is_failed_when_neither_can_serve(
    how: Any, opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with opened(*brittle(workshop, sole, **how)) as runtime:
        await runtime.swap(PART)
        failure = await fail_to_swap(runtime)
        record = runtime.snapshot().record(PART)
        assert (record.state, record.provider, record.outcomes) == ("failed", "", {"success": 1, "failed": 1})
        assert not failure.rolled_back
        assert "nothing serves; a could not be built again: " in str(failure)


@pytest.mark.parametrize("how", BRITTLE.values(), ids=BRITTLE)
async def test_nothing_stays_open_when_neither_can_serve(
    how: Any, opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    async with opened(*brittle(workshop, sole, **how)) as runtime:
        await runtime.swap(PART)
        await fail_to_swap(runtime)
        assert workshop.open == []
    workshop.require_closed_once()


async def test_next_use_tries_again_when_neither_could_serve(opened: Any, workshop: Workshop, sole: type[Part]) -> None:
    answers = iter([True, False, True])

    async def health() -> bool:
        return next(answers)

    a = workshop.candidate("a", exclusive=True, kind=sole, priority=1, health=health)
    async with opened(a, two(workshop, sole, health=answer(False))[1]) as runtime:
        await runtime.swap(PART)
        await fail_to_swap(runtime)
        assert await use_once(runtime, PART) == "a"


async def test_caller_in_the_gap_tries_again_when_neither_could_serve(
    opened: Any, workshop: Workshop, sole: type[Part]
) -> None:
    answers = iter([True, False, True])
    served = []

    async def health() -> bool:
        return next(answers)

    async def call(runtime: Runtime) -> None:
        served.append(await use_once(runtime, PART))

    a = workshop.candidate("a", exclusive=True, kind=sole, priority=1, health=health)
    async with opened(a, two(workshop, sole, health=answer(False))[1]) as runtime:
        await runtime.swap(PART)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail_to_swap, runtime)
            await anyio.sleep(0.5)
            tasks.start_soon(call, runtime)
    assert served == ["a"]


async def test_cleanup_that_fails_in_the_gap_is_told_in_the_report(opened: Any, workshop: Workshop) -> None:
    messy = workshop.candidate("a", exclusive=True, priority=1, cleanup=fail(OSError("stuck")))
    async with opened(messy, workshop.candidate("b")) as runtime:
        await runtime.swap(PART)
        report = await runtime.swap(PART, provider="b")
        assert report.cleanup_error == "a: cleanup failed: OSError: stuck"
        assert runtime.snapshot().record(PART).last_error == "after the swap: a: cleanup failed: OSError: stuck"


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
        assert "a is exclusive and 1 leases are still held after 5 s" in str(failure)
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


# Cancellation


async def step_by_step() -> None:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


@BOTH
@pytest.mark.parametrize("turns", range(0, STEPS, 2))
async def test_program_cancelled_at_any_turn_of_an_exclusive_swap_closes_everything_once(
    turns: int, anyio_backend: Any, workshop: Workshop, events: Events, sole: type[Part]
) -> None:
    slowly = {"exclusive": True, "kind": sole, "build": step_by_step, "cleanup": step_by_step}

    async def program(*, task_status: Any) -> None:
        candidates = [workshop.candidate(name, **slowly) for name in "ab"]
        async with running(settings_of(), events, *candidates) as runtime:
            await runtime.swap(PART, provider="a")
            task_status.started()
            while True:
                for provider in "ba":
                    await runtime.swap(PART, provider=provider)

    async with anyio.create_task_group() as tasks:
        await tasks.start(program)
        await settle(turns)
        tasks.cancel_scope.cancel()
    workshop.require_closed_once()
