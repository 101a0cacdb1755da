"""What no manifest names any more leaves the cache by itself, one manifest later, and never at the cost of a sync."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oneiric.remote import kept
from oneiric.remote.cache import Cache
from tests.remote.consumer import Consumer, answering, consumer, offer, part, unavailable
from tests.remote.publisher import URL

__all__ = ["consumer"]
pytestmark = pytest.mark.anyio


def cached(consumer: Consumer) -> list[int]:
    """Return the numbers of the parts that are in the cache."""
    names = consumer.cache.names()
    return [number for number in range(10) if consumer.artifact(part(number)).name in names]


async def accept(consumer: Consumer, syncer: Any, version: int, *numbers: int) -> Any:
    consumer.web.publish(*map(part, numbers), version=version)
    return await syncer.sync()


async def test_artifact_leaves_the_cache_when_two_manifests_in_a_row_do_not_name_it(consumer: Consumer) -> None:
    syncer, seen = consumer.syncer(), []
    for version in (1, 2, 3, 4):
        await accept(consumer, syncer, version, version)
        seen.append(cached(consumer))
    assert seen == [[1], [1, 2], [2, 3], [3, 4]]


async def test_artifact_leaves_the_cache_although_every_manifest_meets_another_process(consumer: Consumer) -> None:
    for version in (1, 2, 3):
        await accept(consumer, consumer.syncer(), version, version)
    assert cached(consumer) == [2, 3]


async def test_content_of_the_manifest_before_is_found_by_the_one_that_goes_back_to_it(consumer: Consumer) -> None:
    syncer = consumer.syncer()
    for version, number in ((1, 1), (2, 2)):
        await accept(consumer, syncer, version, number)
    assert ((await accept(consumer, syncer, 3, 1)).fetched, consumer.numbers) == (0, {"cache-0": 1})


@pytest.mark.parametrize("restarted", [False, True])
async def test_same_manifest_again_takes_nothing_of_the_one_before(consumer: Consumer, restarted: bool) -> None:
    syncer = consumer.syncer()
    for version in (1, 2, 2, 2):
        await accept(consumer, consumer.syncer() if restarted else syncer, version, version)
    assert cached(consumer) == [1, 2]


async def test_what_was_pruned_leaves_the_manifest_in_force_unchanged(consumer: Consumer) -> None:
    syncer = consumer.syncer()
    for version in (1, 2, 3):
        await accept(consumer, syncer, version, version)
    assert (await syncer.sync()).outcome == "unchanged"


async def test_what_lay_there_without_a_name_is_removed_too(consumer: Consumer) -> None:
    syncer = consumer.syncer()
    await accept(consumer, syncer, 1, 1)
    consumer.cache.write_artifact(consumer.artifact(part(9)).name, part(9))
    await accept(consumer, syncer, 2, 2)
    assert cached(consumer) == [1, 2]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{")], ids=["gone", "unreadable"])
async def test_nothing_is_removed_where_the_manifest_before_is_not_known(consumer: Consumer, damage: Any) -> None:
    await accept(consumer, consumer.syncer(), 1, 1)
    damage(consumer.home / "cache" / "manifest.yaml")
    await accept(consumer, consumer.syncer(), 2, 2)
    assert cached(consumer) == [1, 2]


async def test_refused_manifest_and_a_rehearsal_remove_nothing(consumer: Consumer) -> None:
    syncer = consumer.syncer()
    for version in (1, 2):
        await accept(consumer, syncer, version, version)
    consumer.web.publish(part(3), version=3)
    await syncer.sync(dry_run=True)
    consumer.web.faults[URL] = unavailable(404)
    with pytest.raises(Exception, match="404"):
        await syncer.sync()
    assert cached(consumer) == [1, 2]


async def test_no_more_than_the_bound_is_removed_after_one_manifest(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "PRUNED", 2)
    syncer = consumer.syncer()
    await accept(consumer, syncer, 1, 1)
    for number in range(5, 9):
        consumer.cache.write_artifact(consumer.artifact(part(number)).name, part(number))
    left = []
    for version in (2, 3):
        await accept(consumer, syncer, version, 1)
        left.append(len(cached(consumer)))
    assert left == [3, 1]


async def test_old_artifacts_stay_while_another_process_collects(consumer: Consumer) -> None:
    syncer = consumer.syncer()
    for version in (1, 2):
        await accept(consumer, syncer, version, version)
    with consumer.cache.collecting():
        report = await accept(consumer, syncer, 3, 3)
    assert (cached(consumer), report.warnings) == ([1, 2, 3], ())
    await accept(consumer, syncer, 4, 4)
    assert cached(consumer) == [3, 4]


async def test_artifacts_that_another_process_has_collected_are_there_when_it_keeps_its_manifest(
    consumer: Consumer,
) -> None:
    syncer, other = consumer.syncer(), consumer.syncer()
    for version in (1, 2):
        await accept(consumer, syncer, version, version)
    late = consumer.web.publish(
        part(1), part(4), version=4
    )  # part(1) is cached, and the next manifest needs it no more

    async def overtake() -> None:
        del consumer.web.faults[last]
        consumer.web.publish(part(3), version=3)
        await other.sync()

    last = next(url for url in consumer.web.files if url.endswith(f"{consumer.artifact(part(4)).name[13:]}"))
    consumer.web.faults[last] = overtake
    consumer.web.faults[URL] = answering(late)
    original = consumer.web.faults[URL]

    async def once() -> Any:
        consumer.web.faults.pop(URL)
        return await original()

    consumer.web.faults[URL] = once
    await syncer.sync()
    assert {1, 4} <= set(cached(consumer))
    assert await consumer.syncer().restore() is not None


@contextmanager
def held(cache: Cache) -> Iterator[None]:
    """Hold the cache's lock, as another process that writes does."""
    descriptor = os.open(cache.directory / "lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def test_sync_succeeds_and_warns_when_the_lock_for_pruning_is_not_to_be_had(consumer: Consumer) -> None:
    syncer = consumer.syncer()
    for version in (1, 2):
        await accept(consumer, syncer, version, version)
    locked = held(consumer.cache)

    async def another_begins_to_write() -> None:
        locked.__enter__()

    consumer.on_publish = another_begins_to_write
    try:
        report = await accept(consumer, syncer, 3, 3)
    finally:
        locked.__exit__(None, None, None)
        consumer.on_publish = None
    (warning,) = report.warnings
    assert (report.outcome, cached(consumer), consumer.record.failures) == ("success", [1, 2, 3], 0)
    assert warning.startswith("artifacts that nothing names stay in the cache: ")
    assert (await syncer.sync()).outcome == "unchanged"


async def test_manifest_without_artifacts_makes_no_directory_for_them(consumer: Consumer) -> None:
    consumer.set(allowed_factories=("tests.remote.consumer",))
    entry = offer(factory="tests.remote.consumer:Web", uri=None, sha256=None, length=None)
    consumer.web.publish(entries=[entry])
    await consumer.syncer().sync()
    assert not (consumer.home / "cache" / "artifacts").exists()
