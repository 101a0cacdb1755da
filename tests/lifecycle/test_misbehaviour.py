"""Whatever foreign code does: the old instance serves on, what was built is closed once, one outcome is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import msgspec
import pytest

from oneiric import Candidate, Runtime, Slot, SwapFailedError
from oneiric.runtime.snapshot import SlotRecord
from oneiric.testing import PART, Events, Part, Workshop, answer, drag, fail, hang, swallow

pytestmark = pytest.mark.anyio


class Unspeakable(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Mute:
    """An answer that cannot be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Thorny(Part):
    """A part that lets nobody look at its health."""

    @property
    def health(self) -> Any:
        raise RuntimeError("do not look")


class Empty(Part):
    """A part that is false, as an empty container is."""

    def __len__(self) -> int:
        return 0


class False_(Part):
    """A part that says it is false."""

    def __bool__(self) -> bool:
        return False


class Case(NamedTuple):
    make: Callable[[Workshop], Candidate[Any]]
    reason: str
    built: bool = False  # whether the attempt got as far as an instance
    cleanup_fails: bool = False
    late: bool = False


def offer(**behaviour: Any) -> Callable[[Workshop], Candidate[Any]]:
    return lambda workshop: workshop.candidate("new", **behaviour)


def returning_none(workshop: Workshop) -> Candidate[Any]:
    async def nothing() -> None:
        return None

    return msgspec.structs.replace(workshop.candidate("new"), factory=nothing)


def not_there(workshop: Workshop) -> Candidate[Any]:
    return msgspec.structs.replace(workshop.candidate("new"), factory="oneiric.nowhere:Nothing")


CASES = {
    "factory raises": Case(offer(build=fail(ValueError("broken"))), "factory"),
    "factory raises TimeoutError": Case(offer(build=fail(TimeoutError("upstream"))), "factory"),
    "factory raises what cannot be printed": Case(offer(build=fail(Unspeakable())), "factory"),
    "factory exits": Case(offer(build=fail(SystemExit(3))), "factory"),
    "factory is interrupted": Case(offer(build=fail(KeyboardInterrupt())), "factory"),
    "factory raises GeneratorExit": Case(offer(build=fail(GeneratorExit())), "factory"),
    "factory raises a group": Case(offer(build=fail(BaseExceptionGroup("two", [SystemExit(1)]))), "factory"),
    "factory returns None": Case(returning_none, "factory"),
    "factory hangs": Case(offer(build=hang), "timeout"),
    "factory swallows its cancellation": Case(offer(build=swallow), "timeout", late=True),
    "factory completes after its timeout": Case(offer(build=drag), "timeout", late=True),
    "factory completes late, cleanup fails": Case(
        offer(build=drag, cleanup=fail(OSError("stuck"))), "timeout", cleanup_fails=True, late=True
    ),
    "health says False": Case(offer(health=answer(False)), "health-check", built=True),
    "health says None": Case(offer(health=answer(None)), "health-check", built=True),
    "health says 1": Case(offer(health=answer(1)), "health-check", built=True),
    "health says what cannot be printed": Case(offer(health=answer(Mute())), "health-check", built=True),
    "health raises": Case(offer(health=fail(ConnectionRefusedError("no"))), "health-check", built=True),
    "health raises what cannot be printed": Case(offer(health=fail(Unspeakable())), "health-check", built=True),
    "health exits": Case(offer(health=fail(SystemExit(1))), "health-check", built=True),
    "health hangs": Case(offer(health=hang), "health-check", built=True),
    "health swallows its cancellation": Case(offer(health=swallow), "health-check", built=True),
    "health cannot be looked at": Case(offer(kind=Thorny), "health-check", built=True),
    "health and cleanup raise": Case(
        offer(health=answer(False), cleanup=fail(OSError("stuck"))), "health-check", built=True, cleanup_fails=True
    ),
    "health fails, cleanup hangs": Case(
        offer(health=answer(False), cleanup=hang), "health-check", built=True, cleanup_fails=True
    ),
    "health fails, cleanup exits": Case(
        offer(health=answer(False), cleanup=fail(SystemExit(1))), "health-check", built=True, cleanup_fails=True
    ),
    "empty instance is unhealthy": Case(offer(kind=Empty, health=answer(False)), "health-check", built=True),
}
WITHOUT_IMPORTS = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


class Aftermath(NamedTuple):
    """What a failed swap left, while the runtime was open."""

    error: SwapFailedError
    served_by: str
    old: Part
    record: SlotRecord


