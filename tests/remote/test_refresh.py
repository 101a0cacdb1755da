"""The loop that keeps a daemon up to date: it survives whatever happens, waits as it should and wakes when told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import msgspec
import pytest

from oneiric import Runtime
from oneiric.core.config import AppSettings, Settings
from oneiric.errors import FetchError, ManifestError, OneiricError, TrustError
from oneiric.remote.fetch import Fetched
from oneiric.runtime.delivery import Delivery
from oneiric.testing import bare_settings, virtual_clock
from tests.harness.simulation import without_threads
from tests.harness.slots import settle
from tests.remote.consumer import Consumer, consumer, failing, part, unavailable
from tests.remote.publisher import URL

__all__ = ["consumer"]
pytestmark = pytest.mark.anyio
INTERVAL = 100.0


@pytest.fixture
def anyio_backend() -> object:
    return virtual_clock()


class Refresh:
    """A delivery under way, and when it asked."""

    def __init__(self, consumer: Consumer, delivery: Delivery, runtime: Runtime) -> None:
        self.consumer = consumer
        self.delivery = delivery
        self.runtime = runtime

    async def until(self, seconds: float) -> None:
        """Let time pass, up to *seconds* after the beginning."""
        await anyio.sleep_until(self.began + seconds)
        await settle()

    async def __aenter__(self) -> Refresh:
        self.began = anyio.current_time()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self.delivery.run)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)


def settings_of(consumer: Consumer) -> Settings:
    bare = bare_settings()
    remote = msgspec.structs.replace(consumer.settings, refresh_interval=INTERVAL)
    places = {"cache_dir": str(consumer.home / "cache"), "state_dir": str(consumer.home / "state")}
    app: AppSettings = msgspec.structs.replace(bare.app, remote=remote, **places)
    return msgspec.structs.replace(bare, app=app)


@asynccontextmanager
async def refreshing(consumer: Consumer) -> AsyncIterator[Refresh]:
    opened = Runtime.open(settings_of(consumer), sink=consumer.events, environ={})
    with without_threads():  # in which time would pass
        async with opened as runtime:
            delivery = Delivery(runtime, environ={})
            delivery.syncer = consumer.syncer(
                settings=lambda: runtime.settings.app.remote, emit=runtime.emit, publish=delivery._publish
            )
            yield Refresh(consumer, delivery, runtime)


async def test_refresh_offers_what_the_publisher_signed_last(consumer: Consumer) -> None:
    consumer.web.publish(part(1), version=1)
    async with refreshing(consumer) as refresh, refresh:
        await refresh.until(1)
        first = len(refresh.runtime.snapshot().slots)
        consumer.web.publish(part(1), part(2), version=2)
        await refresh.until(1.2 * INTERVAL)
        assert (first, len(refresh.runtime.snapshot().slots)) == (1, 2)


async def test_refresh_asks_at_every_interval_give_or_take_a_tenth(consumer: Consumer) -> None:
    asked: list[float] = []

    async def note() -> None:
        asked.append(anyio.current_time())

    consumer.web.publish(part())
    consumer.web.faults[URL] = note
    async with refreshing(consumer) as refresh, refresh:
        await refresh.until(50 * INTERVAL)
    waits = [later - earlier for earlier, later in pairwise(asked)]
    assert (min(waits) >= 0.9 * INTERVAL, max(waits) <= 1.1 * INTERVAL) == (True, True)
    assert max(waits) - min(waits) > 0.1 * INTERVAL, "a thousand daemons would ask in step"


# Made anew for each test: an error that was raised holds on to all there was then.
ERRORS: list[Callable[[], Exception]] = [
    lambda: FetchError("http: 404", reason="http", status=404),
    lambda: TrustError("no", reason="signature"),
    lambda: ManifestError("no"),
    lambda: OneiricError("no"),
    lambda: OSError(28, "No space left on device"),
    lambda: RuntimeError("can't start new thread"),
    lambda: MemoryError(),
    lambda: RecursionError("too deep"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    lambda: ExceptionGroup("some", [ValueError("no")]),
    lambda: AssertionError("a bug"),
    lambda: StopAsyncIteration(),
]


@pytest.mark.parametrize("make", ERRORS, ids=lambda make: type(make()).__name__)
async def test_refresh_survives_and_reports_every_exception(consumer: Consumer, make: Callable[[], Exception]) -> None:
    consumer.set(failure_threshold=100)
    consumer.web.publish(part())
    consumer.web.faults[URL] = failing(make())
    async with refreshing(consumer) as refresh, refresh:
        await refresh.until(10.5 * INTERVAL)
        failures = consumer.record.failures
        consumer.web.faults.clear()
        await refresh.until(12 * INTERVAL)
        slots = len(refresh.runtime.snapshot().slots)
    assert (failures >= 9, len(consumer.reasons()), slots) == (True, failures, 1)
    assert "task-failed" not in consumer.events


@pytest.mark.parametrize("where", ["publish", "settings"])
async def test_refresh_survives_what_happens_around_the_fetch(consumer: Consumer, where: str) -> None:
    consumer.web.publish(part())
    async with refreshing(consumer) as refresh:
        syncer = refresh.delivery.syncer
        given = {"settings": lambda: 1 / 0} if where == "settings" else {"publish": failing(ValueError("no"))}
        refresh.delivery.syncer = consumer.syncer(**{"emit": refresh.runtime.emit, **given})
        async with refresh:
            await refresh.until(3 * INTERVAL)
            refresh.delivery.syncer = syncer
            await refresh.until(5 * INTERVAL)
            assert len(refresh.runtime.snapshot().slots) == 1


async def test_refresh_leaves_a_server_alone_that_asks_for_it(consumer: Consumer) -> None:
    consumer.web.publish(part())
    consumer.web.faults[URL] = unavailable(503, retry_after=10 * INTERVAL)
    async with refreshing(consumer) as refresh, refresh:
        await refresh.until(9.5 * INTERVAL)
        assert len(consumer.web.asked) == 1
        await refresh.until(10.5 * INTERVAL)
        assert len(consumer.web.asked) == 2


async def test_refresh_begins_a_round_when_it_is_woken(consumer: Consumer) -> None:
    consumer.web.publish(part())
    async with refreshing(consumer) as refresh, refresh:
        await refresh.until(1)
        refresh.delivery.wake()
        await refresh.until(2)
    assert consumer.web.names().count("manifest.json") == 2


async def test_wake_during_a_round_begins_another_after_it(consumer: Consumer) -> None:
    consumer.web.publish(part())

    async def slow() -> None:
        await anyio.sleep(10)

    consumer.web.faults[URL] = slow
    async with refreshing(consumer) as refresh, refresh:
        await refresh.until(5)
        refresh.delivery.wake()
        await refresh.until(25)
    assert consumer.web.names().count("manifest.json") == 2


async def test_refresh_without_a_url_waits_for_one(consumer: Consumer) -> None:
    consumer.web.publish(part())
    configured = settings_of(consumer)
    consumer.set(manifest_url=None)
    async with refreshing(consumer) as refresh, refresh:
        await refresh.until(3 * INTERVAL)
        before = len(consumer.web.asked)
        await refresh.runtime.apply(configured)
        refresh.delivery.wake()
        await refresh.until(3 * INTERVAL + 1)
        assert (before, len(refresh.runtime.snapshot().slots)) == (0, 1)


async def test_refresh_with_an_open_breaker_tries_again_when_it_is_half_open(consumer: Consumer) -> None:
    consumer.set(failure_threshold=1, reset_timeout=60.0)
    consumer.web.publish(part())
    consumer.web.faults[URL] = unavailable(404)
    async with refreshing(consumer) as refresh, refresh:
        await refresh.until(1.5 * INTERVAL)
        asked = len(consumer.web.asked)
        consumer.web.faults.clear()
        consumer.later(seconds=61)
        await refresh.until(2.5 * INTERVAL)
        assert (asked, len(refresh.runtime.snapshot().slots)) == (1, 1)


async def test_restore_reports_whatever_goes_wrong_and_lets_the_daemon_start(consumer: Consumer) -> None:
    consumer.web.publish(part())
    await consumer.syncer().sync()
    async with refreshing(consumer) as refresh:

        def fail(_settings: Any) -> Any:
            raise RecursionError("too deep")

        refresh.delivery.syncer = consumer.syncer(emit=refresh.runtime.emit, policy=fail)
        await refresh.delivery.restore()
    (reported,) = consumer.events.named("remote-restore-failed")
    assert reported == {"source": "remote", "error": "RecursionError: too deep", "reason": "internal"}


def test_fetched_content_is_not_in_a_traceback() -> None:
    assert "secret" not in repr(Fetched(b"secret", None, "https://example.com?token=secret"))
