"""The attacks that The Update Framework names, each against the real command line and against a running syncer.

Everybody accepted version 5 of one publisher, whose key is Alice's. Then the network belongs to the attacker.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import pytest

from oneiric import Runtime, Slot
from oneiric.errors import FetchError, OneiricError
from oneiric.remote import source
from oneiric.remote.fetch import Fetcher
from oneiric.remote.ledger import Ledger
from oneiric.remote.offers import SOURCE
from oneiric.testing import bare_settings
from tests.harness.daemon import oneiric, project
from tests.harness.faults import faked_clock, require
from tests.harness.servers import Answer, Connection, believes_nobody, endless, respond, serving, trickle
from tests.remote.consumer import Consumer, offer, part
from tests.remote.publisher import ALICE, ALICE_KEY, BOB, BOB_KEY, MALLORY, document, packed, signature, signed
from tests.remote.wheels import digest

pytestmark = pytest.mark.anyio
SMALL = {"max_manifest_bytes": 100_000, "timeout": 0.5}
UNBOUNDED = b"HTTP/1.1 200 OK\r\n\r\n"
ACCEPTED = {"cache-0": 1, "cache-1": 2}


def manifest(*entries: dict[str, Any], version: int | None = 6, **changed: Any) -> dict[str, Any]:
    """Return a manifest made now that is in order."""
    now = datetime.now(UTC)
    dates = {"signed_at": now.isoformat(), "expires_at": (now + timedelta(hours=2)).isoformat()}
    return document(*entries, manifest_version=version, **{**dates, **changed})


@dataclass
class Site:
    """What is served below one directory of the attacker's server."""

    files: dict[str, bytes | Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, document: dict[str, Any] | bytes, *contents: bytes) -> None:
        """Serve a manifest and its artifacts."""
        self.files["manifest.json"] = document if isinstance(document, bytes) else packed(document)
        for content in contents:
            self.files[f"artifacts/{digest(content)[-8:]}.whl"] = content

    def __call__(self, connection: Connection) -> None:
        """Answer."""
        self.asked.append(connection.request.target.lstrip("/").partition("/")[2])
        found = self.files.get(self.asked[-1], respond(404))
        (respond(200, found) if isinstance(found, bytes) else found)(connection)


def entries(*numbers: int) -> list[dict[str, Any]]:
    return [offer(part(number), key=f"cache-{index}") for index, number in enumerate(numbers)]


Attack = Callable[[Site], None]


def release(*numbers: int, keys: tuple[Any, ...] = (ALICE,), **changed: Any) -> Attack:
    """Publish as whoever has *keys*."""

    def attack(site: Site) -> None:
        made = manifest(*entries(*numbers), **changed)
        site.put(signed(made, *keys) if keys else made, *(part(number) for number in numbers))

    return attack


def with_artifact(number: int, instead: bytes | Answer) -> Attack:
    """Publish as Alice would, and serve something else for an artifact."""

    def attack(site: Site) -> None:
        release(1, number)(site)
        site.files[f"artifacts/{digest(part(number))[-8:]}.whl"] = instead

    return attack


def with_manifest(answer: Answer) -> Attack:
    def attack(site: Site) -> None:
        site.files["manifest.json"] = answer

    return attack


def signed_twice(site: Site) -> None:
    made = manifest(*entries(1, 3))
    forged = [signature(made, ALICE), {**signature(made, ALICE), "key_id": BOB_KEY.id}]
    site.put({**made, "signatures": forged}, part(1), part(3))


def unsigned_entry(site: Site) -> None:
    made = signed(manifest(*entries(1, 3)))
    made["entries"][0]["priority"] = 1000
    site.put(made, part(1), part(3))


def swapped(site: Site) -> None:
    release(3, 4)(site)
    first, second = (f"artifacts/{digest(part(number))[-8:]}.whl" for number in (3, 4))
    site.files[first], site.files[second] = site.files[second], site.files[first]


def without_digest(site: Site) -> None:
    site.put(signed(manifest(offer(part(3), sha256=None))), part(3))


class Case(NamedTuple):
    """An attack, how the victim is set up, and how it must end."""

    attack: Attack
    exit_code: int
    reason: str
    settings: dict[str, Any] = {}


