"""What a runtime measures: each question once, what is true now, and nothing that a diagnosis asks."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest
from anyio import to_thread

from oneiric import NoCandidateError, Runtime, Slot, SwapFailedError
from oneiric.core.states import Activity
from oneiric.errors import OneiricError, SlotUnavailableError
from oneiric.lifecycle.live import why_unresolved
from oneiric.observability.catalog import OTHER
from oneiric.observability.meters import Meters, Reading, Sample
from oneiric.runtime import decisions
from oneiric.runtime.lag import INTERVAL, LoopLag
from oneiric.runtime.measure import SAMPLE_INTERVAL
from oneiric.testing import PART, Events, Workshop, answer, bare_settings, fail, virtual_clock
from tests.harness.slots import running, settings_of, settle, use_once

pytestmark = pytest.mark.anyio
UNKNOWN = Slot[Any]("adapter", "nobody-knows")
RESOLUTIONS, FAILURES = "oneiric_resolution_total", "oneiric_resolution_failures_total"


@pytest.fixture
def anyio_backend() -> object:
    return virtual_clock()


async def read(runtime: Runtime, metric: str, *labels: str) -> float:
    """Return one value; fails when it is not there."""
    return value(await runtime.readings(), metric, *labels)


def value(readings: tuple[Reading, ...], metric: str, *labels: str) -> float:
    (found,) = [r.value for r in readings if isinstance(r, Sample) and (r.metric, *r.labels) == (metric, *labels)]
    return found


async def refused(runtime: Runtime, slot: Slot[Any], times: int = 1) -> None:
    """Ask for a lease that is not to be had."""
    for _ in range(times):
        with pytest.raises(OneiricError):
            async with runtime.use(slot):
                raise AssertionError("a lease was given")


# Questions


async def test_every_lease_is_a_resolution(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime:
        for _ in range(5):
            await use_once(runtime, PART)
        assert await read(runtime, RESOLUTIONS, "success", "adapter", "part") == 5


async def test_readings_do_not_count_twice(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime:
        await use_once(runtime, PART)
        await runtime.readings()
        assert await read(runtime, RESOLUTIONS, "success", "adapter", "part") == 1


async def test_every_answer_to_the_program_is_a_resolution(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime:
        for _ in range(5):
            runtime.resolve(PART)
        assert await read(runtime, RESOLUTIONS, "success", "adapter", "part") == 5


async def test_answers_are_not_lost_when_something_changes(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime:
        for provider in "bcd":
            runtime.resolve(PART)
            runtime.register(workshop.candidate(provider))
        assert await read(runtime, RESOLUTIONS, "success", "adapter", "part") == 3


async def test_diagnosis_moves_no_metric(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime:
        before = await runtime.readings()
        runtime.snapshot()
        runtime.snapshot().record(UNKNOWN)
        assert await runtime.readings() == before


async def test_lease_that_nobody_can_fill_is_a_failure(events: Events) -> None:
    async with running(settings_of(selections={"part": "gone"}), events) as runtime:
        await refused(runtime, PART, 3)
        readings = await runtime.readings()
        assert value(readings, RESOLUTIONS, "failed", "adapter", "part") == 3
        assert value(readings, FAILURES, "adapter", "no-candidates") == 3


async def test_lease_on_a_selection_that_shadows_everybody_is_a_failure(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(selections={"part": "gone"}), events, workshop.candidate("a")) as runtime:
        await refused(runtime, PART, 3)
        assert await read(runtime, FAILURES, "adapter", "all-shadowed") == 3


async def test_lease_on_what_cannot_be_activated_is_a_failure(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a", health=answer(False))) as runtime:
        await refused(runtime, PART, 3)
        assert await read(runtime, FAILURES, "adapter", "unhealthy") == 3


async def test_unknown_key_is_counted_under_no_name_of_its_own(events: Events) -> None:
    async with running(bare_settings(), events) as runtime:
        await refused(runtime, UNKNOWN)
        runtime.resolve(UNKNOWN)
        readings = await runtime.readings()
        assert value(readings, RESOLUTIONS, "failed", "adapter", OTHER) == 2
        assert value(readings, FAILURES, "adapter", "unknown-key") == 2
        assert not [reading for reading in readings if UNKNOWN.key in reading.labels]


async def test_lease_on_a_paused_slot_is_no_resolution(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime:
        await runtime.set_activity(PART, Activity.PAUSED)
        await refused(runtime, PART)
        readings = await runtime.readings()
        assert [value(readings, RESOLUTIONS, outcome, "adapter", "part") for outcome in ("success", "failed")] == [0, 0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoCandidateError("none", reason="all-shadowed"), "all-shadowed"),
        (SwapFailedError("no", reason="timeout", rolled_back=False), "unhealthy"),
        (SlotUnavailableError("paused"), ""),
    ],
)
def test_why_a_slot_was_not_resolved_is_a_word_of_the_catalog(error: OneiricError, reason: str) -> None:
    assert why_unresolved(error) == reason


async def test_settings_that_cannot_be_read_are_why(workshop: Workshop, events: Events) -> None:
    settings = settings_of(provider_settings={"a": {"password": "${env:NOT_SET_ANYWHERE}"}})
    async with running(settings, events, workshop.candidate("a")) as runtime:
        await refused(runtime, PART)
        assert await read(runtime, FAILURES, "adapter", "config") == 1


# What is true now


async def test_candidates_are_counted_by_verdict(workshop: Workshop, events: Events) -> None:
    candidates = [workshop.candidate("a"), workshop.candidate("b", priority=1), workshop.candidate("c", priority=2)]
    candidates[2] = msgspec.structs.replace(candidates[2], requires=("no-such-distribution-anywhere",))
    async with running(bare_settings(), events, *candidates) as runtime:
        readings = await runtime.readings()
        found = [value(readings, "oneiric_candidates", "adapter", s) for s in ("active", "shadowed", "rejected")]
        assert found == [1, 1, 1]


async def test_selection_that_nobody_offers_is_an_unfilled_slot(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(selections={"part": "gone"}), events, workshop.candidate("a")) as runtime:
        readings = await runtime.readings()
        assert value(readings, "oneiric_candidates_expected", "adapter") == 1
        assert value(readings, "oneiric_slots_unfilled", "adapter") == 1


async def test_slot_that_is_filled_again_is_no_longer_unfilled(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(selections={"part": "late"}), events) as runtime:
        await runtime.readings()
        runtime.register(workshop.candidate("late"))
        assert await read(runtime, "oneiric_slots_unfilled", "adapter") == 0


async def test_instances_and_leases_are_those_of_now(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime, runtime.use(PART):
        readings = await runtime.readings()
        assert value(readings, "oneiric_lifecycle_active_instances", "adapter") == 1
        assert value(readings, "oneiric_lifecycle_leases", "adapter") == 1


async def test_failed_cleanup_remains_in_the_accounts(workshop: Workshop, events: Events) -> None:
    candidates = [workshop.candidate("a", cleanup=fail(OSError("busy"))), workshop.candidate("b")]
    async with running(bare_settings(), events, *candidates) as runtime:
        await runtime.swap(PART, provider="a")
        await runtime.swap(PART, provider="b")
        await settle()
        readings = await runtime.readings()
        swaps = sum(r.value for r in readings if isinstance(r, Sample) and r.metric == "oneiric_lifecycle_swap_total")
        leaked = swaps - value(readings, "oneiric_lifecycle_cleanup_total", "adapter")
        leaked -= value(readings, "oneiric_lifecycle_active_instances", "adapter")
        assert leaked == 1


@pytest.mark.parametrize("activity", [Activity.PAUSED, Activity.DRAINING])
async def test_stopped_slot_is_counted(activity: Activity, workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime:
        await runtime.set_activity(PART, activity)
        assert await read(runtime, "oneiric_activity_components", "adapter", activity.value) == 1


# The log


async def test_slot_in_use_is_logged_once_a_minute_with_how_often(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime:
        await anyio.sleep(SAMPLE_INTERVAL / 2)
        for _ in range(5):
            await use_once(runtime, PART)
        await anyio.sleep(SAMPLE_INTERVAL)
        said = [(e["outcome"], e["provider"], e["suppressed"]) for e in events.named("resolver-decision")]
        assert said == [("success", "a", 0), ("success", "a", 4)]


async def test_idle_slot_is_not_logged(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime:
        await use_once(runtime, PART)
        await anyio.sleep(10 * SAMPLE_INTERVAL)
        assert len(events.named("resolver-decision")) == 2


# The event loop


async def test_loop_that_is_late_is_noticed() -> None:
    lag = LoopLag()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lag.run)
        await anyio.sleep(10 * INTERVAL)
        assert lag.worst < INTERVAL
        tasks.cancel_scope.cancel()


def test_names_of_the_program_are_bounded_by_the_meters() -> None:
    meters = Meters()
    for number in range(1000):
        meters.admit("adapter", f"key-{number}", "p")
    assert len([r for r in meters.read() if r.metric == "oneiric_lifecycle_swap_total"]) == 200 * 3


async def test_lease_of_a_thread_is_a_resolution(workshop: Workshop, events: Events) -> None:
    async with running(bare_settings(), events, workshop.candidate("a")) as runtime, runtime.use(PART):

        def use() -> None:
            with runtime.use(PART):
                pass

        await to_thread.run_sync(use)
        assert await read(runtime, RESOLUTIONS, "success", "adapter", "part") == 2


async def test_failure_that_lasts_is_logged_again_after_a_second(
    workshop: Workshop, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "monotonic", anyio.current_time)
    async with running(settings_of(selections={"part": "gone"}), events, workshop.candidate("a")) as runtime:
        for _ in range(3):
            await refused(runtime, PART, 5)
            await anyio.sleep(2)
        assert len([e for e in events.named("resolver-decision") if e["outcome"] == "failed"]) == 3
