"""One synchronisation: all of it or nothing; no work where nothing changed; nothing forgotten, nothing piled up."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from oneiric import Runtime, Slot
from oneiric.core.candidate import Deferred
from oneiric.errors import ConfigError, FetchError, OneiricError, TrustError
from oneiric.remote.offers import SOURCE
from oneiric.remote.sync import Syncer
from oneiric.testing import Workshop, bare_settings
from tests.harness.simulation import without_threads
from tests.remote.consumer import (
    Consumer,
    answering,
    consumer,
    failing,
    number_of,
    offer,
    open_artifacts,
    part,
    unavailable,
)
from tests.remote.publisher import ALICE_KEY, BOB, BOB_KEY, MALLORY, NOW, URL
from tests.remote.wheels import digest, wheel

__all__ = ["consumer"]
pytestmark = pytest.mark.anyio
MIRROR = "https://mirror.example.org/oneiric/manifest.json"


@pytest.fixture(autouse=True)
def _nothing_stays_open(consumer: Consumer) -> Iterator[None]:
    gc.collect()
    others = open_artifacts()  # what other tests in this process still hold
    yield
    consumer.offered = None
    consumer.web.faults.clear()  # an error that was raised holds on to all there was then
    if open_artifacts():
        gc.collect()
    left = [name for name in open_artifacts() if name not in others]
    assert left == [], "an artifact was left open"


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
    last = next(url for url in consumer.web.files if url.endswith(f"{digest(part(2))[-8:]}.whl"))
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
    url = next(url for url in consumer.web.files if url.endswith(f"{digest(contents[failing_one])[-8:]}.whl"))
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


async def test_cancelled_sync_changes_nothing_and_proves_nothing(consumer: Consumer) -> None:
    consumer.web.publish(part(9))
    syncer = consumer.syncer()
    await syncer.sync()
    before, written = state_of(consumer), consumer.ledger.path.read_bytes()
    consumer.web.publish(part(1), version=2)
    for url in list(consumer.web.files):
        consumer.web.faults = {url: anyio.sleep_forever}
        with anyio.move_on_after(0.1) as scope:
            await syncer.sync()
        if scope.cancelled_caught:
            assert (state_of(consumer), consumer.ledger.path.read_bytes()) == (before, written)
    assert (consumer.record.failures, syncer.breaker(consumer.record).failures) == (0, 0)


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
    assert str(report) == f"{URL}: shop version 1 would be accepted: 1 entries, 1 artifacts fetched"
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
        url = next(url for url in consumer.web.files if url.endswith(f"{digest(part(2))[-8:]}.whl"))
        consumer.web.faults[url] = FAILURES[failure]()
    try:
        outcome = (await syncer.sync(dry_run=True)).outcome
    except (OneiricError, RuntimeError):
        outcome = None
    assert (outcome, everything(consumer)) == ("success" if failure is None else None, before)
    assert syncer.breaker(consumer.record).failures == 0


# Where from


@pytest.mark.parametrize("key", [MALLORY, BOB])
async def test_another_url_obeys_the_same_keys(consumer: Consumer, key: Any) -> None:
    consumer.web.publish(part(), url=MIRROR, keys=(key,))
    with pytest.raises(TrustError) as caught:
        await consumer.syncer().sync(MIRROR)
    assert (caught.value.reason, consumer.offered) == ("signature", None)


async def test_another_url_obeys_the_same_floor(consumer: Consumer) -> None:
    consumer.web.publish(part(), version=5)
    consumer.web.publish(part(), version=4, url=MIRROR)
    await consumer.syncer().sync()
    with pytest.raises(TrustError) as caught:
        await consumer.syncer().sync(MIRROR)
    assert caught.value.reason == "rollback"


async def test_sync_without_a_url_says_how_to_name_one(consumer: Consumer) -> None:
    consumer.set(manifest_url=None)
    with pytest.raises(ConfigError, match=r"remote\.manifest_url: is not set") as caught:
        await consumer.syncer().sync()
    assert "--manifest https://" in caught.value.hint


async def test_mirrors_are_asked_in_order_when_the_first_does_not_answer(consumer: Consumer) -> None:
    consumer.set(mirrors=("https://none.example.org/m.json", MIRROR))
    consumer.web.publish(part(), url=MIRROR)
    report = await consumer.syncer().sync()
    asked = [url for url in consumer.web.asked if url.endswith(".json")]
    assert asked == [URL, "https://none.example.org/m.json", MIRROR]
    assert (report.url, consumer.web.asked[-1].startswith("https://mirror.example.org/oneiric/artifacts/")) == (
        MIRROR,
        True,
    )


async def test_mirrors_are_left_alone_while_the_first_answers(consumer: Consumer) -> None:
    consumer.set(mirrors=(MIRROR,))
    consumer.web.publish(part())
    await consumer.syncer().sync()
    assert not [url for url in consumer.web.asked if url.startswith("https://mirror")]


async def test_of_all_failures_that_of_the_first_place_is_reported(consumer: Consumer) -> None:
    consumer.set(mirrors=(MIRROR,))
    consumer.web.faults = {URL: failing(FetchError("dns: no such host", reason="dns"))}
    with pytest.raises(FetchError, match="dns: no such host"):
        await consumer.syncer().sync()


async def test_mirror_is_trusted_no_more_than_the_first_place(consumer: Consumer) -> None:
    consumer.set(mirrors=(MIRROR,))
    consumer.web.publish(part(), url=MIRROR, keys=(MALLORY,))
    with pytest.raises(TrustError):
        await consumer.syncer().sync()


async def test_unchanged_manifest_of_a_mirror_is_unchanged(consumer: Consumer) -> None:
    consumer.set(mirrors=(MIRROR,))
    manifest = consumer.web.publish(part())
    syncer = consumer.syncer()
    await syncer.sync()
    consumer.web.files[MIRROR] = manifest
    consumer.web.faults[URL] = unavailable(404)
    assert (await syncer.sync()).outcome == "unchanged"


async def test_token_goes_to_the_origin_of_the_configured_manifest_alone(consumer: Consumer) -> None:
    same, other = "https://manifests.example.com/other.json", "https://evil.example.net/manifest.json"
    consumer.set(mirrors=(MIRROR,))
    for url in (URL, same, other, MIRROR):
        consumer.web.publish(part(), url=url)
    syncer = consumer.syncer(token=lambda: "canary")
    for url in (None, same, other):
        await syncer.sync(url, dry_run=True)
    consumer.web.faults[URL] = unavailable(404)
    await syncer.sync(dry_run=True)
    seen = {url for url, token in consumer.web.tokens.items() if token is not None}
    assert {url.rpartition("/artifacts")[0] or url for url in seen} == {
        URL,
        same,
        "https://manifests.example.com/oneiric",
        "https://manifests.example.com",
    }


async def test_token_goes_where_the_operator_points_if_no_url_is_configured(consumer: Consumer) -> None:
    consumer.set(manifest_url=None)
    consumer.web.publish(part())
    await consumer.syncer(token=lambda: "canary").sync(URL)
    assert set(consumer.web.tokens.values()) == {"canary"}


# The ledger beside others


async def test_damaged_ledger_is_reported_and_nothing_is_fetched(consumer: Consumer) -> None:
    consumer.web.publish(part())
    await consumer.syncer().sync()
    consumer.ledger.path.write_bytes(b"")
    consumer.web.asked.clear()
    with pytest.raises(TrustError) as caught:
        await consumer.syncer().sync()
    assert (caught.value.reason, consumer.reasons(), consumer.web.asked) == ("state", ["state"], [])


async def meanwhile(consumer: Consumer, syncer: Syncer, other: Callable[[], Any]) -> None:
    """Synchronise; *other* happens between its look at the ledger and the answer to its question."""

    async def answer() -> bytes:
        manifest = consumer.web.files[URL]
        del consumer.web.faults[URL]
        await other()
        return manifest

    consumer.web.faults[URL] = answer
    await syncer.sync()


async def test_failed_sync_does_not_take_back_the_floor_that_another_process_raised(consumer: Consumer) -> None:
    async def accept_another() -> None:
        consumer.web.publish(part(2), version=6)
        await consumer.syncer().sync()
        raise FetchError("http: 404", reason="http", status=404)

    consumer.web.publish(part(1), version=5)
    syncer = consumer.syncer()
    await syncer.sync()
    with pytest.raises(FetchError):
        await meanwhile(consumer, syncer, accept_another)
    record = consumer.record
    assert record.floor is not None
    assert (record.floor.version, record.manifest_version, record.failures) == (6, 6, 1)


async def test_sync_of_an_older_manifest_than_another_process_accepted_meanwhile_is_refused(consumer: Consumer) -> None:
    async def accept_another() -> None:
        consumer.web.publish(part(2), version=6)
        await consumer.syncer().sync()

    old = consumer.syncer()
    consumer.web.publish(part(1), version=5)
    with pytest.raises(TrustError) as caught:
        await meanwhile(consumer, old, accept_another)
    assert (caught.value.reason, consumer.numbers) == ("rollback", {"cache-0": 2})
    assert consumer.files()["manifest.yaml"] == consumer.web.files[URL]


async def test_sync_of_the_manifest_that_another_process_accepted_meanwhile_is_accepted(consumer: Consumer) -> None:
    async def accept_the_same() -> None:
        await consumer.syncer().sync()

    consumer.web.publish(part(1), version=5)
    await meanwhile(consumer, consumer.syncer(), accept_the_same)
    assert (consumer.publications, consumer.record.successes) == (2, 2)


# What goes on being in use

CACHE: Slot[Any] = Slot("adapter", "cache")
LAZY = {
    "shop/__init__.py": "",
    "shop/cache.py": "class Cache:\n    def more(self):\n        from shop.more import number\n        return number\n",
    "shop/more.py": "number = 5\n",
}


async def test_withdrawn_entry_disappears_and_its_slot_swaps_to_the_next_best(
    consumer: Consumer, workshop: Workshop
) -> None:
    async with Runtime.open(bare_settings(), sink=consumer.events, environ={}) as runtime:
        runtime.register(workshop.candidate("local", slot=CACHE, priority=1))
        syncer = consumer.syncer(publish=lambda candidates: offer_to(runtime, candidates))
        consumer.web.publish(part(1), entries=[offer(priority=5)])
        await syncer.sync()
        async with runtime.use(CACHE) as first:
            assert first.number == 1
        consumer.web.publish(version=2, entries=[offer(part(1), key="other")])
        await syncer.sync()
        async with runtime.use(CACHE) as second:
            assert second.provider == "local"
        assert [placing.candidate.provider for placing in runtime.resolve(CACHE).placings] == ["local"]


async def offer_to(runtime: Runtime, candidates: Any) -> None:
    await runtime.offer(SOURCE, candidates)


async def test_new_artifact_replaces_the_instance_made_of_the_old_one(consumer: Consumer) -> None:
    async with Runtime.open(bare_settings(), sink=consumer.events, environ={}) as runtime:
        syncer = consumer.syncer(publish=lambda candidates: offer_to(runtime, candidates))
        seen = []
        for number in (1, 2):
            consumer.web.publish(part(number), entries=[offer(part(number))], version=number)
            await syncer.sync()
            async with runtime.use(CACHE) as cache:
                seen.append(cache.number)
        gc.collect()
        assert (seen, len(open_artifacts())) == ([1, 2], 1)


async def test_instance_in_use_can_import_more_of_an_artifact_that_was_withdrawn(consumer: Consumer) -> None:
    content = wheel(LAZY)
    async with Runtime.open(bare_settings(), sink=consumer.events, environ={}) as runtime:
        syncer = consumer.syncer(publish=lambda candidates: offer_to(runtime, candidates))
        consumer.web.publish(content, entries=[offer(content)])
        await syncer.sync()
        moved = anyio.Event()

        async def after(_notice: object) -> None:
            moved.set()

        runtime.on_swap(CACHE, after=after)
        async with anyio.create_task_group() as tasks, runtime.use(CACHE) as cache:
            consumer.web.publish(part(2), entries=[offer(part(2))], version=2)
            tasks.start_soon(syncer.sync)
            await moved.wait()
            gc.collect()
            assert cache.more() == 5


async def test_slot_that_nobody_offers_any_more_keeps_its_instance(consumer: Consumer) -> None:
    async with Runtime.open(bare_settings(), sink=consumer.events, environ={}) as runtime:
        syncer = consumer.syncer(publish=lambda candidates: offer_to(runtime, candidates))
        consumer.web.publish(part(1), entries=[offer()])
        await syncer.sync()
        async with runtime.use(CACHE):
            pass
        consumer.web.publish(version=2, entries=[offer(part(1), key="other")])
        await syncer.sync()
        async with runtime.use(CACHE) as cache:
            assert cache.number == 1


# Long runs


async def test_thousand_syncs_of_one_manifest_leave_memory_and_registry_flat(consumer: Consumer) -> None:
    consumer.web.publish(*(part(number) for number in range(5)))
    opened = Runtime.open(bare_settings(), sink=lambda *_: None, environ={})
    with without_threads():
        async with opened as runtime:
            syncer = consumer.syncer(
                publish=lambda candidates: offer_to(runtime, candidates), emit=lambda _event, **_fields: None
            )

            async def sync(times: int) -> tuple[int, int]:
                for _ in range(times):
                    await syncer.sync()
                consumer.web.asked.clear()
                consumer.web.tags.clear()
                gc.collect()
                return len(gc.get_objects()), int(Path("/proc/self/statm").read_text().split()[1]) * 4096

            objects, memory = await sync(100)
            then = await sync(900)
            assert (then[0] - objects < 100, then[1] - memory < 2 << 20) == (True, True), (
                f"{objects}, {memory} to {then}"
            )
            assert len(runtime.snapshot().slots) == 5
    assert consumer.record.successes == 1000


async def test_many_different_manifests_leave_modules_and_artifacts_flat(consumer: Consumer) -> None:
    syncer, modules = consumer.syncer(), set[int]()
    for number in range(20):
        consumer.web.publish(part(number), version=number + 1)
        await syncer.sync()
        assert [number_of(candidate) for candidate in consumer.offered or ()] == [number]
        modules.add(len(sys.modules))
    gc.collect()
    assert (len(open_artifacts()), max(modules) - min(modules) < 10) == (1, True)
    consumer.offered = None
