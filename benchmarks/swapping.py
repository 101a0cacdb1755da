"""What a swap costs beside what the parts themselves take: these are built, probed and closed at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.measure import FLAT, Budget, Claim, Row, Sample, measure
from oneiric import Runtime, Slot
from oneiric.runtime.state import StateStore
from oneiric.testing import Workshop, bare_settings

SIZES: Final = (1, 100, 1_000)
IN_A_SAMPLE: Final = 100  # so that a sample has a 99th percentile
BY_HAND: Final = "build, probe, close by hand"
COMMIT: Final = "one durable SQLite commit"


async def swapping(budget: Budget) -> list[Row]:
    """Swaps with nothing remembered, against doing the same steps by hand."""
    contenders = {BY_HAND: _by_hand(budget)}
    async with AsyncExitStack() as stack:
        for size in budget.sizes(*SIZES):
            contenders[_name(size)] = await _swaps(stack, size, budget, store=None)
        return await measure(contenders, _claims("swap", BY_HAND, budget), budget)


async def swapping_with_store(budget: Budget) -> list[Row]:
    """Swaps whose pins are on disk before they are reported done, against one commit of one row.

    They take their time, so they are given more of it.
    """
    budget = replace(budget, seconds=2 * budget.seconds)
    with TemporaryDirectory(prefix="oneiric-benchmarks-") as text:
        directory = Path(text)
        async with AsyncExitStack() as stack:
            database = stack.enter_context(closing(sqlite3.connect(directory / "baseline.db")))
            contenders = {COMMIT: _commits(database, budget)}
            for size in budget.sizes(*SIZES):
                store = StateStore(directory / f"state-{size}")
                contenders[_name(size)] = await _swaps(stack, size, budget, store=store)
            return await measure(contenders, _claims("swap, state store", COMMIT, budget), budget)


def _name(size: int) -> str:
    return f"swap, {size:,} active"


def _claims(name: str, floor: str, budget: Budget) -> list[Claim]:
    smallest, *larger = budget.sizes(*SIZES)
    claims: list[Claim] = []
    for label, quantile in (("p50", 0.5), ("p99", 0.99)):
        claims.append(Claim(f"{name}, {label}", smallest, _name(smallest), floor, quantile=quantile))
        claims += [
            Claim(f"{name}, {label}", size, _name(size), _name(smallest), quantile=quantile, target=FLAT)
            for size in larger
        ]
    return claims


async def _swaps(stack: AsyncExitStack, size: int, budget: Budget, *, store: StateStore | None) -> Sample:
    """Return what swaps each of *size* active slots in turn, back and forth between two providers; all are pinned."""
    workshop = Workshop()
    slots = [Slot[Any]("adapter", f"part-{number}") for number in range(size)]
    runtime = await stack.enter_async_context(Runtime.open(bare_settings(), store=store))
    runtime.register(*(workshop.candidate(name, slot=slot) for slot in slots for name in ("a", "b")))
    for slot in slots:
        await runtime.swap(slot, provider="a")
    turns = cycle([(slot, provider) for provider in ("b", "a") for slot in slots])

    async def sample() -> Sequence[float]:
        durations = []
        for _ in range(min(IN_A_SAMPLE, budget.largest)):
            slot, provider = next(turns)
            begin = perf_counter()
            report = await runtime.swap(slot, provider=provider)
            durations.append(perf_counter() - begin)
            if not report.changed:
                raise AssertionError(f"measured a swap that did nothing: {report}")
        workshop.built.clear()
        return durations

    return sample


def _by_hand(budget: Budget) -> Sample:
    workshop = Workshop()
    factory: Any = workshop.candidate("a").factory

    async def sample() -> Sequence[float]:
        old, durations = await factory(), []
        for _ in range(min(IN_A_SAMPLE, budget.largest)):
            begin = perf_counter()
            new = await factory()
            await new.health()
            old, replaced = new, old
            await replaced.aclose()
            durations.append(perf_counter() - begin)
        workshop.built.clear()
        return durations

    return sample


def _commits(database: sqlite3.Connection, budget: Budget) -> Sample:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE pin (key TEXT PRIMARY KEY, provider TEXT)")

    async def sample() -> Sequence[float]:
        durations = []
        for number in range(min(IN_A_SAMPLE, budget.largest)):
            begin = perf_counter()
            with database:
                database.execute("INSERT OR REPLACE INTO pin VALUES (?, 'a')", (f"part-{number}",))
            durations.append(perf_counter() - begin)
        return durations

    return sample
