"""wireup: injectables by type, compiled into a container, with scopes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import wireup

from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot, kinds

DISTRIBUTION: Final = "wireup"
IMPORT: Final = "import wireup"
REQUEST: Final = "async with container.enter_scope() as scope:\n    await (await scope.get(kind)).answer()"


def _container(types: Sequence[type[Part]]) -> Any:
    return wireup.create_async_container(injectables=[wireup.injectable(kind) for kind in types])


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    types, others = kinds(size), kinds(size)
    asynchronous = _container(types)
    synchronous = wireup.create_sync_container(injectables=[wireup.injectable(kind) for kind in others])
    asked, asked_of_the_other = hot(types), hot(others)
    return [
        Way("wireup, synchronous container", "container.get(item)", {"container": synchronous}, asked_of_the_other),
        Way("wireup", "await container.get(item)", {"container": asynchronous}, asked),
    ]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    (shared,) = kinds(1)
    container = _container([shared])

    async def opened() -> AsyncIterator[Part]:
        part = Part()
        yield part
        await part.aclose()

    own = wireup.create_async_container(injectables=[wireup.injectable(opened, lifetime="scoped")])
    names = {"container": container, "kind": shared}
    return [
        Way("wireup", "await (await container.get(kind)).answer()", names, note="a reference, nothing more"),
        Way(
            "wireup, scope, shared instance",
            REQUEST,
            names,
            note="closes what the scope built; the shared one is not held open",
        ),
        Way(
            "wireup, scope, own instance",
            REQUEST,
            {"container": own, "kind": Part},
            note="built for the scope, closed with it",
        ),
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    def first() -> Part:
        return build()

    container: Any = wireup.create_async_container(injectables=[wireup.injectable(first)])
    current = [await container.get(Part)]

    async def use(seconds: float) -> None:
        async with container.enter_scope() as scope:
            await (await scope.get(Part)).work(seconds)

    async def swap() -> None:
        old, current[0] = current[0], build()
        container.override.clear()
        container.override.set(Part, current[0])
        await old.aclose()

    return [Exchange("wireup", use, swap, "container.override.set, scopes; old one closed at once")]


def register(size: int) -> Sequence[Registration]:
    types = kinds(size)
    kept: list[Any] = []

    def fill(_place: Any) -> Any:
        kept[:] = [_container(types)]
        return kept[0]

    return [Registration("wireup", fill, anew(kept.clear), "with the container, which checks the graph")]
