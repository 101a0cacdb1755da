"""Test doubles for programs that use Oneiric: a sink that remembers, and parts that know how they were treated.

Needs no test framework. ``virtual_clock`` needs trio.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
import anyio.lowlevel

from oneiric.core.candidate import Candidate, Slot
from oneiric.core.config import AppSettings, LifecycleSettings, PluginsSettings, Settings
from oneiric.observability.catalog import EVENTS

Behaviour = Callable[[], Awaitable[Any]]
"""What a part does where it is told to: an asynchronous function without arguments."""
PART: Final[Slot[Any]] = Slot("adapter", "part")
"""The slot that a workshop's candidates offer to fill, unless it is told another."""


def bare_settings(**lifecycle: float) -> Settings:
    """Return settings without plugins, so that only what a test registers is there."""
    app = AppSettings(plugins=PluginsSettings(enabled=False), lifecycle=LifecycleSettings(**lifecycle))  # type: ignore[arg-type]
    return Settings(app=app)


def virtual_clock() -> tuple[str, dict[str, Any]]:
    """Return an ``anyio_backend`` on which a timeout of an hour takes no time: trio with a clock that jumps."""
    from trio.testing import MockClock

    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Events:
    """A sink that remembers what was reported."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, _level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Remember one event."""
        self.all.append((event, dict(fields)))

    def __contains__(self, event: str) -> bool:
        return bool(self.named(event))

    @property
    def names(self) -> list[str]:
        """The events in the order they were reported."""
        return [name for name, _ in self.all]

    def named(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of every *event*; raises KeyError for one the catalog does not list."""
        return [fields for name, fields in self.all if name == EVENTS[event].name]


async def well() -> None:
    """Do what is expected."""


async def hang() -> None:
    """Never end, unless cancelled."""
    await anyio.sleep_forever()


async def drag() -> None:
    """Take an hour, whoever cancels."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(3600)


async def swallow() -> None:
    """Never end, and when cancelled pretend that all is well."""
    with suppress(BaseException):
        await anyio.sleep_forever()


def fail(error: BaseException) -> Behaviour:
    """Return a behaviour that raises *error*."""

    async def failing() -> None:
        raise error

    return failing


def answer(value: Any) -> Behaviour:
    """Return a behaviour that returns *value*."""

    async def answering() -> Any:
        return value

    return answering


class ClosedError(AssertionError):
    """A part was used after it was closed."""


class Part:
    """An instance that knows whether it is open and how often it was closed."""

    def __init__(self, provider: str, *, health: Behaviour = well, cleanup: Behaviour = well) -> None:
        self.provider = provider
        self.closed = 0
        self._health = health
        self._cleanup = cleanup

    def __repr__(self) -> str:
        return f"<part of {self.provider}, closed {self.closed} times>"

    async def work(self) -> str:
        """Return the provider; raises ClosedError after the part was closed, also in the middle of the work."""
        self._require_open()
        await anyio.lowlevel.checkpoint()
        self._require_open()
        return self.provider

    async def health(self) -> Any:
        """Answer as told; well means True."""
        return True if self._health is well else await self._health()

    async def aclose(self) -> None:
        """Count, then behave as told."""
        self.closed += 1
        await self._cleanup()

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedError(f"{self!r} was used")


class Workshop:
    """Makes candidates, and keeps every part that was built from them."""

    def __init__(self) -> None:
        self.built: list[Part] = []

    def candidate(
        self,
        provider: str,
        *,
        slot: Slot[Any] = PART,
        build: Behaviour = well,
        health: Behaviour = well,
        cleanup: Behaviour = well,
        kind: type[Part] = Part,
        **fields: Any,
    ) -> Candidate[Any]:
        """Return a candidate whose factory, probe and cleanup behave as told.

        Args:
            build: runs before the part is built; what it returns, unless None, is returned in place of a part.
        """

        async def factory(**settings: Any) -> Any:
            other = await build()
            if other is not None:
                return other
            part = kind(provider, health=health, cleanup=cleanup)
            part.settings = settings  # type: ignore[attr-defined]
            self.built.append(part)
            return part

        factory.__qualname__ = f"factory_of_{provider}"
        return Candidate(slot=slot, provider=provider, factory=factory, **fields)

    @property
    def open(self) -> list[Part]:
        """The parts that were not closed."""
        return [part for part in self.built if not part.closed]

    def by(self, provider: str) -> list[Part]:
        """Return the parts of one provider, oldest first."""
        return [part for part in self.built if part.provider == provider]

    def require_closed_once(self) -> None:
        """Raise AssertionError unless every part that was built was closed exactly once."""
        if wrong := [part for part in self.built if part.closed != 1]:
            raise AssertionError(f"closed other than once: {wrong}")