CASES: dict[str, Case] = {
    "unsigned": Case(release(1, 3, keys=()), 5, "unsigned"),
    "signed by another": Case(release(1, 3, keys=(MALLORY,)), 5, "signature"),
    "changed after signing": Case(unsigned_entry, 5, "signature"),
    "another artifact": Case(with_artifact(3, part(4)), 5, "digest"),
    "endless manifest": Case(with_manifest(endless), 1, "size", SMALL),
    "endless artifact": Case(with_artifact(3, endless), 1, "size"),
    "version without end": Case(release(1, 3, version=1 << 53), 1, "schema"),
    "expired": Case(release(1, 3, expires_at="2026-01-01T00:00:00Z", signed_at="2025-12-01T00:00:00Z"), 5, "expired"),
    "silence": Case(with_manifest(respond(503, retry_after="3600")), 1, "http"),
    "nothing is there": Case(with_manifest(respond(404)), 1, "http"),
    "other words": Case(with_manifest(respond(200, b"<html>sign in</html>")), 1, "malformed"),
    "old artifact": Case(with_artifact(3, part(2)), 5, "digest"),
    "missing artifact": Case(with_artifact(3, respond(404)), 1, "http"),
    "older": Case(release(1, 3, version=4), 5, "rollback"),
    "same version, other contents": Case(release(1, 3, version=5), 5, "equivocation"),
    "no version": Case(release(1, 3, version=None), 5, "unversioned"),
    "from the future": Case(release(1, 3, signed_at="2099-01-01T00:00:00Z"), 5, "future"),
    "one byte at a time": Case(with_manifest(trickle(every=0.1, head=UNBOUNDED)), 1, "timeout", SMALL),
    "one key of two": Case(
        release(1, 3), 5, "threshold", {"public_keys": [BOB_KEY.raw.hex()], "signature_threshold": 2}
    ),
    "one key twice": Case(signed_twice, 5, "threshold", {"public_keys": [BOB_KEY.raw.hex()], "signature_threshold": 2}),
    "artifacts swapped": Case(swapped, 5, "digest"),
    "no digest": Case(without_digest, 1, "entry"),
}
SIGNATURE = {"unsigned", "signature", "threshold"}
# One of each kind is also carried out against the command line, whose every start costs.
TYPED = (
    "unsigned",
    "another artifact",
    "endless manifest",
    "version without end",
    "expired",
    "silence",
    "other words",
    "missing artifact",
    "older",
    "one byte at a time",
    "one key twice",
    "artifacts swapped",
)


class Ended(NamedTuple):
    """How an attack on the command line ended: what was typed said, and what the files of record were and are."""

    done: CompletedProcess[str]
    before: Any
    after: Any
    failures: int


@dataclass
class World:
    """The attacker's server, and the machine that everybody's is a copy of."""

    url: str
    sites: dict[str, Site]
    base: Path
    directory: Path
    ended: dict[str, Ended] = field(default_factory=dict)

    def victim(self, name: str, **settings: Any) -> Path:
        """Return a machine that accepted version 5."""
        place = self.directory / name.replace(" ", "-").replace(",", "")
        shutil.copytree(self.base, place)
        remote = {"manifest_url": self.manifest_url("base"), "public_key": ALICE_KEY.raw.hex(), **settings}
        (place / "settings" / "app.yml").write_text(f"remote: {json.dumps(remote)}\n")
        return place

    def manifest_url(self, name: str) -> str:
        return f"{self.url}/{name.replace(' ', '%20')}/manifest.json"

    def serve(self, name: str, attack: Attack) -> str:
        self.sites[name] = Site()
        attack(self.sites[name])
        return self.manifest_url(name)

    def attack(self, name: str) -> Ended:
        """Attack somebody who synchronises at the command line."""
        case = CASES[name]
        place = self.victim(f"cli {name}", **case.settings)
        url = self.serve(name, case.attack)
        before = record_of(place)
        done = oneiric(place, "remote-sync", "--manifest", url, "-v")
        failures = Ledger(place / ".oneiric_state").load().failures
        return Ended(done, before, record_of(place), failures)


