"""svcs: a registry of factories by type, and a container for each request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import svcs

from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot, kinds

DISTRIBUTION: Final = "svcs"
IMPORT: Final = "import svcs"
REQUEST: Final = "async with make(registry) as container:\n    await (await container.aget(kind)).answer()"


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    registry = svcs.Registry()
    types = kinds(size)
    for kind in types:
        registry.register_value(kind, kind())
    container = svcs.Container(registry)
    asked = hot(types)
    for kind in asked:
        container.get(kind)
    return [Way("svcs", "container.get(item)", {"container": container}, asked, "one container, kept")]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    shared, own = svcs.Registry(), svcs.Registry()
    shared.register_value(Part, Part())

    async def opened() -> AsyncIterator[Part]:
        part = Part()
        yield part
        await part.aclose()

    own.register_factory(Part, opened)
    names: dict[str, Any] = {"make": svcs.Container, "kind": Part}
    kept = svcs.Container(shared)
    return [
        Way(
            "svcs",
            "await container.get(kind).answer()",
            {"container": kept, "kind": Part},
            note="a reference, nothing more",
        ),
        Way(
            "svcs, container for each request, shared instance",
            REQUEST,
            {**names, "registry": shared},
            note="closes what the request built; the shared one is not held open",
        ),
        Way(
            "svcs, container for each request, own instance",
            REQUEST,
            {**names, "registry": own},
            note="built for the request, closed with it",
        ),
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    shared, own = svcs.Registry(), svcs.Registry()
    current = [build()]
    shared.register_value(Part, current[0])

    def register_own() -> None:
        async def opened() -> AsyncIterator[Part]:
            part = build()
            yield part
            await part.aclose()

        own.register_factory(Part, opened)

    register_own()

    async def use(seconds: float) -> None:
        async with svcs.Container(shared) as container:
            await (await container.aget(Part)).work(seconds)

    async def use_own(seconds: float) -> None:
        async with svcs.Container(own) as container:
            await (await container.aget(Part)).work(seconds)

    async def swap() -> None:
        old, current[0] = current[0], build()
        shared.register_value(Part, current[0])
        await old.aclose()

    async def swap_own() -> None:
        register_own()

    return [
        Exchange("svcs, shared instance", use, swap, "registered again; container for each request; closed at once"),
        Exchange("svcs, an instance for each call", use_own, swap_own, "nothing is shared, so nothing is replaced"),
    ]


def register(size: int) -> Sequence[Registration]:
    types = kinds(size)

    def fill(registry: svcs.Registry) -> None:
        for kind in types:
            registry.register_factory(kind, kind)

    return [Registration("svcs", fill, anew(svcs.Registry))]
