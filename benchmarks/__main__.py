"""Runs the benchmarks and prints one table. Says what was met and what was missed; a slow machine is not a failure."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks import (
    commands,
    delivering,
    discovering,
    importing,
    leasing,
    observing,
    record,
    registering,
    resolving,
    serving,
    swapping,
    table,
)
from benchmarks.measure import BRIEF, FULL, QUICK, Budget, Row
from benchmarks.peers.tables import TABLES as PEERS

BENCHMARKS: Final[Mapping[str, Callable[[Budget], Awaitable[list[Row]]]]] = {
    "resolve": resolving.resolving,
    "rivals": resolving.ranking,
    "explain": resolving.explaining,
    "register": registering.registering,
    "replace": registering.replacing,
    "lease": leasing.leasing,
    "observe": observing.observing,
    "swap": swapping.swapping,
    "swap-store": swapping.swapping_with_store,
    "deliver": delivering.verifying,
    "refresh": delivering.refreshing,
    "loop-lag": delivering.lagging,
    "import": importing.importing,
    "discover": discovering.discovering,
    "commands": commands.commands,
    "daemon-start": serving.starting,
    "daemon-api": serving.answering,
    "daemon-idle": serving.idling,
    **PEERS,
}
FULL_ONLY: Final[frozenset[str]] = frozenset(PEERS)
"""What takes too long for a run of minutes; runs with --full, or when it is named."""

CHOICES: Final = (*BENCHMARKS, "peers")


def chosen(only: Sequence[str] | None, *, full: bool) -> list[str]:
    """Return the benchmarks that are named, ``peers`` being all of theirs; without a name those that run anyway."""
    if only is None:
        return [each for each in BENCHMARKS if full or each not in FULL_ONLY]
    return [each for name in only for each in (PEERS if name == "peers" else (name,))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what *arguments* select; return 1 when something could not be measured, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=CHOICES, metavar="NAME", help=", ".join(CHOICES))
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="a fraction of a second each, and small: no real figures")
    effort.add_argument("--full", action="store_true", help="all of it, up to 100,000 of each, and for longer")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    target.add_argument("--merge", type=Path, metavar="FILE", help="the same, and keep the benchmarks that are not run")
    options = parser.parse_args(arguments)
    name, budget = ("quick", QUICK) if options.quick else ("full", FULL) if options.full else ("brief", BRIEF)
    wanted = chosen(options.only, full=options.full)
    runs = record.read(options.merge) if options.merge else {}
    for number, each in enumerate(wanted, 1):
        print(f"{number}/{len(wanted)} {each} ...", end="", file=sys.stderr, flush=True)
        runs[each] = _run(each, name, budget)
        print(f" {runs[each].seconds:.0f} s", file=sys.stderr, flush=True)
        if file := options.json or options.merge:
            ordered = {key: runs[key] for key in (*BENCHMARKS, *runs) if key in runs}
            record.write(file, ordered)  # after each, so that what interrupts the run costs no more than one
        gc.collect()
    rows = [row for each in wanted for row in runs[each].rows]
    print(table.as_text(rows))
    return 1 if any(row.error for row in rows) else 0


def _run(name: str, effort: str, budget: Budget) -> record.Run:
    load, begin = os.getloadavg()[0], perf_counter()
    try:
        rows = asyncio.run(_rows(name, budget))
    except Exception as error:  # the others can be measured still
        traceback.print_exc()
        rows = [Row(name, 0, error=f"{type(error).__name__}: {error}")]
    return record.Run(tuple(rows), effort, record.environment(), round(perf_counter() - begin, 1), round(load, 1))


async def _rows(name: str, budget: Budget) -> list[Row]:
    return await BENCHMARKS[name](budget)


if __name__ == "__main__":
    raise SystemExit(main())
