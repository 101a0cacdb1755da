"""Runbook 5, scenario B: memory grows and goes on growing while the number of instances stays the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Final, NamedTuple

from oneiric.core.words import plural
from oneiric.doctor.failures import RESTART
from oneiric.doctor.finding import Finding, Priority
from oneiric.doctor.vitals import MemorySample, ProcessVital, Vitals
from oneiric.doctor.wording import instant, size, span

GROWTH_BYTES: Final = 64 << 20
"""Bytes by which it must have grown: the boundary of OneiricMemoryGrowing, as is the next."""
GROWTH_SHARE: Final = 0.2
"""Share of what it was by which it must have grown."""
STARTING: Final = 120.0
"""Seconds after the start that do not count: caches fill, modules are imported."""
_PARTS: Final = 4
_FEWEST: Final = 8  # two samples in each part
_STEADY: Final = 0.1  # of the whole growth, in each step from one part to the next
_SOON: Final = 3600.0
_NEARLY: Final = 0.9


class Pace(NamedTuple):
    """How fast a leak is looked for: over which windows, and how much growth shows it beyond doubt.

    ``starting`` are the seconds after the start that do not count: caches fill, modules are imported. ``windows`` are
    in seconds, the shortest first; ``shortest`` is how much of one there must be samples for.
    """

    starting: float
    windows: tuple[float, ...]
    shortest: float
    growth_bytes: int
    growth_share: float


PACES: Final = (
    Pace(STARTING, (300.0, 1800.0, 7200.0, 21_600.0), 120.0, GROWTH_BYTES, GROWTH_SHARE),
    Pace(15.0, (20.0, 60.0), 15.0, 2 * GROWTH_BYTES, 0.5),  # nobody waits two minutes for what fills the machine in one
)


class Growth(NamedTuple):
    """How memory grew: the samples at both ends, and the bytes between the lowest of the first and the last part."""

    first: MemorySample
    last: MemorySample
    grown: int

    @property
    def seconds(self) -> float:
        """How long it was looked at."""
        return (self.last.at - self.first.at).total_seconds()


def examine(vitals: Vitals, process: ProcessVital) -> Iterator[Finding]:
    """Yield that memory leaks."""
    growth = growth_of(vitals, process)
    if growth is None:
        return
    rate = growth.grown / growth.seconds
    limit, resident = process.memory_limit_bytes, process.resident_bytes
    left = (limit - resident) / rate if limit is not None else None
    facts = [
        f"{_told(growth.first)}, {_told(growth.last)}: {size(round(rate * 60))} a minute for {span(growth.seconds)}",
        f"{plural(growth.first.instances, 'instance')} then, {growth.last.instances} now",
    ]
    if left is not None and limit is not None:
        facts.append(f"the limit of {size(limit)} is reached in {span(max(0.0, left))} at that rate")
    if process.busiest:
        busiest = ", ".join(f"{slot} ({plural(times, 'use')})" for slot, times in process.busiest)
        facts.append(f"suspects, the slots that are used most: {busiest}")
    suspect = process.busiest[0][0] if process.busiest else "the slot that is used most"
    yield Finding(
        code="5B",
        priority=_gravity(left, limit, resident),
        title="memory grows while the number of instances does not",
        subject=process.busiest[0][0] if process.busiest else "",
        evidence=tuple(facts),
        commands=(
            "oneiric status",
            "uv pip install memray",
            "# beside a running daemon only with other directories for cache, state and socket; else stop that first",
            "systemctl stop oneiric || docker stop oneiric",
            "memray run --live-remote --live-port 8001 -m oneiric orchestrate",
            "# in another terminal, to see which function's memory grows:",
            "memray live 8001",
            f"# correct that provider, {suspect} first: give back what it keeps, at the latest in aclose()",
            f"# until then a restart frees it: {RESTART}",
        ),
        confirm=(
            "oneiric doctor: says nothing of growing memory half an hour later",
            'PromQL: process_resident_memory_bytes{job="oneiric"} stays level for 30 min',
        ),
    )


def _told(sample: MemorySample) -> str:
    return f"{size(sample.resident_bytes)} at {instant(sample.at)}"


def _gravity(left: float | None, limit: int | None, resident: int) -> Priority:
    if limit is None or left is None:
        return "P2"
    if resident >= _NEARLY * limit:
        return "P0"
    return "P1" if left <= _SOON else "P2"


def growth_of(vitals: Vitals, process: ProcessVital) -> Growth | None:
    """Return how memory grew over the shortest window in which it clearly did, None when it did not."""
    for pace in PACES:
        settled = [one for one in _series(process) if (one.at - process.started_at).total_seconds() >= pace.starting]
        for window in pace.windows:
            samples = [one for one in settled if timedelta() <= vitals.at - one.at <= timedelta(seconds=window)]
            found = _growth(samples, pace)
            if found is not None:
                return found
    return None


def _series(process: ProcessVital) -> list[MemorySample]:
    """Return all samples, oldest first: those of hours until those of minutes begin."""
    fine = process.recent_samples
    coarse = [one for one in process.samples if not fine or one.at < fine[0].at]
    return sorted([*coarse, *fine], key=lambda one: one.at)


def _growth(samples: list[MemorySample], pace: Pace) -> Growth | None:
    """Return the growth over *samples* if it is large and goes on: each part's lowest is above that of the one before.

    The lowest, because memory goes up and down while it is used.
    """
    if len(samples) < _FEWEST or (samples[-1].at - samples[0].at).total_seconds() < pace.shortest:
        return None
    first, last = samples[0], samples[-1]
    if last.instances > first.instances:
        return None
    lows = _lows(samples)
    if len(lows) < _PARTS:
        return None
    grown = lows[-1] - lows[0]
    if grown < max(pace.growth_bytes, pace.growth_share * lows[0]):
        return None
    is_steady = all(after - before >= _STEADY * grown for before, after in pairwise(lows))
    return Growth(first, last, last.resident_bytes - first.resident_bytes) if is_steady else None


def _lows(samples: list[MemorySample]) -> list[int]:
    """Return the least memory in each of so many equal parts of the time; a part without a sample is left out."""
    begin = samples[0].at
    part = (samples[-1].at - begin).total_seconds() / _PARTS
    lows: dict[int, int] = {}
    for one in samples:
        number = min(_PARTS - 1, int((one.at - begin).total_seconds() / part))
        lows[number] = min(lows.get(number, one.resident_bytes), one.resident_bytes)
    return [lows[number] for number in sorted(lows)]
