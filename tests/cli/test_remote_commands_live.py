"""``remote-sync``, ``remote-status`` and what ``orchestrate`` takes, with a daemon."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.publisher.press import public_key
from examples.publisher.serve import fail, replace
from tests.cli.conftest import Typing
from tests.harness.daemon import Daemon, oneiric, project, running
from tests.harness.delivery import Upstream, serving, trusting
from tests.harness.places import MANIFEST, STRANGER, Place, conforms, shown

# With a daemon


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Daemon]]:
    """A daemon over TLS that synchronises when it is told to; a test that publishes does so with a higher version."""
    root = tmp_path_factory.mktemp("delivered")
    upstream = Upstream(root / "up")
    upstream.publish()
    with serving(upstream, tls=True) as publisher:
        place = Place(project(root / "p"), upstream, publisher)
        place.configure(failure_threshold=2, reset_timeout=600)
        with running(place.directory, "--no-watch", environ=trusting(upstream)) as daemon:
            daemon.wait_event("remote-sync-complete")
            yield place, daemon


@pytest.fixture
def live(delivered: tuple[Place, Daemon]) -> Iterator[tuple[Place, Daemon]]:
    """The same, in order before and after."""
    yield delivered
    place, daemon = delivered
    place.publisher.faults.clear()
    daemon.client.post("/v1/remote/sync", {"force": True})


def test_sync_reaches_the_daemon(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    place.upstream.publish(place.upstream.entry("3.0"))
    answer = daemon.cli("remote-sync")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"{place.publisher.url}: upstream version ")
    explained = daemon.client.get("/v1/explain", domain="adapter", key="cache")["placings"]
    assert [p["version"] for p in explained if p["provider"] == "remote"] == ["3.0"]


def test_sync_of_what_is_in_force_is_unchanged(live: tuple[Place, Daemon]) -> None:
    _, daemon = live
    document = json.loads(daemon.cli("remote-sync", "--json").stdout)
    assert conforms(document, "RemoteSyncDocument")
    assert (document["live"], document["outcome"], document["fetched"]) == (True, "unchanged", 0)


def test_dry_run_leaves_the_daemon_as_it_was(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    before = daemon.client.get("/v1/remote")
    place.upstream.publish(place.upstream.entry("4.0"))
    answer = daemon.cli("remote-sync", "--dry-run")
    assert (answer.returncode, " would be accepted: " in answer.stdout) == (0, True)
    assert daemon.client.get("/v1/remote") == before


@pytest.mark.parametrize("prefix", ["", "./", "file:", "file:./", "FILE:"])
def test_file_is_looked_for_where_it_was_typed_and_not_where_the_daemon_is(
    live: tuple[Place, Daemon], tmp_path: Path, prefix: str
) -> None:
    place, daemon = live
    shutil.copytree(place.upstream.directory, tmp_path / "with space" / "release")
    socket = daemon.directory / ".oneiric_state" / "oneiric.sock"
    arguments = ("remote-sync", "--dry-run", "--socket", str(socket), "--manifest", f"{prefix}release/manifest.json")
    answer = oneiric(tmp_path / "with space", *arguments)
    assert (answer.stderr, answer.returncode, "manifest.json: upstream version " in answer.stdout) == ("", 0, True)


def test_failed_sync_through_the_daemon_says_the_same_as_without(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    place.publisher.faults[MANIFEST] = replace(place.upstream.publish(signer=STRANGER))
    answer = daemon.cli("remote-sync")
    place.upstream.publish()
    assert (answer.returncode, answer.stdout) == (5, "")
    error, hint = answer.stderr.splitlines()
    assert error.startswith(f"error[trust]: signature: {place.publisher.url}: 1 signature, and none is one")
    assert hint == "try: sign it with one of the trusted keys: oneiric manifest sign"


def test_open_breaker_refuses_and_force_goes_ahead(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    place.publisher.faults[MANIFEST] = fail(404)
    failed = [daemon.cli("remote-sync").returncode for _ in range(2)]
    asked = len(place.publisher.requests)
    refused = daemon.cli("remote-sync")
    status = daemon.client.get("/v1/remote")
    assert (failed, refused.returncode) == ([1, 1], 1)
    assert re.search(r"skipped: the circuit breaker is open for (599|600) s more\n", refused.stdout)
    assert refused.stderr == "try: oneiric remote-sync --force\n"
    assert (status["circuit_breaker"], status["consecutive_failures"], len(place.publisher.requests)) == (
        "open",
        2,
        asked,
    )
    place.publisher.faults.clear()
    assert daemon.cli("remote-sync", "--force").returncode == 0
    assert daemon.client.get("/v1/remote")["circuit_breaker"] == "closed"


def test_status_of_a_daemon_is_live(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    answer = daemon.cli("remote-status")
    seen = shown(answer.stdout)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert (seen["source"], seen["circuit breaker"], seen["keys"]) == (
        "upstream",
        "closed",
        place.upstream.signer.key.id,
    )
    document = json.loads(daemon.cli("remote-status", "--json").stdout)
    assert (conforms(document, "RemoteDocument"), document["live"]) == (True, True)


# orchestrate


def test_orchestrate_takes_the_manifest_and_the_interval_from_its_flags(place: Place) -> None:
    (place.directory / "settings" / "app.yml").write_text(place.upstream.settings())
    flags = ("--manifest", place.publisher.url, "--refresh-interval", "0.05")
    with running(place.directory, *flags) as daemon:
        daemon.wait_event("remote-sync-complete")
        version = place.upstream.entry("2.0")
        place.upstream.publish(version)
        event = daemon.wait_event("remote-sync-complete", count=2)
    assert event["manifest_version"] == 2


def test_orchestrate_without_remote_neither_asks_nor_offers(place: Place, typed: Typing) -> None:
    typed("remote-sync")
    asked = len(place.publisher.requests)
    with running(place.directory, "--no-remote") as daemon:
        placings = daemon.client.get("/v1/explain", domain="adapter", key="cache")["placings"]
    assert [placing["provider"] for placing in placings if placing["source"] == "remote"] == []
    assert len(placings) > 1
    assert len(place.publisher.requests) == asked


# Settings that change while a daemon runs


def test_manifest_url_that_is_set_while_it_runs_begins_to_sync(place: Place) -> None:
    (place.directory / "settings" / "app.yml").write_text(place.upstream.settings())
    with running(place.directory) as daemon:
        place.configure()
        event = daemon.wait_event("remote-sync-complete")
    assert (event["url"], event["entries"]) == (place.publisher.url, 1)


def test_weaker_trust_is_held_until_a_restart(place: Place) -> None:
    weaker = {
        "require_signature": False,
        "allowed_factories": ["shutil"],
        "allowed_hosts": ["elsewhere.example"],
        "allow_plain_http": True,
        "public_key": "",
        "min_version": 1,
        "max_age": 7200,
        "max_stale": 60,
    }
    place.configure(min_version=2, max_age=3600, max_stale=30)
    place.upstream.publish(version=2)
    with running(place.directory) as daemon:
        before = settings_of(daemon)
        place.configure(**weaker)
        held = {name: daemon.wait_event("config-held", setting=f"remote.{name}")["error"] for name in weaker}
        assert settings_of(daemon) == before
    assert set(held.values()) == {"weakens trust: takes effect at a restart"}


@pytest.mark.parametrize(
    ("name", "value"), [("TUF_ROOT", "root.json"), ("MIN_VERSION", "1"), ("MAX_AGE", "7200"), ("MAX_STALE", "31536000")]
)
def test_environment_cannot_weaken_what_the_settings_say(
    place: Place, typed: Typing, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    place.configure(min_version=2, max_age=3600)
    monkeypatch.setenv(f"ONEIRIC_REMOTE__{name}", value)
    answer = typed("remote-sync")
    assert (answer.code, place.publisher.requests) == (4, [])
    assert f"remote.{name.lower()}: the environment may make remote stricter, never more lenient" in answer.err


def settings_of(daemon: Daemon) -> dict[str, Any]:
    return {row["path"]: row["value"] for row in daemon.client.get("/v1/config")["settings"]}


def test_stricter_trust_takes_effect_at_once(place: Place) -> None:
    with running(place.directory) as daemon:
        daemon.wait_event("remote-sync-complete")
        place.configure(public_keys=[public_key(STRANGER)], signature_threshold=2)
        event = daemon.wait_event("remote-sync-error")
    assert event["reason"] == "threshold"


def test_key_that_is_rotated_while_it_runs_is_trusted_at_once(place: Place) -> None:
    with running(place.directory) as daemon:
        daemon.wait_event("remote-sync-complete")
        place.upstream.signer = STRANGER
        place.upstream.publish(place.upstream.entry("2.0"))
        place.configure()
        daemon.wait_event("remote-sync-complete", count=2)
        assert daemon.client.get("/v1/remote")["key_ids"] == [STRANGER.key.id]
