"""What both type checkers refuse: every line that ends in a marker, and no other."""

from __future__ import annotations

from typing import Protocol

from oneiric import Candidate, Runtime, Slot


class Cache(Protocol):
    async def set(self, key: str, value: str) -> None: ...


class Memory:
    async def set(self, key: str, value: str) -> None: ...


class Wrong:
    async def put(self, item: str) -> None: ...


async def connect() -> Wrong:
    return Wrong()


def build() -> Wrong:
    return Wrong()


CACHE = Slot[Cache]("adapter", "cache")

Candidate(slot=CACHE, provider="p", factory=Wrong)  # refused
Candidate(slot=CACHE, provider="p", factory=connect)  # refused
Candidate(slot=CACHE, provider="p", factory=build)  # refused
Candidate(slot=CACHE, provider="p", factory=42)  # refused
Candidate(slot="adapter/cache", provider="p", factory=Memory)  # refused
Candidate(slot=CACHE, provider="p", factory=Memory, priority="high")  # refused
Candidate(slot=CACHE, provider="p")  # refused
OFFERED = (Candidate(slot=CACHE, provider="p", factory=Wrong),)  # refused

wider: Slot[object] = CACHE  # refused
narrower: Slot[Memory] = CACHE  # refused


async def use(runtime: Runtime) -> None:
    runtime.register(Candidate(slot=CACHE, provider="p", factory=Wrong))  # refused
    runtime.register(Candidate(slot=CACHE, provider="p", factory=connect))  # refused
    runtime.register(CACHE)  # refused
    await runtime.swap("cache")  # refused
    async with runtime.use(CACHE) as cache:
        await cache.get("key")  # refused
        cache.set("key")  # refused
    await runtime.proxy(CACHE).get("key")  # refused
    wrong: Wrong = runtime.proxy(CACHE)  # refused
    print(wrong)
