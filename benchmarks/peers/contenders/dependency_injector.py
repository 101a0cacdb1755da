"""dependency-injector: providers in containers, in Cython."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from dependency_injector import containers, providers

from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot

DISTRIBUTION: Final = "dependency-injector"
IMPORT: Final = "from dependency_injector import containers, providers"


def _fill(container: Any, names: Sequence[str]) -> None:
    for name in names:
        setattr(container, name, providers.Singleton(Part))


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    container = containers.DynamicContainer()
    names = [f"part_{number}" for number in range(size)]
    _fill(container, names)
    asked = hot(names)
    kept = [container.providers[name] for name in asked]
    return [
        Way("dependency-injector, provider()", "item()", {}, kept, "a provider taken out of the container before"),
        Way("dependency-injector, by name", "container.providers[item]()", {"container": container}, asked),
    ]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    container = containers.DynamicContainer()
    _fill(container, ["part"])
    return [
        Way("dependency-injector", "await part().answer()", {"part": container.part}, note="a reference, nothing more")
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    container = containers.DynamicContainer()
    container.part = providers.Singleton(build)
    current = [container.part()]

    async def use(seconds: float) -> None:
        await container.part().work(seconds)

    async def swap() -> None:
        old, current[0] = current[0], build()
        container.part.reset_override()
        container.part.override(providers.Object(current[0]))
        await old.aclose()

    return [Exchange("dependency-injector", use, swap, "provider.override; old one closed at once")]


def register(size: int) -> Sequence[Registration]:
    names = [f"part_{number}" for number in range(size)]
    return [Registration("dependency-injector", lambda to: _fill(to, names), anew(containers.DynamicContainer))]
