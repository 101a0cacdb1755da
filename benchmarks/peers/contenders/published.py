"""The published project of our name."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import structlog
from oneiric.core.lifecycle import LifecycleManager, LifecycleSafetyOptions
from oneiric.remote.loader import sync_remote_manifest

from benchmarks.peers import promises
from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot
from benchmarks.peers.replacing import Parts
from oneiric.core.config import RemoteSourceConfig
from oneiric.core.resolution import Candidate, Resolver

DISTRIBUTION: Final = "oneiric"
IMPORT: Final = (
    "from oneiric.core.lifecycle import LifecycleManager; from oneiric.core.resolution import Candidate, Resolver"
)

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # as ours: nobody listens


def _offer(key: str, build: Callable[[], Part] = Part, *, provider: str = "only", **fields: Any) -> Candidate:
    async def factory() -> Part:
        part = build()
        part.cleanup = part.aclose  # type: ignore[attr-defined] - what it looks for
        return part

    return Candidate(domain="adapter", key=key, provider=provider, factory=factory, **fields)


def _manager(*candidates: Candidate, **safety: Any) -> LifecycleManager:
    resolver = Resolver()
    for candidate in candidates:
        resolver.register(candidate)
    return LifecycleManager(resolver, safety=LifecycleSafetyOptions(**safety))


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    keys = [f"part-{number}" for number in range(size)]
    manager = _manager(*(_offer(key) for key in keys))
    asked = hot(keys)
    for key in asked:
        await manager.activate("adapter", key)
    return [
        Way("published, resolve", "resolver.resolve('adapter', item)", {"resolver": manager.resolver}, asked),
        Way("published, get_instance", "manager.get_instance('adapter', item)", {"manager": manager}, asked),
    ]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    manager = _manager(_offer("part"))
    await manager.activate("adapter", "part")
    statement = "await manager.get_instance('adapter', 'part').answer()"
    return [Way("published", statement, {"manager": manager}, note="a reference, nothing more")]


async def rank(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    resolver = Resolver()
    for number in range(size):
        resolver.register(_offer("part", provider=f"p{number}", priority=number % 100))
    names, items = {"resolver": resolver}, range(10)
    return [
        Way("published, resolve", "resolver.resolve('adapter', 'part')", names, items),
        Way("published, explain", "resolver.explain('adapter', 'part').as_dict()", names, items),
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    manager = _manager(_offer("part", build, provider="a"), _offer("part", build, provider="b"))
    await manager.activate("adapter", "part", provider="a")
    providers = cycle("ba")

    async def use(seconds: float) -> None:
        await manager.get_instance("adapter", "part").work(seconds)  # type: ignore[arg-type]

    async def swap() -> None:
        await manager.swap("adapter", "part", provider=next(providers))

    return [Exchange("published", use, swap, "probes the new one first; closes the old one at once")]


def register(size: int) -> Sequence[Registration]:
    names = [f"part-{number}" for number in range(size)]

    def fill(resolver: Resolver) -> None:
        for name in names:
            resolver.register(Candidate(domain="adapter", key=name, provider="only", factory="shop.parts:Part"))

    return [Registration("published", fill, anew(Resolver), "candidates made too")]


async def behave() -> Mapping[str, str]:
    ranked = _manager(
        _offer("part", provider="stack", stack_level=4, priority=76),
        _offer("part", provider="priority", stack_level=0, priority=95),
    )
    winner = ranked.resolver.resolve("adapter", "part")
    return {
        promises.CONCURRENT: await _concurrent(),
        promises.HOOK: await _hook(),
        promises.LATE: await _late(),
        promises.UNHEALTHY: await _unhealthy(),
        promises.RANK: f"the higher {winner.provider} wins" if winner else "nobody wins",
        **await _manifests(),
    }


async def _concurrent() -> str:
    parts = Parts()
    manager = _manager(_offer("part", parts))
    swaps = (manager.swap("adapter", "part") for _ in range(100))
    await asyncio.gather(*swaps, return_exceptions=True)
    return promises.kept(len(parts.built), parts.left_open())


async def _hook() -> str:
    parts = Parts()
    manager = _manager(_offer("part", parts))
    await manager.activate("adapter", "part")

    async def raises(*_: object) -> None:
        raise RuntimeError("hook")

    manager.hooks.add_post_swap(raises)
    with suppress(Exception):
        await manager.swap("adapter", "part")
    serves = manager.get_instance("adapter", "part")
    return promises.serving(serves is not None and not serves.closed)


async def _late() -> str:
    parts = Parts()

    async def slow() -> Part:
        await asyncio.sleep(0.1)
        part = parts()
        part.cleanup = part.aclose  # type: ignore[attr-defined]
        return part

    candidate = Candidate(domain="adapter", key="part", provider="slow", factory=slow)
    manager = _manager(candidate, activation_timeout=0.05)
    with suppress(Exception):
        await manager.activate("adapter", "part")
    await asyncio.sleep(0.2)
    return promises.kept(len(parts.built), sum(not part.closed for part in parts.built))


async def _unhealthy() -> str:
    parts = Parts()

    def ill() -> Part:
        part = parts()

        async def health() -> bool:
            return False

        part.health = health  # type: ignore[attr-defined]
        return part

    manager = _manager(_offer("part", parts, provider="well"), _offer("part", ill, provider="ill"))
    first = await manager.activate("adapter", "part", provider="well")
    with suppress(Exception):
        await manager.swap("adapter", "part", provider="ill")
    return "the old one serves" if manager.get_instance("adapter", "part") is first else "the new one serves"


async def _manifests() -> dict[str, str]:
    with TemporaryDirectory() as text:
        file = Path(text, "manifest.json")
        file.write_text(json.dumps(promises.manifest()), encoding="utf-8")  # noqa: ASYNC240 - nothing else runs
        config = RemoteSourceConfig(
            enabled=True,
            manifest_url=file.as_uri(),
            cache_dir=f"{text}/cache",
            allow_file_uris=True,
            allowed_file_uri_roots=[text],
            max_retries=0,
        )
        resolver = Resolver()
        try:
            for _ in range(3):
                await sync_remote_manifest(resolver, config)
        except Exception as error:
            refused = f"refused: {type(error).__name__}: {error}"
            return {promises.UNSIGNED: refused, promises.AGAIN: refused}
        offered = len(resolver.list_active("adapter")) + len(resolver.list_shadowed("adapter"))
        taken = "accepted" if resolver.resolve("adapter", "part-0") else "refused"
        return {promises.UNSIGNED: taken, promises.AGAIN: f"{offered} candidates"}
