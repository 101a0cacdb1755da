"""The lock of the cache: one writer at a time, in whatever process, and nobody waits for ever."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oneiric.errors import OneiricError
from oneiric.remote import files
from oneiric.remote.cache import Cache
from tests.harness.daemon import wait_until


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


HOLDER = """
import sys
from pathlib import Path
from oneiric.remote.cache import Cache
with Cache(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(cache: Cache) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(cache.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_lock_that_another_process_holds_is_waited_for_within_bounds(cache: Cache) -> None:
    with held(cache), pytest.raises(OneiricError, match="another process has been writing") as caught:
        files.locked(cache.directory, "lock", timeout=0.05).__enter__()
    assert caught.value.hint == f"see which one: fuser -v {cache.directory}/lock"


def test_lock_of_a_killed_process_is_free_at_once(cache: Cache) -> None:
    with held(cache) as process:
        process.kill()
        process.wait(20)
        with files.locked(cache.directory, "lock", timeout=0.0):
            pass


def test_lock_of_a_deleted_cache_is_taken_on_the_new_one(cache: Cache) -> None:
    with held(cache):
        shutil.rmtree(cache.directory)
        with files.locked(cache.directory, "lock", timeout=0.0):
            assert (cache.directory / "lock").exists()


def is_open(path: Path) -> bool:
    links = Path("/proc/self/fd").iterdir()
    return str(path) in [os.path.realpath(link) for link in links]


def test_lock_that_was_deleted_while_it_was_waited_for_is_not_held_by_two(cache: Cache) -> None:
    taken, release = threading.Event(), threading.Event()

    def wait() -> None:
        with cache.lock():
            taken.set()
            release.wait(20)

    waiting = threading.Thread(target=wait)
    with held(cache) as process:
        waiting.start()
        wait_until(lambda: is_open(cache.directory / "lock"), "the thread waits for the lock")
        shutil.rmtree(cache.directory)
        with cache.lock():
            process.kill()
            process.wait(20)
            assert not taken.wait(0.1)
        assert taken.wait(20)
        release.set()
        waiting.join()


def test_lock_is_not_taken_through_a_link(cache: Cache, tmp_path: Path) -> None:
    with cache.lock():
        pass
    (cache.directory / "lock").unlink()
    (cache.directory / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), cache.lock():
        pass
    assert not (tmp_path / "elsewhere").exists()
