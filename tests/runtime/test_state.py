"""The state store: what it keeps, and what it does with a file that it cannot read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from oneiric import Slot
from oneiric.core.states import Activity
from oneiric.errors import OneiricError
from oneiric.lifecycle.reports import SwapRecord
from oneiric.runtime import state
from oneiric.runtime.remembered import Pin, StoredActivity
from oneiric.runtime.state import StateStore
from oneiric.testing import PART

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PIN = Pin("redis", "alice", NOON)


@pytest.fixture
def written(store: StateStore) -> StateStore:
    """A store with one pin."""
    store.pin(PART, PIN)
    return store


def record(number: int = 0) -> SwapRecord:
    return SwapRecord(NOON, PART, f"p{number}", "", "success", "", "", 0.5, "alice")


def test_store_that_was_never_written_is_empty_and_makes_nothing(store: StateStore) -> None:
    assert (store.load().pins, store.path.parent.exists()) == ({}, False)


def test_pin_is_read_back_as_it_was(written: StateStore) -> None:
    assert written.load().pins == {PART: PIN}


def test_second_pin_replaces_the_first(written: StateStore) -> None:
    written.pin(PART, PIN._replace(provider="memory"))
    assert written.load().pins[PART].provider == "memory"


def test_unpinned_slot_is_forgotten(written: StateStore) -> None:
    written.unpin(PART)
    assert written.load().pins == {}


def test_unpinning_one_slot_leaves_the_others(written: StateStore) -> None:
    written.unpin(Slot("service", "part"))
    assert written.load().pins == {PART: PIN}


def test_activity_is_read_back_as_it_was(store: StateStore) -> None:
    stored = StoredActivity(Activity.DRAINING, "moving\nhouse", "bob", NOON)
    store.set_activity(PART, stored)
    assert store.load().activities == {PART: stored}


def test_history_is_read_back_in_order(store: StateStore) -> None:
    store.append([record(1), record(2)])
    store.append([record(3)])
    assert [r.provider for r in store.load().history] == ["p1", "p2", "p3"]


def test_history_record_is_read_back_as_it_was(store: StateStore) -> None:
    store.append([record(1)])
    assert store.load().history == (record(1),)


def test_history_is_bounded(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "HISTORY_ROWS", 5)
    store.append([record(number) for number in range(20)])
    assert [r.provider for r in store.load().history] == ["p15", "p16", "p17", "p18", "p19"]


def test_state_directory_is_private(written: StateStore) -> None:
    assert written.path.parent.stat().st_mode & 0o777 == 0o700


def test_interrupted_write_changes_nothing(written: StateStore) -> None:
    with pytest.raises(sqlite3.IntegrityError), written._open() as database:
        database.executescript("BEGIN; DELETE FROM pin; INSERT INTO pin VALUES ('a', 'b', NULL, '', '')")
    assert written.load().pins == {PART: PIN}


def damage(*statements: str) -> Callable[[StateStore], None]:
    def apply(store: StateStore) -> None:
        with sqlite3.connect(store.path) as database:
            for statement in statements:
                database.execute(statement)
        database.close()

    return apply


def overwrite(content: bytes) -> Callable[[StateStore], None]:
    return lambda store: store.path.write_bytes(content) and None


def truncate(store: StateStore) -> None:
    damage("PRAGMA wal_checkpoint(TRUNCATE)")(store)
    store.path.write_bytes(store.path.read_bytes()[:5000])


DAMAGE: dict[str, Callable[[StateStore], Any]] = {
    "not a database": overwrite(b"no database" * 1000),
    "cut off": truncate,
    "another format": damage("PRAGMA user_version = 99"),
    "no tables": damage("DROP TABLE pin"),
    "another table": damage("DROP TABLE pin", "CREATE TABLE pin (a, b)", "INSERT INTO pin VALUES (1, 2)"),
    "unknown activity": damage("INSERT INTO activity VALUES ('adapter', 'a', 'asleep', '', '', '2026-01-01')"),
    "unknown domain": damage("UPDATE pin SET domain = 'kitchen'"),
    "impossible key": damage("UPDATE pin SET key = '../../etc'"),
    "no instant": damage("UPDATE pin SET since = 'yesterday'"),
    "blob for an instant": damage("UPDATE pin SET since = x'00ff'"),
    "blob for a key": damage("UPDATE pin SET key = x'00ff'"),
}


@pytest.mark.parametrize("apply", DAMAGE.values(), ids=DAMAGE)
def test_damaged_state_is_moved_aside_and_says_so(apply: Callable[[StateStore], Any], written: StateStore) -> None:
    apply(written)
    remembered = written.load()
    assert (remembered.pins, written.path.exists()) == ({}, False)
    assert remembered.discarded.startswith(f"{written.path}.discarded-1: ")


@pytest.mark.parametrize("apply", DAMAGE.values(), ids=DAMAGE)
def test_damaged_state_is_kept_beside_the_new_one(apply: Callable[[StateStore], Any], written: StateStore) -> None:
    for number in (1, 2):
        apply(written)
        written.load()
        assert written.path.with_name(f"state.db.discarded-{number}").exists()
        written.pin(PART, PIN)
    assert written.load().pins == {PART: PIN}


BUSY = {
    "database is locked": sqlite3.SQLITE_BUSY,
    "database or disk is full": sqlite3.SQLITE_FULL,
    "unable to open database file": sqlite3.SQLITE_CANTOPEN,
    "attempt to write a readonly database": sqlite3.SQLITE_READONLY,
    "disk I/O error": sqlite3.SQLITE_IOERR_READ,
}


@pytest.mark.parametrize(("text", "code"), BUSY.items(), ids=BUSY)
def test_state_that_cannot_be_read_just_now_is_not_thrown_away(text: str, code: int, written: StateStore) -> None:
    class Unreadable(StateStore):
        def _open(self) -> Any:
            error = sqlite3.OperationalError(text)
            error.sqlite_errorcode = code
            raise error

    with pytest.raises(OneiricError, match=text):
        Unreadable(written.path.parent).load()
    assert written.load().pins == {PART: PIN}


def test_state_that_another_program_holds_is_not_thrown_away(
    written: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "BUSY_TIMEOUT", 0.01)
    holder = sqlite3.connect(written.path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    holder.execute("DELETE FROM activity")
    with pytest.raises(OneiricError, match="locked"):
        written.load()
    holder.execute("ROLLBACK")
    holder.close()
    assert written.load().pins == {PART: PIN}
