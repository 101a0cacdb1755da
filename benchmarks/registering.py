"""What it costs to offer candidates: time and memory for each.

Every sample begins with a swept heap, or it would pay for sweeping up after the one before it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Final

from benchmarks.measure import Budget, Claim, Row, Sample, footprint, measure
from oneiric import Candidate, Runtime, Slot
from oneiric.core.registry import Registry
from oneiric.testing import PART, bare_settings

Candidates = Sequence[Candidate[Any]]
SOURCE: Final = "remote"


async def registering(budget: Budget) -> list[Row]:
    """``Runtime.register`` against putting the candidates in a dictionary of lists."""
    contenders: dict[str, Sample] = {}
    claims: list[Claim] = []
    memory: dict[str, float] = {}
    for size in budget.sizes(1_000, 100_000):
        claims += _distinct(size, contenders, memory)
    size = budget.sizes(1_000)[0]
    claims += _one_at_a_time(size, contenders)
    claims += _one_slot(size, contenders, memory)
    rows = await measure(contenders, claims, budget)
    return [
        replace(row, memory=memory.get(claim.subject), note=f"{1 / row.median:,.0f}/s" if row.median else "")
        for row, claim in zip(rows, claims, strict=True)
    ]


async def replacing(budget: Budget) -> list[Row]:
    """Replacing all that one source offers, as every refresh does, against filling a dictionary of lists."""
    contenders: dict[str, Sample] = {}
    claims: list[Claim] = []
    for size in budget.sizes(1_000, 10_000):
        old = declare(size, source=SOURCE)
        fills = f"dict of lists, N={size:,}"
        contenders[fills] = _whole(_filling(old), size)
        changes = {"unchanged": 0, "one changed": 1, "all changed": size}
        for what, changed in changes.items():
            new = [*declare(changed, source=SOURCE, version="2"), *declare(size, source=SOURCE)[changed:]]
            name = f"{what}, N={size:,}"
            contenders[name] = _replacement(old, new, changed)
            claims.append(Claim(f"replace a source, {what}", size, name, fills))
    return await measure(contenders, claims, budget)


def _replacement(old: Candidates, new: Candidates, changed: int) -> Sample:
    before, after = tuple(old), tuple(new)

    async def sample() -> Sequence[float]:
        async with Runtime.open(bare_settings()) as runtime:
            await runtime.offer(SOURCE, before)
            gc.collect()
            begin = perf_counter()
            await runtime.offer(SOURCE, after)
            taken = perf_counter() - begin
            offered = runtime._chooser.registry.sources[SOURCE]
            if sum(candidate.version == "2" for candidate in offered) != changed:
                raise AssertionError(f"measured a replacement of something else than {changed:,}")
            return [taken]

    return sample


def _whole(sample: Sample, size: int) -> Sample:
    async def whole() -> Sequence[float]:
        return [cost * size for cost in await sample()]

    return whole


def _distinct(size: int, contenders: dict[str, Sample], memory: dict[str, float]) -> list[Claim]:
    """Candidates for as many slots, in one call; once as they are, once declared on the way."""
    candidates = declare(size)
    registers, fills, declares = (f"{what}, N={size:,}" for what in ("register", "dict of lists", "declare, register"))
    contenders[registers] = _registration(size, lambda: candidates)
    contenders[fills] = _filling(candidates)
    contenders[declares] = _registration(size, lambda: declare(size))
    memory[registers] = footprint(lambda: Registry().with_added("code", candidates)) / size
    memory[declares] = footprint(lambda: Registry().with_added("code", declare(size))) / size
    return [
        Claim("register, slots", size, registers, fills),
        Claim("declare and register, slots", size, declares, fills),
    ]


def _one_at_a_time(size: int, contenders: dict[str, Sample]) -> list[Claim]:
    candidates = declare(size)

    async def sample() -> Sequence[float]:
        async with Runtime.open(bare_settings()) as runtime:
            gc.collect()
            begin = perf_counter()
            for candidate in candidates:
                runtime.register(candidate)
            return [(perf_counter() - begin) / size]

    name = f"one by one, N={size:,}"
    contenders[name] = sample
    return [Claim("register, one slot a call", size, name, f"register, N={size:,}")]


def _one_slot(size: int, contenders: dict[str, Sample], memory: dict[str, float]) -> list[Claim]:
    rivals = [Candidate(slot=PART, provider=f"p{n}", factory="shop.parts:Part") for n in range(size)]
    registers, fills = f"register rivals, N={size:,}", f"dict of one list, N={size:,}"
    contenders[registers] = _registration(size, lambda: rivals)
    contenders[fills] = _filling(rivals)
    memory[registers] = footprint(lambda: Registry().with_added("code", rivals)) / size
    return [Claim("register, all on one slot", size, registers, fills)]


def declare(size: int, **fields: Any) -> Candidates:
    """Return candidates for *size* slots, with *fields* beside what each has."""
    return [
        Candidate(slot=Slot[Any]("adapter", f"part-{n}"), provider="only", factory="shop.parts:Part", **fields)
        for n in range(size)
    ]


def _registration(size: int, offered: Callable[[], Candidates]) -> Sample:
    async def sample() -> Sequence[float]:
        async with Runtime.open(bare_settings()) as runtime:
            gc.collect()
            begin = perf_counter()
            runtime.register(*offered())
            return [(perf_counter() - begin) / size]

    return sample


def _filling(candidates: Candidates) -> Sample:
    async def sample() -> Sequence[float]:
        by_slot: dict[Slot[Any], list[Candidate[Any]]] = {}
        gc.collect()
        begin = perf_counter()
        for candidate in candidates:
            by_slot.setdefault(candidate.slot, []).append(candidate)
        return [(perf_counter() - begin) / len(candidates)]

    return sample
