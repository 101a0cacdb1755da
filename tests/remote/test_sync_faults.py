"""The machine goes wrong under a synchronisation: it is reported, nothing is lost, and the next one makes it good."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from examples.publisher.serve import Publisher, fail
from oneiric.errors import OneiricError
from oneiric.remote import files
from tests.harness.daemon import oneiric, project, running
from tests.harness.delivery import Upstream, serving, trusting
from tests.harness.faults import full, read_only, tmpfs
from tests.remote.consumer import Consumer, offer, part
from tests.remote.wheels import digest

pytestmark = pytest.mark.anyio


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator[Consumer]:
    """A machine whose cache and state directory are small disks of their own, and which accepted version 1."""
    with tmpfs(tmp_path / "cache", size="256k"), tmpfs(tmp_path / "state", size="256k"):
        yield Consumer(tmp_path)


def unsized(*numbers: int) -> list[dict[str, Any]]:
    """Return entries that do not say how long their artifacts are, so that nobody can look for room beforehand."""
    return [offer(part(number), key=f"cache-{number}", length=None) for number in numbers]


async def started(consumer: Consumer) -> Any:
    """Return a syncer that accepted version 1."""
    consumer.web.publish(part(1), entries=unsized(1))
    syncer = consumer.syncer()
    await syncer.sync()
    return syncer


Break = Callable[[Consumer], AbstractContextManager[None]]
DISKS: dict[str, tuple[Break, str]] = {
    "cache full": (lambda consumer: full(consumer.home / "cache"), "No space left"),
    "cache read-only": (lambda consumer: read_only(consumer.home / "cache"), "Read-only"),
    "state full": (lambda consumer: full(consumer.home / "state"), "No space left"),
    "state read-only": (lambda consumer: read_only(consumer.home / "state"), "Read-only"),
}


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("numbers", [(1, 2), (1,)], ids=["new artifact", "no new artifact"])
async def test_disk_that_fails_is_reported_and_costs_nothing(
    consumer: Consumer, disk: str, numbers: tuple[int, ...]
) -> None:
    cause, words = DISKS[disk]
    syncer = await started(consumer)
    accepted, floor = consumer.files()["manifest.yaml"], consumer.record.floor
    consumer.web.publish(*(part(number) for number in numbers), entries=unsized(*numbers), version=2)
    with cause(consumer):
        with pytest.raises(OneiricError, match=words) as caught:
            await syncer.sync()
        during = consumer.files()["manifest.yaml"], consumer.record.floor, consumer.numbers
    assert during == (accepted, floor, {"cache-1": 1})
    assert consumer.reasons() == ["disk"]
    assert caught.value.hint == f"df -h {consumer.home / 'cache'} {consumer.home / 'state'}"
    left = [path.name for path in consumer.home.rglob(f"{files.TEMPORARY}*")]
    assert left == []
    assert (await syncer.sync()).manifest_version == 2
    assert consumer.numbers == {f"cache-{number}": number for number in numbers}


async def test_disk_without_room_for_what_is_announced_is_not_begun_with(consumer: Consumer) -> None:
    syncer = await started(consumer)
    consumer.web.publish(part(1), part(2), version=2)
    consumer.web.asked.clear()
    with full(consumer.home / "cache"), pytest.raises(OneiricError, match="bytes are needed in"):
        await syncer.sync()
    assert (consumer.web.names(), consumer.reasons()) == (["manifest.json"], ["size"])


@pytest.mark.parametrize("disk", DISKS)
async def test_unchanged_manifest_needs_no_disk(consumer: Consumer, disk: str) -> None:
    syncer = await started(consumer)
    with DISKS[disk][0](consumer):
        assert (await syncer.sync()).outcome == "unchanged"
    assert ("state-degraded" in consumer.events) == disk.startswith("state")


@pytest.mark.parametrize("disk", DISKS)
async def test_restore_needs_no_disk(consumer: Consumer, disk: str) -> None:
    consumer.web.publish(part(1))
    await consumer.syncer().sync()
    consumer.offered = None
    with DISKS[disk][0](consumer):
        await consumer.syncer().restore()
    assert consumer.numbers == {"cache-0": 1}


async def test_restore_from_a_read_only_disk_reports_a_damaged_artifact_as_one(consumer: Consumer) -> None:
    await started(consumer)
    consumer.artifact(part(1)).write_bytes(b"damaged")
    with read_only(consumer.home / "cache"), pytest.raises(OneiricError, match="not what it was"):
        await consumer.syncer().restore()


async def test_cache_that_another_process_does_not_let_go_of_fails_the_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Consumer(tmp_path)
    syncer = await started(consumer)
    consumer.web.publish(part(2), version=2)
    monkeypatch.setattr(files, "LOCK_TIMEOUT", 0.05)
    with consumer.cache.lock(), pytest.raises(OneiricError, match="another process has been writing"):
        await syncer.sync()
    assert (await syncer.sync()).manifest_version == 2


async def test_cache_deleted_over_and_over_is_there_in_the_end(tmp_path: Path) -> None:
    consumer, done = Consumer(tmp_path), threading.Event()

    def delete() -> None:
        while not done.is_set():
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    deleting = threading.Thread(target=delete)
    deleting.start()
    syncer = consumer.syncer()
    for number in range(1, 31):
        consumer.web.publish(part(1), part(2), version=number)
        with suppress(OneiricError):
            await syncer.sync()
    done.set()
    deleting.join()
    await syncer.sync(force=True)
    assert sorted(consumer.files()) == sorted(
        ["manifest.yaml", *(f"artifacts/{consumer.artifact(part(number)).name}" for number in (1, 2))]
    )
    assert (consumer.numbers, set(consumer.reasons()) <= {"disk", "config"}) == ({"cache-0": 1, "cache-1": 2}, True)


# At the command line


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    made = Upstream(tmp_path / "up")
    made.publish()
    return made


def place_of(upstream: Upstream, publisher: Publisher, name: str = "p", **remote: Any) -> Path:
    return project(upstream.directory.parent / name, adapters="{}\n", app=upstream.settings(publisher.url, **remote))


def test_syncs_of_several_processes_at_once_all_succeed(upstream: Upstream) -> None:
    with serving(upstream) as publisher, ThreadPoolExecutor(3) as at_once:
        place = place_of(upstream, publisher)
        done = list(at_once.map(lambda _: oneiric(place, "remote-sync"), range(3)))
    verified = oneiric(place, "cache", "verify")
    assert [one.returncode for one in (*done, verified)] == [0, 0, 0, 0], done
    assert sorted(path.name for path in (place / ".oneiric_state").iterdir()) == ["remote.json", "remote.lock"]


def test_open_breaker_is_said_at_the_command_line_and_force_passes_it(upstream: Upstream) -> None:
    with serving(upstream) as publisher:
        publisher.faults["/manifest.json"] = fail(404)
        place = place_of(upstream, publisher, failure_threshold=1, reset_timeout=3600)
        with running(place) as daemon:
            daemon.wait_event("circuit-breaker-changed", state="open")
            skipped = daemon.cli("remote-sync")
            publisher.faults.clear()
            forced = daemon.cli("remote-sync", "--force")
    assert (skipped.returncode, "the circuit breaker is open for" in skipped.stdout) == (1, True)
    assert "try: oneiric remote-sync --force" in skipped.stderr
    assert (forced.returncode, "accepted: 1 entry" in forced.stdout) == (0, True)


TOKEN = "canary-Zx9_" + "q7" * 10
FORMS = [TOKEN, base64.b64encode(TOKEN.encode()).decode(), quote(TOKEN, safe=""), TOKEN.encode().hex()]


def test_token_goes_to_the_manifests_origin_alone_and_is_seen_nowhere(upstream: Upstream) -> None:
    entry = upstream.entry()
    wheel = Path(entry["wheel"])
    elsewhere = Upstream(upstream.directory.parent / "elsewhere", signer=upstream.signer)
    shutil.copy(wheel, elsewhere.directory)
    environ = {"TOKEN": TOKEN}
    said = []
    with serving(upstream, tls=True) as publisher, serving(elsewhere) as other:
        far = {key: value for key, value in entry.items() if key != "wheel"} | {
            "provider": "far",
            "uri": other.url.replace("manifest.json", wheel.name),
            "sha256": digest(wheel.read_bytes()),
        }
        upstream.publish(entry, far)
        place = place_of(upstream, publisher, token="${env:TOKEN}", allowed_hosts=["127.0.0.1"])
        for fault in (None, fail(401), fail(302, Location=other.url)):
            publisher.faults = {} if fault is None else {"*": fault}
            arguments = ("--debug", "-v", "remote-sync")
            said.append(oneiric(place, *arguments, environ={**environ, **trusting(upstream)}))
        said.append(oneiric(place, "remote-status", environ=environ))
        said.append(oneiric(place, "config", "show", environ=environ))
    assert [one.returncode for one in said] == [0, 1, 1, 0, 0], said
    assert {asked.headers.get("authorization") for asked in publisher.requests} == {f"Bearer {TOKEN}"}
    assert [asked.headers.get("authorization") for asked in other.requests] == [None]
    output = "".join(one.stdout + one.stderr for one in said)
    written = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert [form for form in FORMS if form in output or form.encode() in written] == []
