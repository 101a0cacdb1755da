"""pluggy: plugins by name, called through hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import pluggy

from benchmarks.peers.contender import Exchange, Part, Registration, Way, anew, hot

DISTRIBUTION: Final = "pluggy"
IMPORT: Final = "import pluggy"
specify, implement = pluggy.HookspecMarker("parts"), pluggy.HookimplMarker("parts")


class Specified:
    """The hook."""

    @specify(firstresult=True)
    def answering(self) -> Any:
        """Return what is awaited."""


class Hooked(Part):
    """A part that is called through the hook."""

    @implement
    def answering(self) -> Any:
        return self.answer()


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("parts")
    manager.add_hookspecs(Specified)
    return manager


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    manager = _manager()
    names = [f"part-{number}" for number in range(size)]
    for name in names:
        manager.register(Part(), name)
    return [Way("pluggy", "manager.get_plugin(item)", {"manager": manager}, hot(names))]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    manager = _manager()
    manager.register(Hooked(), "part")
    return [
        Way(
            "pluggy, get_plugin",
            "await manager.get_plugin('part').answer()",
            {"manager": manager},
            note="a reference, nothing more",
        ),
        Way("pluggy, hook", "await hook.answering()", {"hook": manager.hook}, note="a reference, nothing more"),
    ]


async def replace(stack: AsyncExitStack, build: Callable[[], Part]) -> Sequence[Exchange]:
    manager = _manager()
    manager.register(build(), "part")

    async def use(seconds: float) -> None:
        await manager.get_plugin("part").work(seconds)  # type: ignore[arg-type]

    async def swap() -> None:
        new = build()
        old: Any = manager.unregister(name="part")
        manager.register(new, "part")
        await old.aclose()

    return [Exchange("pluggy", use, swap, "unregister and register; old one closed at once")]


def register(size: int) -> Sequence[Registration]:
    parts = [(f"part-{number}", Part()) for number in range(size)]

    def fill(manager: pluggy.PluginManager) -> None:
        for name, part in parts:
            manager.register(part, name)

    return [Registration("pluggy", fill, anew(_manager), "instances, not factories")]
