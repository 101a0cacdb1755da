"""Times things against each other on a machine that is never quiet.

Every contender is sampled once a round, in random order, and a claim compares two contenders round by round: whatever
slows the machine slows both. So trust the ratios; the absolute figures are those of one machine at one time.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from textwrap import indent
from time import perf_counter
from typing import Any, Final

Sample = Callable[[], Awaitable[Sequence[float]]]
"""Takes one sample: seconds per operation, once (the mean of a loop) or for each operation apart."""

FEWEST_ROUNDS: Final = 5
FLAT: Final = 1.5
"""How much more something may cost at the largest size than at the smallest, and still count as flat."""


@dataclass(frozen=True)
class Budget:
    """How long to measure, at least how many rounds, and how large the largest case may be."""

    seconds: float = 12.0
    sample_seconds: float = 0.005
    largest: int = 100_000
    rounds: int = FEWEST_ROUNDS

    def sizes(self, *wanted: int) -> tuple[int, ...]:
        """Return *wanted*, none larger than the largest."""
        return tuple(dict.fromkeys(min(size, self.largest) for size in wanted))


BRIEF: Final = Budget(seconds=6.0, largest=10_000)
FULL: Final = Budget()
QUICK: Final = Budget(seconds=0.1, sample_seconds=0.0005, largest=20, rounds=1)


@dataclass(frozen=True)
class Claim:
    """One line of the table: what *subject* costs in multiples of *baseline*, both names of contenders.

    Args:
        quantile: which operation of a sample counts: 0.5 the median one, 0.99 nearly the slowest.
        target: how many times the baseline it may cost.
    """

    name: str
    size: int
    subject: str
    baseline: str = ""
    quantile: float = 0.5
    target: float | None = None


@dataclass(frozen=True)
class Row:
    """A claim with its figures: seconds per operation, multiples of the baseline, and bytes where they matter."""

    name: str
    size: int
    baseline: str = ""
    median: float | None = None
    p10: float | None = None
    ratio: float | None = None
    ratio_p10: float | None = None
    ratio_p90: float | None = None
    target: float | None = None
    median_target: float | None = None
    memory: float | None = None
    memory_target: float | None = None
    rounds: int = 0
    note: str = ""
    error: str = ""

    @property
    def met(self) -> bool | None:
        """Whether every target is met; None without a target or without figures."""
        pairs = (
            (self.ratio, self.target),
            (self.median, self.median_target),
            (self.memory, self.memory_target),
        )
        verdicts = [figure <= target for figure, target in pairs if figure is not None and target is not None]
        return all(verdicts) if verdicts else None


async def measure(
    contenders: Mapping[str, Sample],
    claims: Iterable[Claim],
    budget: Budget,
    *,
    shuffle: Callable[[list[str]], None] = random.shuffle,
) -> list[Row]:
    """Sample all contenders round after round until the time is up; return a row for each claim."""
    gc.collect()
    order = list(contenders)
    rounds: list[dict[str, Sequence[float]]] = []
    end = perf_counter() + budget.seconds
    while len(rounds) < budget.rounds or perf_counter() < end:
        shuffle(order)
        rounds.append({name: await contenders[name]() for name in order})
    return [judge(claim, rounds) for claim in claims]


def judge(claim: Claim, rounds: Sequence[Mapping[str, Sequence[float]]]) -> Row:
    """Return the row of *claim*, from the samples of every contender in each round."""
    costs = [quantile(figures[claim.subject], claim.quantile) for figures in rounds]
    ratios: list[float] = []
    if claim.baseline:
        ratios = [
            cost / quantile(figures[claim.baseline], claim.quantile)
            for cost, figures in zip(costs, rounds, strict=True)
        ]
    return Row(
        name=claim.name,
        size=claim.size,
        baseline=claim.baseline,
        median=median(costs),
        p10=quantile(costs, 0.1),
        ratio=median(ratios) if ratios else None,
        ratio_p10=quantile(ratios, 0.1) if ratios else None,
        ratio_p90=quantile(ratios, 0.9) if ratios else None,
        target=claim.target,
        rounds=len(rounds),
    )


def quantile(values: Sequence[float], fraction: float) -> float:
    """Return the smallest of *values* that at least *fraction* of them do not exceed."""
    return sorted(values)[max(0, ceil(fraction * len(values)) - 1)]


# Every name is a parameter, hence a local variable: a baseline must not pay for looking up a global.
_LOOP: Final = """
async def timed(loops, clock, items, {names}):
    begin = clock()
    for _ in range(loops):
        for item in items:
            pass
    middle = clock()
    for _ in range(loops):
        for item in items:
{statement}
    return (clock() - middle) - (middle - begin)
"""


async def timed(statement: str, budget: Budget, *, items: Sequence[Any] = range(100), **names: Any) -> Sample:
    """Return what samples *statement*, run for each ``item`` of *items*, without the cost of the loop itself."""
    source = _LOOP.format(statement=indent(statement, " " * 12), names=", ".join(names))
    namespace: dict[str, Any] = {}
    exec(compile(source, f"<{statement}>", "exec"), namespace)
    loop = namespace["timed"]
    loops = 1
    while await loop(loops, perf_counter, items, **names) < budget.sample_seconds:
        loops *= 2

    async def sample() -> Sequence[float]:
        seconds = await loop(loops, perf_counter, items, **names)
        return [max(seconds / (loops * len(items)), 1e-9)]  # an interruption of the empty loop could make it negative

    return sample


def footprint(make: Callable[[], Any]) -> int:
    """Return how many bytes what *make* returns takes, and all it refers to that was not there before."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = make()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del kept
    return after - before
