"""Failures that pass: asked again, then left alone for a while, on a clock that jumps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from oneiric.core.breaker import BreakerState
from oneiric.errors import FetchError, OneiricError, TrustError
from oneiric.remote.ledger import Record
from oneiric.remote.sync import Syncer
from oneiric.remote.telling import BREAKER_OPEN
from oneiric.testing import virtual_clock
from tests.harness.simulation import without_threads
from tests.remote.consumer import Consumer, Fault, consumer, failing, part, unavailable
from tests.remote.publisher import MALLORY, URL
from tests.remote.wheels import digest

__all__ = ["consumer"]
pytestmark = pytest.mark.anyio
THRESHOLD = 3


@pytest.fixture
def anyio_backend() -> object:
    return virtual_clock()


@pytest.fixture(autouse=True)
def _no_thread_takes_time() -> Iterator[None]:
    with without_threads():
        yield


def times(number: int, fault: Fault, consumer: Consumer, url: str = URL) -> None:
    """Have *fault* happen at *url* the first *number* times."""
    left = [fault] * number

    async def fail_or_answer() -> object:
        return await left.pop()() if left else None

    consumer.web.faults[url] = fail_or_answer


async def taken(syncer: Syncer) -> float:
    """Synchronise, however it ends; return the seconds it took."""
    started = anyio.current_time()
    with suppress(OneiricError):
        await syncer.sync()
    return anyio.current_time() - started


# Asked again


@pytest.mark.parametrize(
    "how",
    [
        {"message": "timeout: nothing heard", "reason": "timeout"},
        {"message": "connection: refused", "reason": "connection"},
        {"message": "dns: no such host", "reason": "dns"},
        {"message": "http: 500", "reason": "http", "status": 500},
        {"message": "http: 503", "reason": "http", "status": 503},
        {"message": "http: 429", "reason": "http", "status": 429},
    ],
    ids=lambda how: how["message"],
)
async def test_failure_that_may_pass_is_asked_again_twice(consumer: Consumer, how: dict[str, Any]) -> None:
    consumer.web.publish(part())
    times(2, failing(FetchError(**how)), consumer)
    assert (await consumer.syncer().sync()).outcome == "success"
    assert consumer.web.asked.count(URL) == 3
    times(3, failing(FetchError(**how)), consumer)
    with pytest.raises(FetchError):
        await consumer.syncer().sync()


@pytest.mark.parametrize(
    "how",
    [
        {"message": "tls: unknown authority", "reason": "tls"},
        {"message": "http: 404", "reason": "http", "status": 404},
        {"message": "http: 403", "reason": "http", "status": 403},
        {"message": "size: too large", "reason": "size"},
        {"message": "redirect: elsewhere", "reason": "redirect"},
        {"message": "policy: not allowed", "reason": "policy"},
        {"message": "file: none", "reason": "file"},
    ],
    ids=lambda how: how["message"],
)
async def test_failure_that_stays_is_asked_once_and_counts_one(consumer: Consumer, how: dict[str, Any]) -> None:
    consumer.web.faults[URL] = failing(FetchError(**how))
    syncer = consumer.syncer()
    assert await taken(syncer) == 0
    assert (consumer.web.asked, syncer.breaker(consumer.record).failures) == ([URL], 1)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 0.0), (0.5, 0.75), (1.0, 1.5)])
async def test_wait_before_asking_again_is_drawn_below_a_bound_that_doubles(
    consumer: Consumer, chance: float, seconds: float
) -> None:
    consumer.web.faults[URL] = unavailable(500)
    consumer.chance = chance
    assert await taken(consumer.syncer()) == pytest.approx(seconds)


async def test_server_that_names_the_wait_is_given_it(consumer: Consumer) -> None:
    consumer.web.publish(part())
    times(1, unavailable(503, retry_after=20.0), consumer)
    assert await taken(consumer.syncer()) == pytest.approx(20)


async def test_server_that_wants_to_be_left_alone_longer_is_not_waited_for(consumer: Consumer) -> None:
    consumer.web.faults[URL] = unavailable(503, retry_after=3600.0)
    with pytest.raises(FetchError) as caught:
        await consumer.syncer().sync()
    assert (caught.value.retry_after, consumer.web.asked) == (3600.0, [URL])


async def test_artifact_is_asked_for_again_too(consumer: Consumer) -> None:
    consumer.web.publish(part())
    url = next(url for url in consumer.web.files if url != URL)
    times(2, unavailable(502), consumer, url)
    await consumer.syncer().sync()
    assert consumer.web.asked.count(url) == 3


async def test_wrong_artifact_is_not_asked_for_again(consumer: Consumer) -> None:
    consumer.web.publish(part())
    url = next(url for url in consumer.web.files if url != URL)
    consumer.web.files[url] = b"evil"
    with pytest.raises(TrustError):
        await consumer.syncer().sync()
    assert consumer.web.asked.count(url) == 1


# Left alone


async def fail(syncer: Syncer, number: int = 1) -> None:
    for _ in range(number):
        with pytest.raises(OneiricError):
            await syncer.sync()


@pytest.fixture
def broken(consumer: Consumer) -> Consumer:
    """A machine whose publisher does not answer; a reset takes a minute."""
    consumer.set(failure_threshold=THRESHOLD, reset_timeout=60.0)
    consumer.web.publish(part())
    consumer.web.faults[URL] = unavailable(404)
    return consumer


async def test_breaker_opens_after_the_threshold_and_says_so(broken: Consumer) -> None:
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD - 1)
    assert broken.events.named("circuit-breaker-changed") == []
    await fail(syncer)
    assert broken.events.named("circuit-breaker-changed") == [
        {"source": "remote", "state": "open", "previous": "closed", "error": BREAKER_OPEN}
    ]
    states = [fields["circuit_breaker"] for fields in broken.events.named("remote-sync-error")]
    failures = [fields["consecutive_failures"] for fields in broken.events.named("remote-sync-error")]
    assert (states, failures) == (["closed", "closed", "open"], [1, 2, 3])


async def test_sync_is_skipped_while_the_breaker_is_open(broken: Consumer) -> None:
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD)
    broken.web.asked.clear()
    written = broken.ledger.path.read_bytes()
    broken.later(seconds=20)
    report = await syncer.sync()
    assert (report.outcome, str(report)) == (
        "skipped",
        f"{URL}: skipped: the circuit breaker is open for 40 s more",
    )
    assert (broken.web.asked, broken.ledger.path.read_bytes()) == ([], written)


async def test_refused_manifest_counts_for_the_breaker(broken: Consumer) -> None:
    broken.web.faults.clear()
    broken.web.publish(part(), keys=(MALLORY,))
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD)
    assert (await syncer.sync()).outcome == "skipped"


async def test_force_passes_an_open_breaker_and_closes_it(broken: Consumer) -> None:
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD)
    with pytest.raises(FetchError):
        await syncer.sync(force=True)
    broken.web.faults.clear()
    assert (await syncer.sync(force=True)).outcome == "success"
    assert (await syncer.sync()).outcome == "unchanged"


async def test_rehearsal_passes_an_open_breaker_and_leaves_it_open(broken: Consumer) -> None:
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD)
    broken.web.faults.clear()
    assert (await syncer.sync(dry_run=True)).outcome == "success"
    assert (await syncer.sync()).outcome == "skipped"


async def at_once(syncer: Syncer, number: int) -> Counter[str]:
    """Have *number* synchronise at once; return how they ended."""
    ends: Counter[str] = Counter()

    async def sync() -> None:
        try:
            ends[(await syncer.sync()).outcome] += 1
        except OneiricError:
            ends["failed"] += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(sync)
    return ends


async def test_half_open_breaker_lets_exactly_one_of_a_hundred_through(broken: Consumer) -> None:
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD)
    broken.later(seconds=60)
    broken.web.asked.clear()
    assert (await at_once(syncer, 100), broken.web.asked) == (Counter(skipped=99, failed=1), [URL])
    assert broken.events.named("circuit-breaker-changed")[-1]["state"] == "open"


async def test_half_open_breaker_closes_with_one_success(broken: Consumer) -> None:
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD)
    broken.later(seconds=60)
    broken.web.faults.clear()
    assert await at_once(syncer, 10) == Counter(unchanged=9, success=1)
    assert broken.events.named("circuit-breaker-changed")[-1] == {
        "source": "remote",
        "state": "closed",
        "previous": "half-open",
        "error": "",
    }
    assert broken.record.consecutive_failures == 0


async def test_cancelled_probe_proves_nothing_and_lets_the_next_one_go(broken: Consumer) -> None:
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD)
    broken.later(seconds=60)
    broken.web.faults[URL] = anyio.sleep_forever
    with anyio.move_on_after(1):
        await syncer.sync()
    assert syncer.breaker(broken.record).state(broken.now) is BreakerState.HALF_OPEN
    broken.web.faults.clear()
    assert (await syncer.sync()).outcome == "success"


async def test_look_at_the_breaker_during_a_sync_takes_nothing_back(broken: Consumer) -> None:
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD)
    broken.later(seconds=60)
    seen = []

    async def look() -> None:
        seen.append(syncer.breaker(broken.record).is_probing)
        raise FetchError("http: 404", reason="http", status=404)

    broken.web.faults[URL] = look
    await fail(syncer)
    assert (seen, syncer.breaker(broken.record).is_probing) == ([True], False)


async def test_look_at_the_breaker_is_not_remembered(broken: Consumer) -> None:
    await fail(broken.syncer(), THRESHOLD)
    restarted = broken.syncer()
    assert restarted.breaker(broken.record).failures == THRESHOLD
    assert restarted.breaker(Record()).failures == 0


async def test_restart_keeps_the_counts_and_lets_one_try_at_once(broken: Consumer) -> None:
    await fail(broken.syncer(), THRESHOLD)
    restarted = broken.syncer()
    assert broken.record.consecutive_failures == THRESHOLD
    await fail(restarted)
    assert ((await restarted.sync()).outcome, broken.record.consecutive_failures) == ("skipped", THRESHOLD + 1)


async def test_changed_settings_apply_to_a_breaker_that_is_open(broken: Consumer) -> None:
    syncer = broken.syncer()
    await fail(syncer, THRESHOLD)
    broken.set(failure_threshold=10)
    await fail(syncer)


async def test_one_sync_runs_at_a_time(consumer: Consumer) -> None:
    consumer.web.publish(part())
    running, most = 0, 0

    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(1)
        running -= 1

    consumer.web.faults[URL] = count
    await at_once(consumer.syncer(), 10)
    assert (most, consumer.publications, digest(part()) in str(consumer.events.all)) == (1, 1, True)
