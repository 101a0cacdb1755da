"""A durable key/value store in one file, on the standard library's SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")

LOCK_TIMEOUT: Final = 5.0
"""Seconds to wait for another process that writes to the same file."""


class SqliteKeyValue:
    """Keeps text in a SQLite file; what ``set`` has returned from is on disk.

    Several processes may share the file. Statements run one at a time in worker threads, never on the event loop.
    """

    provider = "sqlite"

    def __init__(self, path: str | Path = ".oneiric_state/kv.db") -> None:
        self._turn = CapacityLimiter(1)
        self._connection = _open(Path(path))

    async def get(self, key: str) -> str | None:
        """Return what is kept under *key*, or None."""
        rows = await self._in_turn(lambda: self._execute("SELECT value FROM kv WHERE key = ?", key))
        return rows[0][0] if rows else None

    async def set(self, key: str, value: str) -> None:
        """Keep *value* under *key*, in place of what was there."""
        await self._in_turn(lambda: self._execute("INSERT OR REPLACE INTO kv (key, value) VALUES (?, ?)", key, value))

    async def delete(self, key: str) -> None:
        """Keep nothing under *key*."""
        await self._in_turn(lambda: self._execute("DELETE FROM kv WHERE key = ?", key))

    async def health(self) -> bool:
        """Read the table; raises what SQLite raises when it cannot be read."""
        await self._in_turn(lambda: self._execute("SELECT key FROM kv LIMIT 1"))
        return True

    async def aclose(self) -> None:
        """Close the file, after the statements under way. Closing twice is allowed."""
        await self._in_turn(self._connection.close)

    def _execute(self, statement: str, *values: str) -> list[tuple[str, ...]]:
        return self._connection.execute(statement, values).fetchall()

    async def _in_turn(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._turn)


def _open(path: Path) -> sqlite3.Connection:
    """Open *path*, make the table if it is not there, and switch to a write-ahead log."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # Autocommit, and used by one thread at a time: `_in_turn` sees to it.
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    except sqlite3.Error as error:
        connection.close()
        raise OSError(f"{path}: {error}") from error
    return connection
