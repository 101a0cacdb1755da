"""The table of hot replacement: what a thousand callers notice, and how long the replacement takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from statistics import median
from typing import Any, Final

from benchmarks.measure import Budget, Claim, Row, Sample, judge, measure
from benchmarks.peers.crew import Crew
from benchmarks.peers.environments import Environment
from benchmarks.table import duration

CALLERS: Final = 1_000
LOAD: Final[Mapping[str, float]] = {"call_seconds": 0.05, "every_seconds": 0.1, "swaps": 10}
TIMES: Final = 5
"""How much longer to measure than other tables: a sample takes more than a second, and a round has many."""
FLOOR: Final = "attribute, old one closed at once"
CALM: Final = "without swaps"


@dataclass
class Told:
    """What the runs of one contender told, one a round."""

    swapped: list[dict[str, Any]] = field(default_factory=list)
    calm: list[dict[str, Any]] = field(default_factory=list)


async def swapping(
    budget: Budget,
    *,
    found: Sequence[Environment] | None = None,
    callers: int = CALLERS,
    load: Mapping[str, float] = LOAD,
) -> list[Row]:
    """Replace what many callers use, again and again, and do not; failed calls and leaks are in the notes.

    Args:
        found: who takes part; everyone unless told otherwise.
    """
    callers = min(callers, budget.largest)
    with Crew("replace", callers, budget, found) as crew:
        told = {name: Told() for name in crew.members}
        samples: dict[str, Sample] = {}
        for name in crew.members:
            samples[name] = _run(crew, name, {**load, "callers": callers}, told[name].swapped)
            samples[f"{name}, {CALM}"] = _run(crew, name, {**load, "callers": callers, "swaps": 0}, told[name].calm)
        await measure(samples, [], replace(budget, seconds=TIMES * budget.seconds))
        return _rows(crew, {name: runs for name, runs in told.items() if name not in crew.failures})


def _run(crew: Crew, name: str, load: Mapping[str, float], kept: list[dict[str, Any]]) -> Sample:
    async def sample() -> Sequence[float]:
        if (answer := crew.order(name, load=load)) is not None:
            kept.append(answer)
        return [inf]

    return sample


def _rows(crew: Crew, told: Mapping[str, Told]) -> list[Row]:
    """Return for each how long swaps took, and what callers waited beyond their call against the same in calm."""
    rounds: list[dict[str, Sequence[float]]] = []
    for number in range(min((len(runs.calm) for runs in told.values()), default=0)):
        figures: dict[str, Sequence[float]] = {}
        for name, runs in told.items():
            figures[name] = runs.swapped[number]["seconds"] or [inf]
            figures[f"{name}, wait"] = [runs.swapped[number]["wait_p99"]]
            figures[f"{name}, wait {CALM}"] = [runs.calm[number]["wait_p99"]]
        rounds.append(figures)
    rows: list[Row] = []
    for name, runs in told.items():
        floor = FLOOR if name != FLOOR and FLOOR in told else ""
        done = median([seconds for run in runs.swapped for seconds in run["returned"]] or [inf])
        for label, part in (("p50", 0.5), ("p99", 0.99)) if done < inf else ():
            claim = Claim(f"replace: {name}, {label} of swaps", crew.size, name, floor, quantile=part)
            row = judge(claim, rounds)
            rows.append(replace(row, note=f"done after {duration(done)}" if done > 2 * (row.median or 0) else ""))
        claim = Claim(f"replace: {name}, p99 of waits", crew.size, f"{name}, wait", f"{name}, wait {CALM}")
        note, member = _noted(runs.swapped), crew.members[name]
        memory = float(runs.swapped[-1]["resident"])
        rows.append(replace(judge(claim, rounds), memory=memory, note=f"{note}; {member.note}"))
    return [*rows, *crew.failures.values()]


def _noted(runs: Sequence[Mapping[str, Any]]) -> str:
    """Say how many calls failed, and how many instances nobody closed."""
    total = {name: sum(run[name] for run in runs) for name in ("calls", "failed", "swaps_failed", "left_open")}
    failed = f"{total['failed']:,} FAILED" if total["failed"] else "none failed"
    text = f"{total['calls']:,} calls, {failed}"
    if total["swaps_failed"]:
        text += f", {total['swaps_failed']} swaps FAILED"
    if total["left_open"]:
        text += f", {total['left_open']} instances never closed"
    return text
