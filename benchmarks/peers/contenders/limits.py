"""Nothing but the language: what no library can be cheaper than, and what nobody is safe with."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot

DISTRIBUTION: Final = ""
IMPORT: Final = "pass"
GRACE: Final = 0.5
PYTHON: Final = f"Python {platform.python_version()}, as of all contenders"


class Holder:
    """Has the instance in an attribute."""

    __slots__ = ("part",)

    def __init__(self, part: Part) -> None:
        self.part = part


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    by_name = {f"part-{number}": Part() for number in range(size)}
    return [
        Way("dict[str]", "by_name[item]", {"by_name": by_name}, hot(list(by_name)), PYTHON),
        Way("attribute", "item.part", {}, hot([Holder(part) for part in by_name.values()])),
    ]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    return [
        Way("bare await", "await part.answer()", {"part": Part()}, note=f"a reference that is never replaced; {PYTHON}")
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    holder = Holder(build())
    closing: set[asyncio.Task[None]] = set()

    async def use(seconds: float) -> None:
        await holder.part.work(seconds)

    async def at_once() -> None:
        old, holder.part = holder.part, build()
        await old.aclose()

    async def later() -> None:
        old, holder.part = holder.part, build()
        task = asyncio.create_task(_close_later(old))
        closing.add(task)
        task.add_done_callback(closing.discard)

    return [
        Exchange("attribute, old one closed at once", use, at_once, f"guarantees nothing; {PYTHON}"),
        Exchange(f"attribute, old one closed {GRACE:g} s later", use, later, "right for who knows the longest call"),
    ]


async def _close_later(part: Part) -> None:
    await asyncio.sleep(GRACE)
    await part.aclose()


def register(size: int) -> Sequence[Registration]:
    names = [f"part-{number}" for number in range(size)]

    def fill(by_name: dict[str, list[type[Part]]]) -> None:
        for name in names:
            by_name.setdefault(name, []).append(Part)

    return [Registration("dict of lists", fill, anew(dict), PYTHON)]
