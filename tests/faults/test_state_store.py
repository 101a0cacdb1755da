"""The state directory under a daemon: disks that fill, fail or turn read-only, files that are not ours, kills."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric import Slot
from oneiric.lifecycle.reports import SwapRecord
from oneiric.runtime.remembered import Pin
from oneiric.runtime.state import StateStore
from tests.harness.daemon import Daemon, running, wait_until
from tests.harness.faults import full, injected, read_only, require, tmpfs
from tests.harness.hazards import CACHE, hazardous, swap_to

SLOT: Slot[Any] = Slot("adapter", "cache")
PIN = Pin("redis", "alice", datetime(2026, 1, 1, 12, tzinfo=UTC))
RECORD = SwapRecord(PIN.since, SLOT, "redis", "", "success", "", "", 0.5, "alice")


def state_of(place: Path) -> Path:
    return place / ".oneiric_state"


# The disk fails under a daemon that serves


def failing(*faults: str) -> Callable[[Daemon], AbstractContextManager[None]]:
    def cause(daemon: Daemon) -> AbstractContextManager[None]:
        database = state_of(daemon.directory) / "state.db"
        journal = database.with_name("state.db-journal")
        return injected(daemon.process.pid, *faults, paths=[database, journal, database.parent])

    return cause


FAULTS: dict[str, tuple[Callable[[Daemon], AbstractContextManager[None]], str]] = {
    "full": (lambda daemon: full(state_of(daemon.directory)), "disk is full"),
    "read-only": (lambda daemon: read_only(state_of(daemon.directory)), "readonly"),
    "write fails": (failing("pwrite64,write:error=EIO"), "I/O error"),
    "sync fails": (failing("fsync,fdatasync:error=EIO"), "I/O error"),
    "open is refused": (failing("openat:error=EACCES"), "unable to open"),
}


class Aftermath(NamedTuple):
    """What a daemon did while its disk failed, when that was over, at its end and at the next starts."""

    fault: str
    swapped: dict[str, Any]
    paused: dict[str, Any]
    served: dict[str, Any]
    degraded: str
    reports: int
    next_start: dict[str, Any]
    exit_code: int
    output: list[str]
    pinned: str
    left: set[str]


def suffer(place: Path, fault: str) -> Aftermath:
    cause, _ = FAULTS[fault]
    with tmpfs(state_of(place), size="256k"):
        with running(place) as daemon:
            assert daemon.client.post("/v1/swap", swap_to("redis"))["warnings"] == []
            with cause(daemon):
                swapped = daemon.client.post("/v1/swap", swap_to("memory"))
                paused = daemon.client.post("/v1/pause", {**CACHE, "note": "disk"})
                served, degraded = daemon.slot(*SLOT), daemon.degraded
            wait_until(lambda: daemon.degraded == "", "the daemon recovers")
            reports = sum(event["event"] == "state-degraded" for event in daemon.events)
            daemon.stop(signal.SIGKILL)
        with running(place) as daemon:
            next_start = daemon.slot(*SLOT)
            daemon.client.post("/v1/resume", CACHE)
            with cause(daemon):
                daemon.client.post("/v1/swap", swap_to("redis"))
                exit_code = daemon.stop()
        pinned = StateStore(state_of(place)).load().pins[SLOT].provider
        left = {path.name for path in state_of(place).iterdir()}
    return Aftermath(
        fault, swapped, paused, served, degraded, reports, next_start, exit_code, daemon.lines, pinned, left
    )


@pytest.fixture(scope="module")
def aftermaths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Aftermath]]]:
    with ThreadPoolExecutor(3) as at_once:
        places = {fault: hazardous(tmp_path_factory.mktemp("state") / "p") for fault in FAULTS}
        yield {fault: at_once.submit(suffer, place, fault) for fault, place in places.items()}


@pytest.fixture(params=FAULTS)
def aftermath(request: pytest.FixtureRequest, aftermaths: dict[str, Future[Aftermath]]) -> Aftermath:
    return aftermaths[request.param].result()


def test_swap_is_done_although_the_disk_fails(aftermath: Aftermath) -> None:
    served = aftermath.served
    assert (aftermath.swapped["provider"], served["provider"], served["swaps"]["success"]) == ("memory", "memory", 3)


def test_swap_and_pause_say_what_was_not_recorded(aftermath: Aftermath) -> None:
    for document in (aftermath.swapped, aftermath.paused):
        (warning,) = document["warnings"]
        assert warning.startswith("done, but not recorded for the next start: .oneiric_state/state.db: ")


def test_failing_disk_is_named_in_the_status(aftermath: Aftermath) -> None:
    assert FAULTS[aftermath.fault][1] in aftermath.degraded


def test_failing_disk_is_reported_once(aftermath: Aftermath) -> None:
    assert aftermath.reports == 1


def test_what_the_disk_refused_is_recorded_when_it_can_be(aftermath: Aftermath) -> None:
    row = aftermath.next_start
    assert (row["pin"]["provider"], row["state"], row["note"]) == ("memory", "paused", "disk")


def test_history_that_the_disk_refused_is_recorded_when_it_can_be(aftermath: Aftermath) -> None:
    assert [swap["provider"] for swap in aftermath.next_start["history"]][:3] == ["memory", "redis", "memory"]


def test_daemon_on_a_failing_disk_ends_in_order(aftermath: Aftermath) -> None:
    assert (aftermath.exit_code, [line for line in aftermath.output if not line.startswith("{")]) == (0, [])


def test_last_recorded_pin_outlives_the_failing_disk(aftermath: Aftermath) -> None:
    assert aftermath.pinned == "memory"


def test_failing_disk_leaves_nothing_behind(aftermath: Aftermath) -> None:
    left_by_a_disk_that_refuses_removal = {"oneiric.sock"} if aftermath.fault == "read-only" else set()
    assert aftermath.left == {"lock", "state.db", *left_by_a_disk_that_refuses_removal}


def test_start_on_a_full_disk_serves_what_was_pinned_and_says_what_is_wrong(place: Path) -> None:
    with tmpfs(state_of(place), size="256k"):
        with running(place) as daemon:
            daemon.client.post("/v1/swap", swap_to("redis"))
            daemon.stop(signal.SIGKILL)
        with full(state_of(place)), running(place) as daemon:
            daemon.wait_event("state-degraded")
            row, degraded = daemon.slot(*SLOT), daemon.degraded
    assert (row["provider"], row["pin"]["provider"]) == ("redis", "redis")
    assert "disk is full" in degraded


def test_state_held_by_another_program_delays_a_swap_and_is_written_later(place: Path) -> None:
    with running(place) as daemon, ThreadPoolExecutor(1) as aside:
        daemon.client.post("/v1/swap", swap_to("redis"))
        with closing(sqlite3.connect(state_of(place) / "state.db", isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            asked = aside.submit(daemon.client.post, "/v1/swap", swap_to("memory"))
            daemon.wait_event("selection-pinned", provider="memory")
            answered = daemon.slot(*SLOT)["provider"]
            warnings = asked.result(20)["warnings"]
            holder.execute("ROLLBACK")
        wait_until(lambda: daemon.degraded == "", "the pin is recorded")
        daemon.stop(signal.SIGKILL)
    assert (answered, "locked" in warnings[0]) == ("memory", True)
    assert StateStore(state_of(place)).load().pins[SLOT].provider == "memory"


def test_start_while_another_program_holds_the_state_is_refused_with_a_remedy(place: Path) -> None:
    state_of(place).mkdir(mode=0o700)
    StateStore(state_of(place)).pin(SLOT, PIN)
    with closing(sqlite3.connect(state_of(place) / "state.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        daemon = Daemon(place)
        code = daemon.process.wait(30)
        daemon.stop()
        holder.execute("ROLLBACK")
    assert (code, "state.db cannot be read: database is locked" in daemon.output) == (1, True)
    assert "try: free what holds or fills it" in daemon.output
    assert StateStore(state_of(place)).load().pins == {SLOT: PIN}


@pytest.mark.parametrize(
    "replace",
    [
        lambda path: path.write_bytes(b"no database" * 1000) and None,
        lambda path: rewrite(path, "PRAGMA user_version = 99"),
    ],
    ids=["garbage", "another version"],
)
def test_state_replaced_under_a_daemon_is_reported_and_stops_nothing(
    replace: Callable[[Path], None], place: Path
) -> None:
    with running(place) as daemon:
        daemon.client.post("/v1/swap", swap_to("redis"))
        replace(state_of(place) / "state.db")
        document = daemon.client.post("/v1/swap", swap_to("memory"))
        daemon.wait_event("state-degraded")
        assert daemon.slot(*SLOT)["provider"] == "memory"
        assert "not recorded" in document["warnings"][0]
        assert daemon.stop() == 0


def rewrite(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)


def test_state_removed_under_a_daemon_is_made_again(place: Path) -> None:
    with running(place) as daemon:
        daemon.client.post("/v1/swap", swap_to("redis"))
        (state_of(place) / "state.db").unlink()
        assert daemon.client.post("/v1/swap", swap_to("memory"))["warnings"] == []
        daemon.stop(signal.SIGKILL)
    assert StateStore(state_of(place)).load().pins[SLOT].provider == "memory"


def test_text_that_is_no_unicode_is_recorded_and_stops_nothing(place: Path) -> None:
    with running(place) as daemon:
        asked = daemon.cli("swap", "--domain", "adapter", "--key", "cache", "--provider", "stranger")
        daemon.client.post("/v1/swap", swap_to("redis"))
        history = daemon.slot(*SLOT)["history"]
    assert (asked.returncode, "no such file: ?" in asked.stderr) == (1, True)
    assert [swap["outcome"] for swap in history] == ["success", "failed", "success"]


# What stands where the state should be is not ours


def directory(path: Path) -> None:
    path.mkdir()
    (path / "keep").write_text("me")


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE somebody (elses)")


INTRUDERS: dict[str, Callable[[Path], Any]] = {
    "directory": directory,
    "pipe": os.mkfifo,
    "broken link": lambda path: path.symlink_to("nowhere"),
    "link in a circle": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "database of another program": foreign,
    "text": lambda path: path.write_text("once upon a time\n" * 500),
}


@pytest.mark.parametrize("intrude", INTRUDERS.values(), ids=INTRUDERS)
def test_intruder_is_moved_aside_and_kept(intrude: Callable[[Path], Any], tmp_path: Path) -> None:
    intrude(tmp_path / "state.db")
    was = (tmp_path / "state.db").lstat()
    remembered = StateStore(tmp_path).load()
    aside = (tmp_path / "state.db.discarded-1").lstat()
    assert (aside.st_ino, aside.st_mode) == (was.st_ino, was.st_mode)
    assert remembered.discarded


@pytest.mark.parametrize("intrude", INTRUDERS.values(), ids=INTRUDERS)
def test_intruder_is_neither_read_nor_touched_by_a_look(intrude: Callable[[Path], Any], tmp_path: Path) -> None:
    intrude(tmp_path / "state.db")
    remembered = StateStore(tmp_path).peek()
    assert (remembered.pins, bool(remembered.discarded)) == ({}, True)
    assert [path.name for path in tmp_path.iterdir()] == ["state.db"]


def test_empty_file_is_a_new_state(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    store = StateStore(tmp_path)
    assert store.load().discarded == ""
    store.pin(SLOT, PIN)
    assert store.load().pins == {SLOT: PIN}


def test_daemon_starts_beside_an_intruder_and_tells_of_it(place: Path) -> None:
    state_of(place).mkdir(mode=0o700)
    os.mkfifo(state_of(place) / "state.db")
    with running(place) as daemon:
        event = daemon.wait_event("state-discarded")
        assert daemon.client.post("/v1/swap", swap_to("redis"))["warnings"] == []
    assert "is not a file" in event["error"]


def written_state() -> bytes:
    with TemporaryDirectory() as name:
        store = StateStore(Path(name))
        store.pin(SLOT, PIN)
        store.append([RECORD._replace(provider=f"p{number}") for number in range(50)])
        return store.path.read_bytes()


WRITTEN = written_state()
contents = st.binary(max_size=4096) | st.builds(
    lambda cut, strokes: bytes(bytearray(WRITTEN[:cut])) if not strokes else struck(cut, strokes),
    st.integers(0, len(WRITTEN)) | st.just(len(WRITTEN)),
    st.lists(st.tuples(st.integers(0, len(WRITTEN) - 1) | st.integers(0, 120), st.integers(0, 255)), max_size=8),
)


def struck(cut: int, strokes: list[tuple[int, int]]) -> bytes:
    content = bytearray(WRITTEN)
    for at, value in strokes:
        content[at] = value
    return bytes(content[:cut])


@given(contents)
def test_state_of_any_content_is_read_or_moved_aside_and_then_written_to(content: bytes) -> None:
    with TemporaryDirectory() as name:
        store = StateStore(Path(name))
        store.path.write_bytes(content)
        store.peek()
        remembered = store.load()
        store.pin(SLOT, PIN)
        assert store.load().pins[SLOT] == PIN
        kept = store.path.with_name("state.db.discarded-1")
        assert kept.exists() == bool(remembered.discarded)
        assert not kept.exists() or kept.read_bytes() == content


def test_damage_that_only_a_write_would_meet_is_found_at_the_start(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.path.write_bytes(WRITTEN)
    with closing(sqlite3.connect(store.path)) as database:
        page, size = (
            database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'swap_slot'").fetchone()[0],
            database.execute("PRAGMA page_size").fetchone()[0],
        )
    content = bytearray(WRITTEN)
    content[(page - 1) * size : page * size] = bytes(size)
    store.path.write_bytes(content)
    assert "damaged" in store.load().discarded
    store.append([RECORD])
    assert store.load().history == (RECORD,)


# Killed in the middle of a write

WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from oneiric import Slot
from oneiric.runtime.remembered import Pin
from oneiric.runtime.state import StateStore
StateStore(Path(sys.argv[1])).pin(Slot("adapter", "cache"), Pin(sys.argv[2], "me", datetime.now(UTC)))
"""
WRITES = "openat,write,pwrite64,fsync,fdatasync,ftruncate,unlink,mkdir"