def record_of(place: Path) -> Any:
    """Return the files of record: the cached manifest, and the floor with what it says."""
    record = json.loads((place / ".oneiric_state" / "remote.json").read_bytes())["record"]
    kept = ("floor", "accepted_at", "manifest_version", "key_ids", "registrations", "expires_at")
    return (place / ".oneiric_cache" / "manifest.yaml").read_bytes(), {name: record[name] for name in kept}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    sites: dict[str, Site] = {}

    def answer(connection: Connection) -> None:
        name = connection.request.target.lstrip("/").partition("/")[0].replace("%20", " ")
        sites.get(name, Site())(connection)

    directory = tmp_path_factory.mktemp("world")
    with serving(answer) as server:
        base = project(directory / "base", adapters="{}\n")
        world = World(server.url("").rstrip("/"), sites, base, directory)
        url = world.serve("base", release(1, 2, version=5))
        settings = {"manifest_url": url, "public_key": ALICE_KEY.raw.hex()}
        (base / "settings" / "app.yml").write_text(f"remote: {json.dumps(settings)}\n")
        done = oneiric(base, "remote-sync")
        assert done.returncode == 0, done.stderr
        with ThreadPoolExecutor(3) as at_once:
            world.ended.update(zip(TYPED, at_once.map(world.attack, TYPED), strict=True))
        yield world


def machine(place: Path, **settings: Any) -> Consumer:
    """Return a process that takes delivery in *place* through the real network code."""
    consumer = Consumer(place)
    shutil.move(place / ".oneiric_cache", place / "cache")
    shutil.move(place / ".oneiric_state", place / "state")
    consumer.set(manifest_url=None, **{name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()})
    return consumer


def real(consumer: Consumer, **changed: Any) -> Any:
    fetcher = partial(Fetcher, ssl_context=believes_nobody())
    return consumer.syncer(fetcher=fetcher, now=lambda: datetime.now(UTC), **changed)


def assert_resisted(ended: Ended, case: Case) -> None:
    assert ended.done.returncode == case.exit_code, ended.done.stderr
    assert f"reason={case.reason}" in ended.done.stderr
    assert "try: " in ended.done.stderr
    assert "Traceback" not in ended.done.stderr
    assert (ended.after, ended.failures) == (ended.before, 1)


async def resists(world: World, name: str) -> None:
    """Assert that an attack changed nothing and was reported, at the command line and in a process that serves."""
    case = CASES[name]
    if name in TYPED:
        assert_resisted(world.ended[name], case)
    world.serve(name, case.attack)
    consumer = machine(world.victim(f"process {name}"), **case.settings)
    consumer.set(signature_threshold=1)
    syncer = real(consumer)
    await syncer.restore()
    consumer.set(**{k: v for k, v in case.settings.items() if k == "signature_threshold"})
    offered, files = consumer.offered, consumer.files()
    with pytest.raises(OneiricError) as caught:
        await syncer.sync(world.manifest_url(name))
    assert (caught.value.exit_code, getattr(caught.value, "reason", "")) == (case.exit_code, case.reason)
    assert (consumer.offered is offered, consumer.numbers) == (True, ACCEPTED)
    assert {name: content for name, content in consumer.files().items() if name in files} == files
    assert consumer.reasons() == [case.reason]
    assert ("signature-verification-failed" in consumer.events) == (case.reason in SIGNATURE)
    assert ("digest-check-failed" in consumer.events) == (case.reason == "digest")


@pytest.mark.parametrize("how", ["unsigned", "signed by another", "changed after signing", "another artifact"])
async def test_arbitrary_installation_is_refused(world: World, how: str) -> None:
    await resists(world, how)


@pytest.mark.parametrize("how", ["endless manifest", "endless artifact"])
async def test_endless_data_is_cut_off(world: World, how: str) -> None:
    await resists(world, how)


