"""Leases in worker threads: a plain ``with``, on asyncio and real threads, while the event loop swaps."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import to_thread

from oneiric import NoCandidateError, Runtime, Slot, SwapFailedError
from oneiric.core.states import Activity
from oneiric.errors import SlotUnavailableError
from oneiric.testing import PART, Events, Part, Workshop, answer, bare_settings
from tests.harness.slots import running, settings_of

pytestmark = pytest.mark.anyio
ENOUGH = 10.0  # for what has to happen soon; reaching it is a failure
THREADS = 4
BUSY = 2.0  # seconds of swapping as fast as possible


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Checked(Part):
    """A part whose synchronous work notices when it is closed meanwhile."""

    def toil(self) -> str:
        for _ in range(5):
            self._require_open()
            os.sched_yield()
        self._require_open()
        return self.provider


def use_in_thread(runtime: Runtime, slot: Slot[Any] = PART) -> str:
    with runtime.use(slot) as part:
        served: str = part.toil()
        return served


class Holder:
    """A thread that takes a lease and keeps it until told to let go."""

    def __init__(self, runtime: Runtime, name: str = "") -> None:
        self.entered, self.release, self.left = threading.Event(), threading.Event(), threading.Event()
        self.part: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(runtime, name), daemon=True)
        self.thread.start()

    def _run(self, runtime: Runtime, name: str) -> None:
        try:
            with runtime.use(PART, holder=name) as self.part:
                self.entered.set()
                self.release.wait(ENOUGH)
                self.part.toil()
        except BaseException as error:
            self.error = error
        self.left.set()

    async def wait(self, event: threading.Event) -> None:
        assert await to_thread.run_sync(event.wait, ENOUGH)


async def eventually(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(ENOUGH):
        while not holds():
            await anyio.lowlevel.checkpoint()


def offer(workshop: Workshop, names: str = "ab", **how: Any) -> list[Any]:
    return [
        workshop.candidate(name, kind=Checked, priority=len(names) - place, **how) for place, name in enumerate(names)
    ]


# While it is swapped


async def test_threads_never_see_a_closed_instance_while_the_loop_swaps(opened: Any, workshop: Workshop) -> None:
    stop, calls, errors = threading.Event(), [0] * THREADS, []
    swaps = 0

    def work(runtime: Runtime, number: int) -> None:
        try:
            while not stop.is_set():
                use_in_thread(runtime)
                calls[number] += 1
        except BaseException as error:
            errors.append(error)

    async with opened(*offer(workshop)) as runtime:
        async with anyio.create_task_group() as tasks:
            for number in range(THREADS):
                tasks.start_soon(to_thread.run_sync, work, runtime, number)
            with anyio.move_on_after(BUSY):
                while True:
                    await runtime.swap(PART, provider="ba"[swaps % 2], force=True)
                    swaps += 1
            stop.set()
        assert runtime.snapshot().record(PART).leases == 0
    assert errors == []
    assert swaps > 100
    assert min(calls) > 10
    workshop.require_closed_once()


async def test_threads_never_see_a_closed_instance_while_the_loop_swaps_exclusive_ones(
    opened: Any, workshop: Workshop
) -> None:
    there: list[Any] = []

    class Sole(Checked):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            assert not there
            there.append(self)

        async def aclose(self) -> None:
            await super().aclose()
            there.remove(self)

    def work(runtime: Runtime) -> None:
        for _ in range(300):
            use_in_thread(runtime)

    candidates = [workshop.candidate(name, kind=Sole, exclusive=True) for name in "ab"]
    async with opened(*candidates) as runtime:
        await runtime.swap(PART, provider="a")
        async with anyio.create_task_group() as tasks:
            for _ in range(THREADS):
                tasks.start_soon(to_thread.run_sync, work, runtime)
            for _ in range(20):
                for provider in "ba":
                    await runtime.swap(PART, provider=provider)
    workshop.require_closed_once()


async def test_swap_waits_for_the_lease_of_a_thread(opened: Any, workshop: Workshop) -> None:
    async with opened(*offer(workshop)) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART)
        holder = Holder(runtime)
        await holder.wait(holder.entered)
        tasks.start_soon(lambda: runtime.swap(PART, provider="b"))
        await eventually(lambda: runtime.snapshot().record(PART).provider == "b")
        before = holder.part.closed
        holder.release.set()
        await holder.wait(holder.left)
        await eventually(lambda: holder.part.closed == 1)
        assert (before, holder.error) == (0, None)


async def test_drain_waits_for_the_lease_of_a_thread(opened: Any, workshop: Workshop) -> None:
    drained = []

    async def drain(runtime: Runtime) -> None:
        drained.append(await runtime.drain(PART))

    async with opened(*offer(workshop)) as runtime, anyio.create_task_group() as tasks:
        await runtime.swap(PART)
        holder = Holder(runtime)
        await holder.wait(holder.entered)
        tasks.start_soon(drain, runtime)
        await eventually(lambda: runtime.snapshot().record(PART).state == "draining")
        before = list(drained)
        holder.release.set()
        await eventually(lambda: bool(drained))
        assert (before, drained[0][0].drained) == ([], True)


async def test_lease_of_a_thread_held_past_the_drain_timeout_is_a_leak_with_its_holder(
    opened: Any, workshop: Workshop
) -> None:
    async with opened(*offer(workshop), drain_timeout=0.05) as runtime:
        await runtime.swap(PART)
        holder = Holder(runtime, "worker 3")
        await holder.wait(holder.entered)
        await runtime.swap(PART, provider="b")
        (leak,) = runtime.snapshot().record(PART).leaks
        holder.release.set()
        await eventually(lambda: holder.part.closed == 1)
        assert (leak.kind, leak.leases, leak.holder) == ("held", 1, "worker 3")


async def test_leases_of_threads_and_tasks_are_counted_together(opened: Any, workshop: Workshop) -> None:
    async with opened(*offer(workshop)) as runtime, runtime.use(PART):
        holder = Holder(runtime)
        await holder.wait(holder.entered)
        during = runtime.snapshot().record(PART).leases
        holder.release.set()
        await holder.wait(holder.left)
        assert (during, runtime.snapshot().record(PART).leases) == (2, 1)


async def test_lease_of_a_thread_ends_when_its_block_raises(opened: Any, workshop: Workshop) -> None:
    def fail(runtime: Runtime) -> None:
        with runtime.use(PART):
            raise ZeroDivisionError

    async with opened(*offer(workshop)) as runtime:
        with pytest.raises(ZeroDivisionError):
            await to_thread.run_sync(fail, runtime)
        assert runtime.snapshot().record(PART).leases == 0


async def test_thread_waits_out_the_gap_of_an_exclusive_swap(opened: Any, workshop: Workshop) -> None:
    release = anyio.Event()
    served = []

    async def build() -> None:
        await release.wait()

    async def use(runtime: Runtime) -> None:
        served.append(await to_thread.run_sync(use_in_thread, runtime))

    first = workshop.candidate("a", kind=Checked, exclusive=True)
    async with opened(first, workshop.candidate("b", kind=Checked, build=build)) as runtime:
        await runtime.swap(PART, provider="a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: runtime.swap(PART, provider="b"))
            await eventually(lambda: workshop.built[0].closed == 1)
            for _ in range(THREADS):
                tasks.start_soon(use, runtime)
            await anyio.wait_all_tasks_blocked()
            before = list(served)
            release.set()
    assert (before, served) == ([], ["b"] * THREADS)


# The first use


async def test_first_use_in_a_thread_activates_the_slot(opened: Any, workshop: Workshop) -> None:
    async with opened(*offer(workshop)) as runtime:
        assert await to_thread.run_sync(use_in_thread, runtime) == "a"


async def test_first_uses_in_many_threads_build_one_instance(opened: Any, workshop: Workshop) -> None:
    barrier = threading.Barrier(8)

    def use(runtime: Runtime) -> None:
        barrier.wait(ENOUGH)
        use_in_thread(runtime)

    async with opened(*offer(workshop)) as runtime:
        async with anyio.create_task_group() as tasks:
            for _ in range(barrier.parties):
                tasks.start_soon(to_thread.run_sync, use, runtime)
        assert len(workshop.built) == 1
    workshop.require_closed_once()


async def test_first_uses_of_many_slots_in_many_threads_are_all_served_and_closed(
    opened: Any, workshop: Workshop
) -> None:
    slots: list[Slot[Any]] = [Slot("adapter", f"part-{number}") for number in range(50)]
    candidates = [workshop.candidate("a", kind=Checked, slot=slot) for slot in slots]

    def use_all(runtime: Runtime) -> list[str]:
        return [use_in_thread(runtime, slot) for slot in slots]

    async with opened(*candidates) as runtime, anyio.create_task_group() as tasks:
        for _ in range(THREADS):
            tasks.start_soon(to_thread.run_sync, use_all, runtime)
        for _ in range(50):
            await runtime.reconcile()
    assert len(workshop.built) == len(slots)
    workshop.require_closed_once()


async def test_activation_that_fails_is_told_to_the_thread(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", health=answer(False))) as runtime:
        with pytest.raises(SwapFailedError):
            await to_thread.run_sync(use_in_thread, runtime)


async def test_slot_that_nobody_fills_is_told_to_the_thread(opened: Any) -> None:
    async with opened() as runtime:
        with pytest.raises(NoCandidateError):
            await to_thread.run_sync(use_in_thread, runtime)


# Refused


@pytest.mark.parametrize("first_used_by", ["nobody", "the loop", "a thread"])
async def test_plain_with_in_the_event_loop_is_refused_with_a_remedy(
    first_used_by: str, opened: Any, workshop: Workshop
) -> None:
    async with opened(*offer(workshop)) as runtime:
        if first_used_by == "the loop":
            await runtime.swap(PART)
        elif first_used_by == "a thread":
            await to_thread.run_sync(use_in_thread, runtime)
        with pytest.raises(SlotUnavailableError, match="a plain 'with' would block the event loop") as caught:
            runtime.use(PART).__enter__()
    assert caught.value.hint == "async with runtime.use(slot)"


@pytest.mark.parametrize("activity", [Activity.PAUSED, Activity.DRAINING])
async def test_thread_is_refused_a_slot_that_is_not_open(activity: Activity, opened: Any, workshop: Workshop) -> None:
    async with opened(*offer(workshop)) as runtime:
        await runtime.swap(PART)
        await runtime.set_activity(PART, activity, note="lunch")
        with pytest.raises(SlotUnavailableError, match=rf"is {activity} \(lunch\)"):
            await to_thread.run_sync(use_in_thread, runtime)


async def test_thread_is_refused_a_runtime_that_closed(opened: Any, workshop: Workshop) -> None:
    async with opened(*offer(workshop)) as runtime:
        await runtime.swap(PART)
    with pytest.raises(SlotUnavailableError):
        await to_thread.run_sync(use_in_thread, runtime)


async def test_thread_is_refused_a_slot_never_used_of_a_runtime_that_closed(opened: Any, workshop: Workshop) -> None:
    async with opened(*offer(workshop)) as runtime:
        pass
    with pytest.raises(SlotUnavailableError):
        await to_thread.run_sync(use_in_thread, runtime)


async def test_thread_that_waits_for_an_activation_is_refused_when_the_runtime_closes(
    workshop: Workshop, events: Events
) -> None:
    building = anyio.Event()

    async def build() -> None:
        building.set()
        await anyio.sleep_forever()

    async with running(settings_of(), events, workshop.candidate("a", build=build)) as runtime:
        holder = Holder(runtime)
        await building.wait()
    await holder.wait(holder.left)
    assert isinstance(holder.error, SlotUnavailableError)


# The end


async def test_close_waits_for_the_lease_of_a_thread(workshop: Workshop, events: Events) -> None:
    async with running(settings_of(), events, *offer(workshop)) as runtime:
        await runtime.swap(PART)
        holder = Holder(runtime)
        await holder.wait(holder.entered)
        threading.Timer(0.05, holder.release.set).start()
    assert (holder.left.wait(ENOUGH), holder.error) == (True, None)
    workshop.require_closed_once()


def test_lease_that_outlives_the_event_loop_ends_in_silence(workshop: Workshop) -> None:
    holders = []

    async def main() -> None:
        async with Runtime.open(bare_settings(drain_timeout=0.05), environ={}, sink=Events()) as runtime:
            runtime.register(*[workshop.candidate("a", kind=Indifferent)])
            await runtime.swap(PART)
            holders.append(Holder(runtime))
            await holders[0].wait(holders[0].entered)

    anyio.run(main)
    holders[0].release.set()
    assert (holders[0].left.wait(ENOUGH), holders[0].error) == (True, None)


class Indifferent(Checked):
    """A part that does not mind being used after it was closed."""

    def _require_open(self) -> None:
        return