def write_pin(place: Path, provider: str, *strace: str) -> int:
    paths = [place, *(place / f"state.db{suffix}" for suffix in ("", "-journal", "-wal", "-shm"))]
    tracer = ["strace", "-qq", "-e", f"trace={WRITES}", *strace, *(f"--trace-path={path}" for path in paths)]
    command = [*(tracer if strace else []), sys.executable, "-c", WRITER, str(place), provider]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode


def write_points(tmp_path: Path, prepare: Callable[[Path], None]) -> list[tuple[str, int]]:
    """Return every system call by which a pin gets to disk, as its name and its number among those of that name."""
    prepare(tmp_path / "dry")
    assert write_pin(tmp_path / "dry", "new", f"--output={tmp_path / 'trace'}") == 0
    seen: dict[str, int] = {}
    points = []
    for name in re.findall(r"^(\w+)\(", (tmp_path / "trace").read_text(), re.MULTILINE):
        seen[name] = seen.get(name, 0) + 1
        points.append((name, seen[name]))
    return points


PREPARATIONS: dict[str, tuple[Callable[[Path], Any], set[str | None]]] = {
    "first write": (lambda _place: None, {None, "new"}),
    "later write": (lambda place: StateStore(place).pin(SLOT, PIN._replace(provider="old")), {"old", "new"}),
}


