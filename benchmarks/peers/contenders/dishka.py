"""dishka: providers by type, in scopes that close what they opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from dishka import AsyncContainer, Provider, Scope, make_async_container

from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot, kinds

DISTRIBUTION: Final = "dishka"
IMPORT: Final = "from dishka import Provider, Scope, make_async_container"
REQUEST: Final = "async with container() as request:\n    await (await request.get(kind)).answer()"


async def _closing() -> AsyncIterator[Part]:
    part = Part()
    yield part
    await part.aclose()


def _container(types: Sequence[type[Part]]) -> AsyncContainer:
    provider = Provider(scope=Scope.APP)
    for kind in types:
        provider.provide(kind)
    return make_async_container(provider)


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    types = kinds(size)
    container = _container(types)
    asked = hot(types)
    for kind in asked:
        await container.get(kind)
    names = {"container": container}
    return [
        Way("dishka, get_sync", "container.get_sync(item)", names, asked),
        Way("dishka, get", "await container.get(item)", names, asked),
    ]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    shared = _container([Part])
    await shared.get(Part)
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(_closing, provides=Part)
    own = make_async_container(provider)
    return [
        Way(
            "dishka",
            "await container.get_sync(kind).answer()",
            {"container": shared, "kind": Part},
            note="a reference, nothing more",
        ),
        Way(
            "dishka, request scope, shared instance",
            REQUEST,
            {"container": shared, "kind": Part},
            note="closes what the request built; the shared one is not held open",
        ),
        Way(
            "dishka, request scope, own instance",
            REQUEST,
            {"container": own, "kind": Part},
            note="built for the request, closed with it",
        ),
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    async def opened() -> AsyncIterator[Part]:
        part = build()
        yield part
        await part.aclose()

    def container() -> AsyncContainer:
        provider = Provider(scope=Scope.APP)
        provider.provide(opened, provides=Part)
        return make_async_container(provider)

    current: list[Any] = [container()]
    await current[0].get(Part)

    async def use(seconds: float) -> None:
        async with current[0]() as request:
            await (await request.get(Part)).work(seconds)

    async def swap() -> None:
        new = container()
        await new.get(Part)
        old, current[0] = current[0], new
        await old.close()

    return [Exchange("dishka", use, swap, "a new container, request scopes; the old container closed")]


def register(size: int) -> Sequence[Registration]:
    types = kinds(size)
    kept: list[AsyncContainer] = []

    def fill(_place: Any) -> AsyncContainer:
        kept[:] = [_container(types)]
        return kept[0]

    return [Registration("dishka", fill, anew(kept.clear), "with the container, which checks the graph")]