@pytest.fixture
def aftermath(opened: Any, workshop: Workshop) -> Any:
    async def aftermath(case: Case) -> Aftermath:
        async with opened(workshop.candidate("old", priority=1), case.make(workshop)) as runtime:
            async with runtime.use(PART) as old:
                pass
            with pytest.raises(SwapFailedError) as caught:
                await runtime.swap(PART, provider="new")
            async with runtime.use(PART) as part:
                served_by = await part.work()
            await anyio.sleep(7200)  # long enough for what is late
            record = runtime.snapshot().record(PART)
            assert old.closed == 0
        return Aftermath(caught.value, served_by, old, record)

    return aftermath


@WITHOUT_IMPORTS
async def test_failed_swap_keeps_the_previous_instance(case: Case, aftermath: Any) -> None:
    after = await aftermath(case)
    assert (after.served_by, after.record.provider, str(after.record.state)) == ("old", "old", "ready")


@WITHOUT_IMPORTS
async def test_failed_swap_closes_what_was_built_exactly_once(case: Case, aftermath: Any, workshop: Workshop) -> None:
    await aftermath(case)
    assert len(workshop.by("new")) == (case.built or case.late)
    workshop.require_closed_once()


@WITHOUT_IMPORTS
async def test_failed_swap_counts_exactly_one_outcome(case: Case, aftermath: Any) -> None:
    after = await aftermath(case)
    assert after.record.outcomes == {"success": 1, "rollback" if case.built else "failed": 1}


@WITHOUT_IMPORTS
async def test_failed_swap_names_its_reason(case: Case, aftermath: Any) -> None:
    after = await aftermath(case)
    assert (after.error.reason, after.error.rolled_back) == (case.reason, case.built)


@WITHOUT_IMPORTS
async def test_failed_swap_reports_what_the_catalog_says(case: Case, aftermath: Any, events: Events) -> None:
    await aftermath(case)
    new = [name for name, fields in events.all if fields.get("provider") == "new" and name != "resolver-decision"]
    probed = ["health-check-failed"] if case.built else []
    disposed = ["cleanup-started", "cleanup-failed" if case.cleanup_fails else "cleanup-complete"]
    if case.late:
        assert new == ["swap-failed", *disposed]
    else:
        assert new == [*probed, *(disposed if case.built else []), "swap-failed"]


@WITHOUT_IMPORTS
async def test_failed_swap_tells_of_a_rollback_only_if_something_was_built(
    case: Case, aftermath: Any, events: Events
) -> None:
    await aftermath(case)
    assert [e["failed_provider"] for e in events.named("swap-rollback")] == (["new"] if case.built else [])


@WITHOUT_IMPORTS
async def test_failed_first_activation_is_failed_and_the_next_use_tries_again(
    case: Case, opened: Any, workshop: Workshop
) -> None:
    async with opened(case.make(workshop)) as runtime:
        for _ in range(2):
            with pytest.raises(SwapFailedError):
                async with runtime.use(PART):
                    pass
        record = runtime.snapshot().record(PART)
    assert (record.outcomes, str(record.state)) == ({"failed": 2}, "failed")


@WITHOUT_IMPORTS
async def test_failed_first_activation_closes_what_was_built_exactly_once(
    case: Case, opened: Any, workshop: Workshop
) -> None:
    async with opened(case.make(workshop)) as runtime:
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART)
        await anyio.sleep(7200)
    workshop.require_closed_once()


CLEANUPS = {
    "raises": fail(OSError("stuck")),
    "raises what cannot be printed": fail(Unspeakable()),
    "exits": fail(SystemExit(1)),
    "is interrupted": fail(KeyboardInterrupt()),
    "hangs": hang,
    "swallows its cancellation": swallow,
    "drags on": drag,
}


@pytest.mark.parametrize("cleanup", CLEANUPS.values(), ids=CLEANUPS)
async def test_failing_cleanup_of_the_old_instance_leaves_the_new_one_serving(
    cleanup: Any, opened: Any, workshop: Workshop
) -> None:
    async with opened(workshop.candidate("old", cleanup=cleanup), workshop.candidate("new")) as runtime:
        await runtime.swap(PART, provider="old")
        report = await runtime.swap(PART, provider="new")
        async with runtime.use(PART) as part:
            assert await part.work() == "new"
    assert report.cleanup_error.startswith("old: cleanup failed: ")


