"""Automatic swaps are limited in number; what was asked for last is reached all the same, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from oneiric import Runtime, Slot
from oneiric.testing import PART, Events, Workshop, answer
from tests.harness.simulation import without_threads
from tests.harness.slots import running, settings_of, use_once

pytestmark = pytest.mark.anyio
LIMIT = 3


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    with without_threads():
        yield


def sized(size: int, **how: Any) -> Any:
    """Settings from which a is built anew for every size."""
    return settings_of(provider_settings={"a": {"size": size}}, max_swaps_per_minute=LIMIT, **how)


async def flap(runtime: Runtime, times: int, *, seconds: float = 1.0) -> None:
    """Change the settings again and again."""
    for size in range(1, times + 1):
        await runtime.apply(sized(size))
        await anyio.sleep(seconds)


async def size_of(runtime: Runtime) -> int:
    async with runtime.use(PART) as part:
        size: int = part.settings.get("size", 0)
        return size


def offer(workshop: Workshop) -> list[Any]:
    return [workshop.candidate("a", priority=1), workshop.candidate("b")]


async def test_swaps_within_the_limit_are_not_held_back(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT)
        assert (await size_of(runtime), "swap-throttled" in events) == (LIMIT, False)


async def test_swap_past_the_limit_is_held_back(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 4)
        assert (await size_of(runtime), len(workshop.built)) == (LIMIT, LIMIT + 1)


async def test_what_was_asked_for_last_is_reached_when_a_minute_has_passed(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 4)
        await anyio.sleep(60)
        assert (await size_of(runtime), len(workshop.built)) == (LIMIT + 4, LIMIT + 2)


async def test_slot_never_swaps_by_itself_more_often_than_the_limit_in_any_minute(
    workshop: Workshop, events: Events
) -> None:
    at: list[float] = []

    async def build() -> None:
        at.append(anyio.current_time())

    async with running(sized(0), events, workshop.candidate("a", build=build)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, 150, seconds=2.0)
    swaps = at[1:]
    assert len(swaps) >= 4 * LIMIT
    assert all(late - early >= 60 for early, late in zip(swaps, swaps[LIMIT:], strict=False))


async def test_throttled_swap_is_reported_with_its_reason_and_its_delay(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 1, seconds=1.0)
    (throttled,) = events.named("swap-throttled")
    assert (throttled["provider"], throttled["reason"], throttled["delay_ms"]) == ("a", "budget", 57_000)
    assert throttled["error"] == "more than 3 automatic swaps a minute; the last state asked for follows in 57 s"


async def test_swap_that_is_held_back_is_reported_once_however_often_it_is_asked_for(
    workshop: Workshop, events: Events
) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 10)
        for _ in range(3):
            await runtime.swap(PART, provider="b", dry_run=True)
    assert len(events.named("swap-throttled")) == 1


async def test_applying_settings_does_not_wait_for_a_swap_that_is_held_back(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        started = anyio.current_time()
        await flap(runtime, LIMIT + 4, seconds=0.0)
        assert anyio.current_time() == started


async def test_reconcile_reports_its_steps_also_when_they_are_held_back(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT)
        (step,) = await runtime.apply(sized(99))
        assert (step.action, step.reason) == ("swap", "settings of a changed")


async def test_slot_that_is_held_back_does_not_hold_up_another(workshop: Workshop, events: Events) -> None:
    other: Slot[Any] = Slot("adapter", "other")
    async with running(sized(0), events, *offer(workshop), workshop.candidate("x", slot=other)) as runtime:
        await runtime.swap(PART)
        await runtime.swap(other)
        await flap(runtime, LIMIT + 1)
        runtime.register(workshop.candidate("y", slot=other, priority=1))
        await runtime.reconcile()
        assert await use_once(runtime, other) == "y"


async def test_explicit_swaps_are_not_limited(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        started = anyio.current_time()
        for number in range(10 * LIMIT):
            await runtime.swap(PART, provider="ab"[number % 2])
        assert (anyio.current_time(), "swap-throttled" in events) == (started, False)


async def test_explicit_swaps_do_not_use_up_the_limit(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        for provider in "bababa":
            await runtime.swap(PART, provider=provider)
        await flap(runtime, LIMIT)
        assert (await size_of(runtime), "swap-throttled" in events) == (LIMIT, False)


async def test_explicit_swap_goes_before_one_that_is_held_back(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 1)
        started = anyio.current_time()
        await runtime.swap(PART, provider="b")
        assert (anyio.current_time(), await use_once(runtime, PART)) == (started, "b")


async def test_explicit_swap_stays_when_the_one_that_was_held_back_may_begin(
    workshop: Workshop, events: Events
) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 1)
        await runtime.swap(PART, provider="b")
        await anyio.sleep(120)
        record = runtime.snapshot().record(PART)
        assert (record.provider, record.pin and record.pin.provider, len(workshop.by("b"))) == ("b", "b", 1)


async def test_unpin_goes_before_a_swap_that_is_held_back(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART, provider="a")
        await flap(runtime, LIMIT + 1)
        started = anyio.current_time()
        await runtime.unpin(PART)
        assert (anyio.current_time(), await size_of(runtime)) == (started, LIMIT + 1)


async def test_rehearsal_goes_before_a_swap_that_is_held_back(workshop: Workshop, events: Events) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 1)
        started = anyio.current_time()
        await runtime.swap(PART, provider="b", dry_run=True)
        assert (anyio.current_time(), await size_of(runtime)) == (started, LIMIT)


async def test_first_activation_is_not_held_back(workshop: Workshop, events: Events) -> None:
    slots: list[Slot[Any]] = [Slot("adapter", f"part-{number}") for number in range(5 * LIMIT)]
    async with running(sized(0), events, *(workshop.candidate("a", slot=slot) for slot in slots)) as runtime:
        started = anyio.current_time()
        for slot in slots:
            await use_once(runtime, slot)
        assert anyio.current_time() == started


async def test_activation_that_failed_is_tried_again_as_often_as_it_is_asked_for(
    workshop: Workshop, events: Events
) -> None:
    async with running(sized(0), events, workshop.candidate("a", health=answer(False))) as runtime:
        for _ in range(5 * LIMIT):
            with pytest.raises(Exception, match="did not take over"):
                await use_once(runtime, PART)
    assert "swap-throttled" not in events


async def test_change_that_was_taken_back_while_it_was_held_back_swaps_nothing(
    workshop: Workshop, events: Events
) -> None:
    async with running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 1)
        await runtime.apply(sized(LIMIT))
        built = len(workshop.built)
        await anyio.sleep(120)
        assert len(workshop.built) == built


@pytest.mark.parametrize("seconds", [0.0, 5.0, 100.0])
async def test_close_while_a_swap_is_held_back_closes_everything_once(
    seconds: float, workshop: Workshop, events: Events
) -> None:
    async def hold(runtime: Runtime, *, task_status: Any) -> None:
        async with runtime.use(PART):
            task_status.started()
            await anyio.sleep(seconds)

    async with anyio.create_task_group() as callers, running(sized(0), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 1)
        await callers.start(hold, runtime)
        await runtime.apply(sized(99, drain_timeout=300.0))
    workshop.require_closed_once()


async def test_caller_of_a_slot_that_was_lost_while_a_swap_was_held_back_waits_for_the_next_one(
    workshop: Workshop, events: Events
) -> None:
    async def well_so_far() -> bool:
        return len(workshop.by("a")) <= LIMIT + 1  # it cannot be brought back

    async def second() -> None:
        await anyio.sleep(1)

    async def lose(runtime: Runtime) -> None:
        with pytest.raises(Exception, match="nothing serves"):
            await runtime.swap(PART, provider="b")

    a = workshop.candidate("a", exclusive=True, priority=1, health=well_so_far)
    b = workshop.candidate("b", health=answer(False), build=second)
    async with running(sized(0), events, a, b, workshop.candidate("c", build=second)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose, runtime)
            await anyio.sleep(0.5)
            tasks.start_soon(lambda: runtime.swap(PART, provider="c"))
            await anyio.sleep(1)  # a and b failed, c is being built, and the swap that was held back still waits
            started = anyio.current_time()
            assert await use_once(runtime, PART) == "c"
            assert anyio.current_time() - started == 0.5


async def test_caller_is_served_by_whoever_comes_first_when_another_swap_is_held_back(
    workshop: Workshop, events: Events
) -> None:
    async def second() -> None:
        await anyio.sleep(1)

    async def well_so_far() -> bool:
        return len(workshop.by("a")) <= LIMIT + 1

    async def lose(runtime: Runtime) -> None:
        with pytest.raises(Exception, match="nothing serves"):
            await runtime.swap(PART, provider="b")

    a = workshop.candidate("a", exclusive=True, priority=1, health=well_so_far)
    b = workshop.candidate("b", health=answer(False), build=second)
    async with running(sized(0), events, a, b, workshop.candidate("c", build=second)) as runtime:
        await runtime.swap(PART)
        await flap(runtime, LIMIT + 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose, runtime)
            await anyio.sleep(0.5)
            tasks.start_soon(lambda: runtime.swap(PART, provider="c"))
            await anyio.sleep(1)
            changed = {"a": {"size": LIMIT + 1}, "c": {"size": 9}}  # so that c is built anew when it may be
            settings = settings_of(provider_settings=changed, max_swaps_per_minute=LIMIT)
            tasks.start_soon(runtime.apply, settings)
            started = anyio.current_time()
            assert await use_once(runtime, PART) == "c"
            assert anyio.current_time() - started == 0.5
