"""What it costs that everything is counted and logged."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from textwrap import dedent
from time import perf_counter
from typing import Any

from benchmarks.leasing import AT_ONCE, Prompt
from benchmarks.measure import Budget, Claim, Row, Sample, measure, timed
from oneiric import Runtime, Slot
from oneiric.lifecycle.lease import Lease
from oneiric.observability.exposition import expose
from oneiric.observability.logs import Reporter, to_stream
from oneiric.testing import Workshop, bare_settings

_RESOLVE = "resolve(runtime, item)"
_LEASE = "async with lease(live) as leased:\n    await leased.work()"
_LINE = "report('cleanup-complete', domain='adapter', key='cache', provider='redis', instance_id='adapter/cache#1', "
_LINE += "aside=False, duration_ms=1.234)"


async def observing(budget: Budget) -> list[Row]:
    """Resolve and lease with their counts and without; a line of the log; a scrape of many slots."""
    workshop = Workshop()
    (slots,) = budget.sizes(1_000)
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(Runtime.open(bare_settings()))
        runtime.register(workshop.candidate("only", slot=AT_ONCE, kind=Prompt))
        crowded = await _crowded(stack, slots)
        part = await stack.enter_async_context(runtime.use(AT_ONCE))
        at_once, live = [AT_ONCE] * 100, runtime._live[AT_ONCE]
        counted, uncounted = _without(Runtime.resolve, ""), _without(Runtime.resolve, "answer.asked += 1.0")
        report = Reporter(to_stream(io.StringIO(), minimum="info", as_json=True))
        contenders: dict[str, Sample] = {
            "resolve": await timed(_RESOLVE, budget, items=at_once, resolve=counted, runtime=runtime),
            "uncounted resolve": await timed(_RESOLVE, budget, items=at_once, resolve=uncounted, runtime=runtime),
            "lease": await timed(_LEASE, budget, lease=_without(Lease, ""), live=live),
            "uncounted lease": await timed(_LEASE, budget, lease=_without(Lease, "live.granted += 1"), live=live),
            "bare await": await timed("await part.work()", budget, part=part),
            "log line": await timed(_LINE, budget, report=report),
            "read": _reading(crowded),
            "scrape": _scraping(crowded),
        }
        claims = [
            Claim("resolve, counted", 1, "resolve", "uncounted resolve", target=1.3),
            Claim("lease, counted", 1, "lease", "uncounted lease", target=1.3),
            Claim("log line", 1, "log line", "bare await"),
            Claim("read every metric", slots, "read"),
            Claim("scrape", slots, "scrape", "read"),
        ]
        return await measure(contenders, claims, budget)


def _without(subject: Any, line: str) -> Any:
    """Return *subject* compiled again without *line* of it, so that it differs in nothing else."""
    source = dedent(inspect.getsource(subject))
    lines = [text for text in source.splitlines() if not line or text.partition("  #")[0].strip() != line]
    if line and len(lines) == len(source.splitlines()):
        raise LookupError(f"{subject.__qualname__} has no line {line!r}")
    namespace = dict(vars(sys.modules[subject.__module__]))
    exec(compile("from __future__ import annotations\n" + "\n".join(lines), "<again>", "exec"), namespace)
    return namespace[subject.__name__]


async def _crowded(stack: AsyncExitStack, slots: int) -> Runtime:
    """Return a runtime with *slots* active slots, each with a loser."""
    workshop = Workshop()
    runtime = await stack.enter_async_context(Runtime.open(bare_settings()))
    for number in range(slots):
        slot = Slot[Any](("adapter", "service", "task", "event", "action")[number % 5], f"part-{number}")
        runtime.register(workshop.candidate("one", slot=slot), workshop.candidate("two", slot=slot, priority=1))
        async with runtime.use(slot):
            pass
    return runtime


def _reading(runtime: Runtime) -> Sample:
    async def sample() -> Sequence[float]:
        begin = perf_counter()
        await runtime.readings()
        return [perf_counter() - begin]

    return sample


def _scraping(runtime: Runtime) -> Sample:
    async def sample() -> Sequence[float]:
        begin = perf_counter()
        expose(await runtime.readings())
        return [perf_counter() - begin]

    return sample
