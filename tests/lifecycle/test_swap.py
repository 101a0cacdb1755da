"""Swaps under load: one instance is built for all, no lease sees a closed one, a waiting caller owns nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from oneiric import NoCandidateError, Runtime, SwapFailedError
from oneiric.errors import SupersededError
from oneiric.testing import PART, Events, Workshop, answer, fail
from tests.harness.slots import hold, pause, use_once

pytestmark = pytest.mark.anyio
HUNDRED = range(100)


# Many at once


async def test_hundred_cold_uses_build_one_instance(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", build=pause)) as runtime, anyio.create_task_group() as tasks:
        for _ in HUNDRED:
            tasks.start_soon(use_once, runtime)
    assert len(workshop.built) == 1


async def test_hundred_cold_uses_share_one_failure(opened: Any, workshop: Workshop) -> None:
    refused = []

    async def refuse(runtime: Runtime) -> None:
        try:
            await use_once(runtime)
        except SwapFailedError as error:
            refused.append(error.reason)

    async with opened(workshop.candidate("a", build=fail(ValueError("no")))) as runtime:
        async with anyio.create_task_group() as tasks:
            for _ in HUNDRED:
                tasks.start_soon(refuse, runtime)
        assert (len(refused), runtime.snapshot().record(PART).outcomes) == (100, {"failed": 1})


async def test_hundred_swaps_at_once_leave_one_open_instance(opened: Any, workshop: Workshop) -> None:
    async with opened(*(workshop.candidate(f"p{number}", build=pause) for number in range(5))) as runtime:
        async with anyio.create_task_group() as tasks:
            for number in HUNDRED:
                tasks.start_soon(swap_unless_superseded, runtime, f"p{number % 5}")
        assert len(workshop.open) == 1
    workshop.require_closed_once()


async def swap_unless_superseded(runtime: Runtime, provider: str) -> None:
    with suppress(SupersededError):
        await runtime.swap(PART, provider=provider)


async def test_hundred_swaps_at_once_are_two_attempts_and_the_last_one_wins(opened: Any, workshop: Workshop) -> None:
    async with opened(*(workshop.candidate(f"p{number}", build=pause) for number in range(100))) as runtime:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(swap_unless_superseded, runtime, "p0")
            await anyio.sleep(0.01)  # the first one has begun
            for number in range(1, 100):
                tasks.start_soon(swap_unless_superseded, runtime, f"p{number}")
                await anyio.lowlevel.checkpoint()
        record = runtime.snapshot().record(PART)
    assert ([part.provider for part in workshop.built], record.provider) == (["p0", "p99"], "p99")


async def test_swap_that_is_superseded_says_by_what(opened: Any, workshop: Workshop) -> None:
    async with opened(*(workshop.candidate(name, build=pause) for name in "abc")) as runtime:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: runtime.swap(PART, provider="a"))
            await anyio.sleep(0.01)
            tasks.start_soon(_expect_superseded, runtime)
            await anyio.sleep(0.01)
            await runtime.swap(PART, provider="c", by="alice")
        assert [part.provider for part in workshop.built] == ["a", "c"]


async def _expect_superseded(runtime: Runtime) -> None:
    with pytest.raises(SupersededError, match="by alice, for c"):
        await runtime.swap(PART, provider="b")


async def test_equal_swaps_that_wait_share_one_attempt(opened: Any, workshop: Workshop) -> None:
    reports = []

    async def swap(runtime: Runtime) -> None:
        reports.append(await runtime.swap(PART, provider="b"))

    async with opened(*(workshop.candidate(name, build=pause) for name in "ab")) as runtime:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: runtime.swap(PART, provider="a"))
            await anyio.sleep(0.01)
            for _ in range(10):
                tasks.start_soon(swap, runtime)
        assert ([report.changed for report in reports], len(workshop.by("b"))) == ([True] * 10, 1)


async def test_last_swap_asked_for_is_what_serves_and_what_is_pinned(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(*(workshop.candidate(name, build=pause) for name in ("a", "b", "c"))) as runtime:
        await runtime.swap(PART, provider="a")
        async with anyio.create_task_group() as tasks:
            await tasks.start(hold, runtime, release)
            for provider in ("b", "c"):  # the first one waits for the lease on a, the second for nothing
                tasks.start_soon(lambda name: runtime.swap(PART, provider=name), provider)
                await anyio.sleep(3)
            release.set()
        record = runtime.snapshot().record(PART)
    assert (record.provider, record.pin and record.pin.provider) == ("c", "c")


async def test_calls_go_on_through_a_hundred_swaps(opened: Any, workshop: Workshop) -> None:
    served: set[str] = set()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime:

        async def call_on() -> None:
            while True:
                async with runtime.use(PART) as part:
                    await anyio.sleep(0.3)
                    served.add(await part.work())

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(call_on)
            for number in HUNDRED:
                await runtime.swap(PART, provider="ab"[number % 2])
            tasks.cancel_scope.cancel()
    assert served == {"a", "b"}
    workshop.require_closed_once()


# Leases


async def test_lease_keeps_the_old_instance_open_over_a_swap(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        old = await tasks.start(hold, runtime, release)
        tasks.start_soon(lambda: runtime.swap(PART, provider="b"))
        await anyio.sleep(20)
        async with runtime.use(PART) as new:
            assert (old.closed, await new.work()) == (0, "b")
        release.set()


async def test_old_instance_is_closed_as_soon_as_its_last_lease_ends(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        old = await tasks.start(hold, runtime, release)
        tasks.start_soon(lambda: runtime.swap(PART, provider="b"))
        await anyio.sleep(1)
        release.set()
        await anyio.sleep(0.001)
        assert old.closed == 1


def held_leaks(runtime: Runtime) -> int:
    return sum(leak.kind == "held" for leak in runtime.snapshot().record(PART).leaks)


async def test_lease_held_past_the_drain_timeout_is_reported_as_a_leak(
    opened: Any, workshop: Workshop, events: Events
) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        await tasks.start(hold, runtime, release)
        report = await runtime.swap(PART, provider="b")
        assert [(e["provider"], e["leases"]) for e in events.named("instance-leaked")] == [("a", 1)]
        assert held_leaks(runtime) == 1
        assert "still held after 30 s" in report.cleanup_error
        release.set()


async def test_leaked_instance_is_closed_when_its_last_lease_ends_and_not_before(
    opened: Any, workshop: Workshop
) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        old = await tasks.start(hold, runtime, release)
        await runtime.swap(PART, provider="b")
        await anyio.sleep(10_000)
        before = old.closed
        release.set()
        await anyio.sleep(1)
        assert (before, old.closed, held_leaks(runtime)) == (0, 1, 0)


async def test_lease_ends_when_its_block_raises(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        with pytest.raises(ZeroDivisionError):
            async with runtime.use(PART):
                raise ZeroDivisionError
        assert runtime.snapshot().record(PART).leases == 0


# Callers that stop waiting


async def test_cancelled_caller_does_not_stop_the_swap(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a"), workshop.candidate("b", build=pause)) as runtime:
        await runtime.swap(PART, provider="a")
        with anyio.move_on_after(0.5):
            await runtime.swap(PART, provider="b")
        await anyio.sleep(2)
        assert runtime.snapshot().record(PART).provider == "b"


async def test_cancelled_caller_does_not_lose_the_pin(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", priority=1), workshop.candidate("b", build=pause)) as runtime:
        await runtime.swap(PART)
        with anyio.move_on_after(0.5):
            await runtime.swap(PART, provider="b")
        await anyio.sleep(2)
        pin = runtime.snapshot().record(PART).pin
    assert pin is not None
    assert pin.provider == "b"


async def test_cancelled_first_use_does_not_stop_the_activation(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", build=pause)) as runtime:
        with anyio.move_on_after(0.5):
            await use_once(runtime)
        await anyio.sleep(1)
        assert runtime.snapshot().record(PART).provider == "a"


async def test_pin_is_in_force_while_the_old_instance_still_drains(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a", priority=1), workshop.candidate("b")) as runtime:
        await runtime.swap(PART)
        async with anyio.create_task_group() as tasks:
            await tasks.start(hold, runtime, release)
            tasks.start_soon(lambda: runtime.swap(PART, provider="b"))
            await anyio.sleep(1)
            runtime.register(workshop.candidate("c"))  # makes the runtime look again at who should serve
            await anyio.sleep(1)
            assert runtime.snapshot().record(PART).provider == "b"
            release.set()


# How a swap may be asked for


async def test_forced_swap_returns_while_the_old_instance_is_still_held(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        old = await tasks.start(hold, runtime, release)
        started = anyio.current_time()
        await runtime.swap(PART, provider="b", force=True)
        assert (anyio.current_time() - started, old.closed) == (0, 0)
        release.set()


async def test_forced_swap_still_refuses_an_unhealthy_instance(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", priority=1), workshop.candidate("b", health=answer(False))) as runtime:
        await runtime.swap(PART)
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART, provider="b", force=True)


async def test_swap_that_skips_health_takes_an_unhealthy_instance(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", health=answer(False))) as runtime:
        report = await runtime.swap(PART, skip_health=True)
    assert report.provider == "a"


async def test_swap_that_skips_health_says_nothing_about_health(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", priority=1), workshop.candidate("b", health=answer(False))) as runtime:
        await runtime.swap(PART)
        await runtime.swap(PART, provider="b", skip_health=True)
        assert runtime.snapshot().record(PART).health is None


async def test_dry_run_changes_nothing(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", priority=1), workshop.candidate("b")) as runtime:
        await runtime.swap(PART)
        before = runtime.snapshot().record(PART)
        await runtime.swap(PART, provider="b", dry_run=True)
        assert runtime.snapshot().record(PART) == before


async def test_failing_dry_run_changes_nothing(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", priority=1), workshop.candidate("b", health=answer(False))) as runtime:
        await runtime.swap(PART)
        before = runtime.snapshot().record(PART)
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART, provider="b", dry_run=True)
        assert runtime.snapshot().record(PART) == before


async def test_dry_run_with_failing_cleanup_changes_nothing(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", priority=1), workshop.candidate("b", cleanup=fail(OSError("x")))) as rt:
        await rt.swap(PART)
        before = rt.snapshot().record(PART)
        report = await rt.swap(PART, provider="b", dry_run=True)
        after = replace(rt.snapshot().record(PART), leaks=())
        assert (after, report.cleanup_error) == (before, "OSError: x")


async def test_dry_run_closes_what_it_built(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", priority=1), workshop.candidate("b")) as runtime:
        await runtime.swap(PART, provider="b", dry_run=True)
        assert [part.closed for part in workshop.built] == [1]


async def test_swap_to_what_serves_already_is_no_swap(opened: Any, workshop: Workshop, events: Events) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        await runtime.swap(PART)
        report = await runtime.swap(PART)
        assert (report.changed, runtime.snapshot().record(PART).outcomes) == (False, {"success": 1})
    assert len(workshop.built) == 1
    assert "swap-complete" not in events


async def test_swap_to_an_unknown_provider_changes_nothing(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        await runtime.swap(PART)
        with pytest.raises(NoCandidateError) as caught:
            await runtime.swap(PART, provider="nobody")
        assert (caught.value.reason, runtime.snapshot().record(PART).provider) == ("all-shadowed", "a")


async def test_failed_swap_pins_nothing(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a"), workshop.candidate("b", health=answer(False))) as runtime:
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART, provider="b")
        assert runtime.snapshot().record(PART).pin is None


async def test_swap_report_says_who_followed_whom(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime:
        await runtime.swap(PART, provider="a")
        report = await runtime.swap(PART, provider="b")
    assert str(report) == "adapter/part: a -> b in 0.0 ms"
