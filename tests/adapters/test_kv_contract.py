"""The built-in key/value store."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from oneiric.adapters.sqlite import SqliteKeyValue
from tests.adapters.contract import Clock, KeyValueContract, World

pytestmark = pytest.mark.anyio


class TestSqlite(KeyValueContract):
    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, tmp_path_factory: pytest.TempPathFactory) -> World:
        directory, numbers = tmp_path_factory.mktemp("kv"), itertools.count()

        @asynccontextmanager
        async def opened() -> AsyncIterator[SqliteKeyValue]:
            store = SqliteKeyValue(directory / f"{next(numbers)}.db")
            try:
                yield store
            finally:
                await store.aclose()

        return World(opened, Clock().advance)


async def test_sqlite_keeps_what_was_set_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kv.db"
    program = (
        "import anyio, os, sys; from oneiric.adapters.sqlite import SqliteKeyValue\n"
        "async def main():\n"
        "    await SqliteKeyValue(sys.argv[1]).set('order', 'paid')\n"
        "    os.kill(os.getpid(), 9)\n"
        "anyio.run(main)"
    )
    ended = subprocess.run([sys.executable, "-c", program, path], check=False, timeout=60)
    assert ended.returncode == -9
    store = SqliteKeyValue(path)
    assert await store.get("order") == "paid"
    await store.aclose()


async def test_sqlite_never_works_on_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    execute = SqliteKeyValue._execute

    def noted(self: SqliteKeyValue, *arguments: str) -> object:
        threads.append(threading.current_thread())
        return execute(self, *arguments)

    monkeypatch.setattr(SqliteKeyValue, "_execute", noted)
    store = SqliteKeyValue(tmp_path / "kv.db")
    await store.set("a", "b")
    await store.get("a")
    await store.health()
    await store.aclose()
    assert len(threads) == 3
    assert threading.main_thread() not in threads


async def test_sqlite_two_stores_share_a_file(tmp_path: Path) -> None:
    one, other = SqliteKeyValue(tmp_path / "kv.db"), SqliteKeyValue(tmp_path / "kv.db")

    async def write(store: SqliteKeyValue, name: str) -> None:
        for number in range(20):
            await store.set(f"{name} {number}", name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, one, "one")
        tasks.start_soon(write, other, "other")
    assert await one.get("other 19") == "other"
    assert await other.get("one 19") == "one"
    await one.aclose()
    await other.aclose()


async def test_sqlite_closed_is_not_healthy(tmp_path: Path) -> None:
    store = SqliteKeyValue(tmp_path / "kv.db")
    await store.aclose()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await store.health()


async def test_sqlite_without_its_table_is_not_healthy(tmp_path: Path) -> None:
    store = SqliteKeyValue(tmp_path / "kv.db")
    other = sqlite3.connect(tmp_path / "kv.db")
    other.execute("DROP TABLE kv")
    other.close()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await store.health()
    await store.aclose()


@pytest.mark.parametrize(("name", "says"), [("rubbish", "not a database"), ("directory", "unable to open")])
def test_sqlite_names_a_file_that_it_cannot_use(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "rubbish").write_bytes(b"rubbish " * 500)
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match=rf"{name}: .*{says}"):
        SqliteKeyValue(tmp_path / name)
