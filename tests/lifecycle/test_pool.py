"""Poolable parts: what was swapped away is kept, and used again when it is still the same and well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from oneiric import Runtime
from oneiric.testing import PART, Events, Part, Workshop, fail
from tests.harness.simulation import without_threads
from tests.harness.slots import running, settings_of, settle, use_once

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    with without_threads():
        yield


class Health:
    """Well until told otherwise, and counts how often it was asked."""

    def __init__(self) -> None:
        self.well = True
        self.asked = 0

    async def __call__(self) -> bool:
        self.asked += 1
        return self.well


async def swap_through(runtime: Runtime, providers: str) -> None:
    for provider in providers:
        await runtime.swap(PART, provider=provider)


def two(workshop: Workshop, **of_a: Any) -> list[Any]:
    """a, which is poolable, and b, which is not."""
    return [workshop.candidate("a", poolable=True, **of_a), workshop.candidate("b")]


async def hold(runtime: Runtime, release: anyio.Event, *, task_status: Any) -> None:
    async with runtime.use(PART) as part:
        task_status.started()
        await release.wait()
        await part.work()


async def test_swap_back_uses_the_same_instance(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop)) as runtime:
        await swap_through(runtime, "ab" * 5 + "a")
        assert (await use_once(runtime, PART), len(workshop.by("a")), len(workshop.by("b"))) == ("a", 1, 5)


async def test_instance_that_is_swapped_away_is_not_closed(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop)) as runtime:
        await swap_through(runtime, "ab")
        assert ([part.closed for part in workshop.built], runtime.snapshot().record(PART).instances) == ([0, 0], 2)


async def test_pooled_instance_is_probed_before_it_serves(opened: Any, workshop: Workshop) -> None:
    health = Health()
    async with opened(*two(workshop, health=health)) as runtime:
        await swap_through(runtime, "ab")
        before = health.asked
        await runtime.swap(PART, provider="a")
        assert health.asked > before


async def test_unhealthy_pooled_instance_is_closed_and_another_one_is_built(opened: Any, workshop: Workshop) -> None:
    old = Health()

    class First(Part):
        async def health(self) -> bool:
            return old.well if self is workshop.by("a")[0] else True

    async with opened(*two(workshop, kind=First)) as runtime:
        await swap_through(runtime, "ab")
        old.well = False
        await runtime.swap(PART, provider="a")
        assert ([part.closed for part in workshop.by("a")], await use_once(runtime, PART)) == ([1, 0], "a")


async def test_unhealthy_pooled_instance_that_cannot_be_replaced_leaves_the_old_one(
    opened: Any, workshop: Workshop
) -> None:
    health = Health()
    async with opened(*two(workshop, health=health)) as runtime:
        await swap_through(runtime, "ab")
        health.well = False
        with pytest.raises(Exception, match="b still serves"):
            await runtime.swap(PART, provider="a")
        assert await use_once(runtime, PART) == "b"
        assert [part.closed for part in workshop.by("a")] == [1, 1]


async def test_slot_keeps_one_instance_at_most(opened: Any, workshop: Workshop) -> None:
    async with opened(*(workshop.candidate(name, poolable=True) for name in "abcd")) as runtime:
        await swap_through(runtime, "abcdabcd")
        assert (len(workshop.open), runtime.snapshot().record(PART).instances) == (2, 2)


async def test_slot_keeps_the_instance_that_was_swapped_away_last(opened: Any, workshop: Workshop) -> None:
    async with opened(*(workshop.candidate(name, poolable=True) for name in "abc")) as runtime:
        await swap_through(runtime, "abc")
        assert [part.closed for part in workshop.built] == [1, 0, 0]


async def test_instance_is_not_pooled_before_its_last_lease_ends(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(*two(workshop)) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        await tasks.start(hold, runtime, release)
        await runtime.swap(PART, provider="b", force=True)
        await runtime.swap(PART, provider="a", force=True)
        during = len(workshop.by("a"))
        release.set()
        await settle()
        assert (during, await use_once(runtime, PART)) == (2, "a")


async def test_leaked_instance_is_pooled_when_it_is_let_go(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(*two(workshop)) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        await tasks.start(hold, runtime, release)
        await runtime.swap(PART, provider="b")  # held past the drain timeout
        release.set()
        await settle()
        await runtime.swap(PART, provider="a")
        assert (len(workshop.by("a")), runtime.snapshot().record(PART).leaks) == (1, ())


async def test_changed_settings_do_not_reuse_the_pooled_instance(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(), events, *two(workshop)) as runtime:
        await swap_through(runtime, "ab")
        await runtime.apply(settings_of(provider_settings={"a": {"size": 2}}))
        await runtime.swap(PART, provider="a")
        async with runtime.use(PART) as part:
            assert (part is workshop.by("a")[0], part.settings) == (False, {"size": 2})


async def test_settings_that_changed_back_reuse_the_pooled_instance(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(), events, *two(workshop)) as runtime:
        await swap_through(runtime, "ab")
        for changed in ({"a": {"size": 2}}, {}):
            await runtime.apply(settings_of(provider_settings=changed))
        await runtime.swap(PART, provider="a")
        assert len(workshop.by("a")) == 1


async def test_rehearsal_builds_another_and_leaves_the_pooled_instance(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop)) as runtime:
        await swap_through(runtime, "ab")
        await runtime.swap(PART, provider="a", dry_run=True)
        assert [part.closed for part in workshop.by("a")] == [0, 1]


async def test_instance_that_was_rolled_back_is_not_pooled(opened: Any, workshop: Workshop) -> None:
    async def refuse(_notice: Any) -> None:
        raise ValueError("no")

    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART, provider="b")
        runtime.on_swap(PART, after=refuse)
        with pytest.raises(Exception, match="b still serves"):
            await runtime.swap(PART, provider="a")
        await settle()
        assert [part.closed for part in workshop.by("a")] == [1]


async def test_cleanup_of_the_instance_that_made_way_in_the_pool_is_reported(opened: Any, workshop: Workshop) -> None:
    messy = workshop.candidate("a", poolable=True, cleanup=fail(OSError("stuck")))
    async with opened(messy, *(workshop.candidate(name, poolable=True) for name in "bc")) as runtime:
        await swap_through(runtime, "ab")
        report = await runtime.swap(PART, provider="c")
    assert report.cleanup_error == "a: cleanup failed: OSError: stuck"


async def test_pooled_instance_is_not_probed_while_it_waits(workshop: Workshop, events: Events) -> None:
    health = Health()
    async with running(settings_of(health_interval=1.0), events, *two(workshop, health=health)) as runtime:
        await swap_through(runtime, "ab")
        asked = health.asked
        await anyio.sleep(100)
        assert health.asked == asked


async def test_drain_does_not_wait_for_the_pooled_instance(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop)) as runtime:
        await swap_through(runtime, "ab")
        started = anyio.current_time()
        report, _ = await runtime.drain(PART)
        assert (report.drained, anyio.current_time()) == (True, started)


@pytest.mark.parametrize("swaps", ["a", "ab", "aba", "abab"])
async def test_pooled_instance_is_closed_once_at_the_end(swaps: str, opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop)) as runtime:
        await swap_through(runtime, swaps)
    workshop.require_closed_once()


@pytest.mark.parametrize("turns", range(0, 60, 2))
async def test_program_cancelled_at_any_turn_closes_what_is_pooled_once(
    turns: int, workshop: Workshop, events: Events
) -> None:
    async def step_by_step() -> bool:
        await settle(3)
        return True

    async def program(*, task_status: Any) -> None:
        candidates = [workshop.candidate(name, poolable=True, health=step_by_step) for name in "abc"]
        async with running(settings_of(), events, *candidates) as runtime:
            await swap_through(runtime, "ab")
            task_status.started()
            while True:
                await swap_through(runtime, "acb")

    async with anyio.create_task_group() as tasks:
        await tasks.start(program)
        await settle(turns)
        tasks.cancel_scope.cancel()
    workshop.require_closed_once()
