"""Who serves while a provider is in quarantine: the ill instance, or the next best where failover is set."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from oneiric import Runtime
from oneiric.testing import PART, Events, Workshop, answer
from tests.harness.illness import FAILOVER, INTERVAL, THRESHOLD, Health, fall_ill, placing, serving, two, watched
from tests.harness.slots import running, use_once

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_threads")]


# Without failover


async def test_ill_instance_serves_on_without_failover(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        assert await use_once(runtime, PART) == "a"


async def test_no_reconcile_moves_a_slot_whose_instance_is_ill(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        runtime.register(workshop.candidate("c", priority=0))
        await runtime.apply(watched(provider_settings={"b": {"size": 2}}))
        steps = await runtime.reconcile()
        assert [(step.action, step.provider) for step in steps] == [("keep", "a")]
        assert (serving(runtime), len(workshop.built)) == ("a", 1)


async def test_instance_that_is_well_again_is_released(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        health.answer = True
        await anyio.sleep(4 * INTERVAL)
        assert placing(runtime)[0] == "active"
    assert [event["provider"] for event in events.named("candidate-released")] == ["a"]


async def test_instance_that_is_well_again_was_never_replaced(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        health.answer = True
        await anyio.sleep(4 * INTERVAL)
        assert (serving(runtime), len(workshop.built)) == ("a", 1)


async def test_release_lets_the_slot_go_where_precedence_wants_it(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        runtime.register(workshop.candidate("c", priority=2))
        await anyio.sleep(1)
        before = serving(runtime)
        health.answer = True
        await anyio.sleep(4 * INTERVAL)
        assert (before, serving(runtime)) == ("a", "c")


# With failover


async def test_next_best_takes_over_from_an_ill_instance(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        assert await use_once(runtime, PART) == "b"
    assert [(event["provider"], event["by"]) for event in events.named("swap-complete")] == [("b", "health")]


async def test_ill_instance_that_was_replaced_is_closed(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        assert [part.closed for part in workshop.by("a")][:1] == [1]
    workshop.require_closed_once()


async def test_ill_instance_serves_on_when_nobody_can_take_over(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(FAILOVER, events, two(workshop, health)[0]) as runtime:
        await fall_ill(runtime, health)
        assert await use_once(runtime, PART) == "a"


async def test_ill_instance_serves_on_when_the_next_best_is_ill_too(
    workshop: Workshop, events: Events, health: Health
) -> None:
    worse = workshop.candidate("c", health=answer(False))
    async with running(FAILOVER, events, two(workshop, health)[0], worse) as runtime:
        await fall_ill(runtime, health)
        assert await use_once(runtime, PART) == "a"


async def test_next_best_takes_over_when_failover_is_set_later(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        await runtime.apply(FAILOVER)
        assert serving(runtime) == "b"


async def test_slot_goes_back_when_the_provider_is_well_again(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        health.answer = True
        await anyio.sleep(10 * INTERVAL)
        assert (await use_once(runtime, PART), placing(runtime)[0]) == ("a", "active")
    assert [event["provider"] for event in events.named("candidate-released")] == ["a"]


async def test_recovery_is_rehearsed_while_the_other_serves(workshop: Workshop, events: Events, health: Health) -> None:
    served: set[str] = set()
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        tried = len(workshop.by("a"))
        for _ in range(20):
            await anyio.sleep(INTERVAL)
            served.add(await use_once(runtime, PART))
        assert (served, len(workshop.by("a")) > tried) == ({"b"}, True)
        assert len(workshop.open) == 1


async def test_rehearsals_of_an_ill_provider_become_rarer(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        await anyio.sleep(100 * INTERVAL)
    waits = [later - earlier for earlier, later in pairwise(health.asked)]
    assert [wait / INTERVAL for wait in waits[THRESHOLD:]][:6] == [1, 2, 4, 8, 16, 16]


async def test_rehearsal_that_fails_renews_the_reason(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        health.answer = "still not"
        await anyio.sleep(20 * INTERVAL)
        assert placing(runtime)[1].endswith("Z: health() returned 'still not', not True")


async def test_rehearsal_that_is_refused_keeps_the_reason(workshop: Workshop, events: Events, health: Health) -> None:
    sole = workshop.candidate("c", exclusive=True)
    async with running(FAILOVER, events, two(workshop, health)[0], sole) as runtime:
        await fall_ill(runtime, health)
        await anyio.sleep(20 * INTERVAL)
        assert (serving(runtime), placing(runtime)[1][-34:]) == ("c", " health() returned False, not True")


async def test_failover_and_return_drop_no_caller(workshop: Workshop, events: Events, health: Health) -> None:
    served: set[str] = set()

    async def call_on(runtime: Runtime) -> None:
        while True:
            served.add(await use_once(runtime, PART))
            await anyio.sleep(1)

    async with running(FAILOVER, events, *two(workshop, health)) as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(call_on, runtime)
        await fall_ill(runtime, health)
        health.answer = True
        await anyio.sleep(10 * INTERVAL)
        tasks.cancel_scope.cancel()
    assert served == {"a", "b"}


@pytest.mark.parametrize("how", ["pin", "selection"])
async def test_explicit_choice_of_an_ill_provider_does_not_fail_over(
    how: str, workshop: Workshop, events: Events, health: Health
) -> None:
    settings = watched({"failover": True}, selections={"part": "a"} if how == "selection" else {})
    async with running(settings, events, *two(workshop, health)) as runtime:
        if how == "pin":
            await runtime.swap(PART, provider="a")
        await fall_ill(runtime, health)
        assert (await use_once(runtime, PART), runtime.resolve(PART).failure) == ("a", "unhealthy")


async def test_unpin_of_an_ill_provider_fails_over(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await runtime.swap(PART, provider="a")
        await fall_ill(runtime, health)
        await runtime.unpin(PART)
        assert serving(runtime) == "b"