async def test_extraneous_dependencies_are_looked_for_and_never_installed(world: World) -> None:
    needs = offer(part(3), requires=["no-such-distribution>=1"], priority=9)
    url = world.serve("needy", lambda site: site.put(signed(manifest(needs)), part(3)))
    place = world.victim("needy")
    done = oneiric(place, "remote-sync", "--manifest", url)
    explained = oneiric(place, "explain", "cache", "--domain", "adapter")
    assert (done.returncode, world.sites["needy"].asked) == (0, list(world.sites["needy"].files))
    assert "requires no-such-distribution" in explained.stdout


async def test_extraneous_dependencies_keep_a_candidate_from_serving(world: World) -> None:
    needs = offer(part(3), requires=["no-such-distribution>=1"], priority=9)
    made = signed(manifest(needs, offer(provider="plain")))
    url = world.serve("needy too", lambda site: site.put(made, part(3), part()))
    consumer = machine(world.victim("process needy"))
    async with Runtime.open(bare_settings(), sink=consumer.events, environ={}) as runtime:

        async def publish(candidates: Any) -> None:
            await runtime.offer(SOURCE, candidates)

        await real(consumer, publish=publish).sync(url)
        slot: Slot[Any] = Slot("adapter", "cache")
        verdicts = {one.candidate.provider: (one.verdict, one.reason) for one in runtime.resolve(slot).placings}
    assert verdicts["plain"][0] == "active"
    assert verdicts["shop"][0] == "rejected"
    assert "no-such-distribution" in verdicts["shop"][1]


async def test_fast_forward_ends_with_the_stolen_key(world: World) -> None:
    highest = (1 << 53) - 1
    consumer = machine(world.victim("process fast-forward"))
    stolen = world.serve("stolen", release(1, 3, version=highest))
    rotated = world.serve("rotated", release(1, 4, version=6, keys=(BOB,)))
    await real(consumer).sync(stolen)
    with pytest.raises(OneiricError):
        await real(consumer).sync(rotated)
    consumer.set(public_key=BOB_KEY.raw.hex())
    await real(consumer).sync(rotated)
    floor = consumer.record.floor
    assert floor is not None
    assert (floor.version, floor.key_ids, consumer.numbers) == (6, (BOB_KEY.id,), {"cache-0": 1, "cache-1": 4})


async def test_fast_forward_ends_with_the_stolen_key_at_the_command_line(world: World) -> None:
    place = world.victim("cli fast-forward")
    stolen = world.serve("stolen too", release(1, 3, version=(1 << 53) - 1))
    rotated = world.serve("rotated too", release(1, 4, version=6, keys=(BOB,)))
    taken = oneiric(place, "remote-sync", "--manifest", stolen)
    app = place / "settings" / "app.yml"
    app.write_text(app.read_text().replace(ALICE_KEY.raw.hex(), BOB_KEY.raw.hex()))
    done = oneiric(place, "remote-sync", "--manifest", rotated)
    assert (taken.returncode, done.returncode, "version 6 accepted" in done.stdout) == (0, 0, True)


async def test_fast_forward_beyond_all_versions_is_refused(world: World) -> None:
    await resists(world, "version without end")


async def test_freeze_ends_when_what_is_held_back_expires(world: World, tmp_path: Path) -> None:
    require("faketime")
    place = world.victim("frozen")
    (tmp_path / "clock").write_text("+0\n")
    environ = faked_clock(tmp_path / "clock")
    (tmp_path / "clock").write_text("+3h\n")
    before = record_of(place)
    done = oneiric(place, "remote-sync", "-v", environ=environ)
    assert (done.returncode, "reason=expired" in done.stderr) == (5, True)
    assert (record_of(place), "the manifest expired at" in done.stderr) == (before, True)


@pytest.mark.parametrize("how", ["expired", "silence"])
async def test_freeze_is_reported(world: World, how: str) -> None:
    await resists(world, how)


@pytest.mark.parametrize("how", ["nothing is there", "other words"])
async def test_malicious_mirror_that_blocks_updates_is_reported(world: World, how: str) -> None:
    await resists(world, how)


async def test_malicious_mirror_that_blocks_updates_is_passed_by(world: World) -> None:
    blocked = world.serve("blocked", with_manifest(respond(503, retry_after="3600")))
    place = world.victim("mirrored", manifest_url=blocked, mirrors=[world.serve("mirror", release(1, 3))])
    done = oneiric(place, "remote-sync")
    assert (done.returncode, "/mirror/manifest.json: shop version 6 accepted" in done.stdout) == (0, True)


