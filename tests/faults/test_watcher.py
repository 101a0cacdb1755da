"""Settings that are written halfway, too often, by nobody we may read, or that the kernel will not tell us about."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.harness.daemon import Daemon, running, wait_until
from tests.harness.faults import injected, require, require_root, require_user_namespaces
from tests.harness.hazards import APP, CANDIDATES, hazardous

SELECT = {name: CANDIDATES.replace("cache: memory", f"cache: {name}") for name in ("memory", "redis")}
UNHURRIED = APP.replace("debounce: 0.1", "debounce: 0.5")


def settings_of(place: Path) -> Path:
    return place / "settings" / "adapters.yml"


def happened(daemon: Daemon) -> Counter[str]:
    return Counter(event["event"] for event in daemon.events)


def provider(daemon: Daemon) -> str:
    return str(daemon.slot("adapter", "cache")["provider"])


# Content

GARBAGE: dict[str, bytes] = {
    "syntax error": b"selections: {cache: redis",
    "duplicate key": b"selections: {cache: redis}\nselections: {cache: memory}\n",
    "wrong shape": b"selections: [cache, redis]\n",
    "not UTF-8": b"selections: {cache: \xff\xfe}\n",
    "zeroes": bytes(4096),
    "alias bomb": b"a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nselections: {cache: *c}\n",
    "two documents": b"selections: {cache: redis}\n---\nselections: {cache: memory}\n",
    "unknown factory": b'candidates: [{key: cache, provider: memory, factory: "not a path"}]\n',
    "deep": b"[" * 5000,
    "too large": b"# " + b"x" * (9 << 20),
}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(hazardous(tmp_path_factory.mktemp("watched") / "p")) as daemon:
        yield daemon


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_rejected_with_its_place_changes_nothing_and_mends(content: bytes, followed: Daemon) -> None:
    before = happened(followed)
    served = followed.slot("adapter", "cache")["instance_id"]
    settings_of(followed.directory).write_bytes(content)
    event = followed.wait_event("config-rejected", count=before["config-rejected"] + 1)
    wait_until(lambda: "settings/adapters.yml" in followed.degraded, "the status tells of it")
    settings_of(followed.directory).write_text(SELECT["memory"])
    wait_until(lambda: followed.degraded == "", "the mended file is applied")
    assert event["file"].startswith("settings/adapters.yml")
    assert followed.slot("adapter", "cache")["instance_id"] == served
    assert happened(followed)["swap-complete"] == before["swap-complete"]


# Ways of writing


def in_pieces(file: Path) -> None:
    """Write for longer than the daemon waits for quiet, a piece at a time, so that most states are no YAML."""
    pace = threading.Event()
    with file.open("w") as stream:
        for start in range(0, len(SELECT["redis"]), 100):
            stream.write(SELECT["redis"][start : start + 100])
            stream.flush()
            pace.wait(0.1)


def by_rename(file: Path) -> None:
    file.with_suffix(".new").write_text(SELECT["redis"])
    file.with_suffix(".new").replace(file)


def twice(file: Path) -> None:
    file.write_text("selections: {")
    file.write_text(SELECT["redis"])


def through_a_configmap(file: Path) -> None:
    settings = file.parent
    (settings / "..2").mkdir()
    shutil.copytree(settings, settings / "..2", dirs_exist_ok=True, ignore=lambda *_: ["..2", "..data", "..1"])
    (settings / "..2" / "adapters.yml").write_text(SELECT["redis"])
    (settings / "..data_tmp").symlink_to("..2")
    (settings / "..data_tmp").replace(settings / "..data")
    shutil.rmtree(settings / "..1")


WAYS = [in_pieces, by_rename, twice, through_a_configmap]


@pytest.mark.parametrize("write", WAYS, ids=[way.__name__ for way in WAYS])
def test_file_is_applied_once_and_whole_however_it_is_written(write: Callable[[Path], None], tmp_path: Path) -> None:
    place = hazardous(tmp_path / "p", app=UNHURRIED)
    if write is through_a_configmap:
        as_configmap(place / "settings")
    with running(place) as daemon:
        write(settings_of(place))
        daemon.wait_event("config-changed")
        assert provider(daemon) == "redis"
        counted = happened(daemon)
    assert (counted["config-changed"], counted["swap-complete"], counted["config-rejected"]) == (1, 1, 0)


def as_configmap(settings: Path) -> None:
    """Lay the settings out as Kubernetes does: links through ``..data`` into a directory of their own."""
    version = settings / "..1"
    version.mkdir()
    for file in tuple(settings.glob("*.yml")):
        file.rename(version / file.name)
        file.symlink_to(f"..data/{file.name}")
    (settings / "..data").symlink_to("..1")


def test_settings_flapping_at_50_hz_are_applied_a_bounded_number_of_times(tmp_path: Path) -> None:
    place = hazardous(tmp_path / "p", app=UNHURRIED)
    with running(place) as daemon:
        writes, over = 0, time.monotonic() + 3
        pace = threading.Event()
        while time.monotonic() < over:
            for name in ("redis", "memory"):
                settings_of(place).write_text(SELECT[name])
                writes += 1
                pace.wait(0.02)
        settings_of(place).write_text(SELECT["redis"] + "# the last one\n")
        wait_until(lambda: provider(daemon) == "redis", "the last content is applied")
        counted = happened(daemon)
    assert writes > 30, "nothing flapped"
    assert counted["config-changed"] <= 4
    assert counted["swap-complete"] <= 4


# Files that come and go


def test_file_removed_and_put_back_changes_nothing(place: Path) -> None:
    with running(place) as daemon:
        served = daemon.slot("adapter", "cache")["instance_id"]
        settings_of(place).unlink()
        event = daemon.wait_event("config-rejected")
        settings_of(place).write_text(SELECT["memory"])
        wait_until(lambda: daemon.degraded == "", "the file is back")
        assert daemon.slot("adapter", "cache")["instance_id"] == served
    assert "was removed while the daemon runs" in event["error"]


def test_directory_removed_and_made_again_is_followed(place: Path) -> None:
    with running(place) as daemon:
        shutil.copytree(place / "settings", place / "kept")
        shutil.rmtree(place / "settings")
        daemon.wait_event("config-rejected")
        assert daemon.slot("adapter", "cache")["state"] == "ready"
        (place / "kept" / "adapters.yml").write_text(SELECT["redis"])
        (place / "kept").rename(place / "settings")
        daemon.wait_event("swap-complete", provider="redis")
        settings_of(place).write_text(SELECT["memory"])
        daemon.wait_event("swap-complete", provider="memory")


# Files that cannot be read


def test_file_the_daemon_may_not_read_keeps_the_last_settings_until_it_may(place: Path) -> None:
    require_root()
    require("setpriv")
    like_any_user = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]  # modes count for this root too
    with running(place, within=like_any_user) as daemon:
        settings_of(place).chmod(0)
        event = daemon.wait_event("config-rejected")
        served = provider(daemon)
        settings_of(place).write_text(SELECT["redis"])
        settings_of(place).chmod(0o600)
        daemon.wait_event("swap-complete", provider="redis")
    assert "make it readable for the user who runs oneiric" in event["error"]
    assert served == "memory"


READ_ERRORS = {
    "open fails": "openat:error=EIO",
    "read fails": "read:error=EIO",
    "open is refused": "openat:error=EACCES",
    "no descriptor left": "openat:error=EMFILE",
}


def read_through(place: Path, fault: str) -> dict[str, Any]:
    """Write new settings while they cannot be read; return what the daemon said meanwhile and did afterwards."""
    with running(place) as daemon:
        with injected(daemon.process.pid, fault, paths=[settings_of(place), Path("settings/adapters.yml")]):
            settings_of(place).write_text(SELECT["redis"])
            error = daemon.wait_event("config-rejected")["error"]
            served = provider(daemon)
        daemon.wait_event("swap-complete", provider="redis")
        wait_until(lambda: daemon.degraded == "", "nothing is wrong any more")
        return {"error": error, "served": served, "failed": happened(daemon)["task-failed"]}


def test_settings_that_could_not_be_read_for_a_while_are_applied_afterwards(tmp_path: Path) -> None:
    require("strace")
    places = [hazardous(tmp_path / str(number)) for number in range(len(READ_ERRORS))]
    with ThreadPoolExecutor(2) as at_once:
        found = dict(zip(READ_ERRORS, at_once.map(read_through, places, READ_ERRORS.values()), strict=True))
    assert {name: (outcome["served"], outcome["failed"]) for name, outcome in found.items()} == dict.fromkeys(
        READ_ERRORS, ("memory", 0)
    )
    assert all("settings/adapters.yml" in outcome["error"] for outcome in found.values())


def test_kernel_without_a_watch_to_give_is_reported_and_polled(place: Path) -> None:
    require_user_namespaces()
    script = 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"'
    with running(place, within=["unshare", "-Ur", "sh", "-c", script, "sh"]) as daemon:
        event = daemon.wait_event("watch-degraded")
        settings_of(place).write_text(SELECT["redis"])
        daemon.wait_event("swap-complete", provider="redis")
    assert event["error"].startswith("OSError: ")
