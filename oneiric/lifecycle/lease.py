"""Leases: a caller's bounded use of an instance."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio.from_thread
import msgspec

from oneiric.errors import SlotUnavailableError

if TYPE_CHECKING:
    from types import TracebackType

    from oneiric.lifecycle.live import Instance, LiveSlot

T = TypeVar("T")


class Lease(msgspec.Struct, Generic[T]):
    """``async with`` gives the instance, which stays open until the block ends, whatever is swapped meanwhile.

    A worker thread uses a plain ``with``. Every call pays for it: ``contextlib.asynccontextmanager`` costs five times
    as much, and a class with slots takes twice as long to make as a Struct.
    """

    _live: LiveSlot
    _holder: str = ""
    _held: Any = None

    async def __aenter__(self) -> T:
        live = self._live
        while (held := live.serving) is None:
            await live.wait_serving()
        held.leases += 1  # no await since `serving` was read: nobody can have begun to close it in between
        live.granted += 1
        if self._holder:
            held.holder = self._holder
        self._held = held
        value: T = held.value
        return value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held: Instance = self._held
        held.leases -= 1
        if held.awaited:
            held.let_go()

    def __enter__(self) -> T:
        """Take the lease in a worker thread; raises SlotUnavailableError in the event loop, which must not wait."""
        live = self._live
        if threading.get_ident() == live.thread:
            raise SlotUnavailableError(
                f"{live.slot}: a plain 'with' would block the event loop", hint="async with runtime.use(slot)"
            )
        while True:
            with live.guard:  # the event loop takes the instance away under the same guard
                held = live.serving
                if held is not None:
                    with held.guard:
                        held.thread_leases += 1
                    live.thread_granted += 1
                    break
            anyio.from_thread.run(live.wait_serving, token=live.token)
        if self._holder:
            held.holder = self._holder
        self._held = held
        value: T = held.value
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held: Instance = self._held
        with held.guard:
            held.thread_leases -= 1
        if held.awaited:
            with suppress(RuntimeError):  # the event loop ended before the thread did; nobody waits
                anyio.from_thread.run_sync(held.let_go, token=self._live.token)
