"""This project."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import cycle
from typing import Any, Final

from benchmarks.peers import promises
from benchmarks.peers.contender import Exchange, Part, Registration, Way, hot
from benchmarks.peers.replacing import Parts
from oneiric import Candidate, OneiricError, Runtime, Slot
from oneiric.core.registry import Registry
from oneiric.core.trust import TrustPolicy, verify_manifest
from oneiric.remote.offers import offers
from oneiric.testing import bare_settings

DISTRIBUTION: Final = ""
IMPORT: Final = "from oneiric import Candidate, Runtime, Slot"
SLOT: Final = Slot[Part]("adapter", "part")
URL: Final = "https://manifests.example.com/manifest.json"
LEASED: Final = "what it gives stays open until the block ends"


def _offer(slot: Slot[Any], provider: str = "only", factory: Callable[[], Any] = Part) -> Candidate[Any]:
    async def build() -> Any:
        return factory()

    return Candidate(slot=slot, provider=provider, factory=build)


@asynccontextmanager
async def _runtime() -> AsyncIterator[Runtime]:
    async with Runtime.open(bare_settings(), environ={}, sink=lambda *_: None) as runtime:
        yield runtime


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    runtime = await stack.enter_async_context(_runtime())
    slots = [Slot[Part]("adapter", f"part-{number}") for number in range(size)]
    runtime.register(*(_offer(slot) for slot in slots))
    asked = hot(slots)
    for slot in asked:
        async with runtime.use(slot):
            pass
    names = {"runtime": runtime}
    proxies = [runtime.proxy(slot) for slot in asked]
    return [
        Way("ours, resolve", "runtime.resolve(item)", names, asked, "who fills the slot and why, not the instance"),
        Way("ours, lease", "async with runtime.use(item) as part:\n    pass", names, asked, LEASED),
        Way("ours, proxy and call", "await item.answer()", {}, proxies, "with the call, which is leased"),
    ]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    runtime = await stack.enter_async_context(_runtime())
    runtime.register(_offer(SLOT))
    async with runtime.use(SLOT):
        pass
    lease = "async with runtime.use(slot) as part:\n    await part.answer()"
    return [
        Way("ours, lease", lease, {"runtime": runtime, "slot": SLOT}, note="stays open until the block ends"),
        Way("ours, proxy", "await proxy.answer()", {"proxy": runtime.proxy(SLOT)}, note="open until the call ends"),
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    runtime = await stack.enter_async_context(_runtime())
    runtime.register(_offer(SLOT, "a", build), _offer(SLOT, "b", build))
    await runtime.swap(SLOT, provider="a")
    providers = cycle("ba")
    proxy = runtime.proxy(SLOT)

    async def leased(seconds: float) -> None:
        async with runtime.use(SLOT) as part:
            await part.work(seconds)

    async def called(seconds: float) -> None:
        await proxy.work(seconds)

    async def swap() -> float:
        return (await runtime.swap(SLOT, provider=next(providers))).duration

    note = "probes the new one first; closes the old one after its last lease, for which swap() waits"
    return [Exchange("ours, lease", leased, swap, note), Exchange("ours, proxy", called, swap, note)]


def register(size: int) -> Sequence[Registration]:
    names = [f"part-{number}" for number in range(size)]

    def declared() -> list[Candidate[Any]]:
        return [
            Candidate(slot=Slot[Any]("adapter", name), provider="only", factory="shop.parts:Part") for name in names
        ]

    ready = declared()

    def fill(runtime: Runtime) -> None:
        runtime.register(*ready)

    def declare_and_fill(runtime: Runtime) -> None:
        runtime.register(*declared())

    return [
        Registration("ours, slots and candidates made too", declare_and_fill, _runtime, "names and origins checked"),
        Registration("ours, candidates there already", fill, _runtime),
    ]


async def rank(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    runtime = await stack.enter_async_context(_runtime())
    runtime.register(
        *(
            Candidate(slot=SLOT, provider=f"p{number}", factory="shop.parts:Part", priority=number % 100)
            for number in range(size)
        )
    )
    names, items = {"runtime": runtime, "slot": SLOT}, range(10)
    return [
        Way("ours, resolve", "runtime.resolve(slot)", names, items),
        Way("ours, explain", "str(runtime.resolve(slot))", names, items),
    ]


async def behave() -> Mapping[str, str]:
    ranked = Slot[Any]("adapter", "ranked")
    async with _runtime() as runtime:
        runtime.register(
            Candidate(slot=ranked, provider="stack", factory=Part, stack_level=4, priority=76),
            Candidate(slot=ranked, provider="priority", factory=Part, stack_level=0, priority=95),
        )
        winner = runtime.resolve(ranked).winner
    return {
        promises.CONCURRENT: await _concurrent(),
        promises.HOOK: await _hook(),
        promises.LATE: await _late(),
        promises.UNHEALTHY: await _unhealthy(),
        promises.RANK: f"the higher {winner.provider} wins" if winner else "nobody wins",
        **_manifests(),
    }


async def _concurrent() -> str:
    parts = Parts()
    async with _runtime() as runtime:
        runtime.register(_offer(SLOT, "a", parts), _offer(SLOT, "b", parts))
        swaps = (runtime.swap(SLOT, provider="ab"[number % 2]) for number in range(100))
        ended = await asyncio.gather(*swaps, return_exceptions=True)
        superseded = sum(isinstance(each, OneiricError) for each in ended)
        return f"{promises.kept(len(parts.built), parts.left_open())}: {superseded} superseded by a later one"


async def _hook() -> str:
    parts = Parts()

    async def raises(_notice: object) -> None:
        raise RuntimeError("hook")

    async with _runtime() as runtime:
        runtime.register(_offer(SLOT, "a", parts), _offer(SLOT, "b", parts))
        await runtime.swap(SLOT, provider="a")
        runtime.on_swap(SLOT, after=raises)
        with suppress(OneiricError):
            await runtime.swap(SLOT, provider="b")
        async with runtime.use(SLOT) as part:
            return promises.serving(not part.closed)


async def _late() -> str:
    parts = Parts()

    async def slow() -> Part:
        await asyncio.sleep(0.1)
        return parts()

    async with Runtime.open(bare_settings(activation_timeout=0.05), environ={}, sink=lambda *_: None) as runtime:
        runtime.register(Candidate(slot=SLOT, provider="slow", factory=slow))
        with suppress(OneiricError):
            await runtime.swap(SLOT)
        await asyncio.sleep(0.2)
        return promises.kept(len(parts.built), sum(not part.closed for part in parts.built))


async def _unhealthy() -> str:
    class Ill(Part):
        async def health(self) -> bool:
            return False

    async with _runtime() as runtime:
        runtime.register(_offer(SLOT, "well"), _offer(SLOT, "ill", Ill))
        await runtime.swap(SLOT, provider="well")
        with suppress(OneiricError):
            await runtime.swap(SLOT, provider="ill")
        async with runtime.use(SLOT) as part:
            return "the new one serves" if isinstance(part, Ill) else "the old one serves"


def _manifests() -> dict[str, str]:
    content = json.dumps(promises.manifest()).encode()
    try:
        verify_manifest(content, policy=TrustPolicy(), floor=None, now=datetime.now(UTC), url=URL)
    except OneiricError as error:
        unsigned = f"refused: {error}"
    else:
        unsigned = "accepted"
    policy = TrustPolicy(require_signature=False, allowed_factories=("oneiric.remote.samples",))
    registry = Registry()
    for _ in range(3):
        verified = verify_manifest(content, policy=policy, floor=None, now=datetime.now(UTC), url=URL)
        registry = registry.with_source("remote", offers(verified.manifest, {}))
    count = sum(len(candidates) for candidates in registry.by_slot.values())
    return {promises.UNSIGNED: unsigned, promises.AGAIN: f"{count} candidates"}
