"""The workers of one measurement: who takes part, who could not, and what each is called in the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from benchmarks.measure import Budget, Claim, Row, Sample, measure
from benchmarks.peers.environments import REQUIREMENTS, Environment, environment
from benchmarks.peers.workers import Worker, WorkerError, worker


@dataclass(frozen=True)
class Member:
    """One way of one contender, ready to be sampled."""

    environment: Environment
    worker: Worker
    way: int
    note: str = ""
    memory: float | None = None


class Crew:
    """Contenders that prepared for one table at one size, until it is closed.

    One that cannot take part is a row whose note says why; that is not an error, unless it is our own.

    Args:
        found: where they run; everyone who could be installed, and who could not, unless told otherwise.
    """

    def __init__(self, table: str, size: int, budget: Budget, found: Iterable[Environment] | None = None) -> None:
        self.table = table
        self.size = size
        self.members: dict[str, Member] = {}
        self.failures: dict[str, Row] = {}
        self._budget = budget
        self._found = (environment(name) for name in REQUIREMENTS) if found is None else found
        self._stack = ExitStack()

    def __enter__(self) -> Crew:
        with ExitStack() as stack:
            for place in self._found:
                try:
                    self._prepare(place, stack.enter_context(worker(place)))
                except WorkerError as error:
                    self.failures[place.shown] = missing(self.table, place, self.size, error)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _prepare(self, place: Environment, found: Worker) -> None:
        seconds = self._budget.sample_seconds
        answer = found.ask(do="prepare", table=self.table, size=self.size, sample_seconds=seconds)
        for number, way in enumerate(answer["ways"]):
            self.members[way["name"]] = Member(place, found, number, way["note"], way.get("memory"))

    def order(self, name: str, **more: Any) -> dict[str, Any] | None:
        """Have one member take a sample; None from the first time on that it could not."""
        member = self.members[name]
        if name not in self.failures:
            try:
                return member.worker.ask(do="sample", table=self.table, size=self.size, way=member.way, **more)
            except WorkerError as error:
                self.failures[name] = missing(self.table, member.environment, self.size, error, name)
        return None

    async def compare(self, baseline: str = "") -> list[Row]:
        """Measure all members round after round, against one of them; add a row for each that failed."""
        at = f", N={self.size:,}"
        samples = {name + at: self._sample(name) for name in self.members}
        claims = [
            Claim(f"{self.table}: {name}", self.size, name + at, baseline + at if baseline not in ("", name) else "")
            for name in self.members
        ]
        rows = await measure(samples, claims, self._budget)
        known = [
            replace(row, note=member.note, memory=member.memory)
            for row, (name, member) in zip(rows, self.members.items(), strict=True)
            if name not in self.failures
        ]
        return [*known, *self.failures.values()]

    def _sample(self, name: str) -> Sample:
        async def sample() -> Sequence[float]:
            answer = self.order(name)
            return [inf] if answer is None else answer["seconds"]

        return sample


def missing(table: str, place: Environment, size: int, error: WorkerError, name: str = "") -> Row:
    """Return the row of one that could not be measured."""
    row = Row(f"{table}: {name or place.shown}", size)
    return replace(row, error=str(error)) if place.is_ours else replace(row, note=f"not run: {error}")