@pytest.mark.parametrize("cleanup", CLEANUPS.values(), ids=CLEANUPS)
async def test_failing_cleanup_of_the_old_instance_is_reported_and_is_no_failed_swap(
    cleanup: Any, opened: Any, workshop: Workshop, events: Events
) -> None:
    async with opened(workshop.candidate("old", cleanup=cleanup), workshop.candidate("new")) as runtime:
        await runtime.swap(PART, provider="old")
        await runtime.swap(PART, provider="new")
        assert [event["provider"] for event in events.named("cleanup-failed")] == ["old"]
        assert runtime.snapshot().record(PART).outcomes == {"success": 2}


@pytest.mark.parametrize("cleanup", CLEANUPS.values(), ids=CLEANUPS)
async def test_failing_cleanup_is_not_tried_again(cleanup: Any, opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("old", cleanup=cleanup), workshop.candidate("new")) as runtime:
        await runtime.swap(PART, provider="old")
        await runtime.swap(PART, provider="new")
    workshop.require_closed_once()


@pytest.mark.parametrize("kind", [Empty, False_])
async def test_falsy_instance_is_served(kind: type[Part], opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("falsy", kind=kind)) as runtime, runtime.use(PART) as part:
        assert await part.work() == "falsy"


@pytest.mark.parametrize("kind", [Empty, False_])
async def test_falsy_instance_is_swapped_away_and_closed_once(
    kind: type[Part], opened: Any, workshop: Workshop
) -> None:
    async with opened(workshop.candidate("falsy", kind=kind), workshop.candidate("new")) as runtime:
        await runtime.swap(PART, provider="falsy")
        await runtime.swap(PART, provider="new")
        assert [part.closed for part in workshop.by("falsy")] == [1]
    workshop.require_closed_once()


async def test_instance_without_health_or_cleanup_is_fine(opened: Any, workshop: Workshop) -> None:
    async def plain() -> object:
        return object()

    async with opened(msgspec.structs.replace(workshop.candidate("plain"), factory=plain)) as runtime:
        report = await runtime.swap(PART)
    assert report.provider == "plain"


@pytest.mark.parametrize("name", ["aclose", "cleanup", "close"])
async def test_instance_is_closed_by_whichever_closer_it_has(name: str, opened: Any, workshop: Workshop) -> None:
    calls: list[str] = []

    async def closer() -> None:
        calls.append(name)

    class Plain:
        def __init__(self) -> None:
            setattr(self, name, closer)

    async def build() -> Plain:
        return Plain()

    async with opened(msgspec.structs.replace(workshop.candidate("plain"), factory=build)) as runtime:
        await runtime.swap(PART)
    assert calls == [name]


async def test_instance_with_several_closers_is_closed_by_one(opened: Any, workshop: Workshop) -> None:
    calls: list[str] = []

    class Plain:
        async def aclose(self) -> None:
            calls.append("aclose")

        async def cleanup(self) -> None:
            calls.append("cleanup")

        async def close(self) -> None:
            calls.append("close")

    async def build() -> Plain:
        return Plain()

    async with opened(msgspec.structs.replace(workshop.candidate("plain"), factory=build)) as runtime:
        await runtime.swap(PART)
    assert calls == ["aclose"]


async def test_abandoned_calls_are_counted_until_they_end(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("slow", build=drag)) as runtime:
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART)
        before = runtime.abandoned_calls
        await anyio.sleep(7200)
        assert (before, runtime.abandoned_calls) == (1, 0)


async def test_hanging_slot_does_not_hold_up_another(opened: Any, workshop: Workshop) -> None:
    other: Slot[Any] = Slot("adapter", "other")
    candidates = workshop.candidate("slow", build=drag), workshop.candidate("quick", slot=other)
    async with opened(*candidates) as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(_try_swap, runtime)
        await anyio.sleep(1)
        started = anyio.current_time()
        async with runtime.use(other) as part:
            await part.work()
        assert anyio.current_time() == started
        tasks.cancel_scope.cancel()


async def _try_swap(runtime: Runtime) -> None:
    with pytest.raises(SwapFailedError):
        await runtime.swap(PART)


async def test_instances_that_come_late_are_told_apart_in_the_log(
    opened: Any, workshop: Workshop, events: Events
) -> None:
    async with opened(workshop.candidate("old", priority=1), workshop.candidate("new", build=drag)) as runtime:
        for _ in range(2):
            with pytest.raises(SwapFailedError):
                await runtime.swap(PART, provider="new")
        await anyio.sleep(7200)  # both have come
    started = [fields["instance_id"] for fields in events.named("cleanup-started") if fields["aside"]]
    assert (len(started), len(set(started))) == (2, 2)
