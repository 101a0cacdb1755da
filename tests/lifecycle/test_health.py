"""What serves is probed at intervals; what fails again and again is kept out until it is well."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import pytest

from oneiric import NoCandidateError, Runtime, SwapFailedError
from oneiric.testing import PART, Events, Part, Workshop, drag, hang
from tests.harness.illness import (
    ENOUGH,
    FAILOVER,
    INTERVAL,
    OTHER,
    THRESHOLD,
    Health,
    fall_ill,
    placing,
    serving,
    two,
    watched,
)
from tests.harness.slots import running, use_once

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_threads")]


# Probes


async def test_instance_is_probed_at_every_interval(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await use_once(runtime, PART)
        await anyio.sleep(20 * INTERVAL + 1)
    waits = [later - earlier for earlier, later in pairwise(health.asked)]
    assert (len(waits), set(waits)) == (20, {INTERVAL})


async def test_what_a_probe_said_is_shown(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await use_once(runtime, PART)
        health.answer = "meh"
        await anyio.sleep(INTERVAL + 1)
        shown = runtime.snapshot().record(PART).health
    assert shown is not None
    assert shown.error == "health() returned 'meh', not True"


async def test_slot_without_an_instance_is_not_probed(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health)):
        await anyio.sleep(ENOUGH)
    assert health.asked == []


async def test_probe_that_hangs_does_not_delay_that_of_another_slot(workshop: Workshop, events: Events) -> None:
    other = Health()
    settings = watched(health_timeout=1000.0)
    hanging = workshop.candidate("a", health=hang)
    async with running(settings, events, hanging, workshop.candidate("a", slot=OTHER, health=other)) as runtime:
        await runtime.swap(PART, skip_health=True)
        await use_once(runtime, OTHER)
        await anyio.sleep(10 * INTERVAL + 1)
    assert {later - earlier for earlier, later in pairwise(other.asked)} == {INTERVAL}


async def test_probe_is_not_begun_while_one_is_under_way(workshop: Workshop, events: Events) -> None:
    under_way = most = 0

    async def probe() -> bool:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await anyio.sleep(5 * INTERVAL)
        under_way -= 1
        return True

    async with running(watched(health_timeout=1000.0), events, workshop.candidate("a", health=probe)) as runtime:
        await runtime.swap(PART, skip_health=True)
        await anyio.sleep(20 * INTERVAL)
    assert most == 1


async def test_probe_of_an_instance_that_was_swapped_away_meanwhile_changes_nothing(
    workshop: Workshop, events: Events
) -> None:
    async def fail_slowly() -> bool:
        await anyio.sleep(4)
        return False

    settings = watched(failure_threshold=1)
    slow = workshop.candidate("a", priority=1, health=fail_slowly)
    async with running(settings, events, slow, workshop.candidate("b")) as runtime:
        await runtime.swap(PART, skip_health=True)
        await anyio.sleep(INTERVAL + 1)  # the probe is under way
        await runtime.swap(PART, provider="b")
        await anyio.sleep(5)
        shown = runtime.snapshot().record(PART).health
    assert shown is not None
    assert (shown.healthy, "candidate-quarantined" in events) == (True, False)


class Confessing(Part):
    """A part that remembers whether it was closed whenever it was probed."""

    async def health(self) -> bool:
        self.seen = [*getattr(self, "seen", []), self.closed]
        return True


async def test_closed_instance_is_not_probed_while_the_runtime_closes(workshop: Workshop, events: Events) -> None:
    async def hold(runtime: Runtime, *, task_status: Any) -> None:
        async with runtime.use(OTHER):
            task_status.started()
            await anyio.sleep(10 * INTERVAL + 1)

    candidates = workshop.candidate("a", kind=Confessing), workshop.candidate("a", slot=OTHER, kind=Confessing)
    settings = watched(drain_timeout=1000.0)
    async with anyio.create_task_group() as callers, running(settings, events, *candidates) as runtime:
        await use_once(runtime, PART)
        await callers.start(hold, runtime)
    seen: list[int] = [closed for part in workshop.built for closed in part.seen]  # type: ignore[attr-defined]
    assert set(seen) == {0}


async def test_nothing_is_probed_after_the_runtime_closed(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await use_once(runtime, PART)
    asked = len(health.asked)
    await anyio.sleep(10 * INTERVAL)
    assert len(health.asked) == asked


# Quarantine


async def test_provider_is_in_quarantine_after_the_threshold_and_not_before(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await use_once(runtime, PART)
        health.answer = False
        await anyio.sleep((THRESHOLD - 1) * INTERVAL + 1)
        before = placing(runtime)[0]
        await anyio.sleep(INTERVAL)
        assert (before, placing(runtime)[0]) == ("active", "rejected")


async def test_healthy_answer_in_between_starts_the_count_anew(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await use_once(runtime, PART)
        await anyio.sleep(1)
        for said in (False, False, True, False, False):
            health.answer = said
            await anyio.sleep(INTERVAL)
    assert "candidate-quarantined" not in events


async def test_quarantine_is_reported_once_with_the_reason(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        await anyio.sleep(20 * INTERVAL)
    (reported,) = events.named("candidate-quarantined")
    assert (reported["provider"], reported["failures"]) == ("a", THRESHOLD)
    assert reported["error"] == "health() returned False, not True"


async def test_resolver_says_since_when_and_why(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        verdict, reason = placing(runtime)
    since, _, why = reason.partition("Z: ")
    assert (verdict, why) == ("rejected", "health() returned False, not True")
    assert since.startswith("quarantined since 20")


async def test_resolver_has_nobody_left_when_the_only_provider_is_ill(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(watched(), events, two(workshop, health)[0]) as runtime:
        await fall_ill(runtime, health)
        with pytest.raises(NoCandidateError) as caught:
            runtime.resolve(PART).require()
        assert (caught.value.reason, runtime.resolve(PART).failure) == ("unhealthy", "unhealthy")


async def test_quarantine_of_a_provider_is_that_of_one_slot(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health), workshop.candidate("a", slot=OTHER)) as runtime:
        await fall_ill(runtime, health)
        assert await use_once(runtime, OTHER) == "a"


async def test_probes_of_an_ill_instance_become_rarer(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        await anyio.sleep(100 * INTERVAL)
    waits = [later - earlier for earlier, later in pairwise(health.asked)]
    assert [wait / INTERVAL for wait in waits[THRESHOLD:]][:6] == [1, 2, 4, 8, 16, 16]


# What releases


async def test_explicit_swap_to_an_ill_provider_that_is_well_releases_it(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        health.answer = True
        await runtime.swap(PART, provider="a")
        assert (serving(runtime), placing(runtime)[0]) == ("a", "active")


async def test_explicit_swap_to_an_ill_provider_that_is_still_ill_keeps_it_in_quarantine(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART, provider="a")
        assert (serving(runtime), placing(runtime)[0]) == ("b", "rejected")


async def test_rehearsal_by_an_operator_releases_nobody(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        health.answer = True
        await runtime.swap(PART, provider="a", dry_run=True)
        assert placing(runtime)[0] == "rejected"


async def test_changed_settings_release_the_provider(workshop: Workshop, events: Events, health: Health) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        health.answer = True
        await runtime.apply(watched({"failover": True}, provider_settings={"a": {"url": "new"}}))
        async with runtime.use(PART) as part:
            assert (part.provider, part.settings) == ("a", {"url": "new"})


async def test_changed_settings_of_another_provider_release_nobody(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        await runtime.apply(watched({"failover": True}, provider_settings={"b": {"url": "new"}}))
        assert (serving(runtime), placing(runtime)[0]) == ("b", "rejected")


async def test_changed_settings_that_do_not_help_lead_back_into_quarantine(
    workshop: Workshop, events: Events, health: Health
) -> None:
    changed = watched({"failover": True}, provider_settings={"a": {"url": "new"}})
    async with running(FAILOVER, events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        await runtime.apply(changed)  # a is tried, refused by its probe, and b serves on
        assert serving(runtime) == "b"


async def test_operator_moves_a_slot_from_an_ill_instance_without_failover(
    workshop: Workshop, events: Events, health: Health
) -> None:
    async with running(watched(), events, *two(workshop, health)) as runtime:
        await fall_ill(runtime, health)
        await runtime.swap(PART, provider="b")
        assert (serving(runtime), placing(runtime)[0]) == ("b", "rejected")


async def test_provider_that_drags_in_quarantine_does_not_stop_the_watch(workshop: Workshop, events: Events) -> None:
    other = Health()
    dragging = workshop.candidate("a", health=drag, priority=1)
    well = workshop.candidate("a", slot=OTHER, health=other)
    async with running(FAILOVER, events, dragging, workshop.candidate("b"), well) as runtime:
        await runtime.swap(PART, skip_health=True)
        await use_once(runtime, OTHER)
        await anyio.sleep(50 * INTERVAL + 1)
        assert serving(runtime) == "b"
    assert {later - earlier for earlier, later in pairwise(other.asked)} == {INTERVAL}


async def test_close_while_a_recovery_is_rehearsed_closes_everything_once(
    workshop: Workshop, events: Events, health: Health
) -> None:
    slow, building = False, False

    async def build() -> None:
        nonlocal building
        if slow:
            building = True
            await anyio.sleep(20)

    async with running(FAILOVER, events, *two(workshop, health, build=build)) as runtime:
        await fall_ill(runtime, health)
        slow = True
        while not building:
            await anyio.sleep(1)
    workshop.require_closed_once()
