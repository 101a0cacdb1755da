"""What a contender says of itself to the worker that runs it.

A contender is a module with as many of these functions as its library has answers; a stack closes what they opened:

    async def get(size, stack) -> Sequence[Way]           an instance that is there, of so many
    async def call(size, stack) -> Sequence[Way]          one call of an instance's method, of one
    async def rank(size, stack) -> Sequence[Way]          who fills a slot, of so many candidates
    async def replace(stack, build) -> Sequence[Exchange]  another instance in place of the one in use
    def register(size) -> Sequence[Registration]           so many candidates from nothing
    async def behave() -> Mapping[str, str]                what it does where a promise is put to the test

``OFFERS_NOT`` names those it has none of, and says why.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

HOT: Final = 10
"""How many of them are asked for in turn, however many there are."""


class ClosedError(Exception):
    """An instance was used after it was closed, or closed while it was used."""


class Part:
    """An instance that knows whether it was closed; made without arguments, as every library can."""

    def __init__(self) -> None:
        self.closed = False

    async def answer(self) -> int:
        """Return at once, without giving way to another task: the least a call can cost."""
        return 1

    async def work(self, seconds: float) -> None:
        """Take so long; raises ClosedError when closed before, or by then."""
        self._require_open()
        await asyncio.sleep(seconds)
        self._require_open()

    async def aclose(self) -> None:
        """Be closed from now on."""
        self.closed = True

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedError("closed")


def kinds(size: int) -> list[type[Part]]:
    """Return so many types of parts, for a library that finds an instance by its type."""
    return [type(f"Part{number}", (Part,), {}) for number in range(size)]


def hot(items: Sequence[Any]) -> list[Any]:
    """Return the few of *items* that are asked for: the same ones for every library."""
    return random.Random(len(items)).sample(list(items), min(len(items), HOT))


@dataclass(frozen=True)
class Way:
    """One way to do it: a statement that is run for each ``item`` of *items*, and the names that it uses.

    Args:
        note: what it guarantees, or how it is asked where the statement does not tell.
    """

    name: str
    statement: str
    names: Mapping[str, Any] = field(default_factory=dict)
    items: Sequence[Any] = range(100)
    note: str = ""


@dataclass(frozen=True)
class Exchange:
    """One way to replace an instance in use.

    Args:
        use: gets the instance as a caller does, and has it work for so many seconds.
        swap: puts a newly built one in its place, and closes the old one as a user of the library would; where it is
            not done when callers have the new one, it returns after how many seconds they had.
    """

    name: str
    use: Callable[[float], Awaitable[None]]
    swap: Callable[[], Awaitable[float | None]]
    note: str = ""


@dataclass(frozen=True)
class Registration:
    """One way to register: *fill* does it in what *fresh* opens."""

    name: str
    fill: Callable[[Any], Any]
    fresh: Callable[[], AbstractAsyncContextManager[Any]]
    note: str = ""


def anew(make: Callable[[], Any]) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """Return what opens something that needs no closing."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield make()

    return opened