async def test_malicious_mirror_is_believed_no_more_than_the_publisher(world: World) -> None:
    blocked = world.serve("blocked for all", with_manifest(respond(404)))
    forger = world.serve("forger", release(1, 3, keys=(MALLORY,)))
    place = world.victim("misled", manifest_url=blocked, mirrors=[forger])
    before = record_of(place)
    done = oneiric(place, "remote-sync", "-v")
    assert (done.returncode, "signature-verification-failed" in done.stderr, record_of(place)) == (1, True, before)


@pytest.mark.parametrize("how", ["old artifact", "missing artifact"])
async def test_mix_and_match_of_releases_is_refused_whole(world: World, how: str) -> None:
    await resists(world, how)


@pytest.mark.parametrize("how", ["older", "same version, other contents", "no version", "from the future"])
async def test_rollback_is_refused(world: World, how: str) -> None:
    await resists(world, how)


async def test_rollback_is_refused_after_the_cache_was_deleted_and_after_a_restart(world: World) -> None:
    place = world.victim("amnesiac")
    shutil.rmtree(place / ".oneiric_cache")
    done = oneiric(place, "remote-sync", "--manifest", world.serve("replayed", release(1, 3, version=4)))
    assert (done.returncode, "5 is the lowest accepted" in done.stderr) == (5, True)
    assert not (place / ".oneiric_cache" / "manifest.yaml").exists()


async def test_rollback_is_refused_by_a_configured_version_although_all_state_is_lost(world: World) -> None:
    place = world.victim("reborn", min_version=5)
    shutil.rmtree(place / ".oneiric_cache")
    shutil.rmtree(place / ".oneiric_state")
    assert (
        oneiric(place, "remote-sync", "--manifest", world.serve("replayed again", release(1, 3, version=4))).returncode
        == 5
    )
    assert oneiric(place, "remote-sync", "--manifest", world.manifest_url("base")).returncode == 0


async def test_slow_retrieval_of_a_manifest_is_given_up(world: World) -> None:
    await resists(world, "one byte at a time")


async def test_slow_retrieval_of_an_artifact_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_BASE_DEADLINE", 0.3)
    url = world.serve("slow artifact", with_artifact(3, trickle(every=0.05, head=UNBOUNDED)))
    consumer = machine(world.victim("process slow artifact"))
    syncer = real(consumer)
    await syncer.restore()
    with pytest.raises(FetchError, match="not complete within"):
        await syncer.sync(url)
    assert (consumer.reasons(), consumer.numbers) == (["timeout"], ACCEPTED)


@pytest.mark.parametrize("how", ["one key of two", "one key twice"])
async def test_key_compromise_below_the_threshold_is_refused(world: World, how: str) -> None:
    await resists(world, how)


async def test_keys_that_meet_the_threshold_are_accepted(world: World) -> None:
    url = world.serve("both", release(1, 3, keys=(ALICE, BOB)))
    place = world.victim("both", public_keys=[BOB_KEY.raw.hex()], signature_threshold=2)
    assert oneiric(place, "remote-sync", "--manifest", url).returncode == 0


@pytest.mark.parametrize("how", ["artifacts swapped", "no digest"])
async def test_wrong_software_is_refused(world: World, how: str) -> None:
    await resists(world, how)


async def test_wrong_software_of_the_same_name_is_not_taken_from_the_cache(world: World) -> None:
    consumer = machine(world.victim("process namesakes"))
    same = {"uri": "a/shop.whl"}, {"uri": "b/shop.whl"}
    offered = [offer(part(n), key=f"cache-{n}", **same[n - 3]) for n in (3, 4)]

    def publish(site: Site) -> None:
        site.put(signed(manifest(*offered)))
        site.files.update({"a/shop.whl": part(3), "b/shop.whl": part(4)})

    await real(consumer).sync(world.serve("namesakes", publish))
    assert consumer.numbers == {"cache-3": 3, "cache-4": 4}
