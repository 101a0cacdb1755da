"""Delivery to a running daemon: outages that heal, entries that are withdrawn, manifests that are wrong, no network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from examples.publisher.press import new_key
from examples.publisher.serve import Fault, fail, hang_up, replace, tamper
from tests.adapters.redis_server import free_port
from tests.harness.daemon import Daemon, project, running, wait_until
from tests.harness.delivery import Upstream, serving

CANDIDATES = """
candidates:
  - {key: cache, provider: memory, factory: "providers:Memory", priority: 5}
"""
HOLDER = "selections: {holder: h}\ncandidates: [{key: holder, provider: h, factory: 'holder:Holder'}]\n"
HOLDS = '''
from oneiric import Runtime, Slot

class Holder:
    """Uses the cache from the beginning, so that its slot is live."""
    @classmethod
    async def begin(cls, runtime):
        async with runtime.use(Slot("adapter", "cache")):
            return cls()

async def Holder_(runtime: Runtime):
    return await Holder.begin(runtime)
'''
MANIFEST = "/manifest.json"
SOON = {"refresh_interval": 0.05, "timeout": 2}


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    made = Upstream(tmp_path / "up")
    made.publish()
    return made


def place(upstream: Upstream, url: str | None, **remote: Any) -> Path:
    """Make a project whose ``adapter/cache`` is used from the start: by ``memory``, or by what is delivered."""
    app = upstream.settings(url, **{**SOON, **remote})
    return project(upstream.directory.parent / "p", app=app, adapters=CANDIDATES)


def activate(daemon: Daemon) -> dict[str, Any]:
    """Have precedence fill ``adapter/cache``, and return its row."""
    daemon.client.post("/v1/swap", {"domain": "adapter", "key": "cache"})
    return daemon.slot("adapter", "cache")


def states(daemon: Daemon) -> list[str]:
    return [event["state"] for event in daemon.events if event["event"] == "circuit-breaker-changed"]


# Outages


def test_outage_is_counted_opens_the_breaker_and_heals_by_itself(upstream: Upstream) -> None:
    port = free_port()
    directory = place(
        upstream, f"http://127.0.0.1:{port}/manifest.json", failure_threshold=2, reset_timeout=0.3, timeout=1
    )
    with running(directory) as daemon:
        errors = [daemon.wait_event("remote-sync-error", consecutive_failures=number) for number in (1, 2)]
        daemon.wait_event("circuit-breaker-changed", state="open")
        down = daemon.client.get("/v1/remote")
        with serving(upstream, port=port):
            daemon.wait_event("remote-sync-complete")
            wait_until(lambda: daemon.client.get("/v1/remote")["circuit_breaker"] == "closed", "the breaker closes")
            up = daemon.client.get("/v1/remote")
    assert [(error["reason"], error["circuit_breaker"]) for error in errors] == [
        ("connection", "closed"),
        ("connection", "open"),
    ]
    assert all(error["error"].startswith("connection: ") for error in errors)
    assert (down["consecutive_failures"] >= 2, down["successes"]) == (True, 0)
    assert (up["consecutive_failures"], up["last_error"]) == (0, "")
    assert states(daemon)[-1] == "closed"


def test_open_breaker_keeps_the_daemon_from_asking(upstream: Upstream) -> None:
    with serving(upstream) as publisher:
        publisher.faults[MANIFEST] = fail(404)
        with running(place(upstream, publisher.url, failure_threshold=2, reset_timeout=3600)) as daemon:
            daemon.wait_event("circuit-breaker-changed", state="open")
            asked = len(publisher.requests)
            skipped = [daemon.client.post("/v1/remote/sync")["outcome"] for _ in range(3)]
    assert (asked, len(publisher.requests), skipped) == (2, 2, ["skipped"] * 3)


def test_failures_in_a_row_outlive_a_restart(upstream: Upstream) -> None:
    with serving(upstream) as publisher:
        publisher.faults[MANIFEST] = fail(404)
        directory = place(upstream, publisher.url, failure_threshold=100)
        with running(directory) as first:
            first.wait_event("remote-sync-error", consecutive_failures=3)
        with running(directory) as second:
            event = second.wait_event("remote-sync-error")
    assert event["consecutive_failures"] > 3


# What is offered changes


def test_delivered_provider_takes_over_a_live_slot(upstream: Upstream) -> None:
    upstream.withdraw()
    with serving(upstream) as publisher, running(place(upstream, publisher.url)) as daemon:
        before = activate(daemon)["provider"]
        upstream.publish()
        event = daemon.wait_event("swap-complete", provider="remote")
    assert (before, event["previous_provider"], event["by"]) == ("memory", "memory", "remote")


def test_withdrawn_provider_gives_way_to_what_precedence_says(upstream: Upstream) -> None:
    with serving(upstream) as publisher, running(place(upstream, publisher.url)) as daemon:
        daemon.wait_event("remote-sync-complete")
        before = activate(daemon)["provider"]
        upstream.withdraw()
        event = daemon.wait_event("swap-complete", provider="memory")
        explained = daemon.client.get("/v1/explain", domain="adapter", key="cache")
    assert (before, event["previous_provider"]) == ("remote", "remote")
    assert "remote" not in [placing["provider"] for placing in explained["placings"]]


def test_withdrawn_provider_that_nobody_can_replace_goes_on_serving(upstream: Upstream) -> None:
    upstream.publish(upstream.entry(key="alone"))
    with serving(upstream) as publisher, running(place(upstream, publisher.url)) as daemon:
        daemon.wait_event("remote-sync-complete")
        daemon.client.post("/v1/swap", {"domain": "adapter", "key": "alone"})
        upstream.withdraw()
        daemon.wait_event("remote-sync-complete", entries=0)
        row = daemon.slot("adapter", "alone")
    assert (row["provider"], row["state"]) == ("remote", "ready")


def test_version_that_does_not_start_leaves_the_one_that_serves(upstream: Upstream) -> None:
    with serving(upstream) as publisher, running(place(upstream, publisher.url)) as daemon:
        daemon.wait_event("remote-sync-complete")
        before = activate(daemon)
        upstream.publish(upstream.entry("2.0", module="raise RuntimeError('no luck with {version}')\n"))
        event = daemon.wait_event("swap-failed", provider="remote")
        after = daemon.slot("adapter", "cache")
    assert ("no luck with 2.0" in event["error"], after["instance_id"]) == (True, before["instance_id"])


# What is published is wrong


def stolen(upstream: Upstream) -> Fault:
    return replace(upstream.publish(upstream.entry("2.0"), signer=new_key()))


def half(upstream: Upstream) -> Fault:
    content = upstream.publish(upstream.entry("2.0"))
    return replace(content[: len(content) // 2])


def not_json(_upstream: Upstream) -> Fault:
    return replace(b"<html>Welcome to the hotel's wireless network</html>")


@pytest.mark.parametrize("fault", [stolen, half, not_json, lambda _: hang_up, lambda _: fail(500)])
def test_bad_manifest_changes_nothing_that_serves(upstream: Upstream, fault: Any) -> None:
    with serving(upstream) as publisher, running(place(upstream, publisher.url)) as daemon:
        daemon.wait_event("remote-sync-complete")
        before = activate(daemon), daemon.client.get("/v1/list", shadowed=True)
        publisher.faults[MANIFEST] = fault(upstream)
        daemon.wait_event("remote-sync-error")
        after = daemon.slot("adapter", "cache"), daemon.client.get("/v1/list", shadowed=True)
    assert after == before


def test_bad_artifact_changes_nothing_and_is_taken_when_it_is_right(upstream: Upstream) -> None:
    with serving(upstream) as publisher, running(place(upstream, publisher.url)) as daemon:
        daemon.wait_event("remote-sync-complete")
        before = activate(daemon)
        publisher.faults["/upstream-2.0-py3-none-any.whl"] = tamper
        upstream.publish(upstream.entry("2.0"))
        daemon.wait_event("digest-check-failed", artifact=upstream.artifact)
        during = daemon.slot("adapter", "cache")
        publisher.faults.clear()
        event = daemon.wait_event("swap-complete", previous_provider="remote")
    assert (during["instance_id"], event["provider"]) == (before["instance_id"], "remote")


# Without the network


@contextlib.contextmanager
def delivered_and_cut_off(upstream: Upstream, **remote: Any) -> Iterator[Path]:
    """Deliver once; the block then has no publisher any more."""
    with serving(upstream) as publisher:
        directory = place(upstream, publisher.url, **remote)
        with running(directory) as daemon:
            daemon.wait_event("remote-sync-complete")
    yield directory


def test_restart_without_network_serves_what_is_cached(upstream: Upstream) -> None:
    with delivered_and_cut_off(upstream) as directory, running(directory) as daemon:
        event = daemon.wait_event("remote-restored")
        row = activate(daemon)
        daemon.wait_event("remote-sync-error", reason="connection")
    assert (event["manifest"], event["manifest_version"], event["entries"]) == ("upstream", 1, 1)
    assert row["provider"] == "remote"
    names = [event["event"] for event in daemon.events]
    assert names.index("remote-restored") < names.index("daemon-ready")


def test_restart_without_network_uses_no_cache_that_was_changed(upstream: Upstream) -> None:
    with delivered_and_cut_off(upstream) as directory:
        artifact = directory / ".oneiric_cache" / "artifacts" / upstream.artifact
        artifact.write_bytes(artifact.read_bytes()[:-1] + b"x")
        with running(directory) as daemon:
            event = daemon.wait_event("remote-restore-failed")
            row = activate(daemon)
    assert (event["reason"], row["provider"]) == ("digest", "memory")


def test_restart_without_network_and_with_another_key_trusts_nothing_of_the_cache(upstream: Upstream) -> None:
    with delivered_and_cut_off(upstream) as directory:
        other = Upstream(upstream.directory, signer=new_key())
        (directory / "settings" / "app.yml").write_text(other.settings())
        with running(directory) as daemon:
            event = daemon.wait_event("remote-restore-failed")
            row = activate(daemon)
    assert (event["reason"], row["provider"]) == ("signature", "memory")


def test_refresh_waits_its_interval_between_two_questions(upstream: Upstream) -> None:
    with serving(upstream) as publisher, running(place(upstream, publisher.url, refresh_interval=0.2)) as daemon:
        wait_until(lambda: len(publisher.requests) >= 6, "six questions")
        daemon.stop()
    asked = [one for one in publisher.requests if one.path == MANIFEST]
    assert all("if-none-match" in later.headers for _, later in pairwise(asked))
