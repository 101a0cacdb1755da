"""Runs one contender in its own environment: for an order in JSON on each line of the input, it writes an answer.

    {"do": "prepare", "table": "get", "size": 10, "sample_seconds": 0.005}   {"ways": [{"name": ..., "note": ...}]}
    {"do": "sample", "table": "get", "size": 10, "way": 0}                   {"seconds": [...]}

Run as a script, with the file of the contender. Needs the standard library and what the contender imports; of this
checkout it sees only ``benchmarks``, so that the published project of our name does not find ours in its place.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

if __name__ == "__main__":
    package = ModuleType("benchmarks")
    package.__path__ = [str(Path(__file__).parents[1])]
    sys.modules["benchmarks"] = package

from benchmarks.measure import Budget, footprint, timed
from benchmarks.peers.contender import Exchange, Registration, Way
from benchmarks.peers.replacing import Load, Parts, replaced

Sampler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Prepared:
    """One way that is ready to be sampled, and what is known of it already."""

    about: dict[str, Any]
    sample: Sampler


class Desk:
    """Takes the orders of one contender."""

    def __init__(self, contender: ModuleType, stack: AsyncExitStack) -> None:
        self._contender = contender
        self._stack = stack
        self._ready: dict[tuple[str, int], list[Prepared]] = {}

    async def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what is ordered; what goes wrong is an answer, too."""
        try:
            if order["do"] == "about":
                distribution = self._contender.DISTRIBUTION
                return {
                    "import": self._contender.IMPORT,
                    "version": version(distribution) if distribution else f"Python {platform.python_version()}",
                }
            if order["do"] == "behave":
                return {"behaviours": dict(await self._contender.behave())}
            place = (order["table"], order["size"])
            if order["do"] == "sample":
                taken: dict[str, Any] = await self._ready[place][order["way"]].sample(order)
                return taken
            self._ready[place] = await self._prepare(order)
            return {"ways": [prepared.about for prepared in self._ready[place]]}
        except NotImplementedError as error:
            return {"error": str(error)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    async def _prepare(self, order: dict[str, Any]) -> list[Prepared]:
        table, size = order["table"], order["size"]
        if table in (missing := getattr(self._contender, "OFFERS_NOT", {})):
            raise NotImplementedError(missing[table])
        if table == "replace":
            parts = Parts()
            exchanges = await self._contender.replace(self._stack, parts)
            return [_exchange(exchange, parts) for exchange in exchanges]
        if table == "register":
            return [await _registration(registration, size) for registration in self._contender.register(size)]
        ways = await getattr(self._contender, table)(size, self._stack)
        return [await _way(way, Budget(sample_seconds=order["sample_seconds"])) for way in ways]


async def _way(way: Way, budget: Budget) -> Prepared:
    gc.collect()
    taken = await timed(way.statement, budget, items=way.items, **way.names)

    async def sample(_order: dict[str, Any]) -> dict[str, Any]:
        return {"seconds": await taken()}

    return Prepared({"name": way.name, "note": way.note}, sample)


async def _registration(registration: Registration, size: int) -> Prepared:
    async with registration.fresh() as place:
        kept: Sequence[Any] = [place]
        taken = footprint(lambda: [*kept, registration.fill(place)])

    async def sample(_order: dict[str, Any]) -> dict[str, Any]:
        async with registration.fresh() as place:
            gc.collect()
            begin = perf_counter()
            made = registration.fill(place)
            seconds = perf_counter() - begin
            del made
        return {"seconds": [seconds / size]}

    return Prepared({"name": registration.name, "note": registration.note, "memory": taken / size}, sample)


def _exchange(exchange: Exchange, parts: Parts) -> Prepared:
    async def sample(order: dict[str, Any]) -> dict[str, Any]:
        return (await replaced(exchange, parts, Load(**order["load"]))).told()

    return Prepared({"name": exchange.name, "note": exchange.note}, sample)


async def main(file: str) -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    spec = importlib.util.spec_from_file_location("contender", file)
    assert spec is not None
    assert spec.loader is not None
    contender = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contender)
    async with AsyncExitStack() as stack:
        desk = Desk(contender, stack)
        for line in sys.stdin:
            print(json.dumps(await desk.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
