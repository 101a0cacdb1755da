"""Delivery through a real TUF repository on loopback: what is accepted, what is kept, what comes back without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from oneiric.core.config import RemoteSettings, keep_trust
from oneiric.errors import ConfigError, FetchError, TrustError
from tests.harness.servers import Server, never, respond, serving
from tests.remote.tuf_machine import Client, asked, machine
from tests.remote.tuf_publisher import WHEEL, Repository, entry, manifest, shop

pytestmark = pytest.mark.anyio


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
def client(repository: Repository, server: Server, tmp_path: Path) -> Client:
    return machine(tmp_path, repository, server)


# What is accepted


async def test_tuf_sync_offers_what_the_repository_vouches_for(client: Client) -> None:
    report = await client.syncer().sync()
    assert (report.outcome, report.entries, report.fetched, client.built()) == ("success", 1, 1, 1)


async def test_tuf_sync_asks_for_no_signature_inside_the_manifest(client: Client) -> None:
    assert client.settings.require_signature
    assert (await client.syncer().sync()).warnings == ()


async def test_tuf_sync_keeps_exactly_the_bytes_of_the_target(client: Client) -> None:
    await client.syncer().sync()
    assert (client.home / "cache" / "manifest.yaml").read_bytes() == manifest(entry(shop()))


async def test_tuf_sync_follows_a_repository_without_consistent_snapshots(client: Client, server: Server) -> None:
    plain = Repository(consistent=False)
    plain.release({"manifest.json": manifest(entry(shop())), WHEEL: shop()})
    Path(client.settings.tuf_root or "").write_bytes(plain.pinned)
    with serving(plain.answer) as other:
        report = await client.syncer().sync(f"tuf+{other.url('/repo')}")
    assert (report.outcome, client.built()) == ("success", 1)


@pytest.mark.parametrize("role", ["others", "?", "#", "/others", "../others"])
async def test_tuf_sync_finds_an_artifact_of_a_delegated_role(
    client: Client, repository: Repository, role: str
) -> None:
    repository.release({"manifest.json": manifest(entry(shop(2)), version=2)})
    repository.delegate({WHEEL: shop(2)}, role=role)
    await client.syncer().sync()
    assert client.built() == 2


async def test_tuf_sync_reads_a_repository_on_this_machine(client: Client, repository: Repository) -> None:
    for path, content in repository.files.items():
        place = client.home / "repo" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    report = await client.syncer().sync(f"tuf+{(client.home / 'repo').as_uri()}")
    assert (report.url, client.built()) == (f"tuf+{(client.home / 'repo').as_uri()}", 1)


async def test_tuf_sync_sends_the_token_to_the_repository(client: Client, server: Server) -> None:
    syncer = client.syncer()
    syncer._token = lambda: "secret"
    await syncer.sync()
    assert {request.headers.get("authorization") for request in server.requests} == {"Bearer secret"}


# Again


async def test_unchanged_tuf_repository_costs_two_requests(client: Client, server: Server) -> None:
    syncer = client.syncer()
    await syncer.sync()
    server.requests.clear()
    report = await syncer.sync()
    assert (report.outcome, asked(server)) == ("unchanged", ["metadata/2.root.json", "metadata/timestamp.json"])


async def test_cached_manifest_is_fetched_again_when_it_is_not_the_target(client: Client, server: Server) -> None:
    await client.syncer().sync()
    (client.home / "cache" / "manifest.yaml").write_bytes(manifest(entry(shop(), provider="mallory")))
    await client.syncer().sync()
    assert [candidate.provider for candidate in client.offered or ()] == ["shop"]


async def test_new_tuf_release_replaces_the_old_one(client: Client, repository: Repository) -> None:
    syncer = client.syncer()
    await syncer.sync()
    repository.release({"manifest.json": manifest(entry(shop(2)), version=2), WHEEL: shop(2)})
    await syncer.sync()
    assert client.built() == 2


async def test_dry_run_of_a_tuf_repository_offers_and_keeps_nothing(client: Client) -> None:
    report = await client.syncer().sync(dry_run=True)
    assert (report.dry_run, client.offered, (client.home / "cache" / "manifest.yaml").exists()) == (True, None, False)


async def test_tuf_refreshes_at_once_do_not_collide(client: Client, repository: Repository) -> None:
    async def sync() -> None:
        await client.syncer().sync(dry_run=True)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(sync)
    assert client.named("remote-sync-error") == []


@pytest.mark.parametrize(
    "name", ["root.json", "root_history/2.root.json", "timestamp.json", "snapshot.json", "targets.json"]
)
@pytest.mark.parametrize("left", [None, b"", b"{}"])
async def test_damaged_tuf_metadata_in_the_cache_is_healed(
    client: Client, repository: Repository, name: str, left: bytes | None
) -> None:
    repository.rotate("timestamp")
    repository.sign_timestamp()
    await client.syncer().sync()
    damaged = client.home / "cache" / "tuf" / name
    damaged.unlink()
    if left is not None:
        damaged.write_bytes(left)
    await client.syncer().sync()
    assert b'"version"' in damaged.read_bytes()


# Without the network


async def restored(client: Client) -> Any:
    client.offered = None
    await client.syncer().restore()
    return client.built()


async def test_restart_without_the_repository_offers_what_was_accepted(client: Client, server: Server) -> None:
    await client.syncer().sync()
    server.requests.clear()
    assert (await restored(client), server.requests) == (1, [])


async def test_restart_after_a_release_that_failed_offers_the_one_before(
    client: Client, repository: Repository
) -> None:
    syncer = client.syncer()
    await syncer.sync()
    repository.release({"manifest.json": manifest(entry(shop(2)), version=2), WHEEL: b"not what the manifest names"})
    with pytest.raises(TrustError):
        await syncer.sync()
    assert await restored(client) == 1


async def refused_at_restart(client: Client) -> str:
    client.offered = None
    with pytest.raises(TrustError) as caught:
        await client.syncer().restore()
    assert client.offered is None
    return caught.value.reason


async def test_restart_refuses_a_cached_manifest_that_was_changed(client: Client) -> None:
    await client.syncer().sync()
    (client.home / "cache" / "manifest.yaml").write_bytes(manifest(entry(shop(), provider="mallory"), version=2))
    assert await refused_at_restart(client) == "digest"


async def test_restart_under_another_pinned_root_refuses_the_cached_manifest(client: Client) -> None:
    await client.syncer().sync()
    Path(client.settings.tuf_root or "").write_bytes(Repository().pinned)
    assert await refused_at_restart(client) == "signature"


async def test_restart_refuses_what_the_repository_vouched_for_too_long_ago(client: Client) -> None:
    await client.syncer().sync()
    client.now += timedelta(seconds=client.settings.max_stale + 60)
    assert await refused_at_restart(client) == "stale"


async def test_restart_refuses_a_manifest_of_another_way_of_trust(client: Client) -> None:
    (client.home / "plain.json").write_bytes(manifest(entry(shop())))
    (client.home / "artifacts").mkdir()
    (client.home / WHEEL).write_bytes(shop())
    client.set(require_signature=False)
    await client.syncer().sync(str(client.home / "plain.json"))
    client.set(require_signature=True)
    assert await refused_at_restart(client) == "no-key"


# Our own floor, which outlives the cache


async def test_tuf_replay_after_the_cache_was_deleted_is_a_rollback(client: Client, repository: Repository) -> None:
    before = repository.was()
    repository.release({"manifest.json": manifest(entry(shop(2)), version=2), WHEEL: shop(2)})
    await client.syncer().sync()
    for path in sorted((client.home / "cache").rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() or path.is_file() else path.rmdir()
    repository.files = before
    with pytest.raises(TrustError) as caught:
        await client.syncer().sync()
    assert (caught.value.reason, "manifest version 1" in caught.value.message) == ("rollback", True)


async def test_floor_poisoned_with_a_stolen_targets_key_goes_with_the_key(
    client: Client, repository: Repository
) -> None:
    repository.release({"manifest.json": manifest(version=2**53 - 1)})
    await client.syncer().sync()
    repository.rotate("targets")
    repository.release({"manifest.json": manifest(entry(shop(3)), version=3), WHEEL: shop(3)})
    await client.syncer().sync()
    assert client.built() == 3


async def test_floor_stays_while_the_targets_key_stays(client: Client, repository: Repository) -> None:
    repository.release({"manifest.json": manifest(version=9)})
    await client.syncer().sync()
    repository.rotate("timestamp")
    repository.release({"manifest.json": manifest(version=8)})
    with pytest.raises(TrustError) as caught:
        await client.syncer().sync()
    assert caught.value.reason == "rollback"


# Mirrors


async def test_tuf_mirror_is_asked_when_the_repository_is_down(client: Client, repository: Repository) -> None:
    with serving(respond(500)) as down:
        client.set(mirrors=(client.settings.manifest_url,), manifest_url=f"tuf+{down.url('/repo/')}")
        await client.syncer().sync()
    assert client.built() == 1


async def test_tuf_repository_has_no_mirror_that_is_none(client: Client) -> None:
    with serving(respond(500)) as down, serving(respond(200, manifest())) as plain:
        client.set(mirrors=(plain.url(),), manifest_url=f"tuf+{down.url('/repo/')}", require_signature=False)
        with pytest.raises(FetchError):
            await client.syncer().sync()
        assert plain.requests == []


# Settings


async def refused_settings(client: Client) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        await client.syncer().sync()
    return caught.value


async def test_tuf_url_without_a_pinned_root_names_the_setting(client: Client, server: Server) -> None:
    client.set(tuf_root=None)
    assert [problem.where for problem in (await refused_settings(client)).problems] == ["remote.tuf_root"]
    assert server.requests == []


async def test_pinned_root_that_is_not_there_names_the_file(client: Client) -> None:
    client.set(tuf_root=str(client.home / "nowhere.json"))
    assert "nowhere.json: No such file" in (await refused_settings(client)).message


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"x" * 600_000])
async def test_pinned_root_that_is_none_names_the_setting(client: Client, content: bytes) -> None:
    Path(client.settings.tuf_root or "").write_bytes(content)
    assert [problem.where for problem in (await refused_settings(client)).problems] == ["remote.tuf_root"]


async def test_tuf_url_without_the_extra_says_what_to_install(
    client: Client, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    for name in [name for name in sys.modules if name == "tuf" or name.startswith("tuf.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "oneiric.remote.tuf", raising=False)
    assert (await refused_settings(client)).render().endswith("\ntry: pip install 'oneiric[tuf]'")


async def test_tuf_url_with_a_query_is_refused(client: Client, server: Server) -> None:
    with pytest.raises(FetchError) as caught:
        await client.syncer().sync(f"{client.settings.manifest_url}?token=SECRET")
    assert (caught.value.reason, "SECRET" in caught.value.message, server.requests) == ("policy", False, [])


@pytest.mark.parametrize(("running", "proposed"), [(None, "a"), ("a", "b"), ("a", None)])
async def test_reload_never_changes_the_pinned_root(running: str | None, proposed: str | None) -> None:
    now, held = keep_trust(RemoteSettings(tuf_root=running), RemoteSettings(tuf_root=proposed))
    assert (now.tuf_root, held) == (running, ("tuf_root",))


# Ends


async def test_cancelled_tuf_refresh_ends_at_once(client: Client, repository: Repository, server: Server) -> None:
    async def sync() -> None:
        await client.syncer().sync()

    repository.answers["metadata/timestamp.json"] = never
    client.set(timeout=3600.0)
    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sync)
            while "metadata/timestamp.json" not in asked(server):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert client.events == []
