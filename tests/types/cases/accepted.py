"""What both type checkers accept, and what they infer."""

from __future__ import annotations

from typing import Any, Protocol, assert_type

from oneiric import Candidate, Resolution, Runtime, Slot, SwapReport


class Cache(Protocol):
    async def set(self, key: str, value: str) -> None: ...


class Queue(Protocol):
    async def put(self, item: str) -> None: ...


class Memory:
    def __init__(self, size: int = 1) -> None:
        self.size = size

    async def set(self, key: str, value: str) -> None: ...


class List:
    async def put(self, item: str) -> None: ...


async def connect(url: str) -> Memory:
    return Memory(len(url))


def build() -> Cache:
    return Memory()


CACHE = Slot[Cache]("adapter", "cache")
QUEUE = Slot[Queue]("adapter", "queue")
UNTYPED: Slot[Any] = Slot("adapter", "anything")

MEMORY = Candidate(slot=CACHE, provider="memory", factory=Memory)
assert_type(CACHE, Slot[Cache])
assert_type(MEMORY, Candidate[Cache])
assert_type(Candidate(slot=CACHE, provider="p", factory=connect), Candidate[Cache])
assert_type(Candidate(slot=CACHE, provider="p", factory=build), Candidate[Cache])
assert_type(Candidate(slot=CACHE, provider="p", factory="shop.cache:Redis"), Candidate[Cache])
assert_type(Candidate(slot=CACHE, provider="p", factory=lambda: Memory(2)), Candidate[Cache])


async def use(runtime: Runtime, many: list[Candidate[Any]], caches: list[Candidate[Cache]]) -> None:
    runtime.register(MEMORY)
    runtime.register(
        Candidate(slot=CACHE, provider="memory", factory=Memory),
        Candidate(slot=CACHE, provider="connected", factory=connect, priority=10),
        Candidate(slot=QUEUE, provider="list", factory=List),
        Candidate(slot=UNTYPED, provider="any", factory=List),
    )
    runtime.register(*many)
    runtime.register(*caches)
    async with runtime.use(CACHE) as cache:
        assert_type(cache, Cache)
    async with runtime.use(UNTYPED) as anything:
        assert_type(anything, Any)
    assert_type(runtime.proxy(CACHE), Cache)
    assert_type(runtime.resolve(CACHE), Resolution)
    assert_type(await runtime.swap(CACHE, provider="memory"), SwapReport)


async def open_one() -> None:
    async with Runtime.open() as runtime:
        assert_type(runtime, Runtime)
