"""What a call pays for not being affected by a swap."""

from __future__ import annotations

from typing import Any, Protocol

from benchmarks.measure import Budget, Claim, Row, measure, timed
from oneiric import Runtime, Slot
from oneiric.testing import Part, Workshop, bare_settings


class Works(Protocol):
    """What is called."""

    async def work(self) -> str: ...


class Prompt(Part):
    """A part that answers at once, without giving way to another task: the least a call can cost."""

    async def work(self) -> str:
        return self.provider


class Empty:
    """The asynchronous context manager that does least: what ``async with`` itself costs."""

    __slots__ = ()

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


AT_ONCE = Slot[Works]("adapter", "at-once")
YIELDING = Slot[Works]("adapter", "yielding")
EMPTY = "an empty async with"
LEASE = "async with runtime.use(slot) as leased:\n    await leased.work()"


async def leasing(budget: Budget) -> list[Row]:
    """A call under a lease, and through a proxy, against the bare call."""
    workshop = Workshop()
    async with Runtime.open(bare_settings()) as runtime:
        runtime.register(
            workshop.candidate("only", slot=AT_ONCE, kind=Prompt), workshop.candidate("only", slot=YIELDING)
        )
        async with runtime.use(AT_ONCE) as prompt, runtime.use(YIELDING) as part:
            contenders = {
                "bare await": await timed("await part.work()", budget, part=prompt),
                "lease": await timed(LEASE, budget, runtime=runtime, slot=AT_ONCE),
                EMPTY: await timed("async with empty:\n    await part.work()", budget, empty=Empty(), part=prompt),
                "proxy": await _through_proxy(runtime, AT_ONCE, budget),
                "bare await that yields": await timed("await part.work()", budget, part=part),
                "lease that yields": await timed(LEASE, budget, runtime=runtime, slot=YIELDING),
                "proxy that yields": await _through_proxy(runtime, YIELDING, budget),
            }
        claims = [
            Claim("lease", 1, "lease", "bare await", target=2.5),
            Claim("lease", 1, "lease", EMPTY),
            Claim(EMPTY, 1, EMPTY, "bare await"),
            Claim("proxy", 1, "proxy", "bare await", target=3),
            Claim("lease, call that yields once", 1, "lease that yields", "bare await that yields"),
            Claim("proxy, call that yields once", 1, "proxy that yields", "bare await that yields"),
        ]
        return await measure(contenders, claims, budget)


async def _through_proxy(runtime: Runtime, slot: Slot[Any], budget: Budget) -> Any:
    return await timed("await proxy.work()", budget, proxy=runtime.proxy(slot))
