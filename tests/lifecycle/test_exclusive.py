"""Exclusive parts: the old one is closed before its successor is built, and built again when that fails."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from oneiric import Runtime
from oneiric.errors import OneiricError
from oneiric.testing import PART, Events, Part, Workshop, answer, fail, hang, virtual_clock
from tests.harness.exclusive import fail_to_swap, hold, two
from tests.harness.slots import pause, running, settings_of, settle, use_once

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", virtual_clock()], ids=["asyncio", "trio"])
STEPS = 60


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
    candidates = [workshop.candidate("a", exclusive=True, cleanup=pause), workshop.candidate("b")]
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
        workshop.candidate("b", exclusive=True, kind=sole, build=pause, health=answer(False)),
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
