"""Concurrency that a seed decides: an event loop that runs what is ready in a drawn order, on a clock that jumps.

A thread would be outside its control, so there is none: what would run in one runs in the loop, after a turn.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

import anyio
import anyio.lowlevel
import anyio.to_thread

from oneiric.lifecycle.foreign import ForeignCalls

T = TypeVar("T")


class StandstillError(AssertionError):
    """Every task waits for another one: nothing can happen any more."""


class Silence(selectors.SelectSelector):
    """Never hears anything from outside, and so never waits for it."""

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return at once."""
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Shuffles what is ready at every turn, and moves its clock to the next timer when nothing is.

    It reaches into the event loop's own queues; ``test_simulation`` notices when a Python changes them.
    """

    _ready: Any
    _scheduled: Any

    def __init__(self, random: Random) -> None:
        super().__init__(Silence())
        self._random = random
        self._now = 0.0

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def _run_once(self) -> None:
        if len(self._ready) > 1:
            drawn = list(self._ready)
            self._random.shuffle(drawn)
            self._ready.clear()
            self._ready.extend(drawn)
        elif not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0].when())
        elif not self._ready and not self._stopping:
            raise StandstillError("no task is ready and no timer is set")
        super()._run_once()  # type: ignore[misc]

    _stopping: bool


def simulate(main: Callable[[Random], Awaitable[T]], seed: int) -> T:
    """Run *main* in the order that *seed* draws, and give it a Random of the same seed for what it draws itself."""
    order, choices = Random(seed), Random(seed + 1_000_000)
    with without_threads():
        return anyio.run(main, choices, backend_options={"loop_factory": lambda: SimulatedLoop(order)})


@contextmanager
def without_threads() -> Iterator[None]:
    """Run in the event loop what would go to a thread, so that it takes no time on a virtual clock."""

    async def run_sync(function: Callable[..., T], *arguments: Any, **_how: Any) -> T:
        await anyio.lowlevel.checkpoint()
        return function(*arguments)

    async def in_thread(_calls: ForeignCalls, function: Callable[[], T]) -> T:
        await anyio.lowlevel.checkpoint()
        return function()

    with patch.object(anyio.to_thread, "run_sync", run_sync), patch.object(ForeignCalls, "_in_thread", in_thread):
        yield
