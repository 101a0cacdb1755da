"""One synchronisation: all of it or nothing; no work where nothing changed; nothing forgotten, nothing piled up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from oneiric import Slot
from oneiric.core.candidate import Deferred
from oneiric.errors import OneiricError, TrustError
from tests.remote.consumer import (
    Consumer,
    answering,
    consumer,
    failing,
    offer,
    part,
    unavailable,
)
from tests.remote.publisher import ALICE_KEY, BOB_KEY, NOW, URL
from tests.remote.wheels import digest, wheel

__all__ = ["consumer"]
pytestmark = pytest.mark.anyio
MIRROR = "https://mirror.example.org/oneiric/manifest.json"


def url_of(consumer: Consumer, content: bytes) -> str:
    """Return where an artifact is published."""
    return next(url for url in consumer.web.files if url.endswith(f"{digest(content)[-8:]}.whl"))


# What is accepted


async def test_sync_offers_keeps_and_remembers_what_was_signed(consumer: Consumer) -> None:
    manifest = consumer.web.publish(part(1), part(2))
    report = await consumer.syncer().sync()
    record = consumer.record
    assert (report.outcome, report.entries, report.fetched, report.url) == ("success", 2, 2, URL)
    assert consumer.numbers == {"cache-0": 1, "cache-1": 2}
    assert consumer.files() == {
        "manifest.yaml": manifest,
        **{f"artifacts/{consumer.artifact(part(n)).name}": part(n) for n in (1, 2)},
    }
    assert record.floor is not None
    assert (record.floor.version, record.floor.key_ids) == (1, (ALICE_KEY.id,))
    assert (record.source, record.url, record.manifest_version) == ("shop", URL, 1)
    assert (record.key_ids, record.registrations, record.accepted_at) == ((ALICE_KEY.id,), {"adapter": 2}, NOW)
    assert (record.successes, record.failures, record.last_error) == (1, 0, "")


async def test_candidate_is_what_its_entry_says(consumer: Consumer) -> None:
    more = {
        "stack_level": 7,
        "priority": 3,
        "capabilities": ["ttl"],
        "requires": ["anyio>=4"],
        "os_platform": ["linux"],
    }
    consumer.web.publish(part(), entries=[offer(version="1.2", python_version=">=3.11", metadata={"a": 1}, **more)])
    await consumer.syncer().sync()
    (candidate,) = consumer.offered or ()
    assert isinstance(candidate.factory, Deferred)
    assert (candidate.slot, candidate.provider) == (Slot("adapter", "cache"), "shop")
    assert (candidate.stack, candidate.source, candidate.stack_level, candidate.priority) == ("shop", "remote", 7, 3)
    assert (candidate.version, candidate.python_version, candidate.os_platform) == ("1.2", ">=3.11", ("linux",))
    assert (candidate.capabilities, candidate.requires) == (frozenset({"ttl"}), ("anyio>=4",))
    assert (dict(candidate.metadata), candidate.factory.path) == (
        {"a": 1},
        f"{consumer.artifact(part()).name}/shop.cache:Cache",
    )


async def test_nothing_of_an_artifact_is_executed_by_a_sync(consumer: Consumer, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    source = f"open({str(trace)!r}, 'w').close()\nclass Cache:\n    number = 1\n"
    content = wheel({"shop/__init__.py": "", "shop/cache.py": source})
    consumer.web.publish(content)
    await consumer.syncer().sync()
    assert not trace.exists()
    assert (consumer.numbers, trace.exists()) == ({"cache-0": 1}, True)


def installed(factory: str) -> dict[str, Any]:
    return offer(factory=factory, uri=None, sha256=None, length=None)


async def test_entry_without_artifact_names_what_is_installed_and_allowed(consumer: Consumer) -> None:
    consumer.set(allowed_factories=("tests.remote.consumer",))
    consumer.web.publish(entries=[installed("tests.remote.consumer:Web")])
    await consumer.syncer().sync()
    (candidate,) = consumer.offered or ()
    assert isinstance(candidate.factory, Deferred)
    assert candidate.factory.find()().files == {}


async def test_entry_without_artifact_may_not_name_what_its_module_imports(consumer: Consumer) -> None:
    consumer.set(allowed_factories=("tests.remote.consumer",))
    consumer.web.publish(entries=[installed("tests.remote.consumer:Syncer")])
    await consumer.syncer().sync()
    (candidate,) = consumer.offered or ()
    assert isinstance(candidate.factory, Deferred)
    with pytest.raises(TrustError, match=r"is not defined in tests\.remote\.consumer"):
        candidate.factory.find()


# Nothing new


async def test_unchanged_manifest_costs_one_question_and_no_work(consumer: Consumer) -> None:
    consumer.web.publish(part())
    syncer = consumer.syncer()
    await syncer.sync()
    consumer.web.asked.clear()
    consumer.events.all.clear()
    offered, written = consumer.offered, consumer.cache.fingerprint()
    report = await syncer.sync()
    assert (report.outcome, report.entries, report.fetched) == ("unchanged", 1, 0)
    assert (consumer.web.names(), consumer.web.tags[-1] is not None) == (["manifest.json"], True)
    assert (consumer.publications, consumer.offered is offered) == (1, True)
    assert (consumer.events.names, consumer.cache.fingerprint()) == (["remote-sync-unchanged"], written)


async def test_manifest_of_a_server_without_tags_is_unchanged_too(consumer: Consumer) -> None:
    manifest = consumer.web.publish(part())
    syncer = consumer.syncer()
    await syncer.sync()
    consumer.web.faults[URL] = answering(manifest)
    consumer.web.tags.clear()
    assert (await syncer.sync()).outcome == "unchanged"
    assert consumer.publications == 1


async def test_unchanged_manifest_that_expired_is_an_error_and_goes_on_serving(consumer: Consumer) -> None:
    consumer.web.publish(part())
    syncer = consumer.syncer()
    await syncer.sync()
    consumer.later(days=31)
    with pytest.raises(TrustError, match="expired at 2030-02-14") as caught:
        await syncer.sync()
    assert (caught.value.reason, consumer.web.tags[-1] is not None) == ("expired", True)
    assert (consumer.numbers, consumer.publications) == ({"cache-0": 1}, 1)


async def test_unchanged_manifest_is_judged_anew_by_new_settings(consumer: Consumer) -> None:
    consumer.web.publish(part())
    syncer = consumer.syncer()
    await syncer.sync()
    consumer.set(public_key=BOB_KEY.raw.hex())
    with pytest.raises(TrustError) as caught:
        await syncer.sync()
    assert (caught.value.reason, consumer.web.tags[-1]) == ("signature", None)


async def test_unsigned_manifest_is_warned_of_at_every_sync(consumer: Consumer) -> None:
    consumer.set(require_signature=False, public_key=None)
    consumer.web.publish(part(), keys=())
    syncer = consumer.syncer()
    for _ in range(3):
        await syncer.sync()
    warned = [fields["error"] for fields in consumer.events.named("remote-sync-warning")]
    assert len([text for text in warned if "sign" in text]) == 3


async def test_same_manifest_from_another_place_says_where_it_is_from(consumer: Consumer) -> None:
    manifest = consumer.web.publish(part())
    syncer = consumer.syncer()
    await syncer.sync()
    consumer.web.files[MIRROR] = manifest
    report = await syncer.sync(MIRROR)
    assert (report.outcome, report.url, consumer.record.url) == ("unchanged", MIRROR, MIRROR)
    assert consumer.web.tags[-1] is None


async def test_floor_that_was_lost_is_remembered_again_at_the_next_sync(consumer: Consumer) -> None:
    consumer.web.publish(part(), version=7)
    syncer = consumer.syncer()
    await syncer.sync()
    floor = consumer.record.floor
    consumer.ledger.path.unlink()
    await syncer.sync()
    assert (consumer.record.floor, consumer.record.manifest_version) == (floor, 7)


@pytest.mark.parametrize("what", ["", "manifest.yaml", "artifacts"])
async def test_deleted_part_of_the_cache_is_rebuilt_by_the_next_sync(consumer: Consumer, what: str) -> None:
    consumer.web.publish(part())
    syncer = consumer.syncer()
    await syncer.sync()
    files, path = consumer.files(), consumer.home / "cache" / what
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert (await syncer.sync()).outcome == "success"
    assert (consumer.files(), consumer.numbers) == (files, {"cache-0": 1})


async def test_cache_deleted_in_the_middle_of_a_sync_is_rebuilt_by_the_next(consumer: Consumer) -> None:
    async def delete() -> None:
        shutil.rmtree(consumer.home / "cache")

    consumer.web.publish(part(1), part(2))
    last = url_of(consumer, part(2))
    syncer, name = consumer.syncer(), f"artifacts/{consumer.artifact(part(1)).name}"
    for content in (part(1), part(2)):
        consumer.cache.write_artifact(consumer.artifact(content).name, content)
    consumer.artifact(part(2)).write_bytes(b"damaged")
    consumer.web.faults[last] = delete
    await syncer.sync()
    missing = name not in consumer.files()
    consumer.web.faults.clear()
    await syncer.sync()
    assert (missing, name in consumer.files(), consumer.numbers) == (True, True, {"cache-0": 1, "cache-1": 2})


# All or nothing


def state_of(consumer: Consumer) -> Any:
    """Return what a failed synchronisation may not change."""
    record = consumer.record
    kept = (record.floor, record.accepted_at, record.manifest_version, record.key_ids, record.registrations)
    return consumer.files().get("manifest.yaml"), kept, consumer.offered, consumer.publications


FAILURES: dict[str, Callable[[], Any]] = {
    "gone": lambda: unavailable(404),
    "down": lambda: unavailable(503),
    "wrong": lambda: answering(b"evil"),
    "too long": lambda: answering(b"x" * 10_000),
    "cut": lambda: answering(part(2)[:-1]),
    "a bug": lambda: failing(RuntimeError("unexpected")),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("failing_one", range(3))
async def test_sync_whose_kth_artifact_fails_changes_nothing(
    consumer: Consumer, failing_one: int, failure: str
) -> None:
    consumer.web.publish(part(9))
    syncer = consumer.syncer()
    await syncer.sync()
    before = state_of(consumer)
    contents = [part(number) for number in range(3)]
    consumer.web.publish(*contents, version=2)
    url = url_of(consumer, contents[failing_one])
    consumer.web.faults[url] = FAILURES[failure]()
    with pytest.raises((OneiricError, RuntimeError)):
        await syncer.sync()
    assert (state_of(consumer), consumer.numbers) == (before, {"cache-0": 9})
    consumer.web.faults.clear()
    assert (await syncer.sync()).manifest_version == 2
    assert consumer.numbers == {f"cache-{number}": number for number in range(3)}


@pytest.mark.parametrize("kind", [OneiricError, RuntimeError, OSError])
async def test_sync_whose_publication_fails_is_counted_and_publishes_at_the_next(
    consumer: Consumer, kind: type[Exception]
) -> None:
    consumer.web.publish(part())
    syncer, consumer.on_publish = consumer.syncer(), failing(kind("no"))
    with pytest.raises((OneiricError, RuntimeError)):
        await syncer.sync()
    assert (consumer.offered, consumer.record.failures) == (None, 1)
    consumer.on_publish = None
    assert (await syncer.sync()).outcome == "success"
    assert consumer.numbers == {"cache-0": 1}


@pytest.mark.parametrize("at_artifact", [False, True])
async def test_cancelled_sync_changes_nothing_and_proves_nothing(consumer: Consumer, at_artifact: bool) -> None:
    arrived = anyio.Event()

    async def hang() -> None:
        arrived.set()
        await anyio.sleep_forever()

    consumer.web.publish(part(9))
    syncer = consumer.syncer()
    await syncer.sync()
    before, written = state_of(consumer), consumer.ledger.path.read_bytes()
    consumer.web.publish(part(1), part(2), version=2)
    consumer.web.faults[url_of(consumer, part(2)) if at_artifact else URL] = hang
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(syncer.sync)
        await arrived.wait()
        tasks.cancel_scope.cancel()
    assert (state_of(consumer), consumer.ledger.path.read_bytes()) == (before, written)
    assert (syncer.breaker(consumer.record).failures, consumer.reasons()) == (0, [])


async def test_sync_cancelled_once_it_is_kept_is_published(consumer: Consumer) -> None:
    async def cancel() -> None:
        scope.cancel()
        await anyio.lowlevel.checkpoint()

    consumer.web.publish(part())
    consumer.on_publish = cancel
    with anyio.CancelScope() as scope:
        await consumer.syncer().sync()
    assert (consumer.numbers, "manifest.yaml" in consumer.files()) == ({"cache-0": 1}, True)


# A rehearsal


def everything(consumer: Consumer) -> Any:
    files = {path: path.read_bytes() for path in consumer.home.rglob("*") if path.is_file()}
    return files, consumer.offered, consumer.publications


async def test_dry_run_on_an_empty_machine_makes_nothing(consumer: Consumer) -> None:
    consumer.web.publish(part())
    report = await consumer.syncer().sync(dry_run=True)
    assert (report.outcome, report.dry_run, report.fetched) == ("success", True, 1)
    assert str(report) == f"{URL}: shop version 1 would be accepted: 1 entry, 1 artifact fetched"
    assert (list(consumer.home.iterdir()), consumer.offered) == ([], None)


@pytest.mark.parametrize("failure", [None, *FAILURES])
async def test_dry_run_changes_nothing_however_it_ends(consumer: Consumer, failure: str | None) -> None:
    consumer.set(failure_threshold=1)
    consumer.web.publish(part(9))
    syncer = consumer.syncer()
    await syncer.sync()
    consumer.artifact(part(9)).write_bytes(b"damaged")
    before = everything(consumer)
    consumer.web.publish(part(9), part(2), version=2)
    if failure is not None:
        url = url_of(consumer, part(2))
        consumer.web.faults[url] = FAILURES[failure]()
    try:
        outcome = (await syncer.sync(dry_run=True)).outcome
    except (OneiricError, RuntimeError):
        outcome = None
    assert (outcome, everything(consumer)) == ("success" if failure is None else None, before)
    assert syncer.breaker(consumer.record).failures == 0
