"""Replaces an instance while many callers use it, and counts what they notice."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from resource import getpagesize
from time import perf_counter
from typing import Any

from benchmarks.measure import quantile
from benchmarks.peers.contender import Exchange, Part


@dataclass(frozen=True)
class Load:
    """How many callers there are, how long each call takes, and how often the instance is replaced meanwhile.

    Args:
        swaps: how many there are; 0 for as long a time without any.
        rest_seconds: how long old instances may take to be closed after the last call.
    """

    callers: int = 1_000
    call_seconds: float = 0.05
    every_seconds: float = 0.1
    swaps: int = 10
    rest_seconds: float = 1.0


class Parts:
    """Builds instances and keeps count of them."""

    def __init__(self) -> None:
        self.built: list[Part] = []

    def __call__(self) -> Part:
        """Build one."""
        part = Part()
        self.built.append(part)
        return part

    def is_at_rest(self) -> bool:
        """Whether no more than the one that serves is open."""
        return len(self.built) - sum(part.closed for part in self.built) <= 1

    def left_open(self) -> int:
        """Return how many are open beyond the one that serves; forget all that are closed."""
        self.built = [part for part in self.built if not part.closed]
        return max(0, len(self.built) - 1)


@dataclass
class Outcome:
    """What happened under one load: seconds, and numbers of calls and instances.

    Args:
        swaps: until callers had the new instance.
        returned: until the swap was done, the old one closed.
        waits: what calls took beyond what they had to.
    """

    swaps: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    swap_errors: Counter[str] = field(default_factory=Counter)
    left_open: int = 0

    def told(self) -> dict[str, Any]:
        """Return it as JSON can hold it: of the waits, which are many, the 99th percentile."""
        return {
            "seconds": self.swaps,
            "returned": self.returned,
            "calls": len(self.waits) + self.failed.total(),
            "failed": self.failed.total(),
            "why": [text for text, _ in (self.failed + self.swap_errors).most_common(1)],
            "swaps_failed": self.swap_errors.total(),
            "wait_p99": quantile(self.waits, 0.99) if self.waits else 0.0,
            "left_open": self.left_open,
            "resident": resident_bytes(),
        }


async def replaced(exchange: Exchange, parts: Parts, load: Load) -> Outcome:
    """Put *load* on what *exchange* replaces, until the last call has ended and the old instances had time to."""
    gc.collect()
    outcome, stop = Outcome(), asyncio.Event()

    async def caller(number: int) -> None:
        await asyncio.sleep(load.call_seconds * number / load.callers)
        while not stop.is_set():
            begin = perf_counter()
            try:
                await exchange.use(load.call_seconds)
            except Exception as error:
                outcome.failed[f"{type(error).__name__}: {error}"] += 1
                await asyncio.sleep(load.call_seconds)  # or who fails at once would seem to fail more often
            else:
                outcome.waits.append(max(0.0, perf_counter() - begin - load.call_seconds))

    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for number in range(load.callers):
            tasks.create_task(caller(number))
        await asyncio.sleep(2 * load.call_seconds)
        outcome.waits.clear()
        for _ in range(load.swaps or 10):
            if load.swaps:
                await _swap(exchange, outcome)
            await asyncio.sleep(load.every_seconds)
        stop.set()
    end = perf_counter() + load.rest_seconds
    while not parts.is_at_rest() and perf_counter() < end:  # noqa: ASYNC110 - a part that is closed tells nobody
        await asyncio.sleep(0.01)
    outcome.left_open = parts.left_open()
    return outcome


async def _swap(exchange: Exchange, outcome: Outcome) -> None:
    begin = perf_counter()
    try:
        moved = await exchange.swap()
    except Exception as error:
        outcome.swap_errors[f"swap: {type(error).__name__}: {error}"] += 1
    else:
        outcome.returned.append(perf_counter() - begin)
        outcome.swaps.append(outcome.returned[-1] if moved is None else moved)


def resident_bytes() -> int:
    """Return how much memory this process has now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * getpagesize()
