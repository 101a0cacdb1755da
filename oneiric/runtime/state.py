"""What survives a restart: pins, activities and the swap history, in SQLite under the state directory.

Every function here blocks; the runtime calls them in a worker thread. A pin is on disk before its swap is reported done
(``synchronous=EXTRA``). What is no database of ours is moved aside and reported, never a reason not to start. The
rollback journal, unlike the write-ahead log, needs no other file to be read: a full disk does not prevent a start.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from oneiric.core.candidate import Slot
from oneiric.core.states import Activity
from oneiric.errors import OneiricError
from oneiric.lifecycle.reports import SwapRecord
from oneiric.runtime.remembered import Pin, Remembered, StoredActivity

FILE: Final = "state.db"
VERSION: Final = 1
HISTORY_ROWS: Final = 10_000
BUSY_TIMEOUT: Final = 5.0
RECENT_ROWS: Final = 1_000

_SCHEMA: Final = f"""
CREATE TABLE pin (domain TEXT, key TEXT, provider TEXT NOT NULL, by TEXT NOT NULL, since TEXT NOT NULL,
    PRIMARY KEY (domain, key)) WITHOUT ROWID;
CREATE TABLE activity (domain TEXT, key TEXT, activity TEXT NOT NULL, note TEXT NOT NULL, by TEXT NOT NULL,
    since TEXT NOT NULL, PRIMARY KEY (domain, key)) WITHOUT ROWID;
CREATE TABLE swap (id INTEGER PRIMARY KEY, at TEXT NOT NULL, domain TEXT NOT NULL, key TEXT NOT NULL,
    provider TEXT NOT NULL, previous TEXT NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, error TEXT NOT NULL,
    duration REAL NOT NULL, by TEXT NOT NULL);
CREATE INDEX swap_slot ON swap (domain, key, id);
PRAGMA user_version = {VERSION};
"""


class StateStore:
    """The state database in *directory*, made at the first write."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE

    def load(self) -> Remembered:
        """Read everything back; a file that cannot be read as ours is moved aside.

        Raises OneiricError when it cannot be read just now: another program holds it, or the disk is full or failing.
        """
        if not os.path.lexists(self.path):
            return Remembered({}, {})
        try:
            self._require_file()
            with self._open() as database:
                _require_sound(database)
                return self._remembered(database)
        except (sqlite3.DatabaseError, OneiricError, ValueError, TypeError) as error:
            if _passes(error):
                raise OneiricError(
                    f"{self.path} cannot be read: {error}",
                    hint="free what holds or fills it, then start again; or set another state_dir",
                ) from error
            return Remembered({}, {}, discarded=f"{self._move_aside()}: {error}")

    def peek(self) -> Remembered:
        """Read everything back and change nothing, whatever is there; what cannot be read counts as not there."""
        try:
            self._require_file()
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                return self._remembered(database)
        except (sqlite3.Error, OneiricError, ValueError, TypeError) as error:
            return Remembered({}, {}, discarded=f"{self.path}: {error}")

    def _require_file(self) -> None:
        """Raise OneiricError for what SQLite would hang on or take for a failing disk: a pipe, a directory."""
        if os.path.lexists(self.path) and not self.path.is_file():
            raise OneiricError(f"{self.path} is not a file")

    def _remembered(self, database: sqlite3.Connection) -> Remembered:
        pins = {
            Slot[Any](domain, key): Pin(provider, by, datetime.fromisoformat(since))
            for domain, key, provider, by, since in database.execute("SELECT * FROM pin")
        }
        activities = {
            Slot[Any](domain, key): StoredActivity(Activity(activity), note, by, datetime.fromisoformat(since))
            for domain, key, activity, note, by, since in database.execute("SELECT * FROM activity")
        }
        rows = database.execute("SELECT * FROM swap ORDER BY id DESC LIMIT ?", (RECENT_ROWS,)).fetchall()
        return Remembered(pins, activities, tuple(_record(row) for row in reversed(rows)))

    def _move_aside(self) -> Path:
        for number in range(1, 1000):
            aside = self.path.with_name(f"{FILE}.discarded-{number}")
            if not aside.exists():
                for suffix in ("-journal", "-wal", "-shm"):
                    self.path.with_name(FILE + suffix).unlink(missing_ok=True)
                return self.path.rename(aside)
        raise OSError(f"{self.path}: a thousand discarded files stand beside it already; remove them")

    def pin(self, slot: Slot[Any], pin: Pin) -> None:
        """Record an operator's choice."""
        with self._open() as database:
            row = _row(*slot, pin.provider, pin.by, pin.since.isoformat())
            database.execute("INSERT OR REPLACE INTO pin VALUES (?, ?, ?, ?, ?)", row)

    def unpin(self, slot: Slot[Any]) -> None:
        """Forget an operator's choice."""
        with self._open() as database:
            database.execute("DELETE FROM pin WHERE domain = ? AND key = ?", tuple(slot))

    def set_activity(self, slot: Slot[Any], stored: StoredActivity) -> None:
        """Record whether new leases are allowed; open is the absence of a record."""
        with self._open() as database:
            if stored.activity is Activity.OPEN:
                database.execute("DELETE FROM activity WHERE domain = ? AND key = ?", tuple(slot))
            else:
                row = _row(*slot, stored.activity.value, stored.note, stored.by, stored.since.isoformat())
                database.execute("INSERT OR REPLACE INTO activity VALUES (?, ?, ?, ?, ?, ?)", row)

    def append(self, records: list[SwapRecord]) -> None:
        """Add finished attempts to the history, which keeps the newest ``HISTORY_ROWS``."""
        with self._open() as database:
            database.executemany(
                "INSERT INTO swap VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_row(record.at.isoformat(), *record.slot, *record[2:]) for record in records],
            )
            database.execute("DELETE FROM swap WHERE id <= (SELECT max(id) FROM swap) - ?", (HISTORY_ROWS,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.path.lexists(self.path):
            os.close(os.open(self.path, os.O_CREAT | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT)) as database:
            database.execute("PRAGMA synchronous = EXTRA")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise OneiricError(f"{self.path} is a database of another program")
                database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            elif version != VERSION:
                raise OneiricError(f"{self.path} has format {version}, this version reads {VERSION}")
            with database:
                yield database


def _passes(error: Exception) -> bool:
    """Say whether *error* is about the moment (locked, full, failing) and not about what is in the file."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return isinstance(error, sqlite3.OperationalError) and code & 0xFF != sqlite3.SQLITE_ERROR


def _require_sound(database: sqlite3.Connection) -> None:
    verdict = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise OneiricError(f"the database is damaged: {verdict}")


def _row(*values: Any) -> tuple[Any, ...]:
    """Return *values* as SQLite takes them: text that is no Unicode, as from a file's name, is made so."""
    return tuple(value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in values)


def _record(row: tuple[Any, ...]) -> SwapRecord:
    _, at, domain, key, *rest = row
    return SwapRecord(datetime.fromisoformat(at), Slot[Any](domain, key), *rest)
