"""Delivery to a running daemon: outages that heal, entries that are withdrawn, manifests that are wrong, no network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from examples.publisher.press import new_key
from examples.publisher.serve import Fault, Publisher, fail, hang_up, replace, tamper
from tests.adapters.redis_server import free_port
from tests.harness.daemon import Daemon, oneiric, project, running, wait_until
from tests.harness.delivery import Upstream, serving

CANDIDATES = """
candidates:
  - {key: cache, provider: memory, factory: "providers:Memory", priority: 5}
"""
MANIFEST = "/manifest.json"
SOON = {"refresh_interval": 0.05, "timeout": 2, "failure_threshold": 1000}


def place(upstream: Upstream, url: str | None, **remote: Any) -> Path:
    """Make a project where ``adapter/cache`` is filled by ``memory``, or by what is delivered."""
    app = upstream.settings(url, **{**SOON, **remote}) + "lifecycle: {max_swaps_per_minute: 1000}\n"
    return project(upstream.directory.parent / "p", app=app, adapters=CANDIDATES)


def activate(daemon: Daemon, key: str = "cache") -> dict[str, Any]:
    """Have precedence fill a slot, and return its row."""
    daemon.client.post("/v1/swap", {"domain": "adapter", "key": key})
    return daemon.slot("adapter", key)


# Outages


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    made = Upstream(tmp_path / "up")
    made.publish()
    return made


def test_outage_is_counted_opens_the_breaker_and_heals_by_itself(upstream: Upstream) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/manifest.json"
    with running(place(upstream, url, failure_threshold=2, reset_timeout=0.3)) as daemon:
        errors = [daemon.wait_event("remote-sync-error", consecutive_failures=number) for number in (1, 2)]
        daemon.wait_event("circuit-breaker-changed", state="open")
        down = daemon.client.get("/v1/remote")
        with serving(upstream, port=port):
            daemon.wait_event("remote-sync-complete")
            daemon.wait_event("circuit-breaker-changed", state="closed")
            up = daemon.client.get("/v1/remote")
    assert [(one["reason"], one["circuit_breaker"]) for one in errors] == [
        ("connection", "closed"),
        ("connection", "open"),
    ]
    assert all(one["error"].startswith("connection: ") for one in errors)
    assert (down["consecutive_failures"] >= 2, down["successes"]) == (True, 0)
    assert (up["consecutive_failures"], up["last_error"], up["circuit_breaker"]) == (0, "", "closed")


def test_open_breaker_keeps_the_daemon_from_asking(upstream: Upstream) -> None:
    with serving(upstream) as publisher:
        publisher.faults[MANIFEST] = fail(404)
        with running(place(upstream, publisher.url, failure_threshold=2, reset_timeout=3600)) as daemon:
            daemon.wait_event("circuit-breaker-changed", state="open")
            skipped = [daemon.client.post("/v1/remote/sync")["outcome"] for _ in range(3)]
    assert (len(publisher.requests), skipped) == (2, ["skipped"] * 3)


# What is published changes


class Live(NamedTuple):
    """A daemon that looks for what is published many times a second."""

    upstream: Upstream
    publisher: Publisher
    daemon: Daemon

    @property
    def serving(self) -> dict[str, Any]:
        """Who fills ``adapter/cache``, and all that is on offer."""
        listed = self.daemon.client.get("/v1/list", shadowed=True)
        return {"slot": self.daemon.slot("adapter", "cache"), "offered": listed["slots"]}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    upstream = Upstream(tmp_path_factory.mktemp("live") / "up")
    upstream.publish()
    with serving(upstream) as publisher, running(place(upstream, publisher.url)) as daemon:
        yield Live(upstream, publisher, daemon)


@pytest.fixture
def live(lasting: Live) -> Live:
    """The same, where version 1 is delivered and serves, and nothing is in the log yet."""
    lasting.publisher.faults.clear()
    lasting.upstream.publish()
    lasting.daemon.client.post("/v1/remote/sync")
    assert activate(lasting.daemon)["provider"] == "remote"
    lasting.daemon.lines.clear()
    return lasting


def test_delivered_provider_takes_over_a_live_slot(live: Live) -> None:
    live.upstream.withdraw()
    live.daemon.wait_event("swap-complete", provider="memory")
    live.upstream.publish()
    event = live.daemon.wait_event("swap-complete", provider="remote")
    assert (event["previous_provider"], event["by"]) == ("memory", "remote")


def test_withdrawn_provider_gives_way_to_what_precedence_says(live: Live) -> None:
    live.upstream.withdraw()
    event = live.daemon.wait_event("swap-complete", provider="memory")
    explained = live.daemon.client.get("/v1/explain", domain="adapter", key="cache")
    assert event["previous_provider"] == "remote"
    assert "remote" not in [placing["provider"] for placing in explained["placings"]]


def test_withdrawn_provider_that_nobody_can_replace_goes_on_serving(live: Live) -> None:
    live.upstream.publish(live.upstream.entry(key="alone"))
    live.daemon.wait_event("remote-sync-complete")
    activate(live.daemon, "alone")
    live.upstream.withdraw()
    live.daemon.wait_event("remote-sync-complete", entries=0)
    row = live.daemon.slot("adapter", "alone")
    assert (row["provider"], row["state"]) == ("remote", "ready")


def test_version_that_does_not_start_leaves_the_one_that_serves(live: Live) -> None:
    before = live.serving["slot"]["instance_id"]
    live.upstream.publish(live.upstream.entry("2.0", module="raise RuntimeError('no luck with {version}')\n"))
    event = live.daemon.wait_event("swap-failed", provider="remote")
    assert ("no luck with 2.0" in event["error"], live.serving["slot"]["instance_id"]) == (True, before)


def test_refresh_asks_whether_what_is_in_force_is_still_current(live: Live) -> None:
    live.publisher.requests.clear()
    wait_until(lambda: len(live.publisher.requests) >= 3, "three questions")
    asked = live.publisher.requests[:3]
    assert {one.path for one in asked} == {MANIFEST}
    assert len({one.headers.get("if-none-match", "absent") for one in asked} - {"absent"}) == 1


# What is published is wrong


def stolen(upstream: Upstream) -> Fault:
    return replace(upstream.publish(upstream.entry("2.0"), signer=new_key()))


def half(upstream: Upstream) -> Fault:
    content = upstream.publish(upstream.entry("2.0"))
    return replace(content[: len(content) // 2])


def of_a_portal(_upstream: Upstream) -> Fault:
    return replace(b"<html>Welcome to the hotel's wireless network</html>")


def cut_off(_upstream: Upstream) -> Fault:
    return hang_up


@pytest.mark.parametrize("fault", [stolen, half, of_a_portal, cut_off])
def test_bad_manifest_changes_nothing_that_serves(live: Live, fault: Callable[[Upstream], Fault]) -> None:
    live.daemon.cli("remote-sync")  # what is published is in force, and nothing is under way any more
    before = live.serving
    live.publisher.faults[MANIFEST] = fault(live.upstream)
    live.daemon.wait_event("remote-sync-error")
    assert live.serving == before


def test_bad_artifact_changes_nothing_and_is_taken_when_it_is_right(live: Live) -> None:
    before = live.serving
    live.publisher.faults["/upstream-2.0-py3-none-any.whl"] = tamper
    live.upstream.publish(live.upstream.entry("2.0"))
    live.daemon.wait_event("digest-check-failed", artifact=live.upstream.artifact)
    during = live.serving
    live.publisher.faults.clear()
    event = live.daemon.wait_event("swap-complete", previous_provider="remote")
    assert (during, event["provider"]) == (before, "remote")


# Without the network


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Upstream, Path]:
    """What was delivered to, and never again: its publisher is gone."""
    upstream = Upstream(tmp_path_factory.mktemp("cut") / "up")
    upstream.publish()
    with serving(upstream) as publisher:
        directory = place(upstream, publisher.url)
        assert oneiric(directory, "remote-sync").returncode == 0
    return upstream, directory


@pytest.fixture
def alone(cut: tuple[Upstream, Path], tmp_path: Path) -> tuple[Upstream, Path]:
    """A copy of it."""
    return cut[0], shutil.copytree(cut[1], tmp_path / "p")


def test_restart_without_network_serves_what_is_cached(alone: tuple[Upstream, Path]) -> None:
    with running(alone[1]) as daemon:
        event = daemon.wait_event("remote-restored")
        row = activate(daemon)
        daemon.wait_event("remote-sync-error", reason="connection")
    assert (event["manifest"], event["manifest_version"], event["entries"]) == ("upstream", 1, 1)
    assert row["provider"] == "remote"
    names = [event["event"] for event in daemon.events]
    assert names.index("remote-restored") < names.index("daemon-ready")


def test_restart_without_network_uses_no_artifact_that_was_changed(alone: tuple[Upstream, Path]) -> None:
    upstream, directory = alone
    artifact = directory / ".oneiric_cache" / "artifacts" / upstream.artifact
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"x")
    with running(directory) as daemon:
        event = daemon.wait_event("remote-restore-failed")
        row = activate(daemon)
    assert (event["reason"], row["provider"]) == ("digest", "memory")


def test_restart_without_network_and_with_another_key_trusts_nothing_of_the_cache(
    alone: tuple[Upstream, Path], tmp_path: Path
) -> None:
    directory = alone[1]
    (directory / "settings" / "app.yml").write_text(Upstream(tmp_path / "other").settings())
    with running(directory) as daemon:
        event = daemon.wait_event("remote-restore-failed")
        row = activate(daemon)
    assert (event["reason"], row["provider"]) == ("signature", "memory")


def test_cached_manifest_that_was_tampered_with_is_logged_as_a_failed_signature(upstream: Upstream) -> None:
    with serving(upstream) as publisher:
        directory = place(upstream, publisher.url)
        with running(directory) as daemon:
            daemon.wait_event("remote-sync-complete")
    cached = directory / ".oneiric_cache" / "manifest.yaml"
    cached.write_bytes(cached.read_bytes().replace(b'"priority":50', b'"priority":51'))
    with running(directory) as daemon:
        daemon.wait_event("remote-restore-failed", reason="signature")
        failed = daemon.wait_event("signature-verification-failed")
    assert (failed["source"], failed["error"].startswith("signature: TrustError: ")) == ("remote", True)
