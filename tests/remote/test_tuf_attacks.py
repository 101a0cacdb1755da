"""Attacks on a TUF repository, by the names TUF gives them: each is refused by name, and changes nothing.

The machine has accepted the first release; then an attacker who holds the server, or some of the keys, has a say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile

from oneiric.errors import FetchError, TrustError
from tests.harness.servers import Answer, Connection, Server, endless, respond, response, serving, trickle
from tests.remote.tuf_machine import Client, asked, machine
from tests.remote.tuf_publisher import WHEEL, Repository, entry, manifest, shop
from tests.remote.wheels import digest

pytestmark = pytest.mark.anyio
TIMESTAMP = "metadata/timestamp.json"
AGO = timedelta(hours=-1)


@pytest.fixture
def repository() -> Repository:
    repository = Repository()
    repository.release({"manifest.json": manifest(entry(shop())), WHEEL: shop()})
    return repository


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with serving(repository.answer) as server:
        yield server


@pytest.fixture
async def client(repository: Repository, server: Server, tmp_path: Path) -> Client:
    client = machine(tmp_path, repository, server)
    await client.syncer().sync()
    server.requests.clear()
    return client


def second(repository: Repository) -> None:
    """Publish another release."""
    repository.release({"manifest.json": manifest(entry(shop(2)), version=2), WHEEL: shop(2)})


def replay(repository: Repository) -> None:
    """Serve an older timestamp."""
    repository.files[TIMESTAMP] = repository.first  # type: ignore[attr-defined]


def mix(repository: Repository) -> None:
    """Serve the targets of one release beside the snapshot of another."""
    second(repository)
    version = repository.targets.signed.version
    repository.files[f"metadata/{version}.targets.json"] = repository.files[f"metadata/{version - 1}.targets.json"]


def unsigned(repository: Repository) -> None:
    """Serve a timestamp that another key signed."""
    repository.signers["timestamp"] = [CryptoSigner.generate_ed25519()]
    second(repository)


def forged_root(repository: Repository) -> None:
    """Serve a next root that only its own keys signed."""
    other = Repository()
    other.root.signed.version = 2
    other.sign_root(other.signers["root"])
    repository.files["metadata/2.root.json"] = other.files["metadata/2.root.json"]


def skipping_root(repository: Repository) -> None:
    """Serve version 3 of the root in place of version 2."""
    repository.rotate("timestamp")
    repository.rotate("timestamp")
    repository.files["metadata/2.root.json"] = repository.files["metadata/3.root.json"]


def snapshot_that_forgets(repository: Repository) -> None:
    """Serve a snapshot whose targets are older than before."""
    second(repository)
    repository.snapshot.signed.meta["targets.json"] = MetaFile(1)
    repository._sign("snapshot", repository.snapshot, timedelta(days=1))
    repository.sign_timestamp()


def tampered_targets(repository: Repository) -> None:
    """Serve targets that say something else than what was signed."""
    second(repository)
    name = f"metadata/{repository.targets.signed.version}.targets.json"
    repository.files[name] = repository.files[name].replace(digest(shop(2)).encode(), digest(b"evil").encode())


def tampered_manifest(repository: Repository) -> None:
    """Serve another manifest of the same length than the one that was signed."""
    second(repository)
    name = next(name for name in repository.files if digest(manifest(entry(shop(2)), version=2)) in name)
    repository.files[name] = repository.files[name].replace(b'"shop"', b'"evil"')


def expired(role: str) -> Callable[[Repository], None]:
    """Serve metadata of *role* that has expired."""

    def attack(repository: Repository) -> None:
        {
            "timestamp": lambda: repository.sign_timestamp(lasts=AGO),
            "targets": lambda: repository.release({"manifest.json": manifest(version=2)}, lasts=AGO),
        }[role]()

    attack.__name__ = f"expired_{role}"
    return attack


ATTACKS: list[tuple[Callable[[Repository], None], str]] = [
    (replay, "rollback"),
    (snapshot_that_forgets, "rollback"),
    (expired("timestamp"), "expired"),
    (expired("targets"), "expired"),
    (mix, "rollback"),
    (unsigned, "signature"),
    (forged_root, "signature"),
    (skipping_root, "rollback"),
    (tampered_targets, "signature"),
    (tampered_manifest, "digest"),
]


@pytest.mark.parametrize(("attack", "reason"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
async def test_tuf_attack_is_refused_by_name(
    client: Client, repository: Repository, attack: Callable[[Repository], None], reason: str
) -> None:
    repository.first = repository.files[TIMESTAMP]  # type: ignore[attr-defined]
    if attack is replay:
        second(repository)
        await client.syncer().sync()
    attack(repository)
    refused = await client.refused()
    assert (type(refused), getattr(refused, "reason", "")) == (TrustError, reason)


async def test_tuf_attack_leaves_what_was_accepted_for_the_next_start(client: Client, repository: Repository) -> None:
    tampered_targets(repository)
    await client.refused()
    client.offered = None
    await client.syncer().restore()
    assert client.built() == 1


async def test_wrong_pinned_root_is_refused(client: Client) -> None:
    Path(client.settings.tuf_root or "").write_bytes(Repository().pinned)
    refused = await client.refused()
    assert (type(refused), getattr(refused, "reason", "")) == (TrustError, "signature")
    assert [fields["source"] for fields in client.named("signature-verification-failed")] == ["remote"]


async def test_pinned_root_decides_whatever_the_cache_was_given(
    client: Client, repository: Repository, server: Server
) -> None:
    mallory = Repository()
    mallory.release({"manifest.json": manifest(entry(shop(), provider="mallory"), version=9), WHEEL: shop()})
    repository.files = mallory.files
    (client.home / "cache" / "tuf" / "root.json").write_bytes(mallory.pinned)
    assert getattr(await client.refused(), "reason", "") == "signature"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"[" * 10_000, b'{"signed": {}, "signatures": []}'])
@pytest.mark.parametrize("name", ["2.root", "timestamp"])
async def test_metadata_that_is_none_is_malformed(
    client: Client, repository: Repository, name: str, content: bytes
) -> None:
    repository.files[f"metadata/{name}.json"] = content
    assert getattr(await client.refused(), "reason", "") == "malformed"


@pytest.mark.parametrize("field", ["version", "expires", "meta", "spec_version", "_type"])
@pytest.mark.parametrize("value", [False, -1, 1e400, "x", [], {}, {"snapshot.json": {"version": {}}}])
async def test_signed_nonsense_is_refused_and_no_crash(
    client: Client, repository: Repository, field: str, value: object
) -> None:
    document = json.loads(repository.files[TIMESTAMP])
    document["signed"][field] = value
    repository.files[TIMESTAMP] = json.dumps(document).encode()
    assert isinstance(await client.refused(), TrustError)


# What a server can do to keep us busy


@pytest.mark.parametrize("path", [TIMESTAMP, "metadata/2.root.json"])
async def test_endless_metadata_is_cut_off(client: Client, repository: Repository, path: str) -> None:
    repository.answers[path] = endless
    assert getattr(await client.refused(), "reason", "") == "size"


async def test_endless_artifact_is_cut_off_at_its_length(client: Client, repository: Repository) -> None:
    second(repository)
    repository.answers[next(path for path in repository.files if digest(shop(2)) in path)] = endless
    assert getattr(await client.refused(), "reason", "") == "size"


async def test_artifact_larger_than_the_settings_allow_is_never_asked_for(
    client: Client, repository: Repository, server: Server
) -> None:
    repository.release({"manifest.json": manifest(entry(shop(2), length=None), version=2), WHEEL: shop(2)})
    client.set(max_artifact_bytes=10)
    assert getattr(await client.refused(), "reason", "") == "size"
    assert not any(digest(shop(2)) in path for path in asked(server))


async def test_slow_metadata_meets_a_deadline_for_all_of_it(client: Client, repository: Repository) -> None:
    repository.answers[TIMESTAMP] = trickle(every=0.05, head=b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    client.set(timeout=0.5)
    with anyio.fail_after(15):
        assert getattr(await client.refused(), "reason", "") == "timeout"


async def test_chain_of_roots_meets_a_deadline_for_all_of_it(client: Client, repository: Repository) -> None:
    for _ in range(40):
        repository.rotate("timestamp")
    for version in range(2, 42):
        path = f"metadata/{version}.root.json"
        repository.answers[path] = late(response(200, repository.files[path]))
    client.set(timeout=0.5)
    with anyio.fail_after(15):
        assert getattr(await client.refused(), "reason", "") == "timeout"


def late(answer: bytes) -> Answer:
    """Answer after a while that is not long."""

    def send(connection: Connection) -> None:
        if connection.pause(0.1):
            connection.send(answer)

    return send


async def test_redirected_metadata_is_not_followed(client: Client, repository: Repository) -> None:
    with serving(respond(200, repository.files[TIMESTAMP])) as elsewhere:
        repository.answers[TIMESTAMP] = respond(302, location=elsewhere.url("/repo/metadata/timestamp.json"))
        assert getattr(await client.refused(), "reason", "") == "redirect"
        assert elsewhere.requests == []


async def test_redirected_artifact_is_not_followed_to_another_origin(client: Client, repository: Repository) -> None:
    second(repository)
    path = next(path for path in repository.files if digest(shop(2)) in path)
    with serving(respond(200, shop(2))) as elsewhere:
        repository.answers[path] = respond(302, location=elsewhere.url(f"/{path}"))
        assert getattr(await client.refused(), "reason", "") == "policy"
        assert elsewhere.requests == []


async def test_metadata_over_plain_http_from_another_machine_is_refused(client: Client) -> None:
    client.set(manifest_url="tuf+http://updates.example.com/repo/")
    refused = await client.refused()
    assert (getattr(refused, "reason", ""), "plain http" in refused.message) == ("policy", True)


async def test_missing_timestamp_is_a_failure_to_fetch(client: Client, repository: Repository) -> None:
    del repository.files[TIMESTAMP]
    refused = await client.refused()
    assert (type(refused), getattr(refused, "status", 0)) == (FetchError, 404)


# Artifacts


async def test_tampered_artifact_is_refused_reported_and_kept_as_evidence(
    client: Client, repository: Repository
) -> None:
    second(repository)
    path = next(path for path in repository.files if digest(shop(2)) in path)
    repository.files[path] = b"x" * len(shop(2))
    refused = await client.refused()
    assert (type(refused).__mro__[1], getattr(refused, "reason", "")) == (TrustError, "digest")
    (told,) = client.named("digest-check-failed")
    assert (told["expected_digest"], told["actual_digest"]) == (digest(shop(2)), digest(b"x" * len(shop(2))))
    assert [path.read_bytes()[:3] for path in (client.home / "cache" / "quarantine").iterdir()] == [b"xxx"]


async def test_artifact_that_only_the_manifest_vouches_for_is_refused(client: Client, repository: Repository) -> None:
    repository.release({"manifest.json": manifest(entry(shop(2)), version=2), WHEEL: shop(3)})
    path = next(path for path in repository.files if digest(shop(3)) in path)
    repository.files[path] = shop(2)
    refused = await client.refused()
    assert (type(refused), getattr(refused, "reason", "")) == (TrustError, "digest")


async def test_artifact_that_is_no_target_is_refused(client: Client, repository: Repository, server: Server) -> None:
    repository.release({"manifest.json": manifest(entry(shop(2)), version=2)})
    repository.files[f"targets/{WHEEL}"] = shop(2)
    refused = await client.refused()
    assert (getattr(refused, "reason", ""), WHEEL in refused.message) == ("uri", True)


@pytest.mark.parametrize("uri", ["https://example.com/a.whl", "//example.com/a.whl", "file:///etc/a.whl"])
async def test_artifact_of_another_place_is_refused_even_where_hosts_are_allowed(
    client: Client, repository: Repository, uri: str
) -> None:
    client.set(allowed_hosts=("example.com",))
    repository.release({"manifest.json": manifest(entry(shop(2), uri=uri), version=2)})
    assert "entries[0].uri " in (await client.refused()).message


async def test_factory_outside_an_artifact_still_needs_to_be_allowed(client: Client, repository: Repository) -> None:
    loose = entry(shop(), factory="os:system")
    del loose["uri"], loose["sha256"], loose["length"]
    repository.release({"manifest.json": manifest(loose, version=2)})
    assert getattr(await client.refused(), "reason", "") == "factory"


# Keys come and go


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
async def test_rotated_key_is_followed_from_the_pinned_root(client: Client, repository: Repository, role: str) -> None:
    repository.rotate(role)
    second(repository)
    await client.syncer().sync()
    assert client.built() == 2


async def test_chain_of_root_keys_is_followed_from_the_first(client: Client, repository: Repository) -> None:
    for _ in range(5):
        repository.rotate("root")
    repository.rotate("timestamp")
    second(repository)
    await client.syncer().sync()
    assert client.built() == 2


async def test_key_that_was_rotated_out_signs_nothing_any_more(client: Client, repository: Repository) -> None:
    old = repository.signers["timestamp"]
    repository.rotate("timestamp")
    second(repository)
    repository.signers["timestamp"] = old
    repository.sign_timestamp()
    assert getattr(await client.refused(), "reason", "") == "signature"
