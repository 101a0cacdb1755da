"""A project whose providers go wrong when a test says so, and whose bounds are short enough to wait for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.harness.daemon import ADAPTERS, project, wait_until

CACHE: Final = {"domain": "adapter", "key": "cache"}
APP: Final = """
lifecycle: {activation_timeout: 20, health_timeout: 1, cleanup_timeout: 1, drain_timeout: 1}
watch: {debounce: 0.1}
"""

HAZARDS: Final = '''
"""Providers that wait for the test, hold a lease, block for ever or eat memory."""
import asyncio, ctypes, time
from oneiric import Slot
from providers import Memory, _trace

def gated():
    with open("gate") as gate:  # a pipe: opens when the test opens its end, ends when the test closes it
        gate.read()
    return Memory("gated")

def block():
    while True:
        time.sleep(3600)

def block_in_c():
    ctypes.CDLL(None).sleep(3600)

def greedy():
    return [bytearray(1 << 20) for _ in range(4096)] and Memory("greedy")

def stranger():
    raise OSError("no such file: \\udcff")  # as a file name that is no UTF-8 reads

class Holder:
    """Holds a lease on the cache until it is closed."""
    stubborn = False
    def __init__(self):
        self.held, self.released = asyncio.Event(), asyncio.Event()
    async def hold(self, runtime):
        async with runtime.use(Slot("adapter", "cache")):
            self.held.set()
            await self.released.wait()
        _trace("released")
    async def aclose(self):
        if not self.stubborn:
            self.released.set()
            await self.task

class Stubborn(Holder):
    """Holds a lease on the cache for ever."""
    stubborn = True

async def _holding(holder, runtime):
    holder.task = asyncio.ensure_future(holder.hold(runtime))
    await holder.held.wait()
    return holder

async def hold(runtime):
    return await _holding(Holder(), runtime)

async def hold_for_ever(runtime):
    return await _holding(Stubborn(), runtime)
'''

_HAZARDOUS: Final = """
  - {key: cache, provider: gated, factory: "hazards:gated", priority: -1}
  - {key: cache, provider: stuck, factory: "hazards:block", priority: -1}
  - {key: cache, provider: stuck-in-c, factory: "hazards:block_in_c", priority: -1}
  - {key: cache, provider: greedy, factory: "hazards:greedy", priority: -1}
  - {key: cache, provider: stranger, factory: "hazards:stranger", priority: -1}
"""
_SERVICES: Final = """
candidates:
  - {key: holder, provider: polite, factory: "hazards:hold", priority: 1}
  - {key: holder, provider: stubborn, factory: "hazards:hold_for_ever"}
"""
CANDIDATES: Final = ADAPTERS.rstrip() + _HAZARDOUS


def hazardous(directory: Path, **files: Any) -> Path:
    """Make a project in *directory*; *files* are settings by their files' stems, on top of ours."""
    place = project(directory, **{"app": APP, "adapters": CANDIDATES, "services": _SERVICES, **files})
    (place / "hazards.py").write_text(HAZARDS)
    return place


def swap_to(provider: str) -> dict[str, str]:
    """Return the body of a request to swap the cache."""
    return {**CACHE, "provider": provider}


@contextmanager
def at_work(place: Path) -> Iterator[None]:
    """Wait until the factory of ``gated`` is at work, and let it end with the block; make the pipe before asking it."""
    ends: list[int] = []

    def has_reader() -> bool:
        try:
            ends.append(os.open(place / "gate", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody has it open for reading
            return False
        return True

    wait_until(has_reader, "the factory is at work")
    try:
        yield
    finally:
        os.close(ends[0])
