"""zope.interface: utilities by interface and name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from zope.interface import Interface
from zope.interface.adapter import AdapterRegistry
from zope.interface.registry import Components

from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot

DISTRIBUTION: Final = "zope.interface"
IMPORT: Final = "from zope.interface.registry import Components"
MANY: Final = 10_000
"""From here on registerUtility, which takes longer the more there are, is left out."""


class IPart(Interface):
    """What parts are registered as."""


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    names = [f"part-{number}" for number in range(size)]
    registry = AdapterRegistry()
    for name in names:
        registry.register((), IPart, name, Part())
    ways = [
        Way(
            "zope.interface, AdapterRegistry.lookup",
            "registry.lookup((), interface, item)",
            {"registry": registry, "interface": IPart},
            hot(names),
        )
    ]
    if size < MANY:
        components = Components()
        for name in names:
            components.registerUtility(Part(), IPart, name)
        asked: dict[str, Any] = {"components": components, "interface": IPart}
        ways.append(Way("zope.interface, queryUtility", "components.queryUtility(interface, item)", asked, hot(names)))
    return ways


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    components = Components()
    components.registerUtility(Part(), IPart)
    return [
        Way(
            "zope.interface",
            "await components.queryUtility(interface).answer()",
            {"components": components, "interface": IPart},
            note="a reference, nothing more",
        )
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    components = Components()
    components.registerUtility(build(), IPart)

    async def use(seconds: float) -> None:
        await components.queryUtility(IPart).work(seconds)

    async def swap() -> None:
        old = components.queryUtility(IPart)
        components.registerUtility(build(), IPart)
        await old.aclose()

    return [Exchange("zope.interface", use, swap, "registered again; old one closed at once")]


def register(size: int) -> Sequence[Registration]:
    parts = [(f"part-{number}", Part()) for number in range(size)]

    def fill(registry: Any) -> None:
        for name, part in parts:
            registry.register((), IPart, name, part)

    def fill_components(components: Any) -> None:
        for name, part in parts:
            components.registerUtility(part, IPart, name)

    ways = [Registration("zope.interface, AdapterRegistry", fill, anew(AdapterRegistry), "instances, not factories")]
    if size < MANY:
        ways.append(Registration("zope.interface, registerUtility", fill_components, anew(Components)))
    return ways
