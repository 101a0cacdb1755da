"""Writes to the state store, off the event loop. A write that fails is reported and never decides what was asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import anyio
from anyio import to_thread

from oneiric.lifecycle.reports import SwapRecord
from oneiric.observability.describe import describe
from oneiric.observability.logs import Emit
from oneiric.runtime.state import StateStore

BACKLOG = 10_000


class Journal:
    """Keeps the store up to date. Without a store nothing outlives the process and nothing is written."""

    def __init__(self, store: StateStore | None, emit: Emit) -> None:
        self.degraded = ""
        self._store = store
        self._emit = emit
        self._limiter = anyio.CapacityLimiter(1)
        self._pending: list[SwapRecord] = []
        self._wake = anyio.Event()

    def append(self, record: SwapRecord) -> None:
        """Note a finished attempt; it is written soon."""
        if self._store is not None:
            self._pending.append(record)
            del self._pending[:-BACKLOG]
            self._wake.set()

    async def write(self, function: Callable[[StateStore], Any]) -> str:
        """Have *function* write to the store; return "" or why it could not."""
        if self._store is None:
            return ""
        try:
            await to_thread.run_sync(function, self._store, limiter=self._limiter)
        except (OSError, sqlite3.Error) as error:
            text = f"{self._store.path}: {describe(error)}"
            if not self.degraded:
                self._emit("state-degraded", error=text)
            self.degraded = text
            return f"done, but not recorded for the next start: {text}"
        self.degraded = ""
        return ""

    async def flush(self) -> None:
        """Write what is pending; what cannot be written stays pending."""
        records, self._pending = self._pending, []
        if records and await self.write(lambda store: store.append(records)):
            self._pending = [*records, *self._pending][-BACKLOG:]

    async def run(self) -> None:
        """Write the history as it happens, for ever; retries once a second while writing fails."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            await self.flush()
            if self._pending:
                await anyio.sleep(1)
                self._wake.set()
