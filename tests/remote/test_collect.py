"""Artifacts of one manifest: from the cache where they are right, else fetched; all of them or none."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from oneiric.core.manifest import Entry
from oneiric.errors import FetchError, ManifestError, OneiricError, TrustError
from oneiric.observability.logs import Reporter
from oneiric.remote import collect
from oneiric.remote.cache import Cache
from oneiric.remote.collect import AT_ONCE, Collector, name_of, release
from oneiric.remote.fetch import Fetched, NotModified
from oneiric.testing import Events
from tests.remote.consumer import offer, open_artifacts, part
from tests.remote.publisher import NOW
from tests.remote.wheels import digest

pytestmark = pytest.mark.anyio


def entry(number: int = 1, **changed: Any) -> Entry:
    return msgspec.convert(offer(part(number), key=f"cache-{number}", **changed), Entry)


def named(number: int) -> str:
    return name_of(entry(number))


@dataclass
class Warehouse:
    """Serves parts by their numbers, or raises, or returns something else, and knows how many asked at a time."""

    instead: dict[int, Any] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    before: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint
    at_once: int = 0
    most_at_once: int = 0

    async def manifest(self, url: str, *, etag: str | None) -> Fetched | NotModified:
        raise NotImplementedError

    async def artifact(self, entry: Entry) -> Fetched | NotModified:
        number = int(entry.key.removeprefix("cache-"))
        self.asked.append(number)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await anyio.lowlevel.checkpoint()
            await self.before()
            found = self.instead.get(number, part(number))
            if isinstance(found, Exception):
                raise found
            return Fetched(found, None, "url") if isinstance(found, bytes) else await found()
        finally:
            self.at_once -= 1


@dataclass
class Bench:
    """A collector on a cache of its own."""

    cache: Cache
    warehouse: Warehouse | None = field(default_factory=Warehouse)
    events: Events = field(default_factory=Events)
    limit_bytes: int = 1 << 20

    async def collect(self, *entries: Entry, keep: bool = True) -> list[str]:
        """Collect; return the names of what came, after letting go of it."""

        async def once(ask: Any) -> Any:
            return await ask()

        collector = Collector(
            cache=self.cache,
            source=self.warehouse,
            limit_bytes=self.limit_bytes,
            patiently=once,
            emit=Reporter(self.events),
            now=lambda: NOW,
        )
        found = await collector.collect(entries, keep=keep)
        try:
            return sorted(found)
        finally:
            release(found)

    @property
    def asked(self) -> list[int]:
        assert self.warehouse is not None
        asked = sorted(self.warehouse.asked)
        self.warehouse.asked.clear()
        return asked

    def files(self) -> dict[str, bytes]:
        paths = (path for path in self.cache.directory.rglob("*") if path.is_file() and path.name != "lock")
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    gc.collect()
    others = open_artifacts()  # what other tests in this process still hold
    yield Bench(Cache(tmp_path / "cache"))
    left = [name for name in open_artifacts() if name not in others]
    assert left == [], "an artifact was left open"


async def test_collected_artifacts_are_fetched_once_and_then_come_from_the_cache(bench: Bench) -> None:
    first = await bench.collect(entry(1), entry(2))
    assert (first, bench.asked) == (sorted([named(1), named(2)]), [1, 2])
    assert (await bench.collect(entry(1), entry(2)), bench.asked) == (first, [])


async def test_each_check_of_a_digest_is_reported_with_the_cached_name(bench: Bench) -> None:
    await bench.collect(entry())
    expected = {"artifact": named(1), "expected_digest": digest(part()), "actual_digest": digest(part())}
    assert bench.events.named("digest-check-success") == [{**expected, "origin": "fetched"}]


async def test_entry_without_an_artifact_costs_nothing(bench: Bench) -> None:
    assert await bench.collect(entry(uri=None, sha256=None, length=None)) == []
    assert (bench.asked, bench.cache.directory.exists()) == ([], False)


async def test_one_artifact_of_two_entries_is_fetched_once(bench: Bench) -> None:
    other = msgspec.structs.replace(entry(), provider="other")
    assert (await bench.collect(entry(), other), bench.asked) == ([named(1)], [1])


async def test_one_content_under_two_names_makes_two_artifacts(bench: Bench) -> None:
    source = b"class Part:\n    pass\n"
    entries = [entry(n, uri=f"part_{n}.py", sha256=digest(source), length=len(source)) for n in (1, 2)]
    assert bench.warehouse is not None
    bench.warehouse.instead = {1: source, 2: source}
    assert await bench.collect(*entries) == [f"{digest(source)[:12]}-part_{n}.py" for n in (1, 2)]


async def test_few_artifacts_are_fetched_at_once(bench: Bench) -> None:
    full = anyio.Event()

    async def wait_for_the_others() -> None:
        if warehouse.at_once >= AT_ONCE:
            full.set()
        await full.wait()

    assert bench.warehouse is not None
    warehouse = bench.warehouse
    warehouse.before = wait_for_the_others
    await bench.collect(*(entry(number) for number in range(20)))
    assert warehouse.most_at_once == AT_ONCE


# What lies in the cache and is not right


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def put_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_bytes(b"x")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit": flip,
    "cut": cut,
    "emptied": lambda path: path.write_bytes(b""),
    "another artifact": lambda path: path.write_bytes(part(2)),
    "longer": lambda path: path.write_bytes(part() + b"\0"),
    "too large": lambda path: path.write_bytes(part() + bytes(1 << 20)),
    "a link to the right one": link,
    "a pipe": put_a_pipe,
    "a directory": put_a_directory,
}


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    return DAMAGES[request.param]


async def test_damaged_artifact_is_reported_kept_as_evidence_and_fetched_anew(
    bench: Bench, damage: Callable[[Path], Any]
) -> None:
    await bench.collect(entry())
    damage(bench.cache.directory / "artifacts" / named(1))
    bench.events.all.clear()
    assert await bench.collect(entry()) == [named(1)]
    assert bench.events.names == ["digest-check-failed", "digest-check-success"]
    assert bench.cache.quarantined() == (f"2030-01-15T1200000000-{named(1)}",)
    assert bench.cache.read_artifact(named(1), 1 << 20) == part()


async def test_damaged_artifact_without_a_source_is_refused_and_kept_as_evidence(
    bench: Bench, damage: Callable[[Path], Any]
) -> None:
    await bench.collect(entry())
    damage(bench.cache.directory / "artifacts" / named(1))
    bench.warehouse = None
    with pytest.raises(TrustError, match=f"artifact {named(1)} is not in the cache, or not what it was") as caught:
        await bench.collect(entry())
    assert (caught.value.reason, caught.value.hint) == ("digest", "oneiric remote-sync, when the network is there")
    assert len(bench.cache.quarantined()) == 1


async def test_damaged_artifact_is_looked_at_in_a_rehearsal_and_left_where_it_is(
    bench: Bench, damage: Callable[[Path], Any]
) -> None:
    await bench.collect(entry())
    path = bench.cache.directory / "artifacts" / named(1)
    damage(path)
    before = (path.lstat().st_ino, path.lstat().st_mtime_ns)
    assert await bench.collect(entry(), keep=False) == [named(1)]
    assert ((path.lstat().st_ino, path.lstat().st_mtime_ns), bench.cache.quarantined()) == (before, ())


# What is fetched and is not right


async def test_wrong_artifact_is_refused_reported_and_kept_as_evidence(bench: Bench) -> None:
    assert bench.warehouse is not None
    bench.warehouse.instead = {1: b"evil"}
    with pytest.raises(TrustError, match="SHA-256") as caught:
        await bench.collect(entry())
    (reported,) = bench.events.named("digest-check-failed")
    assert (caught.value.reason, caught.value.exit_code) == ("digest", 5)
    assert reported == {
        "artifact": named(1),
        "expected_digest": digest(part()),
        "actual_digest": digest(b"evil"),
        "origin": "fetched",
    }
    assert bench.files() == {f"2030-01-15T1200000000-fetched-{named(1)}": b"evil"}


async def test_right_artifact_of_another_length_than_signed_is_refused(bench: Bench) -> None:
    with pytest.raises(TrustError) as caught:
        await bench.collect(entry(length=len(part()) + 1))
    assert (caught.value.reason, bench.files()) == ("length", {})


async def test_right_bytes_that_are_no_wheel_are_refused(bench: Bench) -> None:
    assert bench.warehouse is not None
    bench.warehouse.instead = {1: b"no wheel"}
    with pytest.raises(ManifestError):
        await bench.collect(entry(sha256=digest(b"no wheel"), length=8))
    assert bench.files() == {}


async def test_answer_that_nothing_changed_is_no_artifact(bench: Bench) -> None:
    async def unmodified() -> NotModified:
        return NotModified("url")

    assert bench.warehouse is not None
    bench.warehouse.instead = {1: unmodified}
    with pytest.raises(FetchError, match="304 without being asked for it"):
        await bench.collect(entry())


@pytest.mark.parametrize("failing", range(6))
@pytest.mark.parametrize("how", ["fails", "is wrong"])
async def test_collection_whose_kth_artifact_is_not_to_be_had_yields_none(bench: Bench, failing: int, how: str) -> None:
    assert bench.warehouse is not None
    error = FetchError("http: 500", reason="http", status=500)
    bench.warehouse.instead = {failing: error if how == "fails" else b"evil"}
    with pytest.raises(OneiricError) as caught:
        await bench.collect(*(entry(number) for number in range(6)))
    assert (caught.value is error) == (how == "fails")
    assert named(failing) not in bench.cache.names()


async def test_cancelled_collection_leaves_nothing_open(bench: Bench) -> None:
    arrived = anyio.Event()

    async def hang() -> Fetched:
        arrived.set()
        await anyio.sleep_forever()
        raise AssertionError

    assert bench.warehouse is not None
    bench.warehouse.instead = {3: hang}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: bench.collect(*(entry(number) for number in range(4))))
        await arrived.wait()
        tasks.cancel_scope.cancel()
    assert open_artifacts() == []


async def test_artifact_that_cannot_be_written_fails_the_collection_and_is_let_go(bench: Bench) -> None:
    bench.cache.directory.mkdir(mode=0o700)
    (bench.cache.directory / "artifacts").write_bytes(b"in the way")
    with pytest.raises(OneiricError, match="artifacts cannot be used"):
        await bench.collect(entry())


# Room


class Disk:
    """What ``shutil.disk_usage`` says."""

    def __init__(self, free: int) -> None:
        self.free = free


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Disk(free=len(part())))


@pytest.mark.usefixtures("small_disk")
async def test_artifacts_that_do_not_fit_the_disk_are_not_fetched(bench: Bench) -> None:
    with pytest.raises(FetchError, match="bytes are needed in") as caught:
        await bench.collect(entry())
    assert (caught.value.reason, bench.asked, caught.value.hint) == (
        "size",
        [],
        f"free some space: oneiric cache prune; df -h {bench.cache.directory}",
    )


async def test_artifacts_that_are_cached_need_no_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.collect(entry(1), entry(2))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Disk(free=2 * len(part())))
    assert len(await bench.collect(*(entry(number) for number in range(1, 4)))) == 3


@pytest.mark.usefixtures("small_disk")
async def test_rehearsal_needs_no_room(bench: Bench) -> None:
    assert await bench.collect(entry(), keep=False) == [named(1)]
    assert bench.files() == {}


async def test_restored_artifacts_need_no_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.collect(entry())
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Disk(free=0))
    bench.warehouse = None
    assert await bench.collect(entry()) == [named(1)]


async def test_artifacts_have_a_bound_in_all_whether_lengths_are_given_or_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "TOTAL_BYTES", 3 * len(part()))
    with pytest.raises(FetchError, match="that one synchronisation takes") as caught:
        await bench.collect(*(entry(number, length=None) for number in range(5)))
    assert caught.value.reason == "size"
