"""What is asked of one slot while it is busy: nothing that was decided or changed is lost, and everyone is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import wraps
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric import Runtime, Slot, SwapFailedError
from oneiric.errors import OneiricError, SlotUnavailableError, SupersededError
from oneiric.lifecycle.queue import Attempt, Queue
from oneiric.lifecycle.reports import SwapReport, SwapRequest
from oneiric.testing import PART, Events, Workshop, answer, hang
from tests.harness.simulation import without_threads
from tests.harness.slots import hold, running, settings_of

pytestmark = pytest.mark.anyio
SOON = 0.01  # asked while what takes a second is under way


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    with without_threads():
        yield


async def second() -> None:
    await anyio.sleep(1)


async def errors_of(*asked: Callable[[], Awaitable[Any]]) -> list[type[BaseException] | None]:
    """Ask one after the other, without waiting for the answers; return what each raised."""
    raised: list[type[BaseException] | None] = [None] * len(asked)

    async def ask(number: int, what: Callable[[], Awaitable[Any]]) -> None:
        try:
            await what()
        except OneiricError as error:
            raised[number] = type(error)

    async with anyio.create_task_group() as tasks:
        for number, what in enumerate(asked):
            tasks.start_soon(ask, number, what)
            await anyio.sleep(SOON)
    return raised


async def after(seconds: float, do: Callable[[], object]) -> None:
    await anyio.sleep(seconds)
    do()


def slow(workshop: Workshop, names: str = "abc", **fields: Any) -> list[Any]:
    """Candidates that take a second to build; the first outranks the others."""
    return [
        workshop.candidate(name, build=second, priority=len(names) - place, **fields)
        for place, name in enumerate(names)
    ]


def swap(runtime: Runtime, provider: str | None, **how: Any) -> Callable[[], Awaitable[SwapReport]]:
    return lambda: runtime.swap(PART, provider=provider, **how)


def pin_of(runtime: Runtime) -> str:
    pin = runtime.snapshot().record(PART).pin
    return pin.provider if pin is not None else ""


# One at a time


async def test_slot_builds_one_instance_at_a_time(opened: Any, workshop: Workshop) -> None:
    under_way, most = 0, 0

    async def build() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await anyio.sleep(1)
        under_way -= 1

    async with opened(*(workshop.candidate(name, build=build) for name in "abc")) as runtime:
        asked = [swap(runtime, name, dry_run=dry_run) for name in "abcabc" for dry_run in (False, True)]
        await errors_of(*asked, lambda: runtime.unpin(PART), lambda: runtime.reconcile())
    assert most == 1


async def test_slots_do_not_wait_for_each_other(opened: Any, workshop: Workshop) -> None:
    other: Slot[Any] = Slot("adapter", "other")
    candidates = workshop.candidate("a", build=hang), workshop.candidate("a", slot=other)
    async with opened(*candidates) as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(errors_of, swap(runtime, "a"))
        await anyio.sleep(SOON)
        started = anyio.current_time()
        await runtime.swap(other)
        assert anyio.current_time() == started
        tasks.cancel_scope.cancel()


# Decisions


async def test_later_decision_supersedes_one_that_waits(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime:
        raised = await errors_of(swap(runtime, "a"), swap(runtime, "b"), swap(runtime, "c"))
        assert (raised, pin_of(runtime)) == ([None, SupersededError, None], "c")


async def test_superseded_decision_says_that_precedence_will_choose(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(errors_of, swap(runtime, "b"))
        await anyio.sleep(SOON)
        tasks.start_soon(errors_of, lambda: anyio.sleep(SOON), swap(runtime, None, by="bob"))
        with pytest.raises(SupersededError, match="by a later request, by bob, for whom precedence chooses") as caught:
            await runtime.swap(PART, provider="c")
    assert caught.value.hint == "oneiric explain part --domain adapter"


async def test_superseded_decision_builds_and_counts_nothing(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime:
        await errors_of(swap(runtime, "a"), swap(runtime, "b"), swap(runtime, "c"))
        assert (len(workshop.by("b")), runtime.snapshot().record(PART).outcomes) == (0, {"success": 2})


async def test_equal_decisions_that_wait_pin_once(opened: Any, workshop: Workshop, events: Events) -> None:
    async with opened(*slow(workshop)) as runtime:
        raised = await errors_of(swap(runtime, "a"), swap(runtime, "b"), swap(runtime, "b"), swap(runtime, "b"))
    assert (raised, [pinned["provider"] for pinned in events.named("selection-pinned")]) == ([None] * 4, ["a", "b"])


async def test_decision_that_fails_does_not_stop_the_next(opened: Any, workshop: Workshop) -> None:
    sick = workshop.candidate("sick", build=second, health=answer(False))
    async with opened(*slow(workshop, "ab"), sick) as runtime:
        raised = await errors_of(swap(runtime, "sick"), swap(runtime, "b"))
        assert (raised, pin_of(runtime)) == ([SwapFailedError, None], "b")


async def test_unpin_supersedes_a_swap_that_waits(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime:
        raised = await errors_of(swap(runtime, "b"), swap(runtime, "c"), lambda: runtime.unpin(PART))
        record = runtime.snapshot().record(PART)
        assert (raised, record.provider, record.pin) == ([None, SupersededError, None], "a", None)


async def test_swap_supersedes_an_unpin_that_waits_and_its_pin_stays(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime:
        raised = await errors_of(swap(runtime, "b"), lambda: runtime.unpin(PART), swap(runtime, "c"))
        record = runtime.snapshot().record(PART)
        assert (raised, record.provider, pin_of(runtime)) == ([None, SupersededError, None], "c", "c")


async def test_unpin_during_a_swap_takes_back_the_pin_of_that_swap(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime:
        await errors_of(swap(runtime, "b"), lambda: runtime.unpin(PART))
        record = runtime.snapshot().record(PART)
        assert (record.provider, record.pin) == ("a", None)


async def test_equal_unpins_that_wait_share_one_attempt(opened: Any, workshop: Workshop, events: Events) -> None:
    async with opened(*slow(workshop)) as runtime:
        raised = await errors_of(swap(runtime, "b"), *[lambda: runtime.unpin(PART)] * 3)
    assert (raised, [event["provider"] for event in events.named("selection-unpinned")]) == ([None] * 4, ["b"])


async def test_each_of_the_equal_unpins_is_told_of_the_pin_there_was(opened: Any, workshop: Workshop) -> None:
    told = []

    async def unpin(runtime: Runtime) -> None:
        pin, report, _ = await runtime.unpin(PART)
        told.append((pin and pin.provider, report and report.provider))

    async with opened(*slow(workshop)) as runtime:
        await errors_of(swap(runtime, "b"), *[lambda: unpin(runtime)] * 2)
    assert told == [("b", "a")] * 2


async def test_forced_swap_that_shares_an_attempt_does_not_wait_for_the_drain(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(*slow(workshop)) as runtime, anyio.create_task_group() as tasks:
        await tasks.start(hold, runtime, release)
        started = anyio.current_time()
        tasks.start_soon(errors_of, swap(runtime, "b", dry_run=True), swap(runtime, "b"))
        await anyio.sleep(2 * SOON)
        await runtime.swap(PART, provider="b", force=True)
        assert (anyio.current_time() - started, len(workshop.by("b"))) == (2.0, 2)
        release.set()


async def test_swap_that_shares_the_attempt_of_a_forced_one_waits_for_the_drain(
    opened: Any, workshop: Workshop
) -> None:
    release = anyio.Event()
    async with opened(*slow(workshop)) as runtime, anyio.create_task_group() as tasks:
        old = await tasks.start(hold, runtime, release)
        tasks.start_soon(errors_of, swap(runtime, "b", dry_run=True), swap(runtime, "b", force=True))
        await anyio.sleep(2 * SOON)
        tasks.start_soon(after, 10.0, release.set)
        await runtime.swap(PART, provider="b")
        assert old.closed == 1


# Wishes to follow


async def test_settings_changed_during_a_swap_are_applied_to_what_it_builds(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(), events, *slow(workshop)) as runtime:
        await runtime.swap(PART)
        changed = settings_of(provider_settings={"b": {"size": 2}})
        await errors_of(swap(runtime, "b"), lambda: runtime.apply(changed))
        await anyio.sleep(2)
        async with runtime.use(PART) as part:
            assert (part.provider, part.settings) == ("b", {"size": 2})


async def test_settings_changed_during_a_swap_that_fails_are_applied_to_the_old_one(
    workshop: Workshop, events: Events
) -> None:
    sick = workshop.candidate("sick", build=second, health=answer(False))
    async with running(settings_of(), events, *slow(workshop), sick) as runtime:
        await runtime.swap(PART)
        changed = settings_of(provider_settings={"a": {"size": 2}})
        await errors_of(swap(runtime, "sick"), lambda: runtime.apply(changed))
        async with runtime.use(PART) as part:
            assert (part.provider, part.settings) == ("a", {"size": 2})


async def test_settings_changed_twice_during_a_swap_come_to_the_last(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(), events, *slow(workshop)) as runtime:
        await runtime.swap(PART)
        one, two = (settings_of(provider_settings={"a": {"size": size}}) for size in (1, 2))
        await errors_of(lambda: runtime.apply(one), lambda: runtime.apply(two))
        await anyio.sleep(5)
        async with runtime.use(PART) as part:
            assert part.settings == {"size": 2}


async def test_swap_during_a_reconcile_wins_and_its_pin_stays(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(), events, *slow(workshop)) as runtime:
        await runtime.swap(PART)
        selecting = settings_of(selections={"part": "b"})
        raised = await errors_of(lambda: runtime.apply(selecting), swap(runtime, "c"))
        await anyio.sleep(5)
        assert (raised, runtime.snapshot().record(PART).provider, pin_of(runtime)) == ([None, None], "c", "c")


async def test_wish_that_waits_is_not_superseded_by_a_decision(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(), events, *slow(workshop)) as runtime:
        await runtime.swap(PART)
        selecting = settings_of(selections={"part": "b"}, provider_settings={"c": {"size": 3}})
        raised = await errors_of(swap(runtime, "b"), lambda: runtime.apply(selecting), swap(runtime, "c"))
        async with runtime.use(PART) as part:
            assert (raised, part.provider, part.settings) == ([None] * 3, "c", {"size": 3})


async def test_first_use_during_a_swap_gets_what_the_swap_brings(opened: Any, workshop: Workshop) -> None:
    served = []

    async def use(runtime: Runtime) -> None:
        async with runtime.use(PART) as part:
            served.append(await part.work())

    async with opened(*slow(workshop)) as runtime:
        await errors_of(swap(runtime, "c"), lambda: use(runtime))
    assert served == ["c"]


# Rehearsals


async def test_rehearsal_does_not_supersede_a_decision_that_waits(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime:
        raised = await errors_of(swap(runtime, "a"), swap(runtime, "b"), swap(runtime, "c", dry_run=True))
        assert (raised, pin_of(runtime)) == ([None] * 3, "b")


async def test_decision_does_not_supersede_rehearsals_that_wait(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime:
        rehearsals = [swap(runtime, name, dry_run=True) for name in "bbc"]
        raised = await errors_of(swap(runtime, "a"), *rehearsals, swap(runtime, "c"))
        assert (raised, len(workshop.by("b")), len(workshop.by("c"))) == ([None] * 5, 2, 2)


async def test_decision_goes_before_rehearsals_that_wait(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime:
        await errors_of(swap(runtime, "a"), swap(runtime, "b", dry_run=True), swap(runtime, "c"))
    assert [part.provider for part in workshop.built] == ["a", "c", "b"]


# Callers that stop waiting


async def test_decision_whose_caller_left_before_it_began_is_carried_out(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(errors_of, swap(runtime, "a"))
        await anyio.sleep(SOON)
        with anyio.move_on_after(SOON):
            await runtime.swap(PART, provider="b")
        await anyio.sleep(5)
        assert pin_of(runtime) == "b"


async def test_caller_that_leaves_does_not_take_along_who_shares_its_attempt(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(errors_of, swap(runtime, "a"))
        await anyio.sleep(SOON)
        with anyio.move_on_after(SOON):
            await runtime.swap(PART, provider="b")
        report = await runtime.swap(PART, provider="b")
    assert (report.changed, len(workshop.by("b"))) == (True, 1)


async def test_unpin_whose_caller_left_is_carried_out(opened: Any, workshop: Workshop) -> None:
    async with opened(*slow(workshop)) as runtime:
        await runtime.swap(PART, provider="b")
        with anyio.move_on_after(SOON):
            await runtime.unpin(PART)
        await anyio.sleep(5)
        record = runtime.snapshot().record(PART)
        assert (record.provider, record.pin) == ("a", None)


# The end


async def test_close_answers_everyone_who_waits(workshop: Workshop, events: Events) -> None:
    answers: dict[str, Any] = {}

    async def ask(name: str, what: Callable[[], Awaitable[Any]]) -> None:
        try:
            answers[name] = await what()
        except OneiricError as error:
            answers[name] = type(error)

    candidate = workshop.candidate("a", build=hang)
    async with anyio.create_task_group() as tasks, running(settings_of(), events, candidate) as runtime:
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "under way": swap(runtime, "a"),
            "decision": swap(runtime, "b"),
            "rehearsal": swap(runtime, "a", dry_run=True),
            "first use": lambda: runtime.use(PART).__aenter__(),
        }
        for name, what in verbs.items():
            tasks.start_soon(ask, name, what)
            await anyio.sleep(SOON)
    assert answers == dict.fromkeys(verbs, SlotUnavailableError)


async def test_close_answers_who_waits_for_the_drain_that_the_swap_was_done(workshop: Workshop, events: Events) -> None:
    reports: list[SwapReport] = []

    async def ask(runtime: Runtime) -> None:
        reports.append(await runtime.swap(PART, provider="b"))

    async def hold(runtime: Runtime, *, task_status: Any) -> None:
        async with runtime.use(PART):
            task_status.started()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        async with running(settings_of(), events, *slow(workshop)) as runtime:
            await tasks.start(hold, runtime)
            tasks.start_soon(ask, runtime)
            await anyio.sleep(2)
        await anyio.sleep(SOON)
        tasks.cancel_scope.cancel()
    assert [(report.provider, report.changed) for report in reports] == [("b", True)]


# The queue by itself

DECISIONS = [SwapRequest("a"), SwapRequest("b"), SwapRequest("a", by="alice", force=True), SwapRequest(None)]
REQUESTS = [*DECISIONS, SwapRequest(follow=True), SwapRequest("a", dry_run=True)]
LATER = SwapReport(PART, "a", "a", 0.0, changed=False)
steps = st.lists(st.sampled_from([*REQUESTS, "take", "postpone"]), max_size=30)


def play(queue: Queue, drawn: list[Any]) -> tuple[list[tuple[SwapRequest, Attempt]], list[Attempt]]:
    """Do what was drawn; return what was put with its attempts, and the attempts in the order they were taken."""
    put, taken = [], []
    for step in drawn:
        if isinstance(step, SwapRequest):
            put.append((step, queue.put(step)))
        elif step == "postpone":
            queue.postpone(LATER)
        elif (attempt := queue.peek()) is not None:
            queue.take(attempt)
            taken.append(attempt)
    return put, taken


def rest(queue: Queue) -> list[Attempt]:
    _, taken = play(queue, ["take"] * 40)
    return taken


def in_a_loop(claim: Callable[[list[Any]], None]) -> Callable[[list[Any]], None]:
    """Attempts have events and scopes, which belong to an event loop."""

    @wraps(claim)
    def run(drawn: list[Any]) -> None:
        async def main() -> None:
            claim(drawn)

        anyio.run(main)

    return run


def superseded(attempt: Attempt) -> bool:
    return isinstance(attempt.error, SupersededError)


@given(steps)
@in_a_loop
def test_queue_hands_over_every_attempt_once_or_supersedes_it(drawn: list[Any]) -> None:
    queue = Queue(PART)
    put, taken = play(queue, drawn)
    taken += rest(queue)
    kept = {id(attempt) for _, attempt in put if not superseded(attempt)}
    assert sorted(map(id, taken)) == sorted(kept)


@given(steps)
@in_a_loop
def test_queue_never_supersedes_the_last_decision(drawn: list[Any]) -> None:
    queue = Queue(PART)
    put, _ = play(queue, drawn)
    decided = [attempt for request, attempt in put if not (request.follow or request.dry_run)]
    assert not decided or not superseded(decided[-1])


@given(steps)
@in_a_loop
def test_queue_supersedes_nothing_but_decisions(drawn: list[Any]) -> None:
    put, _ = play(Queue(PART), drawn)
    assert not [attempt for request, attempt in put if (request.follow or request.dry_run) and superseded(attempt)]


@given(steps)
@in_a_loop
def test_queue_hands_over_a_decision_before_anything_else(drawn: list[Any]) -> None:
    queue = Queue(PART)
    play(queue, drawn)
    kinds = [not (attempt.request.follow or attempt.request.dry_run) for attempt in rest(queue)]
    assert kinds == sorted(kinds, reverse=True)


@given(steps)
@in_a_loop
def test_queue_says_that_a_decision_waits_exactly_while_one_does(drawn: list[Any]) -> None:
    queue = Queue(PART)
    play(queue, drawn)
    waiting = queue.peek()
    assert queue.decided.is_set() == (waiting is not None and waiting.request in DECISIONS)


@given(steps)
@in_a_loop
def test_queue_says_that_more_than_a_wish_waits_exactly_while_it_does(drawn: list[Any]) -> None:
    queue = Queue(PART)
    play(queue, drawn)
    said = queue.asked.is_set()
    assert said == any(not attempt.request.follow for attempt in rest(queue))


@given(steps)
@in_a_loop
def test_queue_that_is_dropped_answers_everyone(drawn: list[Any]) -> None:
    queue = Queue(PART)
    put, taken = play(queue, drawn)
    queue.drop(SlotUnavailableError("closing"))
    waiting = [attempt for _, attempt in put if attempt not in taken]
    assert all(attempt.answered.is_set() and attempt.error is not None for attempt in waiting)
