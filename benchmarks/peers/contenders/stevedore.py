"""stevedore: a manager of what entry points name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from stevedore.extension import Extension, ExtensionManager

from benchmarks.peers.contender import Part, Registration, Way, anew, hot

DISTRIBUTION: Final = "stevedore"
IMPORT: Final = "from stevedore.extension import ExtensionManager"
OFFERS_NOT: Final[Mapping[str, str]] = {"replace": "not offered: a manager is made once of what is installed"}


def _manager(names: Sequence[str]) -> Any:
    """Return a manager of parts that no entry point names: what its own documentation has tests do."""
    return ExtensionManager.make_test_instance([Extension(name, None, Part, Part()) for name in names])


async def get(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    names = [f"part-{number}" for number in range(size)]
    manager = _manager(names)
    return [Way("stevedore", "manager[item].obj", {"manager": manager}, hot(names))]


async def call(size: int, stack: AsyncExitStack) -> Sequence[Way]:
    names = {"manager": _manager(["part"])}
    return [Way("stevedore", "await manager['part'].obj.answer()", names, note="a reference, nothing more")]


def register(size: int) -> Sequence[Registration]:
    names = [f"part-{number}" for number in range(size)]
    kept: list[Any] = []

    def fill(_place: Any) -> Any:
        kept[:] = [_manager(names)]
        return kept[0][names[0]]

    return [Registration("stevedore", fill, anew(kept.clear), "extensions with instances; entry points not counted")]
