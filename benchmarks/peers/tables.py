"""The tables of the comparison: each asks every contender the same, and holds it against the least it can cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from benchmarks.measure import Budget, Row
from benchmarks.peers.crew import Crew, missing
from benchmarks.peers.environments import OURS, PUBLISHED, environment
from benchmarks.peers.starting import starting
from benchmarks.peers.swapping import swapping
from benchmarks.peers.workers import WorkerError, worker


async def getting(budget: Budget) -> list[Row]:
    """Get an instance that is there, of so many."""
    return await _sized("get", "dict[str]", budget, budget.sizes(10, 1_000, 100_000))


async def calling(budget: Budget) -> list[Row]:
    """Call a method of the instance that is there."""
    return await _sized("call", "bare await", budget, (1,))


async def registering(budget: Budget) -> list[Row]:
    """Register so many candidates from nothing."""
    rows = await _sized("register", "dict of lists", budget, budget.sizes(1_000, 100_000))
    return [
        replace(row, note="; ".join(filter(None, (f"{1 / row.median:,.0f}/s", row.note)))) if row.median else row
        for row in rows
    ]


async def _sized(table: str, baseline: str, budget: Budget, sizes: Sequence[int]) -> list[Row]:
    rows: list[Row] = []
    for size in sizes:
        with Crew(table, size, budget) as crew:
            rows += await crew.compare(baseline)
    return rows


async def ranking(budget: Budget) -> list[Row]:
    """Find and explain the winner of so many candidates for one slot, as this and the published project do."""
    rows: list[Row] = []
    for size in budget.sizes(10, 1_000):
        with Crew("rank", size, budget, [environment(OURS), environment(PUBLISHED)]) as crew:
            rows += await crew.compare("ours, resolve")
    return rows


async def behaving(budget: Budget) -> list[Row]:
    """Put to the test what this and the published project both promise; the notes are the answers."""
    rows: list[Row] = []
    for name in (OURS, PUBLISHED):
        place = environment(name)
        try:
            with worker(place) as found:
                answers = found.ask(do="behave")["behaviours"]
        except WorkerError as error:
            rows.append(missing("behave", place, 1, error))
        else:
            rows += [Row(f"behave: {name}, {what}", 1, note=answer) for what, answer in answers.items()]
    return sorted(rows, key=lambda row: row.name.partition(", ")[2])


TABLES: Final[Mapping[str, Callable[[Budget], Awaitable[list[Row]]]]] = {
    "peers-get": getting,
    "peers-call": calling,
    "peers-replace": swapping,
    "peers-register": registering,
    "peers-import": starting,
    "peers-rank": ranking,
    "peers-behave": behaving,
}
