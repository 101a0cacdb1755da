"""Runs the benchmarks and prints one table. Says what was met and what was missed; a slow machine is not a failure."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import commands, delivering, leasing, observing, registering, resolving, swapping, table
from benchmarks.measure import FULL, QUICK, Budget, Row

BENCHMARKS: Final[Mapping[str, Callable[[Budget], Awaitable[list[Row]]]]] = {
    "resolve": resolving.resolving,
    "explain": resolving.explaining,
    "register": registering.registering,
    "lease": leasing.leasing,
    "observe": observing.observing,
    "swap": swapping.swapping,
    "swap-store": swapping.swapping_with_store,
    "deliver": delivering.verifying,
    "refresh": delivering.refreshing,
    "loop-lag": delivering.lagging,
    "commands": commands.commands,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what *arguments* select; return 1 when something could not be measured, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="a fraction of a second each, and small: no real figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON too")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in options.only or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += asyncio.run(_run(name, QUICK if options.quick else FULL))
        gc.collect()
    print(table.as_text(rows))
    if options.json is not None:
        options.json.write_text(table.as_json(rows, quick=options.quick), encoding="utf-8")
    return 1 if any(row.error for row in rows) else 0


async def _run(name: str, budget: Budget) -> list[Row]:
    return await BENCHMARKS[name](budget)


if __name__ == "__main__":
    raise SystemExit(main())
