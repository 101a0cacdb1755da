"""What rounds say in the log: for whom they count, who signed, and what a round on another URL leaves alone."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from oneiric.core.breaker import BreakerState
from oneiric.errors import FetchError, ManifestError, OneiricError, TrustError
from oneiric.remote.sync import Syncer
from oneiric.remote.telling import listed_ids, source_of
from tests.remote.consumer import Consumer, consumer, part, unavailable
from tests.remote.publisher import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    MALLORY,
    MALLORY_KEY,
    URL,
    document,
    packed,
    signed,
)

__all__ = ["consumer"]
pytestmark = pytest.mark.anyio
MIRROR = "https://mirror.example.org/oneiric/manifest.json"
OTHER = "https://elsewhere.example.net/manifest.json"
SUCCESS, FAILURE = "signature-check-success", "signature-verification-failed"


# For whom a round counts


@pytest.mark.parametrize(
    ("url", "configured", "source"),
    [
        (URL, (URL,), "remote"),
        (MIRROR, (URL, MIRROR), "remote"),
        (OTHER, (URL, MIRROR), "adhoc"),
        (URL, (), "adhoc"),
        (f"{URL}?x=1", (URL,), "adhoc"),
    ],
)
def test_source_of_a_round_is_what_is_configured_or_adhoc(url: str, configured: tuple[str, ...], source: str) -> None:
    assert source_of(url, configured=configured) == source


def sources(consumer: Consumer) -> set[str]:
    """Return the sources that events named, and forget the events."""
    found = {fields["source"] for _, fields in consumer.events.all if "source" in fields}
    consumer.events.all.clear()
    return found


async def sync(syncer: Syncer, url: str | None = None, **how: Any) -> str:
    """Synchronise; return how it ended."""
    try:
        return (await syncer.sync(url, **how)).outcome
    except OneiricError:
        return "failed"


async def test_every_event_of_a_round_names_its_source(consumer: Consumer) -> None:
    consumer.set(mirrors=(MIRROR,), failure_threshold=1)
    found = []
    for url in (URL, MIRROR, OTHER):
        consumer.home = consumer.home / "next"
        syncer = consumer.syncer()
        consumer.web.publish(part(), url=url)
        ends = [await sync(syncer, url), await sync(syncer, url)]
        consumer.web.publish(part(), version=2, url=url, keys=(MALLORY,))
        found.append([*ends, await sync(syncer, url), sources(consumer)])
    expected = ["success", "unchanged", "failed"]
    assert found == [[*expected, {"remote"}], [*expected, {"remote"}], [*expected, {"adhoc"}]]


async def test_place_is_the_configured_one_however_its_path_is_spelled(
    consumer: Consumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    consumer.set(manifest_url="release/manifest.json")
    for url in (
        "release/manifest.json",
        f"{tmp_path}/release/manifest.json",
        f"file://{tmp_path}/release/manifest.json",
    ):
        await sync(consumer.syncer(), url)
    assert (sources(consumer), consumer.record.consecutive_failures) == ({"remote"}, 3)


async def test_place_that_names_no_file_of_ours_is_a_failure_like_any_other(consumer: Consumer) -> None:
    consumer.set(mirrors=("file://host/manifest.json",))
    consumer.web.publish(part())
    syncer = consumer.syncer()
    assert [await sync(syncer), await sync(syncer, "file://other/manifest.json")] == ["success", "failed"]
    assert len(consumer.events.named("remote-sync-error")) == 1


async def test_round_without_any_configured_url_is_adhoc_and_has_the_breaker(consumer: Consumer) -> None:
    consumer.set(manifest_url=None, failure_threshold=1)
    syncer = consumer.syncer()
    ends = [await sync(syncer, OTHER), await sync(syncer, OTHER)]
    assert (ends, consumer.record.consecutive_failures, sources(consumer)) == (["failed", "skipped"], 1, {"adhoc"})


# What a round on another URL leaves alone


@pytest.fixture
async def broken(consumer: Consumer) -> tuple[Consumer, Syncer]:
    """A machine whose publisher failed until the breaker opened; elsewhere, there is a manifest that is in order."""
    consumer.set(failure_threshold=2, reset_timeout=600.0)
    consumer.web.faults[URL] = unavailable(404)
    consumer.web.publish(part(), url=OTHER)
    syncer = consumer.syncer()
    for _ in range(2):
        assert await sync(syncer) == "failed"
    consumer.events.all.clear()
    return consumer, syncer


def failures_of(consumer: Consumer, syncer: Syncer) -> tuple[int, BreakerState, str]:
    record = consumer.record
    return record.consecutive_failures, syncer.breaker(record).state(consumer.now), record.last_error


async def test_success_elsewhere_resets_nothing_of_the_configured_source(broken: tuple[Consumer, Syncer]) -> None:
    consumer, syncer = broken
    before = failures_of(consumer, syncer)
    assert (await sync(syncer, OTHER), before[:2]) == ("success", (2, BreakerState.OPEN))
    assert failures_of(consumer, syncer) == before
    assert (await sync(syncer), "circuit-breaker-changed" in consumer.events) == ("skipped", False)


async def test_failure_elsewhere_counts_nothing_against_the_configured_source(consumer: Consumer) -> None:
    consumer.set(failure_threshold=1)
    consumer.web.publish(part())
    syncer = consumer.syncer()
    ends = [await sync(syncer, OTHER), await sync(syncer, OTHER), await sync(syncer)]
    failed = [
        (fields["consecutive_failures"], fields["circuit_breaker"])
        for fields in consumer.events.named("remote-sync-error")
    ]
    assert (ends, failed, consumer.record.failures) == (["failed", "failed", "success"], [(0, "closed")] * 2, 2)


async def test_failure_elsewhere_leaves_an_open_breaker_as_it_was(broken: tuple[Consumer, Syncer]) -> None:
    consumer, syncer = broken
    before = failures_of(consumer, syncer)[:2]
    consumer.web.files.clear()
    assert (await sync(syncer, OTHER), failures_of(consumer, syncer)[:2]) == ("failed", before)
    assert consumer.record.failures == 3


@pytest.mark.parametrize("url", [None, URL, MIRROR])
async def test_success_of_the_configured_source_by_hand_resets_its_failures(
    broken: tuple[Consumer, Syncer], url: str | None
) -> None:
    consumer, syncer = broken
    consumer.set(mirrors=(MIRROR,))
    consumer.web.faults.clear()
    for place in (URL, MIRROR):
        consumer.web.publish(part(), url=place)
    assert await sync(syncer, url, force=True) == "success"
    assert failures_of(consumer, syncer) == (0, BreakerState.CLOSED, "")


async def test_failures_survive_a_round_elsewhere_and_a_restart(broken: tuple[Consumer, Syncer]) -> None:
    consumer, syncer = broken
    await sync(syncer, OTHER)
    assert consumer.syncer().breaker(consumer.record).failures == 2


# Who signed


def key_ids(consumer: Consumer, event: str) -> list[str]:
    return [fields["key_id"] for fields in consumer.events.named(event)]


async def test_manifest_whose_signatures_were_verified_is_told_once(consumer: Consumer) -> None:
    consumer.set(public_keys=(BOB_KEY.raw.hex(),), signature_threshold=2)
    consumer.web.publish(part(), keys=(ALICE, BOB))
    syncer = consumer.syncer()
    await syncer.sync()
    assert key_ids(consumer, SUCCESS) == [f"{ALICE_KEY.id},{BOB_KEY.id}"]
    await syncer.sync()
    assert len(key_ids(consumer, SUCCESS)) == 1, "what is unchanged was not verified again"


@pytest.mark.parametrize(
    "changed",
    [{"expires_at": "2030-01-15T11:59:00Z"}, {"version": 1}, {"entries": [{"domain": "adapter"}]}],
    ids=["expired", "older", "malformed"],
)
async def test_manifest_that_is_signed_as_it_must_be_and_refused_for_more_is_told_too(
    consumer: Consumer, changed: dict[str, Any]
) -> None:
    consumer.set(min_version=2)
    consumer.web.publish(part(), **{"version": 2, **changed})
    with pytest.raises(ManifestError):
        await consumer.syncer().sync()
    assert (key_ids(consumer, SUCCESS), key_ids(consumer, FAILURE)) == ([ALICE_KEY.id], [])


async def test_signatures_of_each_manifest_of_a_round_are_told(consumer: Consumer) -> None:
    consumer.set(mirrors=(MIRROR,))
    consumer.web.publish(part(), keys=(MALLORY,))
    consumer.web.publish(part(), url=MIRROR)
    await consumer.syncer().sync()
    assert (key_ids(consumer, SUCCESS), key_ids(consumer, FAILURE)) == ([ALICE_KEY.id], [MALLORY_KEY.id])


async def test_manifest_that_need_not_be_signed_and_is_not_is_no_success(consumer: Consumer) -> None:
    consumer.set(require_signature=False)
    consumer.web.publish(part(), keys=())
    assert (await sync(consumer.syncer()), key_ids(consumer, SUCCESS)) == ("success", [])


@pytest.mark.parametrize("key", [ALICE, MALLORY])
async def test_rehearsal_tells_nothing_of_signatures(consumer: Consumer, key: Any) -> None:
    consumer.web.publish(part(), keys=(key,))
    await sync(consumer.syncer(), dry_run=True)
    assert [name for name in consumer.events.names if name in (SUCCESS, FAILURE)] == []


@pytest.mark.parametrize("keys", [(MALLORY,), (MALLORY, BOB)])
async def test_failed_verification_names_the_keys_that_the_manifest_claims(
    consumer: Consumer, keys: tuple[Any, ...]
) -> None:
    consumer.web.publish(part(), keys=keys)
    with pytest.raises(TrustError):
        await consumer.syncer().sync()
    assert key_ids(consumer, FAILURE) == [",".join([MALLORY_KEY.id, BOB_KEY.id][: len(keys)])]


async def test_failed_verification_names_the_keys_below_the_threshold(consumer: Consumer) -> None:
    consumer.set(public_keys=(BOB_KEY.raw.hex(),), signature_threshold=2)
    consumer.web.publish(part())
    with pytest.raises(TrustError) as caught:
        await consumer.syncer().sync()
    assert (caught.value.reason, key_ids(consumer, FAILURE)) == ("threshold", [ALICE_KEY.id])


async def test_failed_verification_of_what_claims_no_key_names_none(consumer: Consumer) -> None:
    consumer.web.publish(part(), keys=())
    await sync(consumer.syncer())
    assert key_ids(consumer, FAILURE) == [""]


async def test_claimed_key_ids_are_bounded_and_one_word(consumer: Consumer) -> None:
    text = base64.b64encode(bytes(64)).decode()
    claims = [{"signature": text, "key_id": f"{number}\n,\u202e" + "x" * 10_000} for number in range(16)]
    consumer.web.files[URL] = packed({**signed(document()), "signatures": claims})
    await sync(consumer.syncer())
    (told,) = key_ids(consumer, FAILURE)
    assert (len(told.split(",")), len(told) <= 16 * 65, told.isascii(), told.isprintable()) == (16, True, True, True)


def test_listed_key_ids_are_each_named_once() -> None:
    assert listed_ids(["a", "", "b", "a"]) == "a,b"


async def test_fetch_that_fails_says_nothing_of_signatures(consumer: Consumer) -> None:
    with pytest.raises(FetchError):
        await consumer.syncer().sync()
    assert [name for name in consumer.events.names if name in (SUCCESS, FAILURE)] == []
