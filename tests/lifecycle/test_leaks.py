"""Instances that should be gone and are not: held, not closed or still referenced; and how much memory each takes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import msgspec
import pytest

from oneiric import Runtime, Slot, SwapFailedError
from oneiric.lifecycle.instances import REMEMBERED, SETTLED
from oneiric.lifecycle.memory import resident_bytes
from oneiric.lifecycle.reports import Leak
from oneiric.testing import PART, Events, Part, Workshop, answer, fail
from tests.harness.slots import settle, use_once

pytestmark = pytest.mark.anyio
MEBIBYTE = 1024 * 1024


class Plain:
    """A part that a test holds no reference to, unless it wants to."""

    made: list[weakref.ref[Any]] = []

    def __init__(self) -> None:
        self.made.append(weakref.ref(self))

    async def aclose(self) -> None:
        return


class Rigid:
    """A part that weak references cannot point to."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


def making(workshop: Workshop, kind: Callable[[], Any], provider: str = "a", **fields: Any) -> Any:
    """A candidate whose instances nobody keeps."""

    async def factory() -> Any:
        return kind()

    return msgspec.structs.replace(workshop.candidate(provider, **fields), factory=factory)


@pytest.fixture
def made() -> list[weakref.ref[Any]]:
    """Every Plain that was made."""
    Plain.made.clear()
    return Plain.made


class Clock:
    """The time of day, as the engine sees it."""

    def __init__(self, runtime: Runtime) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        runtime._manager.instances._now = lambda: self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


async def hold(runtime: Runtime, release: anyio.Event, holder: str = "", *, task_status: Any) -> None:
    async with runtime.use(PART, holder=holder):
        task_status.started()
        await release.wait()


def leaks(runtime: Runtime) -> tuple[Leak, ...]:
    return runtime.snapshot().record(PART).leaks


def kinds(runtime: Runtime) -> list[str]:
    gc.collect()
    return [leak.kind for leak in leaks(runtime)]


# Held


async def test_instance_held_past_the_drain_timeout_is_a_leak_that_names_its_holder(
    opened: Any, workshop: Workshop
) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        before = runtime.snapshot().record(PART)
        await tasks.start(hold, runtime, release, "import job 7")
        await runtime.swap(PART, provider="b")
        (leak,) = leaks(runtime)
        assert leak == Leak("a", before.instance_id, before.built_at, "held", 1, "import job 7")  # type: ignore[arg-type]
        release.set()


