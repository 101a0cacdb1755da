"""A provider whose calls never end is not called again until some of them do."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from oneiric import Runtime, Slot, SwapFailedError
from oneiric.errors import ActivationError
from oneiric.lifecycle.instances import FENCE
from oneiric.testing import PART, Events, Workshop, drag, hang
from tests.harness.slots import running, settings_of, settle, use_once

pytestmark = pytest.mark.anyio
HOUR = 3600.0  # what drag takes
OTHER: Slot[Any] = Slot("adapter", "other")
ENDED = f"{FENCE} earlier calls of it never ended; it is not called again"


class Counted:
    """A behaviour that counts how often it was begun."""

    def __init__(self, behaviour: Any) -> None:
        self.begun = 0
        self._behaviour = behaviour

    async def __call__(self) -> Any:
        self.begun += 1
        return await self._behaviour()


async def fail_to_swap(runtime: Runtime, provider: str = "a", **how: Any) -> SwapFailedError:
    with pytest.raises(SwapFailedError) as caught:
        await runtime.swap(PART, provider=provider, **how)
    return caught.value


async def use_up(runtime: Runtime) -> None:
    """Let as many calls of a hang as may."""
    for _ in range(FENCE):
        await fail_to_swap(runtime)


def two(workshop: Workshop, build: Any) -> list[Any]:
    return [workshop.candidate("a", build=build), workshop.candidate("b")]


async def test_factory_that_never_ends_is_called_three_times_and_not_again(opened: Any, workshop: Workshop) -> None:
    build = Counted(drag)
    async with opened(*two(workshop, build)) as runtime:
        for _ in range(2 * FENCE):
            await fail_to_swap(runtime)
        assert (build.begun, runtime.abandoned_calls) == (FENCE, FENCE)


async def test_refusal_says_why_and_what_to_do_and_takes_no_time(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop, drag)) as runtime:
        await use_up(runtime)
        started = anyio.current_time()
        refused = await fail_to_swap(runtime)
        assert anyio.current_time() == started
    assert (f"adapter/part a: {ENDED}" in str(refused), refused.reason) == (True, "timeout")
    assert refused.hint == "correct the provider, then restart the process: threads cannot be ended from outside"
    assert isinstance(refused, ActivationError)


async def test_rehearsal_is_refused_too(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop, drag)) as runtime:
        await use_up(runtime)
        assert ENDED in str(await fail_to_swap(runtime, dry_run=True))


async def test_first_use_is_refused_too(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", build=drag)) as runtime:
        await use_up(runtime)
        with pytest.raises(SwapFailedError, match="never ended"):
            await use_once(runtime, PART)


async def test_other_providers_of_the_slot_are_called(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop, drag)) as runtime:
        await use_up(runtime)
        await runtime.swap(PART, provider="b")
        assert await use_once(runtime, PART) == "b"


async def test_same_provider_of_another_slot_is_called(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop, drag), workshop.candidate("a", slot=OTHER)) as runtime:
        await use_up(runtime)
        assert await use_once(runtime, OTHER) == "a"


async def test_what_serves_is_left_alone(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop, drag)) as runtime:
        await runtime.swap(PART, provider="b")
        await use_up(runtime)
        await fail_to_swap(runtime)
        assert await use_once(runtime, PART) == "b"


async def test_provider_is_called_again_when_its_calls_ended(opened: Any, workshop: Workshop) -> None:
    behaviours = [drag] * FENCE
    async with opened(*two(workshop, lambda: behaviours.pop()() if behaviours else hang_not())) as runtime:
        await use_up(runtime)
        await anyio.sleep(HOUR)
        await runtime.swap(PART, provider="a")
        assert (await use_once(runtime, PART), runtime.abandoned_calls) == ("a", 0)


async def hang_not() -> None:
    return


async def test_provider_is_called_again_when_one_of_its_calls_ended(opened: Any, workshop: Workshop) -> None:
    build = Counted(drag)
    async with opened(*two(workshop, build)) as runtime:
        await fail_to_swap(runtime)
        await anyio.sleep(HOUR / 2)
        for _ in range(FENCE - 1):
            await fail_to_swap(runtime)
        await anyio.sleep(HOUR / 2)  # the first one ended
        await fail_to_swap(runtime)
        assert build.begun == FENCE + 1


async def test_calls_that_obey_their_cancellation_do_not_count(opened: Any, workshop: Workshop) -> None:
    build = Counted(hang)
    async with opened(*two(workshop, build)) as runtime:
        for _ in range(2 * FENCE):
            await fail_to_swap(runtime)
        await settle()
        assert (build.begun, runtime.abandoned_calls) == (2 * FENCE, 0)


async def test_probe_that_never_ends_is_not_called_again(workshop: Workshop, events: Events) -> None:
    health = Counted(drag)
    async with running(settings_of(health_interval=10.0), events, workshop.candidate("a", health=health)) as runtime:
        await runtime.swap(PART, skip_health=True)
        await anyio.sleep(HOUR / 2)
        assert (health.begun, runtime.abandoned_calls) == (FENCE, FENCE)
        assert runtime.snapshot().record(PART).health.error == ENDED  # type: ignore[union-attr]


async def test_probe_is_called_again_when_its_calls_ended(workshop: Workshop, events: Events) -> None:
    behaviours = [drag] * FENCE

    async def health() -> bool:
        if behaviours:
            await behaviours.pop()()
        return True

    async with running(settings_of(health_interval=10.0), events, workshop.candidate("a", health=health)) as runtime:
        await runtime.swap(PART, skip_health=True)
        await anyio.sleep(2 * HOUR)
        assert runtime.snapshot().record(PART).health.healthy  # type: ignore[union-attr]
    assert "candidate-released" in events


async def test_instance_is_closed_although_its_provider_is_not_called_again(
    opened: Any, workshop: Workshop, events: Events
) -> None:
    candidates = [workshop.candidate("a", health=drag), workshop.candidate("b")]
    async with running(settings_of(health_interval=10.0), events, *candidates) as runtime:
        await runtime.swap(PART, provider="a", skip_health=True)
        await anyio.sleep(200)
        await runtime.swap(PART, provider="b")
        assert [part.closed for part in workshop.by("a")] == [1]


async def test_cleanups_that_never_end_count_too(opened: Any, workshop: Workshop) -> None:
    async with opened(workshop.candidate("a", cleanup=drag), workshop.candidate("b")) as runtime:
        for _ in range(FENCE):
            await runtime.swap(PART, provider="a")
            await runtime.swap(PART, provider="b")
        assert ENDED in str(await fail_to_swap(runtime))


# Real threads


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_factory_that_blocks_its_thread_is_called_three_times_until_it_ends(
    anyio_backend: str, opened: Any, workshop: Workshop
) -> None:
    release, begun = threading.Event(), []

    def build() -> Any:
        begun.append(threading.get_ident())
        release.wait(10)
        return object()

    blocking = msgspec.structs.replace(workshop.candidate("a"), factory=build)
    async with opened(blocking, activation_timeout=0.05) as runtime:
        for _ in range(FENCE + 2):
            await fail_to_swap(runtime)
        blocked = len(begun)
        release.set()
        with anyio.fail_after(10):
            while runtime.abandoned_calls:
                await anyio.lowlevel.checkpoint()
        await runtime.swap(PART, provider="a")
        assert (blocked, len(begun)) == (FENCE, FENCE + 1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_settings_that_cannot_be_read_in_time_fail_the_activation_and_nothing_else(
    anyio_backend: str, workshop: Workshop, events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, release, opening = tmp_path / "secret", threading.Event(), os.open
    secret.write_text("hush")

    def hang_on_the_mount(path: Any, *how: Any, **more: Any) -> int:
        if secret == path and threading.current_thread().name == "oneiric-foreign":
            release.wait(10)
        return opening(path, *how, **more)

    monkeypatch.setattr(os, "open", hang_on_the_mount)
    settings = settings_of(provider_settings={"a": {"password": f"${{file:{secret}}}"}}, activation_timeout=0.05)
    async with running(settings, events, *two(workshop, hang_not)) as runtime:
        failed = await fail_to_swap(runtime)
        await runtime.swap(PART, provider="b")
        release.set()
        assert (failed.reason, await use_once(runtime, PART)) == ("timeout", "b")
