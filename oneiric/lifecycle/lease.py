"""Leases: a caller's bounded use of an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from oneiric.lifecycle.live import Instance, LiveSlot

T = TypeVar("T")


class Lease(Generic[T]):
    """``async with`` gives the instance, which stays open until the block ends, whatever is swapped meanwhile.

    Written by hand because every call pays for it: ``contextlib.asynccontextmanager`` costs five times as much.
    """

    __slots__ = ("_held", "_live")

    _held: Instance

    def __init__(self, live: LiveSlot) -> None:
        self._live = live

    async def __aenter__(self) -> T:
        while (held := self._live.serving) is None:
            await self._live.wait_serving()
        held.leases += 1  # no await since `serving` was read: nobody can have begun to close it in between
        self._held = held
        value: T = held.value
        return value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held = self._held
        held.leases -= 1
        if held.awaited:
            held.let_go()
