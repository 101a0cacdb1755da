"""What it costs to ask who fills a slot, and to have it explained."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from operator import attrgetter
from typing import Any, Final

from benchmarks.measure import FLAT, Budget, Claim, Row, Sample, measure, timed
from oneiric import Candidate, Runtime, Slot
from oneiric.core.registry import Registry
from oneiric.core.resolution import Policy, resolve
from oneiric.testing import PART, Workshop, bare_settings

HOT: Final = 10
"""How many slots are asked for in turn, at every size the same: only the number there are to choose from differs."""
SPREAD: Final = 1_000
"""How many are asked for in turn where the processor's caches are to be left behind."""


async def resolving(budget: Budget) -> list[Row]:
    """``Runtime.resolve`` of an active slot against a lookup in a dictionary."""
    contenders: dict[str, Sample] = {}
    claims: list[Claim] = []
    sizes = budget.sizes(10, 1_000, 100_000)
    async with AsyncExitStack() as stack:
        for size in sizes:
            slots = [Slot[Any]("adapter", f"part-{number}") for number in range(size)]
            spread = random.Random(size).sample(slots, min(size, SPREAD))
            runtime = await _active(stack, slots, spread)
            by_slot = {slot: runtime.resolve(slot) for slot in (*spread, *slots)}  # in the order they were activated
            resolves, dict_slot, dict_str = (f"{what}, N={size:,}" for what in ("resolve", "dict[Slot]", "dict[str]"))
            contenders |= await _lookups(runtime, by_slot, spread[:HOT], budget, names=(resolves, dict_slot, dict_str))
            claims += [
                Claim("resolve", size, resolves, dict_slot, target=4),
                Claim("resolve", size, resolves, dict_str),
            ]
        claims.append(Claim("resolve is flat", size, resolves, f"resolve, N={sizes[0]:,}", target=FLAT))
        cold = tuple(f"{name}, in turn" for name in (resolves, dict_slot, dict_str))
        contenders |= await _lookups(runtime, by_slot, spread, budget, names=cold)
        claims.append(Claim(f"resolve, {len(spread):,} in turn", size, cold[0], cold[1]))
        return await measure(contenders, claims, budget)


async def ranking(budget: Budget) -> list[Row]:
    """The same where many compete for one slot: as callers ask, and ranked anew, as after every change."""
    contenders: dict[str, Sample] = {}
    claims: list[Claim] = []
    sizes = budget.sizes(1, 10, 1_000)
    workshop = Workshop()
    async with AsyncExitStack() as stack:
        for size in sizes:
            runtime = await stack.enter_async_context(Runtime.open(bare_settings()))
            rivals = tuple(workshop.candidate(f"p{number}", priority=number) for number in range(size))
            runtime.register(*rivals)
            async with runtime.use(PART):
                pass
            by_slot, registry = {PART: runtime.resolve(PART)}, Registry().with_source("code", rivals)
            resolves, looks_up, ranks, takes = (
                f"{what}, N={size:,}" for what in ("resolve", "dict[Slot]", "rank", "max by priority")
            )
            contenders |= {
                resolves: await timed("runtime.resolve(item)", budget, items=[PART] * 10, runtime=runtime),
                looks_up: await timed("by_slot[item]", budget, items=[PART] * 10, by_slot=by_slot),
                ranks: await timed(
                    "resolve(registry, policy, item)",
                    budget,
                    items=[PART],
                    resolve=resolve,
                    registry=registry,
                    policy=Policy(),
                ),
                takes: await timed(
                    "max(item, key=priority)", budget, items=[rivals], max=max, priority=attrgetter("priority")
                ),
            }
            claims += [
                Claim("resolve among rivals", size, resolves, looks_up, target=4),
                Claim("rank anew", size, ranks, takes),
            ]
        smallest = f"resolve, N={sizes[0]:,}"
        claims.append(Claim("resolve among rivals is flat", size, resolves, smallest, target=FLAT))
        return await measure(contenders, claims, budget)


async def _lookups(
    runtime: Runtime,
    by_slot: Mapping[Slot[Any], Any],
    asked: Sequence[Slot[Any]],
    budget: Budget,
    *,
    names: Sequence[str],
) -> dict[str, Sample]:
    """Return what resolves, and what looks up by slot and by text, each of *asked* in turn."""
    by_name = {str(slot): found for slot, found in by_slot.items()}
    samples = (
        await timed("runtime.resolve(item)", budget, items=asked, runtime=runtime),
        await timed("by_slot[item]", budget, items=asked, by_slot=by_slot),
        await timed("by_name[item]", budget, items=[str(slot) for slot in asked], by_name=by_name),
    )
    return dict(zip(names, samples, strict=True))


async def _active(stack: AsyncExitStack, slots: list[Slot[Any]], used: list[Slot[Any]]) -> Runtime:
    """Return a runtime with one candidate for each of *slots*, and an instance in each of *used*."""
    workshop = Workshop()
    runtime = await stack.enter_async_context(Runtime.open(bare_settings()))
    runtime.register(*(workshop.candidate("only", slot=slot) for slot in slots))
    for slot in used:
        async with runtime.use(slot):
            pass
    return runtime


async def explaining(budget: Budget) -> list[Row]:
    """The explanation of one slot, computed from nothing, against sorting its candidates."""
    contenders: dict[str, Sample] = {}
    claims: list[Claim] = []
    for size in budget.sizes(2, 10, 1_000):
        candidates = tuple(
            Candidate(slot=PART, provider=f"p{n}", factory="shop:Part", priority=n % 100, version=f"1.{n}.0")
            for n in range(size)
        )
        registry = Registry().with_source("code", candidates)
        explains, sorts = f"explain, N={size:,}", f"sorted by priority, N={size:,}"
        contenders[explains] = await timed(
            "str(resolve(registry, policy, slot))",
            budget,
            items=range(1),
            resolve=resolve,
            registry=registry,
            policy=Policy(),
            slot=PART,
        )
        contenders[sorts] = await timed(
            "sorted(candidates, key=key, reverse=True)",
            budget,
            items=range(10),
            candidates=candidates,
            key=attrgetter("priority"),
        )
        claims.append(Claim("explain", size, explains, sorts))
    return await measure(contenders, claims, budget)
