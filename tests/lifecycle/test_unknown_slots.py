"""Slots that nobody offers to fill: asking for them leaves nothing behind, and makes no second of the same name."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any, Protocol

import anyio
import pytest

from oneiric import NoCandidateError, Runtime, Slot
from oneiric.core.states import Activity
from oneiric.errors import OneiricError
from oneiric.testing import Workshop
from tests.harness.slots import running, settings_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_threads")]


class Worker(Protocol):
    """What a slot may be asked for."""

    async def work(self) -> str:
        """Say who works."""
        ...


STOK = Slot[Worker]("adapter", "stok")


async def use(runtime: Runtime, slot: Slot[Any]) -> None:
    async with runtime.use(slot):
        pass


async def call(runtime: Runtime, slot: Slot[Any]) -> None:
    await runtime.proxy(slot).work()


ASKED: dict[str, Callable[[Runtime, Slot[Any]], Awaitable[Any]]] = {
    "swap": lambda runtime, slot: runtime.swap(slot),
    "swap to a provider": lambda runtime, slot: runtime.swap(slot, provider="redis"),
    "swap by force": lambda runtime, slot: runtime.swap(slot, force=True),
    "rehearse": lambda runtime, slot: runtime.swap(slot, dry_run=True),
    "use": use,
    "call": call,
    "unpin": lambda runtime, slot: runtime.unpin(slot),
    "probe": lambda runtime, slot: runtime.probe(slot),
    "resume": lambda runtime, slot: runtime.set_activity(slot, Activity.OPEN),
}


def shown(runtime: Runtime) -> list[str]:
    """Return the slots that status lists."""
    return [str(record.slot) for record in runtime.snapshot().slots]


@pytest.mark.parametrize("ask", ASKED.values(), ids=list(ASKED))
async def test_unknown_slots_leave_nothing_behind(ask: Any, opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a")) as runtime:
        before = shown(runtime)
        for number in range(100):
            with anyio.fail_after(60), suppress(NoCandidateError):
                await ask(runtime, Slot[Worker]("adapter", f"stok-{number}"))
        gc.collect()
        assert (shown(runtime), len(runtime._manager.slots), len(runtime._manager._held)) == (before, 0, 0)


async def test_lease_that_is_never_entered_leaves_nothing_behind(opened: Any) -> None:
    async with opened() as runtime:
        for number in range(100):
            runtime.use(Slot("adapter", f"stok-{number}"))
        assert (shown(runtime), len(runtime._manager._held)) == ([], 0)


async def test_paused_slot_stays_although_nobody_offers_to_fill_it(opened: Any) -> None:
    async with opened() as runtime:
        await runtime.set_activity(STOK, Activity.PAUSED)
        with suppress(NoCandidateError):
            await runtime.swap(STOK)
        assert shown(runtime) == ["adapter/stok"]


async def test_resumed_slot_vanishes_when_nobody_offers_to_fill_it(opened: Any) -> None:
    async with opened() as runtime:
        await runtime.set_activity(STOK, Activity.PAUSED)
        await runtime.set_activity(STOK, Activity.OPEN)
        assert shown(runtime) == []


async def test_selected_slot_stays_although_nobody_offers_to_fill_it(events: Any) -> None:
    async with running(settings_of(selections={"stok": "redis"}), events) as runtime:
        with suppress(NoCandidateError):
            await runtime.swap(STOK)
        assert shown(runtime) == ["adapter/stok"]


async def test_lease_and_proxy_made_before_registration_serve_after_it(opened: Any, workshop: Workshop) -> None:
    async with opened() as runtime:
        lease, stand_in = runtime.use(STOK), runtime.proxy(STOK)
        with suppress(NoCandidateError):
            await runtime.swap(STOK)
        runtime.register(workshop.candidate("a", slot=STOK))
        await runtime.swap(STOK)
        with anyio.fail_after(60):
            async with lease as part:
                assert (await part.work(), await stand_in.work(), len(workshop.built)) == ("a", "a", 1)


async def test_every_caller_of_an_unknown_slot_is_counted(opened: Any) -> None:
    async with opened() as runtime:
        for _ in range(3):
            with anyio.fail_after(60), suppress(NoCandidateError):
                await use(runtime, STOK)
        counted = [one for one in await runtime.readings() if one.metric == "oneiric_resolution_failures_total"]
        assert sum(one.value for one in counted if one.labels == ("adapter", "unknown-key")) == 3


@pytest.mark.parametrize("seed", range(20))
async def test_one_slot_is_never_two(seed: int, opened: Any, workshop: Workshop) -> None:
    """Whatever is asked at once, in whatever order: all that is held of a slot is what the table says it is."""
    random = Random(seed)
    slots = [Slot[Worker]("adapter", name) for name in ("stok", "cahce")]
    held: list[Any] = []

    async def ask(what: Any, slot: Slot[Worker]) -> None:
        with anyio.fail_after(600), suppress(OneiricError):
            await what(runtime, slot)

    async with opened() as runtime, anyio.create_task_group() as tasks:
        for turn in range(60):
            slot = random.choice(slots)
            verb = random.choice([*ASKED, "pause", "hold", "release", "register"])
            if verb == "pause":
                await runtime.set_activity(slot, Activity.PAUSED)
            elif verb == "hold":
                held.append(runtime.use(slot))
            elif verb == "release":
                held = held[1:]
            elif verb == "register" and turn > 30 and not runtime.resolve(slot).placings:
                runtime.register(workshop.candidate("a", slot=slot))
            elif verb in ASKED:
                tasks.start_soon(ask, ASKED[verb], slot)
            if random.random() < 0.5:
                await anyio.sleep(0)
            gc.collect(0)
            assert all(lease._live is runtime._manager.live(lease._live.slot) for lease in held)
            assert all(live is runtime._manager.live(slot) for slot, live in runtime._manager.slots.items())
    workshop.require_closed_once()
