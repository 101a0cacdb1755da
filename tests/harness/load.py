"""Many callers at work while what they use is swapped under them, in one process and real time."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from oneiric import Runtime
from oneiric.testing import PART, ClosedError, Part, Workshop, bare_settings

LONGEST_CALL = 100  # turns of the loop


class Outcome(NamedTuple):
    """What a run came to."""

    swaps: int
    calls: int
    failed: int
    open: int
    closed_twice: int
    growth_bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.swaps:,} swaps, {self.calls:,} calls, {self.failed:,} failed, {self.open} open at the end, "
            f"RSS {self.growth_bytes / 2**20:+.1f} MiB after warm-up, {self.seconds:.1f} s"
        )


class Tide:
    """Time as calls in progress feel it: a turn of the event loop."""

    def __init__(self) -> None:
        self._now = 0
        self._due: dict[int, list[asyncio.Future[None]]] = {}

    async def wait(self, turns: int) -> None:
        """Return after some turns."""
        future = asyncio.get_running_loop().create_future()
        self._due.setdefault(self._now + turns, []).append(future)
        await future

    async def flow(self) -> None:
        """Turn for ever."""
        while True:
            for future in self._due.pop(self._now, ()):
                future.set_result(None)
            self._now += 1
            await asyncio.sleep(0)


class Callers:
    """Callers who each call again as soon as a call has ended; a call lasts up to ``LONGEST_CALL`` turns."""

    def __init__(self, number: int, call: Callable[[Callable[[Part], Awaitable[None]]], Awaitable[None]]) -> None:
        self.calls = self.failed = 0
        self._number = number
        self._call = call
        self._random = random.Random(number)
        self._tide = Tide()
        self._going = True

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Have them call for the length of a block, and until the calls in progress have ended."""
        tide = asyncio.create_task(self._tide.flow())
        callers = [asyncio.create_task(self._run()) for _ in range(self._number)]
        try:
            yield
        finally:
            self._going = False
            await asyncio.gather(*callers)
            tide.cancel()

    async def _run(self) -> None:
        while self._going:
            self.calls += 1
            try:
                await self._call(self._work)
            except ClosedError:
                self.failed += 1

    async def _work(self, part: Part) -> None:
        await part.work()
        await self._tide.wait(self._random.randint(1, LONGEST_CALL))
        await part.work()


async def swap_under_load(swaps: int, callers: int) -> Outcome:
    """Swap one slot over and over; seven swaps in eight do not wait for the old instance to be drained."""
    workshop = Workshop()
    closed_twice = growth = 0
    async with Runtime.open(bare_settings(drain_timeout=600.0), environ={}) as runtime:
        runtime.register(workshop.candidate("a"), workshop.candidate("b"))
        await runtime.swap(PART, provider="a")

        async def call(work: Callable[[Part], Awaitable[None]]) -> None:
            async with runtime.use(PART) as part:
                await work(part)

        crowd = Callers(callers, call)
        started = time.monotonic()
        async with crowd.at_work():
            for number in range(swaps):
                await runtime.swap(PART, provider="ba"[number % 2], force=number % 8 > 0)
                closed_twice += sum(part.closed > 1 for part in workshop.built)
                workshop.built = workshop.open
                if number == swaps // 5:
                    growth = -_resident_bytes()
            growth += _resident_bytes()
        seconds = time.monotonic() - started
        await runtime.swap(PART, provider="b")
        await runtime.swap(PART, provider="a")  # waits until all others are drained and closed
        still_open = len(workshop.open)
    return Outcome(swaps, crowd.calls, crowd.failed, still_open, closed_twice, growth, seconds)


async def replace_under_load(swaps: int, callers: int) -> Outcome:
    """Do the same without us: a plain reference is replaced, and what it pointed to closed at once."""
    current = Part("a")

    async def call(work: Callable[[Part], Awaitable[None]]) -> None:
        await work(current)

    crowd = Callers(callers, call)
    started = time.monotonic()
    async with crowd.at_work():
        for _ in range(swaps):
            old, current = current, Part("b")
            await old.aclose()
            await asyncio.sleep(0)
    return Outcome(swaps, crowd.calls, crowd.failed, 1, 0, 0, time.monotonic() - started)


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
