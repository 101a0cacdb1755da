"""A start from the cache: what was accepted is verified again and served without the network, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oneiric.errors import ManifestError, TrustError
from tests.harness.daemon import oneiric, project, running
from tests.harness.delivery import Upstream, serving
from tests.harness.faults import require, require_root
from tests.remote.consumer import Consumer, answering, consumer, part
from tests.remote.publisher import ALICE, BOB, BOB_KEY, MALLORY, NOW, URL

__all__ = ["consumer"]
pytestmark = pytest.mark.anyio
DAY = 86_400.0


@pytest.fixture
async def stocked(consumer: Consumer) -> Consumer:
    """A machine that accepted version 5, good for 30 days, and was switched off; there is no network."""
    consumer.web.publish(part(1), part(2), version=5)
    await consumer.syncer().sync()
    consumer.offered = None
    consumer.events.all.clear()
    consumer.web.asked.clear()
    return consumer


async def refused(consumer: Consumer) -> ManifestError:
    """Start, which must fail and offer nothing; return why."""
    with pytest.raises(ManifestError) as caught:
        await consumer.syncer().restore()
    assert consumer.offered is None
    return caught.value


def manifest_of(consumer: Consumer) -> Path:
    return consumer.home / "cache" / "manifest.yaml"


async def test_restore_offers_what_was_accepted_without_asking_anybody(stocked: Consumer) -> None:
    report = await stocked.syncer().restore()
    assert report is not None
    assert (report.outcome, report.manifest_version, report.entries, report.url, report.warnings) == (
        "success",
        5,
        2,
        URL,
        (),
    )
    assert (stocked.numbers, stocked.web.asked) == ({"cache-0": 1, "cache-1": 2}, [])


async def test_restore_changes_no_file(stocked: Consumer) -> None:
    before = {path: path.read_bytes() for path in stocked.home.rglob("*") if path.is_file()}
    await stocked.syncer().restore()
    assert {path: path.read_bytes() for path in stocked.home.rglob("*") if path.is_file()} == before


async def test_restore_of_an_empty_machine_offers_and_makes_nothing(consumer: Consumer) -> None:
    assert await consumer.syncer().restore() is None
    assert (consumer.offered, list(consumer.home.iterdir())) == (None, [])


async def test_restore_of_a_deleted_cache_offers_nothing(stocked: Consumer) -> None:
    shutil.rmtree(stocked.home / "cache")
    assert (await stocked.syncer().restore(), stocked.offered) == (None, None)


async def test_restored_manifest_is_unchanged_at_the_next_sync(stocked: Consumer) -> None:
    syncer = stocked.syncer()
    await syncer.restore()
    published = stocked.publications
    assert [(await syncer.sync()).outcome for _ in range(2)] == ["unchanged", "unchanged"]
    assert (stocked.publications, stocked.web.names()) == (published, ["manifest.json"] * 2)
    assert [tag is None for tag in stocked.web.tags[-2:]] == [True, False]


# The cached manifest is not what it was


def change_a_digit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"priority":5', b'"priority":6', 1))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def put_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "emptied": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "too large": lambda path: path.write_bytes(b" " * (1 << 20)),
    "a link to the right one": link,
    "a pipe": put_a_pipe,
    "a directory": put_a_directory,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_damaged_manifest_is_refused_and_healed_by_the_next_sync(
    stocked: Consumer, damage: Callable[[Path], Any]
) -> None:
    stocked.set(max_manifest_bytes=1 << 19)
    accepted = manifest_of(stocked).read_bytes()
    damage(manifest_of(stocked))
    await refused(stocked)
    await stocked.syncer().sync()
    assert (manifest_of(stocked).read_bytes(), stocked.numbers) == (accepted, {"cache-0": 1, "cache-1": 2})


FORGERIES: dict[str, tuple[Callable[[Consumer], bytes], str]] = {
    "another's signature": (lambda machine: machine.web.publish(part(3), version=5, keys=(MALLORY,)), "signature"),
    "no signature": (lambda machine: machine.web.publish(part(3), version=5, keys=()), "unsigned"),
    "an older one": (lambda machine: machine.web.publish(part(3), version=4), "rollback"),
    "another of its version": (lambda machine: machine.web.publish(part(3), version=5), "equivocation"),
    "one without a version": (lambda machine: machine.web.publish(part(3), version=None), "unversioned"),
    "one from the future": (
        lambda machine: machine.web.publish(part(3), version=6, signed_at="2031-01-01T00:00:00Z"),
        "future",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_manifest_planted_in_the_cache_is_refused(stocked: Consumer, forgery: str) -> None:
    make, reason = FORGERIES[forgery]
    manifest_of(stocked).write_bytes(make(stocked))
    assert (await refused(stocked)).reason == reason


async def test_manifest_planted_with_its_artifact_missing_is_refused(stocked: Consumer) -> None:
    manifest_of(stocked).write_bytes(stocked.web.publish(part(3), version=6))
    assert (await refused(stocked)).reason == "digest"


async def test_manifest_signed_by_a_key_that_is_trusted_no_more_is_refused(stocked: Consumer) -> None:
    stocked.set(public_key=BOB_KEY.raw.hex())
    assert (await refused(stocked)).reason == "signature"


# The artifacts are not what they were


@pytest.mark.parametrize(
    "damage", [flip, lambda path: path.unlink(), link, put_a_pipe, put_a_directory], ids=lambda d: d.__name__
)
async def test_damaged_artifact_is_reported_and_healed_by_the_next_sync(
    stocked: Consumer, damage: Callable[[Path], Any]
) -> None:
    damage(stocked.artifact(part(2)))
    error = await refused(stocked)
    assert (error.reason, error.hint) == ("digest", "oneiric remote-sync, when the network is there")
    assert stocked.artifact(part(2)).name in error.message
    report = await stocked.syncer().sync()
    assert (report.fetched, stocked.numbers) == (1, {"cache-0": 1, "cache-1": 2})
    assert stocked.artifact(part(2)).read_bytes() == part(2)


# The state is not what it was


async def test_floor_that_was_lost_is_taken_from_the_cache(stocked: Consumer) -> None:
    floor = stocked.record.floor
    stocked.ledger.path.unlink()
    await stocked.syncer().restore()
    assert (stocked.record.floor, stocked.numbers) == (floor, {"cache-0": 1, "cache-1": 2})
    stocked.web.publish(part(1), version=4)
    with pytest.raises(TrustError) as caught:
        await stocked.syncer().sync()
    assert caught.value.reason == "rollback"


async def test_damaged_ledger_is_no_reason_to_trust_the_cache(stocked: Consumer) -> None:
    stocked.ledger.path.write_bytes(b"")
    assert (await refused(stocked)).reason == "state"


async def test_newer_manifest_whose_floor_a_crash_cut_off_is_served_and_its_floor_kept(stocked: Consumer) -> None:
    before = stocked.ledger.path.read_bytes()
    stocked.web.publish(part(1), part(3), version=6)
    await stocked.syncer().sync()
    stocked.ledger.path.write_bytes(before)
    await stocked.syncer().restore()
    floor = stocked.record.floor
    assert floor is not None
    assert (stocked.numbers, floor.version) == ({"cache-0": 1, "cache-1": 3}, 6)


async def test_restore_beside_a_process_that_accepted_more_keeps_its_floor(stocked: Consumer) -> None:
    old = manifest_of(stocked).read_bytes()
    stocked.web.publish(part(1), part(3), version=6)
    await stocked.syncer().sync()
    manifest_of(stocked).write_bytes(old)
    stocked.offered = None
    assert (await refused(stocked)).reason == "rollback"
    floor = stocked.record.floor
    assert floor is not None
    assert floor.version == 6


# It has expired meanwhile

EXPIRES = 30 * DAY - 3600  # seconds from NOW; signed an hour before


@pytest.mark.parametrize(("late", "served"), [(1.0, True), (7 * DAY - 1, True), (7 * DAY + 1, False)])
async def test_expired_manifest_is_served_for_max_stale_and_said_to_be_stale(
    stocked: Consumer, late: float, served: bool
) -> None:
    stocked.later(seconds=EXPIRES + late)
    if not served:
        assert (await refused(stocked)).reason == "expired"
        return
    report = await stocked.syncer().restore()
    assert report is not None
    assert report.warnings == (f"stale: it expired {late:.0f} s ago, and remote.max_stale allows that at a start",)
    assert stocked.numbers == {"cache-0": 1, "cache-1": 2}


async def test_expired_manifest_is_not_served_where_max_stale_is_nothing(stocked: Consumer) -> None:
    stocked.set(max_stale=0.0)
    stocked.later(seconds=EXPIRES + 1)
    assert (await refused(stocked)).reason == "expired"


async def test_stale_manifest_is_not_accepted_by_a_sync_and_goes_on_serving(stocked: Consumer) -> None:
    stocked.later(seconds=EXPIRES + 60)
    syncer = stocked.syncer()
    await syncer.restore()
    with pytest.raises(TrustError) as caught:
        await syncer.sync()
    assert (caught.value.reason, stocked.numbers) == ("expired", {"cache-0": 1, "cache-1": 2})


async def test_stale_manifest_is_replaced_by_a_fresh_one(stocked: Consumer) -> None:
    stocked.later(seconds=EXPIRES + 60)
    syncer = stocked.syncer()
    await syncer.restore()
    dates = {"signed_at": "2030-02-14T11:00:00Z", "expires_at": "2030-03-15T00:00:00Z"}
    stocked.web.publish(part(3), version=6, **dates)
    assert (await syncer.sync()).warnings == ()
    assert stocked.numbers == {"cache-0": 3}


async def test_manifest_too_old_for_max_age_is_served_for_max_stale_at_most(stocked: Consumer) -> None:
    stocked.set(max_age=DAY)
    stocked.later(days=2)
    report = await stocked.syncer().restore()
    assert report is not None
    assert "it expired 90000 s ago" in report.warnings[0]
    stocked.offered = None
    stocked.later(days=7)
    assert (await refused(stocked)).reason == "expired"


async def test_expired_manifest_other_than_the_accepted_one_is_not_revived(consumer: Consumer) -> None:
    old = consumer.web.publish(part(1), version=None, expires_at="2030-01-16T00:00:00Z")
    await consumer.syncer().sync()
    consumer.web.publish(part(2), version=None, expires_at="2030-01-17T00:00:00Z")
    await consumer.syncer().sync()
    manifest_of(consumer).write_bytes(old)
    consumer.offered = None
    consumer.later(days=3)
    assert (await refused(consumer)).reason == "expired"


async def test_clock_set_back_does_not_unexpire_what_was_signed_later(consumer: Consumer) -> None:
    consumer.web.publish(part(1), version=5, expires_at="2030-01-15T13:00:00Z")
    await consumer.syncer().sync()
    old = manifest_of(consumer).read_bytes()
    before = consumer.ledger.path.read_bytes()
    consumer.later(days=1)
    consumer.web.publish(part(1), version=6, signed_at="2030-01-16T11:00:00Z")
    await consumer.syncer().sync()
    assert consumer.ledger.path.read_bytes() != before
    consumer.now = NOW
    consumer.web.faults[URL] = answering(old)
    with pytest.raises(TrustError):
        await consumer.syncer().sync()


# What else the settings say


async def test_restored_unsigned_manifest_is_warned_of_at_every_sync(consumer: Consumer) -> None:
    consumer.set(require_signature=False, public_key=None)
    consumer.web.publish(part(), keys=())
    await consumer.syncer().sync()
    consumer.events.all.clear()
    syncer = consumer.syncer()
    report = await syncer.restore()
    await syncer.sync()
    assert report is not None
    assert "sign" in report.warnings[0]
    assert "sign" in consumer.events.named("remote-sync-warning")[0]["error"]


async def test_restored_manifest_counts_keys_by_the_settings_of_now(consumer: Consumer) -> None:
    consumer.set(public_keys=(BOB_KEY.raw.hex(),))
    consumer.web.publish(part())
    await consumer.syncer().sync()
    consumer.set(signature_threshold=2)
    consumer.offered = None
    assert (await refused(consumer)).reason == "threshold"
    consumer.web.publish(part(), version=2, keys=(ALICE, BOB))
    await consumer.syncer().sync()
    assert consumer.numbers == {"cache-0": 1}


# The real daemon


def test_daemon_without_network_serves_what_was_accepted(tmp_path: Path) -> None:
    require_root()
    require("unshare")
    upstream = Upstream(tmp_path / "upstream")
    upstream.publish()
    with serving(upstream) as publisher:
        place = project(tmp_path / "p", adapters="{}\n", app=upstream.settings(publisher.url))
        assert oneiric(place, "remote-sync").returncode == 0
    with running(place, within=["unshare", "--net"]) as daemon:
        restored = daemon.wait_event("remote-restored")
        failed = daemon.wait_event("remote-sync-error")
        daemon.client.post("/v1/swap", {"domain": "adapter", "key": "cache"})
        slot = daemon.slot("adapter", "cache")
    assert (restored["manifest_version"], restored["entries"], restored["error"]) == (1, 1, "")
    assert failed["reason"] == "connection"
    assert (slot["state"], slot["provider"]) == ("ready", "remote")
