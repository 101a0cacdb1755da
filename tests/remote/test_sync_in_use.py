"""What is in use while manifests come and go: slots follow, instances live on, and nothing piles up."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from oneiric import Runtime, Slot
from oneiric.remote.offers import SOURCE
from oneiric.testing import Workshop, bare_settings
from tests.harness.simulation import without_threads
from tests.remote.consumer import (
    Consumer,
    consumer,
    number_of,
    offer,
    open_artifacts,
    part,
)
from tests.remote.wheels import wheel

__all__ = ["consumer"]
pytestmark = pytest.mark.anyio


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


async def test_sync_is_answered_once_the_swaps_committed_and_waits_for_no_lease(consumer: Consumer) -> None:
    async with Runtime.open(bare_settings(), sink=consumer.events, environ={}) as runtime:
        syncer = consumer.syncer(publish=lambda candidates: offer_to(runtime, candidates))
        consumer.web.publish(part(1), entries=[offer(part(1))])
        await syncer.sync()
        async with runtime.use(CACHE) as old:
            consumer.web.publish(part(2), entries=[offer(part(2))], version=2)
            with anyio.fail_after(runtime.settings.app.lifecycle.drain_timeout / 2):
                await syncer.sync()
            async with runtime.use(CACHE) as new:
                assert (old.number, new.number, len(consumer.events.named("cleanup-complete"))) == (1, 2, 0)


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
