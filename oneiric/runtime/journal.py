"""Writes to the state store, off the event loop. A write that fails is reported and never decides what was asked.

What could not be written stays due, in order, and is tried again every second: a disk that was full for a while costs
nothing but the notice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

import anyio
from anyio import to_thread

from oneiric.errors import OneiricError
from oneiric.lifecycle.reports import SwapRecord
from oneiric.observability.describe import describe
from oneiric.observability.logs import Emit
from oneiric.runtime.state import StateStore

BACKLOG = 10_000
_UNWRITABLE = (OSError, sqlite3.Error, OneiricError, MemoryError)
Write = Callable[[StateStore], Any]


class Journal:
    """Keeps the store up to date. Without a store nothing outlives the process and nothing is written."""

    def __init__(self, store: StateStore | None, emit: Emit) -> None:
        self.degraded = ""
        self._store = store
        self._emit = emit
        self._limiter = anyio.CapacityLimiter(1)
        self._turn = anyio.Lock()
        self._numbers = count()
        self._due: dict[int, Write] = {}
        self._pending: list[SwapRecord] = []
        self._wake = anyio.Event()

    def append(self, record: SwapRecord) -> None:
        """Note a finished attempt; it is written soon."""
        if self._store is not None:
            self._pending.append(record)
            self._wake.set()

    async def write(self, function: Write) -> str:
        """Have *function* write to the store; return "" or why it could not yet."""
        if self._store is None:
            return ""
        number = next(self._numbers)
        self._due[number] = function
        self._wake.set()  # who asked may be cancelled
        await self.flush()
        return f"done, but not recorded for the next start: {self.degraded}" if number in self._due else ""

    async def flush(self) -> None:
        """Write all that is due; what cannot be written stays due."""
        async with self._turn:
            if self._store is None or not (self._due or self._pending):
                return
            due, records = dict(self._due), self._pending[:]
            steps = list(due.values()) + ([lambda store: store.append(records)] if records else [])
            try:
                work = partial(_carry_out, self._store, steps)
                done, error = await to_thread.run_sync(work, limiter=self._limiter)
            except RuntimeError as failure:  # no thread can be started
                done, error = 0, failure
            for number in list(due)[:done]:
                del self._due[number]
            if done == len(steps):
                del self._pending[: len(records)]
            self._bound()
            self._tell(error)

    def _bound(self) -> None:
        """Keep the newest of what is due, so that a disk that stays full costs no memory without end."""
        del self._pending[:-BACKLOG]
        for number in list(self._due)[:-BACKLOG]:
            del self._due[number]

    def _tell(self, error: Exception | None) -> None:
        store = self._store
        text = f"{store.path}: {describe(error)}" if store is not None and error is not None else ""
        if text and not self.degraded:
            self._emit("state-degraded", error=text)
        self.degraded = text

    async def run(self) -> None:
        """Write what is due as it comes, for ever; retries once a second while writing fails."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            await self.flush()
            if self._due or self._pending:
                await anyio.sleep(1)
                self._wake.set()


def _carry_out(store: StateStore, steps: Sequence[Write]) -> tuple[int, Exception | None]:
    """Do *steps* in order until one fails; return how many were done and the failure."""
    for number, step in enumerate(steps):
        try:
            step(store)
        except _UNWRITABLE as error:
            return number, error
    return len(steps), None