@pytest.mark.parametrize(("prepare", "allowed"), PREPARATIONS.values(), ids=PREPARATIONS)
def test_pin_killed_at_any_system_call_is_the_old_one_or_the_new_one(
    prepare: Callable[[Path], None], allowed: set[str | None], tmp_path: Path
) -> None:
    require("strace")
    points = write_points(tmp_path, prepare)
    assert {"openat", "pwrite64", "unlink"} <= {name for name, _ in points}

    def killed_at(point: tuple[str, int]) -> tuple[int, str | None, str, set[str]]:
        place = tmp_path / f"{point[0]}-{point[1]}"
        prepare(place)
        code = write_pin(place, "new", "--output=/dev/null", f"--inject={point[0]}:signal=KILL:when={point[1]}")
        store = StateStore(place)
        remembered = store.load()
        pin = remembered.pins.get(SLOT)
        store.append([RECORD])  # as each start does, that activates what is pinned
        left = {path.name for path in place.iterdir()} if place.exists() else set()
        return code, pin.provider if pin else None, remembered.discarded, left - {"state.db"}

    with ThreadPoolExecutor(3) as at_once:
        found = dict(zip(points, at_once.map(killed_at, points), strict=True))
    wrong = {
        point: outcome
        for point, outcome in found.items()
        if outcome[0] != -signal.SIGKILL or outcome[1] not in allowed or outcome[2] or outcome[3]
    }
    assert wrong == {}
    assert {outcome[1] for outcome in found.values()} == allowed, "the kills came all before or all after the commit"


# Two daemons


def test_frozen_daemon_still_holds_its_state_directory(place: Path) -> None:
    with running(place) as first:
        first.signal(signal.SIGSTOP)
        try:
            second = Daemon(place)
            code = second.process.wait(20)
            second.stop()
        finally:
            first.signal(signal.SIGCONT)
        assert first.slot(*SLOT)["state"] == "ready"
    assert (code, f"another daemon (pid {first.process.pid})" in second.output) == (1, True)


def test_of_daemons_started_at_once_exactly_one_serves(place: Path) -> None:
    with several(place, 3) as daemons:
        wait_until(lambda: sum(d.process.poll() is None for d in daemons) == 1, "all but one refuse")
        (one,) = (daemon for daemon in daemons if daemon.process.poll() is None)
        assert one.wait_ready().slot(*SLOT)["state"] == "ready"
        refusals = [d.output for d in daemons if d is not one]
    assert all("another daemon (pid " in text and "Traceback" not in text for text in refusals)


@contextmanager
def several(place: Path, number: int) -> Iterator[list[Daemon]]:
    daemons = [Daemon(place) for _ in range(number)]
    try:
        yield daemons
    finally:
        for daemon in daemons:
            daemon.stop()
