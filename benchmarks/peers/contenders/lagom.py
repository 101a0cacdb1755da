"""lagom: a container that builds by type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final

from lagom import Container, ContextContainer, Singleton

from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot, kinds

DISTRIBUTION: Final = "lagom"
IMPORT: Final = "from lagom import Container, Singleton"


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    container, types = Container(), kinds(size)
    for kind in types:
        container[kind] = Singleton(kind)
    return [Way("lagom", "container[item]", {"container": container}, hot(types))]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    container, scoped = Container(), Container()
    container[Part] = Singleton(Part)

    @contextmanager
    def opened() -> Iterator[Part]:
        part = Part()
        yield part
        part.closed = True

    from typing import ContextManager  # noqa: UP035 - the name it looks for

    scoped[ContextManager[Part]] = opened  # type: ignore[type-abstract]
    request = ContextContainer(scoped, context_types=[Part])
    return [
        Way(
            "lagom",
            "await container[kind].answer()",
            {"container": container, "kind": Part},
            note="a reference, nothing more",
        ),
        Way(
            "lagom, context, own instance",
            "with request as container:\n    await container[kind].answer()",
            {"request": request, "kind": Part},
            note="built for the context, closed with it",
        ),
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    base = Container()
    current: list[Any] = [base.clone()]
    current[0][Part] = build()

    async def use(seconds: float) -> None:
        await current[0][Part].work(seconds)

    async def swap() -> None:
        new = base.clone()
        new[Part] = build()
        old, current[0] = current[0], new
        await old[Part].aclose()

    return [Exchange("lagom", use, swap, "a new container, for it defines a type once; old one closed at once")]


def register(size: int) -> Sequence[Registration]:
    types = kinds(size)

    def fill(container: Container) -> None:
        for kind in types:
            container[kind] = Singleton(kind)

    return [Registration("lagom", fill, anew(Container))]
