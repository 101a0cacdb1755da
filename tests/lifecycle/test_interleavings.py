"""Cancellation wherever a caller may wait, and several things at once in every order."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import anyio
import pytest

from oneiric import Runtime
from oneiric.core.states import Activity
from oneiric.errors import OneiricError, SupersededError
from oneiric.testing import PART, Workshop, bare_settings, virtual_clock

pytestmark = pytest.mark.anyio
STEPS = 60  # more than a caller's swap or a close has


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return virtual_clock() if request.param == "trio" else "asyncio"


async def step_by_step() -> None:
    """Take several turns of the loop."""
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


def slowly(workshop: Workshop) -> Any:
    return [
        workshop.candidate(name, build=step_by_step, cleanup=step_by_step, health=_healthy_slowly, priority=priority)
        for priority, name in enumerate("ab")
    ]


async def _healthy_slowly() -> bool:
    await step_by_step()
    return True


@pytest.mark.parametrize("turns", range(0, STEPS, 3))
async def test_caller_cancelled_at_any_turn_leaves_a_slot_that_serves(
    turns: int, opened: Any, workshop: Workshop
) -> None:
    async with opened(*slowly(workshop)) as runtime:
        await runtime.swap(PART, provider="a")
        async with anyio.create_task_group() as caller:
            caller.start_soon(lambda: runtime.swap(PART, provider="b"))
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            caller.cancel_scope.cancel()
        for _ in range(10 * STEPS):
            await anyio.lowlevel.checkpoint()
        async with runtime.use(PART) as part:
            assert await part.work() in {"a", "b"}
        assert len(workshop.open) == 1
    workshop.require_closed_once()


@pytest.mark.parametrize("turns", range(0, STEPS, 3))
async def test_program_cancelled_at_any_turn_closes_everything_once(turns: int, workshop: Workshop) -> None:
    async def program(*, task_status: Any) -> None:
        async with Runtime.open(bare_settings(), environ={}) as runtime:
            runtime.register(*slowly(workshop))
            task_status.started()
            while True:
                for provider in "ab":
                    await runtime.swap(PART, provider=provider, force=True)

    async with anyio.create_task_group() as tasks:
        await tasks.start(program)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    workshop.require_closed_once()


VERBS = {
    "swap": lambda runtime: runtime.swap(PART, provider="a"),
    "unpin": lambda runtime: runtime.unpin(PART),
    "pause": lambda runtime: runtime.set_activity(PART, Activity.PAUSED),
    "drain": lambda runtime: runtime.drain(PART),
    "rehearse": lambda runtime: runtime.swap(PART, provider="a", dry_run=True),
}


@pytest.mark.parametrize("order", list(permutations(VERBS)), ids="-".join)
async def test_verbs_at_once_in_any_order_leave_one_instance_and_agree(
    order: tuple[str, ...], opened: Any, workshop: Workshop
) -> None:
    async with opened(*slowly(workshop)) as runtime:
        await runtime.swap(PART, provider="b")
        async with anyio.create_task_group() as tasks:
            for verb in order:
                tasks.start_soon(_ask, runtime, verb)
        record = runtime.snapshot().record(PART)
        assert len(workshop.open) == 1
        assert record.provider == (record.pin.provider if record.pin else "b")
    workshop.require_closed_once()


async def _ask(runtime: Runtime, verb: str) -> None:
    try:
        await VERBS[verb](runtime)
    except SupersededError:
        return
    except OneiricError as error:
        raise AssertionError(f"{verb}: {error}") from error
