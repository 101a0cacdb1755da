"""Where a manifest comes from: mirrors, other places, tokens; and who else synchronises at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import pytest

from oneiric.errors import ConfigError, FetchError, TrustError
from oneiric.remote.fetch import NotModified
from oneiric.remote.sync import Syncer
from tests.remote.consumer import (
    Consumer,
    consumer,
    failing,
    part,
    unavailable,
)
from tests.remote.publisher import BOB, BOB_KEY, MALLORY, MALLORY_KEY, URL
from tests.remote.wheels import digest

__all__ = ["consumer"]
pytestmark = pytest.mark.anyio
MIRROR = "https://mirror.example.org/oneiric/manifest.json"
SECOND = "https://second.example.org/oneiric/manifest.json"


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
    with pytest.raises(FetchError, match="404"):
        await consumer.syncer().sync()
    assert (consumer.offered, len(consumer.events.named("signature-verification-failed"))) == (None, 1)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "signed by a stranger": ({"keys": (MALLORY,), "version": 9}, "signature"),
    "unsigned": ({"keys": (), "version": 9}, "unsigned"),
    "expired": ({"version": 9, "expires_at": "2030-01-15T11:59:00Z"}, "expired"),
    "older": ({"version": 4}, "rollback"),
    "without a version": ({"version": None}, "unversioned"),
    "another one under the same number": ({"version": 5, "source": "other"}, "equivocation"),
    "malformed": ({"version": 9, "entries": [{"domain": "adapter"}]}, "entry"),
}


@pytest.mark.parametrize("how", REFUSED)
async def test_mirror_serves_when_what_the_first_place_has_is_refused(consumer: Consumer, how: str) -> None:
    changed, reason = REFUSED[how]
    consumer.web.publish(part(1), version=5)
    syncer = consumer.syncer()
    await syncer.sync()
    consumer.set(mirrors=(MIRROR,))
    consumer.web.publish(part(9), **changed)
    consumer.web.publish(part(2), version=6, url=MIRROR)
    report = await syncer.sync()
    assert (report.outcome, report.url, consumer.numbers) == ("success", MIRROR, {"cache-0": 2})
    (warning,) = report.warnings
    assert warning.startswith(f"{URL} did not serve: {reason}: ")


async def test_of_all_refusals_that_of_the_first_place_is_raised_and_every_signature_reported(
    consumer: Consumer,
) -> None:
    consumer.set(mirrors=(MIRROR, SECOND))
    consumer.web.publish(part(), keys=())
    for url, key in ((MIRROR, MALLORY), (SECOND, BOB)):
        consumer.web.publish(part(), url=url, keys=(key,))
    with pytest.raises(TrustError) as caught:
        await consumer.syncer().sync()
    reported = [fields["key_id"] for fields in consumer.events.named("signature-verification-failed")]
    assert (caught.value.reason, reported) == ("unsigned", ["", MALLORY_KEY.id, BOB_KEY.id])
    assert (consumer.reasons(), consumer.record.consecutive_failures) == (["unsigned"], 1)


async def test_refusals_by_every_place_are_one_failure_for_the_breaker(consumer: Consumer) -> None:
    consumer.set(mirrors=(MIRROR,), failure_threshold=2)
    for url in (URL, MIRROR):
        consumer.web.publish(part(), url=url, keys=(MALLORY,))
    syncer = consumer.syncer()
    with pytest.raises(TrustError):
        await syncer.sync()
    assert syncer.breaker(consumer.record).failures == 1


# What a mirror can do that silence cannot: nothing


def keep_quiet(consumer: Consumer, manifest: bytes) -> None:
    """Answer nothing."""


def replay(consumer: Consumer, manifest: bytes) -> None:
    consumer.web.files[MIRROR] = manifest


def claim_that_nothing_changed(consumer: Consumer, manifest: bytes) -> None:
    consumer.web.faults[MIRROR] = not_modified


async def not_modified() -> NotModified:
    return NotModified(MIRROR)


def withhold_the_artifact(consumer: Consumer, manifest: bytes) -> None:
    consumer.web.files[MIRROR] = consumer.web.files[SECOND]


def change_the_artifact(consumer: Consumer, manifest: bytes) -> None:
    withhold_the_artifact(consumer, manifest)
    name = f"{digest(part(2))[-8:]}.whl"
    consumer.web.files[urljoin(MIRROR, f"artifacts/{name}")] = b"evil"


def forge(consumer: Consumer, manifest: bytes) -> None:
    consumer.web.publish(part(9), version=9, url=MIRROR, keys=(MALLORY,))


def talk_without_end(consumer: Consumer, manifest: bytes) -> None:
    consumer.web.files[MIRROR] = b"x" * (consumer.settings.max_manifest_bytes + 1)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "attack",
    [
        keep_quiet,
        replay,
        claim_that_nothing_changed,
        withhold_the_artifact,
        change_the_artifact,
        forge,
        talk_without_end,
    ],
)
async def test_mirror_can_do_no_more_harm_than_by_its_silence(
    consumer: Consumer, attack: Callable[[Consumer, bytes], None], restarted: bool
) -> None:
    consumer.set(mirrors=(MIRROR, SECOND), max_manifest_bytes=100_000)
    in_force = consumer.web.publish(part(1), version=5)
    syncer = consumer.syncer()
    await syncer.sync()
    del consumer.web.files[URL]
    consumer.web.publish(part(2), version=6, url=SECOND)
    attack(consumer, in_force)
    report = await (consumer.syncer() if restarted else syncer).sync()
    assert (report.outcome, report.url, report.manifest_version) == ("success", SECOND, 6)
    assert (consumer.numbers, consumer.record.consecutive_failures) == ({"cache-0": 2}, 0)


async def test_mirror_with_what_is_in_force_is_enough_where_nobody_has_more(consumer: Consumer) -> None:
    consumer.set(mirrors=(MIRROR, SECOND))
    consumer.web.files[MIRROR] = consumer.web.publish(part(), version=5)
    syncer = consumer.syncer()
    await syncer.sync()
    del consumer.web.files[URL]
    assert ((await syncer.sync()).outcome, consumer.web.asked[-1]) == ("unchanged", SECOND)


async def test_place_that_an_operator_names_is_the_only_one_that_is_asked(consumer: Consumer) -> None:
    consumer.set(mirrors=(MIRROR,))
    consumer.web.publish(part(), url=MIRROR)
    with pytest.raises(FetchError):
        await consumer.syncer().sync(SECOND)
    assert consumer.web.asked == [SECOND]


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
