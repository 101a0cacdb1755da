"""What serves is probed at intervals; what fails again and again is kept out until it is well."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import anyio
import pytest

from oneiric import NoCandidateError, Runtime, Slot, SwapFailedError
from oneiric.testing import PART, Events, Part, Workshop, answer, drag, hang
from tests.harness.simulation import without_threads
from tests.harness.slots import running, settings_of, use_once

pytestmark = pytest.mark.anyio
INTERVAL = 10.0
THRESHOLD = 3
LIFECYCLE = {"health_interval": INTERVAL, "failure_threshold": THRESHOLD}
OTHER: Slot[Any] = Slot("adapter", "other")
ENOUGH = (THRESHOLD + 2) * INTERVAL  # for a quarantine


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    with without_threads():
        yield


class Health:
    """Well or as told, and remembers when it was asked."""

    def __init__(self) -> None:
        self.answer: Any = True
        self.asked: list[float] = []

    async def __call__(self) -> Any:
        self.asked.append(anyio.current_time())
        return self.answer


@pytest.fixture
def health() -> Health:
    """Whether a is well."""
    return Health()


def watched(slot: dict[str, Any] | None = None, **more: Any) -> Any:
    return settings_of(slot, **{**LIFECYCLE, **more})


FAILOVER = watched({"failover": True})


def two(workshop: Workshop, health: Health, **of_a: Any) -> list[Any]:
    """a, which is chosen and as healthy as told, and b."""
    return [workshop.candidate("a", priority=1, health=health, **of_a), workshop.candidate("b")]


async def fall_ill(runtime: Runtime, health: Health) -> None:
    """Activate a and let it fail its probes until it is in quarantine."""
    await use_once(runtime, PART)
    health.answer = False
    await anyio.sleep(ENOUGH)


def serving(runtime: Runtime) -> str:
    return runtime.snapshot().record(PART).provider


def placing(runtime: Runtime, provider: str = "a") -> tuple[str, str]:
    (found,) = (p for p in runtime.resolve(PART).placings if p.candidate.provider == provider)
    return found.verdict, found.reason


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
