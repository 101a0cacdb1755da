"""that-depends: providers as attributes of a container class, with contexts for resources."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from that_depends import BaseContainer, container_context, providers

from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot

DISTRIBUTION: Final = "that-depends"
IMPORT: Final = "from that_depends import BaseContainer, providers"
REQUEST: Final = "async with context(part):\n    await (await part.resolve()).answer()"


def _container(names: Sequence[str], factory: Callable[[], Part] = Part) -> Any:
    return type("Parts", (BaseContainer,), {name: providers.Singleton(factory) for name in names})


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    names = [f"part_{number}" for number in range(size)]
    container = _container(names)
    asked = [getattr(container, name) for name in hot(names)]
    return [
        Way("that-depends, resolve_sync", "item.resolve_sync()", {}, asked, "a provider taken out before"),
        Way("that-depends, resolve", "await item.resolve()", {}, asked, "a provider taken out before"),
    ]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    async def opened() -> AsyncIterator[Part]:
        part = Part()
        yield part
        await part.aclose()

    container: Any = type(
        "Parts", (BaseContainer,), {"shared": providers.Singleton(Part), "own": providers.ContextResource(opened)}
    )
    return [
        Way(
            "that-depends",
            "await part.resolve_sync().answer()",
            {"part": container.shared},
            note="a reference, nothing more",
        ),
        Way(
            "that-depends, context, own instance",
            REQUEST,
            {"context": container_context, "part": container.own},
            note="built for the context, closed with it",
        ),
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    container = _container(["part"], build)
    current = [container.part.resolve_sync()]

    async def use(seconds: float) -> None:
        await container.part.resolve_sync().work(seconds)

    async def swap() -> None:
        old, current[0] = current[0], build()
        await container.part.override(current[0])
        await old.aclose()

    return [Exchange("that-depends", use, swap, "provider.override; old one closed at once")]


def register(size: int) -> Sequence[Registration]:
    names = [f"part_{number}" for number in range(size)]
    kept: list[Any] = []

    def fill(_place: Any) -> Any:
        kept[:] = [_container(names)]
        return kept[0]

    return [Registration("that-depends", fill, anew(kept.clear))]
