"""What a drill's daemon is made of: parts that are well until the drill says otherwise, named in its settings."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, Protocol

from oneiric.core.candidate import Slot
from oneiric.errors import OneiricError


class Runtime(Protocol):
    """The part of the runtime that the traffic uses."""

    def use(self, slot: Slot[Any], *, holder: str = "") -> Any:
        """Lease what fills *slot*."""


class Cache:
    """A cache with a server behind it, which it asks in its probe.

    Args:
        backend: ``HOST:PORT`` of the server; "" for none.
    """

    def __init__(self, backend: str = "") -> None:
        self._backend = backend

    def health(self) -> bool:
        """Connect to the server; raises ConnectionRefusedError as the system says it."""
        if self._backend:
            host, _, port = self._backend.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=1.0):
                pass
        return True

    async def work(self) -> str:
        """Do nothing for a moment."""
        await asyncio.sleep(0)
        return type(self).__name__


async def slow_cache(delay: float, backend: str = "") -> Cache:
    """Return a cache after *delay* seconds."""
    await asyncio.sleep(delay)
    return Cache(backend)


class UnclosableCache(Cache):
    """A cache whose cleanup raises."""

    async def aclose(self) -> None:
        """Raise OSError, as a socket that is busy does."""
        raise OSError(16, "Device or resource busy")


class HoardingCache(Cache):
    """A cache that keeps *step_kib* more of memory at each call, and never lets go."""

    def __init__(self, backend: str = "", step_kib: int = 256) -> None:
        super().__init__(backend)
        self._step_bytes = step_kib * 1024
        self._hoard: list[bytes] = []

    async def work(self) -> str:
        """Keep a little more."""
        self._hoard.append(b"\x01" * self._step_bytes)
        return await super().work()


class Traffic:
    """Calls what fills some slots, again and again, and counts how it went."""

    def __init__(self, runtime: Runtime, slots: list[Slot[Any]], interval: float, *, keep: bool) -> None:
        self._runtime = runtime
        self._slots = slots
        self._interval = interval
        self._keep = keep
        self._held: dict[int, Any] = {}
        self.calls = 0
        self.failures = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            for slot in self._slots:
                self.calls += 1
                try:
                    await self._call(slot)
                except OneiricError:
                    self.failures += 1
            await asyncio.sleep(self._interval)

    async def _call(self, slot: Slot[Any]) -> None:
        lease = self._runtime.use(slot, holder="traffic")
        cache = await lease.__aenter__()
        if self._keep and id(cache) not in self._held:
            self._held[id(cache)] = lease
            return
        try:
            await cache.work()
        finally:
            await lease.__aexit__(None, None, None)

    async def aclose(self) -> None:
        """Stop, and give back what was kept."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for lease in self._held.values():
            await lease.__aexit__(None, None, None)


async def traffic(runtime: Runtime, slots: list[str], interval: float = 0.02, *, keep: bool = False) -> Traffic:
    """Begin to call *slots*, each ``domain/key``, every *interval* seconds.

    Args:
        keep: whether one lease on each instance is never given back, as by a caller that forgets.
    """
    named = [Slot[Any](*slot.split("/", 1)) for slot in slots]
    return Traffic(runtime, named, interval, keep=keep)
