"""Soaking: callers moved, the old instance stays warm, and takes over again when the new one turns unhealthy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from oneiric import Runtime, Slot, SwapFailedError
from oneiric.core.states import Activity
from oneiric.errors import SlotUnavailableError
from oneiric.lifecycle.reports import SwapReport
from oneiric.testing import PART, Events, Workshop, answer, fail, hang, virtual_clock, well
from tests.harness.simulation import without_threads
from tests.harness.slots import running, settings_of, settle, use_once

pytestmark = pytest.mark.anyio
SOAK = 60.0
SOAKING = settings_of({"soak": SOAK})
BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", virtual_clock()], ids=["asyncio", "trio"])
STEPS = 60  # more turns than a swap or a close has


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    with without_threads():
        yield


class Health:
    """Well until told otherwise."""

    def __init__(self) -> None:
        self.well = True
        self.probed = 0

    async def __call__(self) -> bool:
        self.probed += 1
        return self.well


def two(workshop: Workshop, health: Any = well, **fields: Any) -> list[Any]:
    return [workshop.candidate("a", priority=1, **fields), workshop.candidate("b", health=health)]


async def soaking(runtime: Runtime) -> SwapReport:
    """Activate a, then begin to swap to b."""
    await runtime.swap(PART)
    return await runtime.swap(PART, provider="b")


async def hold(runtime: Runtime, seconds: float, *, task_status: Any) -> None:
    async with runtime.use(PART) as part:
        task_status.started(part)
        await anyio.sleep(seconds)
        await part.work()


# While it lasts


async def test_swap_that_soaks_returns_at_once_and_says_for_how_long(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        started = anyio.current_time()
        report = await soaking(runtime)
        assert anyio.current_time() == started
    assert str(report) == "adapter/part: a -> b in 0.0 ms, back to a if unhealthy within 60 s"


async def test_callers_use_the_new_instance_while_it_soaks(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        assert await use_once(runtime, PART) == "b"


async def test_old_instance_stays_open_until_the_soak_ends(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        await anyio.sleep(SOAK - 1)
        before = workshop.by("a")[0].closed
        await anyio.sleep(2)
        assert (before, workshop.by("a")[0].closed) == (0, 1)


async def test_swap_is_committed_and_pinned_when_the_soak_ends(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        await anyio.sleep(SOAK - 1)
        before = runtime.snapshot().record(PART)
        await anyio.sleep(2)
        after = runtime.snapshot().record(PART)
    assert (before.pin, before.outcomes, before.state) == (None, {"success": 1}, "swapping")
    assert (after.pin and after.pin.provider, after.outcomes, after.state) == ("b", {"success": 2}, "ready")


async def test_soak_is_reported_once_and_not_counted_as_duration(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        await anyio.sleep(SOAK + 1)
    (soaked,), (complete,) = events.named("swap-soaking"), events.named("swap-complete")
    assert (soaked["provider"], soaked["previous_provider"], soaked["soak_ms"]) == ("b", "a", 60_000)
    assert complete["duration_ms"] < 1000


async def test_first_activation_does_not_soak(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        report = await runtime.swap(PART)
        assert (report.soak, "swap-soaking" in events, runtime.snapshot().record(PART).state) == (0.0, False, "ready")


async def test_soaking_slot_does_not_hold_up_another(workshop: Workshop, events: Events) -> None:
    other: Slot[Any] = Slot("adapter", "other")
    async with running(SOAKING, events, *two(workshop), workshop.candidate("a", slot=other)) as runtime:
        await soaking(runtime)
        started = anyio.current_time()
        await runtime.swap(other)
        assert anyio.current_time() == started


async def test_new_instance_is_probed_several_times_in_a_short_soak(workshop: Workshop, events: Events) -> None:
    health = Health()
    async with running(settings_of({"soak": 8.0}), events, *two(workshop, health)) as runtime:
        await soaking(runtime)
        before = health.probed
        await anyio.sleep(9)
        assert health.probed - before >= 3


async def test_swap_that_skips_health_does_not_soak(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop, answer(False))) as runtime:
        await runtime.swap(PART)
        await runtime.swap(PART, provider="b", skip_health=True)
        await anyio.sleep(SOAK)
        assert runtime.snapshot().record(PART).provider == "b"


# It turns unhealthy


async def unhealthy_soak(runtime: Runtime, health: Health) -> None:
    await soaking(runtime)
    health.well = False
    await anyio.sleep(SOAK)


async def test_callers_return_to_the_old_instance_when_the_new_one_turns_unhealthy(
    workshop: Workshop, events: Events
) -> None:
    health = Health()
    async with running(SOAKING, events, *two(workshop, health)) as runtime:
        await unhealthy_soak(runtime, health)
        assert await use_once(runtime, PART) == "a"
    assert len(workshop.by("a")) == 1


@pytest.mark.parametrize("ill", [answer(False), fail(OSError("gone")), hang])
async def test_soak_takes_every_failing_probe_for_unhealthy(ill: Any, workshop: Workshop, events: Events) -> None:
    health = Health()

    async def turning() -> Any:
        return await (health() if health.well else ill())

    async with running(SOAKING, events, *two(workshop, turning)) as runtime:
        await unhealthy_soak(runtime, health)
        assert runtime.snapshot().record(PART).provider == "a"


async def test_unhealthy_soak_is_a_rollback_and_pins_nothing(workshop: Workshop, events: Events) -> None:
    health = Health()
    async with running(SOAKING, events, *two(workshop, health)) as runtime:
        await unhealthy_soak(runtime, health)
        record = runtime.snapshot().record(PART)
    assert (record.outcomes, record.pin, record.history[-1].outcome) == (
        {"success": 1, "rollback": 1},
        None,
        "rollback",
    )


async def test_unhealthy_soak_keeps_the_pin_there_was(workshop: Workshop, events: Events) -> None:
    health = Health()
    async with running(SOAKING, events, *two(workshop, health)) as runtime:
        await runtime.swap(PART, provider="a")
        await unhealthy_soak(runtime, health)
        pin = runtime.snapshot().record(PART).pin
    assert pin is not None
    assert pin.provider == "a"


async def test_unhealthy_soak_is_reported_as_a_failed_swap(workshop: Workshop, events: Events) -> None:
    health = Health()
    async with running(SOAKING, events, *two(workshop, health)) as runtime:
        await unhealthy_soak(runtime, health)
    (failed,), (back,) = events.named("swap-failed"), events.named("swap-rollback")
    assert (failed["reason"], failed["rolled_back"]) == ("health-check", True)
    assert (back["provider"], back["failed_provider"]) == ("a", "b")


async def test_unhealthy_instance_is_closed_once_after_its_last_lease(workshop: Workshop, events: Events) -> None:
    health = Health()
    async with anyio.create_task_group() as callers, running(SOAKING, events, *two(workshop, health)) as runtime:
        await soaking(runtime)
        part = await callers.start(hold, runtime, SOAK)
        health.well = False
        await anyio.sleep(SOAK - 1)
        before = (runtime.snapshot().record(PART).provider, part.closed)
        await anyio.sleep(2)
        assert (before, part.closed) == (("a", 0), 1)


async def test_health_shown_after_the_rollback_is_not_that_of_the_unhealthy_instance(
    workshop: Workshop, events: Events
) -> None:
    health = Health()
    async with running(SOAKING, events, *two(workshop, health)) as runtime:
        await soaking(runtime)
        health.well = False
        await runtime.probe(PART)
        while runtime.snapshot().record(PART).provider == "b":
            await anyio.sleep(0.5)
        shown = runtime.snapshot().record(PART).health
    assert shown is not None
    assert shown.healthy


# What is asked meanwhile


async def test_later_decision_ends_the_soak_and_commits(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop), workshop.candidate("c")) as runtime:
        await soaking(runtime)
        await anyio.sleep(5)
        await runtime.swap(PART, provider="c")
        await anyio.sleep(SOAK + 1)
    pinned = [event["provider"] for event in events.named("selection-pinned")]
    complete = [event["provider"] for event in events.named("swap-complete")]
    assert (pinned, complete) == (["b", "c"], ["b", "c"])


async def test_unpin_ends_the_soak_and_takes_back_its_pin(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        await runtime.unpin(PART)
        await anyio.sleep(SOAK + 1)
        record = runtime.snapshot().record(PART)
        assert (record.provider, record.pin) == ("a", None)


async def test_decision_that_waited_already_lets_the_swap_before_it_not_soak(
    workshop: Workshop, events: Events
) -> None:
    async def second() -> None:
        await anyio.sleep(1)

    candidates = [*two(workshop), workshop.candidate("c", build=second), workshop.candidate("d")]
    async with running(SOAKING, events, *candidates) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART)
        tasks.start_soon(lambda: runtime.swap(PART, provider="c"))
        await anyio.sleep(0.5)
        started = anyio.current_time()
        await runtime.swap(PART, provider="d")
        assert anyio.current_time() - started == 0.5


async def test_wish_to_follow_does_not_end_the_soak(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        await runtime.apply(settings_of({"soak": SOAK}, selections={"part": "a"}))
        await anyio.sleep(SOAK - 1)
        assert (runtime.snapshot().record(PART).state, "swap-complete" in events) == ("swapping", False)


async def test_settings_changed_while_it_soaks_are_followed_after_it(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        await runtime.apply(settings_of({"soak": SOAK}, provider_settings={"b": {"size": 2}}))
        await anyio.sleep(SOAK + 1)
        async with runtime.use(PART) as part:
            assert (part.provider, part.settings) == ("b", {"size": 2})


async def test_applying_settings_does_not_wait_for_a_soak(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        started = anyio.current_time()
        for size in (1, 2):
            await runtime.apply(settings_of({"soak": SOAK}, provider_settings={"b": {"size": size}}))
        assert anyio.current_time() == started


async def test_wish_that_waited_before_the_soak_does_not_wait_for_it(workshop: Workshop, events: Events) -> None:
    async def second() -> None:
        await anyio.sleep(1)

    slow = workshop.candidate("c", build=second)
    async with running(SOAKING, events, *two(workshop), slow) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART)
        tasks.start_soon(lambda: runtime.swap(PART, provider="c"))
        await anyio.sleep(0.5)
        started = anyio.current_time()
        await runtime.apply(settings_of({"soak": SOAK}, provider_settings={"a": {"size": 2}}))
        assert anyio.current_time() - started == 0.5


async def test_paused_slot_soaks_on_and_commits(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        await runtime.set_activity(PART, Activity.PAUSED)
        await anyio.sleep(SOAK + 1)
        with pytest.raises(SlotUnavailableError):
            await use_once(runtime, PART)
        assert workshop.by("a")[0].closed == 1


async def test_soak_of_an_automatic_swap_commits_too(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await runtime.swap(PART)
        await runtime.apply(settings_of({"soak": SOAK}, provider_settings={"a": {"size": 2}}))
        await anyio.sleep(SOAK + 1)
        record = runtime.snapshot().record(PART)
        assert (record.outcomes, record.pin, len(workshop.open)) == ({"success": 2}, None, 1)


# The end, and cancellation


@pytest.mark.parametrize("soaked", [0.0, 1.0, SOAK / 2, SOAK - 0.1])
async def test_close_during_the_soak_closes_both_once(soaked: float, workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
        await anyio.sleep(soaked)
    workshop.require_closed_once()


async def test_close_during_the_soak_pins_nothing(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop)) as runtime:
        await soaking(runtime)
    assert "selection-pinned" not in events


async def step_by_step() -> Any:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


async def well_slowly() -> bool:
    await step_by_step()
    return True


def slowly(workshop: Workshop) -> list[Any]:
    return [
        workshop.candidate(name, build=step_by_step, health=well_slowly, cleanup=step_by_step, priority=priority)
        for priority, name in enumerate("ba")
    ]


@BOTH
@pytest.mark.parametrize("turns", range(0, STEPS, 2))
async def test_caller_cancelled_at_any_turn_leaves_the_swap_to_soak(
    turns: int, anyio_backend: Any, workshop: Workshop, events: Events
) -> None:
    async with running(SOAKING, events, *slowly(workshop)) as runtime:
        await runtime.swap(PART)
        async with anyio.create_task_group() as caller:
            caller.start_soon(lambda: runtime.swap(PART, provider="b"))
            await settle(turns)
            caller.cancel_scope.cancel()
        await settle(2 * STEPS)
        open_now = {part.provider for part in workshop.open}
        assert open_now == ({"a", "b"} if "swap-soaking" in events else {"a"})
        assert await use_once(runtime, PART) == ("b" if "swap-soaking" in events else "a")
    workshop.require_closed_once()


@BOTH
@pytest.mark.parametrize("turns", range(0, STEPS, 2))
async def test_program_cancelled_at_any_turn_of_a_soak_closes_everything_once(
    turns: int, anyio_backend: Any, workshop: Workshop, events: Events
) -> None:
    async def program(*, task_status: Any) -> None:
        async with running(SOAKING, events, *slowly(workshop)) as runtime:
            await runtime.swap(PART)
            task_status.started()
            while True:
                for provider in "ba":
                    await runtime.swap(PART, provider=provider)

    async with anyio.create_task_group() as tasks:
        await tasks.start(program)
        await settle(turns)
        tasks.cancel_scope.cancel()
    workshop.require_closed_once()


async def test_swap_that_fails_before_it_soaks_is_told_to_its_caller(workshop: Workshop, events: Events) -> None:
    async with running(SOAKING, events, *two(workshop, answer(False))) as runtime:
        await runtime.swap(PART)
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART, provider="b")
    assert "swap-soaking" not in events