async def test_held_instance_is_no_leak_before_the_drain_timeout(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        await tasks.start(hold, runtime, release)
        await runtime.swap(PART, provider="b", force=True)
        await anyio.sleep(29)
        assert leaks(runtime) == ()
        release.set()


async def test_holder_named_last_is_the_one_shown(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        for holder in ("first", "second", ""):
            await tasks.start(hold, runtime, release, holder)
        await runtime.swap(PART, provider="b")
        assert [(leak.leases, leak.holder) for leak in leaks(runtime)] == [(3, "second")]
        release.set()


async def test_held_instance_stops_being_a_leak_when_it_is_let_go(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        await tasks.start(hold, runtime, release)
        await runtime.swap(PART, provider="b")
        release.set()
        await settle()
        assert leaks(runtime) == ()


async def test_held_instance_is_reported_once(opened: Any, workshop: Workshop, events: Events) -> None:
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        await tasks.start(hold, runtime, release)
        await runtime.swap(PART, provider="b")
        await anyio.sleep(3600)
        release.set()
    (reported,) = events.named("instance-leaked")
    assert (reported["provider"], reported["instance_id"], reported["leases"]) == ("a", "adapter/part#1", 1)
    assert reported["error"] == "1 lease still held after 30 s; closed when the last ends"


async def test_instance_held_while_the_runtime_closes_is_reported(
    opened: Any, workshop: Workshop, events: Events
) -> None:
    release = anyio.Event()
    async with anyio.create_task_group() as tasks:
        async with opened(workshop.candidate("a")) as runtime:
            await tasks.start(hold, runtime, release)
        release.set()
    (reported,) = events.named("instance-leaked")
    assert reported["error"] == "1 lease held while the runtime closes; closed all the same"


# Not closed


async def test_instance_whose_cleanup_failed_is_a_leak_at_once(opened: Any, workshop: Workshop) -> None:
    messy = workshop.candidate("a", cleanup=fail(OSError("stuck")))
    async with opened(messy, workshop.candidate("b")) as runtime:
        await runtime.swap(PART, provider="a")
        await runtime.swap(PART, provider="b")
        assert [(leak.provider, leak.kind, leak.leases) for leak in leaks(runtime)] == [("a", "not-closed", 0)]


async def test_instance_whose_cleanup_failed_is_no_leak_once_it_is_gone(opened: Any, workshop: Workshop) -> None:
    class Stuck(Plain):
        async def aclose(self) -> None:
            raise OSError("stuck")

    async with opened(making(workshop, Stuck), workshop.candidate("b")) as runtime:
        await runtime.swap(PART, provider="a")
        await runtime.swap(PART, provider="b")
        assert kinds(runtime) == []


# Referenced


async def test_closed_instance_that_is_still_referenced_is_a_leak_after_a_while(
    opened: Any, workshop: Workshop
) -> None:
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime:
        clock = Clock(runtime)
        await runtime.swap(PART, provider="a")
        await runtime.swap(PART, provider="b")
        clock.pass_seconds(SETTLED - 1)
        before = kinds(runtime)
        clock.pass_seconds(2)
        assert (before, kinds(runtime)) == ([], ["referenced"])


async def test_closed_instance_that_nobody_references_is_no_leak(
    opened: Any, workshop: Workshop, made: list[Any]
) -> None:
    async with opened(making(workshop, Plain), workshop.candidate("b")) as runtime:
        clock = Clock(runtime)
        await runtime.swap(PART, provider="a")
        await runtime.swap(PART, provider="b")
        clock.pass_seconds(2 * SETTLED)
        assert (kinds(runtime), [reference() for reference in made]) == ([], [None])


async def test_leak_that_is_dropped_at_last_is_no_leak_any_more(
    opened: Any, workshop: Workshop, made: list[Any]
) -> None:
    kept = []
    async with opened(making(workshop, Plain), workshop.candidate("b")) as runtime:
        clock = Clock(runtime)
        await runtime.swap(PART, provider="a")
        async with runtime.use(PART) as part:
            kept.append(part)
        del part
        await runtime.swap(PART, provider="b")
        clock.pass_seconds(2 * SETTLED)
        before = kinds(runtime)
        kept.clear()
        assert (before, kinds(runtime)) == (["referenced"], [])


async def test_leaks_are_those_of_the_slot(opened: Any, workshop: Workshop) -> None:
    other: Slot[Any] = Slot("adapter", "other")
    offers = [workshop.candidate(name, slot=slot) for name in "ab" for slot in (PART, other)]
    async with opened(*offers) as runtime:
        clock = Clock(runtime)
        for provider in "ab":
            await runtime.swap(PART, provider=provider)
        await runtime.swap(other)
        clock.pass_seconds(2 * SETTLED)
        shown = runtime.snapshot()
        assert (len(shown.record(PART).leaks), shown.record(other).leaks) == (1, ())


async def test_memory_of_leaks_is_bounded(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime:
        clock = Clock(runtime)
        for number in range(REMEMBERED + 20):
            await runtime.swap(PART, provider="ab"[number % 2])
        clock.pass_seconds(2 * SETTLED)
        assert len(kinds(runtime)) == REMEMBERED


# What never was a leak


@pytest.mark.parametrize("kind", [Rigid, dict, lambda: [1], lambda: 42], ids=["slots", "dict", "list", "int"])
async def test_type_without_weak_references_is_swapped_and_told_nothing_about(
    kind: Callable[[], Any], opened: Any, workshop: Workshop
) -> None:
    async with opened(making(workshop, kind), workshop.candidate("b")) as runtime:
        clock = Clock(runtime)
        await runtime.swap(PART, provider="a")
        await runtime.swap(PART, provider="b")
        clock.pass_seconds(2 * SETTLED)
        assert (kinds(runtime), runtime.snapshot().record(PART).instances) == ([], 1)


async def test_type_without_weak_references_is_a_leak_while_it_is_held(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    candidates = making(workshop, Rigid), workshop.candidate("b")
    async with opened(*candidates) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART, provider="a")
        await tasks.start(hold, runtime, release)
        await runtime.swap(PART, provider="b")
        assert kinds(runtime) == ["held"]
        release.set()


async def refuse(_notice: Any) -> None:
    raise ValueError("no")


async def replaced(runtime: Runtime) -> None:
    await runtime.swap(PART, provider="a")
    await runtime.swap(PART, provider="b")


async def rehearsed(runtime: Runtime) -> None:
    await runtime.swap(PART, provider="a", dry_run=True)


async def refused_before(runtime: Runtime) -> None:
    runtime.on_swap(PART, before=refuse)
    with pytest.raises(SwapFailedError):
        await runtime.swap(PART, provider="a")


async def refused_after(runtime: Runtime) -> None:
    runtime.on_swap(PART, after=refuse)
    with pytest.raises(SwapFailedError):
        await runtime.swap(PART, provider="a")
    await settle()


async def used(runtime: Runtime) -> None:
    await runtime.swap(PART, provider="a")
    async with runtime.use(PART):
        pass
    await runtime.swap(PART, provider="b")


@pytest.mark.parametrize("how", [replaced, rehearsed, refused_before, refused_after, used])
async def test_engine_keeps_no_reference_to_what_it_closed(
    how: Any, opened: Any, workshop: Workshop, made: list[Any]
) -> None:
    async with opened(making(workshop, Plain), workshop.candidate("b", priority=1)) as runtime:
        await runtime.swap(PART)
        await how(runtime)
        await settle()
        gc.collect()
        assert [reference() for reference in made] == [None]


# Counts


async def test_instances_are_those_built_and_not_closed(opened: Any, workshop: Workshop) -> None:
    counts = []
    release = anyio.Event()
    async with opened(workshop.candidate("a"), workshop.candidate("b")) as runtime, anyio.create_task_group() as tasks:

        def count() -> None:
            counts.append(runtime.snapshot().record(PART).instances)

        count()
        await runtime.swap(PART, provider="a")
        count()
        await tasks.start(hold, runtime, release)
        await runtime.swap(PART, provider="b", force=True)
        count()
        release.set()
        await settle()
        count()
    assert counts == [0, 1, 2, 1]


async def test_instance_under_rehearsal_counts_while_it_is_there(opened: Any, workshop: Workshop) -> None:
    counts = []

    class Counting(Part):
        async def health(self) -> bool:
            counts.append(runtime.snapshot().record(PART).instances)
            return True

    async with opened(workshop.candidate("a", priority=1), workshop.candidate("b", kind=Counting)) as runtime:
        await use_once(runtime, PART)
        await runtime.swap(PART, provider="b", dry_run=True)
        counts.append(runtime.snapshot().record(PART).instances)
    assert counts == [2, 1]


async def test_instance_that_failed_its_probe_does_not_count(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", health=answer(False))) as runtime:
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART)
        assert runtime.snapshot().record(PART).instances == 0


# Memory


class Heavy:
    """A part that takes 64 MiB, every page of it touched."""

    def __init__(self) -> None:
        self.ballast = bytearray(b"x" * 64 * MEBIBYTE)


@pytest.mark.skipif(not resident_bytes(), reason="the system does not tell how much memory a process has")
async def test_memory_of_an_instance_is_what_the_process_grew_by(opened: Any, workshop: Workshop) -> None:
    async with opened(making(workshop, Heavy)) as runtime:
        await runtime.swap(PART)
        assert 56 * MEBIBYTE <= runtime.snapshot().record(PART).memory_bytes <= 160 * MEBIBYTE


async def test_memory_of_a_small_instance_is_not_negative(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        await runtime.swap(PART)
        assert 0 <= runtime.snapshot().record(PART).memory_bytes < 16 * MEBIBYTE


async def test_memory_of_a_closed_instance_does_not_count(opened: Any, workshop: Workshop) -> None:
    async with opened(making(workshop, Heavy), workshop.candidate("b")) as runtime:
        await runtime.swap(PART, provider="a")
        await runtime.swap(PART, provider="b")
        assert runtime.snapshot().record(PART).memory_bytes < 16 * MEBIBYTE
