"""Runbooks 3 and 4 as an operator types them: remote synchronisation that fails, and a cache that is not as it was."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from examples.publisher.press import new_key
from examples.publisher.serve import Publisher, fail
from tests.harness.daemon import project, running
from tests.harness.delivery import Upstream, serving

STATUS = "uv run python -m oneiric.cli remote-status"
SYNC = "uv run python -m oneiric.cli remote-sync --manifest <url>"
SYNC_TRUSTED = "uv run python -m oneiric.cli remote-sync --manifest <trusted_url>"
LIST = "uv run python -m oneiric.cli list --domain adapter"
CLEAR_ARTIFACT = "rm -rf .oneiric_cache/artifacts/<artifact_name>"
CLEAR_CORRUPTED = "rm -f .oneiric_cache/artifacts/<corrupted_artifact>"
CLEAR_CACHE = "rm -rf .oneiric_cache/"
COMPARE = "diff .oneiric_cache/manifest.yaml manifest-fresh.yaml"


class Site(NamedTuple):
    """A machine that Oneiric runs on, and its publisher."""

    directory: Path
    upstream: Upstream
    publisher: Publisher

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """Type a line of the runbook; what it leaves open (``<url>``) is filled in."""
        artifact = self.upstream.artifact
        for name, value in (("url", self.publisher.url), ("trusted_url", self.publisher.url)):
            line = line.replace(f"<{name}>", value)
        line = line.replace("<artifact_name>", artifact).replace("<corrupted_artifact>", artifact)
        line = line.replace("uv run python", sys.executable)
        return subprocess.run(
            ["/bin/sh", "-c", line], cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def artifact(self) -> Path:
        return self.directory / ".oneiric_cache" / "artifacts" / self.upstream.artifact

    def configure(self, url: str | None = None, **remote: object) -> None:
        (self.directory / "settings" / "app.yml").write_text(self.upstream.settings(url, **remote))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site that knows its publisher's key, and asks for a manifest only when it is told to."""
    upstream = Upstream(tmp_path / "up")
    upstream.publish()
    with serving(upstream) as publisher:
        made = Site(project(tmp_path / "p"), upstream, publisher)
        made.configure()
        yield made


def test_stale_daemon_is_synchronised_and_then_lists_what_came(site: Site) -> None:
    with running(site.directory):
        before = site.type(LIST).stdout
        synced = site.type(SYNC)
        status, listed = site.type(STATUS), site.type(f"{LIST} --show-shadowed")
    assert (synced.returncode, synced.stderr) == (0, "")
    assert "remote" not in before
    assert [line.split()[:2] for line in listed.stdout.splitlines() if " remote" in line] == [["remote", "shadowed"]]
    headings = {line.partition(":")[0] for line in status.stdout.splitlines()}
    assert {"last sync", "syncs", "registrations"} <= headings


@pytest.mark.parametrize("clear", [CLEAR_ARTIFACT, CLEAR_CORRUPTED])
def test_cleared_artifact_is_fetched_again_and_its_digest_logged_under_the_name_that_was_cleared(
    site: Site, clear: str
) -> None:
    with running(site.directory) as daemon:
        site.type(SYNC)
        cleared = site.type(clear)
        assert not site.artifact.exists()
        synced = site.type(SYNC)
        event = daemon.wait_event("digest-check-success", count=2, artifact=site.upstream.artifact)
    assert (cleared.returncode, synced.returncode) == (0, 0)
    assert hashlib.sha256(site.artifact.read_bytes()).hexdigest() == event["expected_digest"] == event["actual_digest"]


def test_corrupted_artifact_is_reported_kept_as_evidence_and_healed_by_the_next_sync(site: Site) -> None:
    with running(site.directory) as daemon:
        site.type(SYNC)
        right = site.artifact.read_bytes()
        site.artifact.write_bytes(b"x" + right[1:])
        synced = site.type(SYNC)
        event = daemon.wait_event("digest-check-failed")
    evidence = [path.read_bytes() for path in (site.directory / ".oneiric_cache" / "quarantine").iterdir()]
    assert (synced.returncode, site.artifact.read_bytes(), evidence) == (0, right, [b"x" + right[1:]])
    assert (event["artifact"], len(event["actual_digest"])) == (site.upstream.artifact, 64)
    assert event["actual_digest"] != event["expected_digest"]


def test_cache_that_is_removed_is_rebuilt_without_a_daemon_and_the_next_one_starts_from_it(site: Site) -> None:
    site.type(SYNC)
    cleared, rebuilt = site.type(CLEAR_CACHE), site.type(SYNC_TRUSTED)
    assert (cleared.returncode, rebuilt.returncode, site.artifact.exists()) == (0, 0, True)
    with running(site.directory) as daemon:
        event = daemon.wait_event("remote-restored")
    assert (event["manifest"], event["entries"]) == ("upstream", 1)


def test_cache_that_is_removed_under_a_daemon_is_rebuilt_by_it(site: Site) -> None:
    with running(site.directory) as daemon:
        site.type(SYNC)
        site.type(CLEAR_CACHE)
        rebuilt = site.type(SYNC_TRUSTED)
        verified = daemon.cli("cache", "verify")
    assert (rebuilt.returncode, verified.returncode, site.artifact.exists()) == (0, 0, True)


def test_cached_manifest_is_byte_for_byte_the_one_at_the_publisher(site: Site) -> None:
    site.type(SYNC)
    (site.directory / "manifest-fresh.yaml").write_bytes(site.upstream.manifest.read_bytes())
    same = site.type(COMPARE)
    (site.directory / "manifest-fresh.yaml").write_bytes(site.upstream.publish())
    assert (same.returncode, same.stdout, site.type(COMPARE).returncode) == (0, "", 1)


def test_rotated_key_is_reported_until_the_settings_have_it_and_then_accepted_at_a_restart(site: Site) -> None:
    site.configure(site.publisher.url)
    with running(site.directory) as daemon:
        daemon.wait_event("remote-sync-complete")
        site.upstream.signer = new_key()
        site.upstream.publish()
        refused = site.type(SYNC)
        event = daemon.wait_event("signature-verification-failed")
    site.configure(site.publisher.url)
    with running(site.directory) as daemon:
        daemon.wait_event("remote-sync-complete")
    assert (refused.returncode, "source" in event, "key_id" in event) == (5, True, True)


def test_signatures_that_are_not_required_after_a_restart_are_warned_of(site: Site) -> None:
    site.upstream.publish(signer=new_key())
    site.configure(site.publisher.url, require_signature=False)
    with running(site.directory) as daemon:
        event = daemon.wait_event("remote-sync-warning")
        status = site.type(STATUS).stdout
    assert "accepted without a valid signature" in event["error"]
    assert "warning: signatures are not required" in status


def test_open_breaker_is_in_the_log_and_a_restart_tries_at_once(site: Site) -> None:
    site.configure(site.publisher.url, failure_threshold=1, reset_timeout=3600)
    site.publisher.faults["/manifest.json"] = fail(404)
    with running(site.directory) as daemon:
        event = daemon.wait_event("remote-sync-error", circuit_breaker="open")
        refused = site.type(SYNC)
    site.publisher.faults.clear()
    with running(site.directory) as daemon:
        daemon.wait_event("remote-sync-complete")
        status = daemon.client.get("/v1/remote")
    assert event["consecutive_failures"] == 1
    assert (refused.returncode, "circuit breaker is open" in refused.stdout) == (1, True)
    assert (status["circuit_breaker"], status["consecutive_failures"], status["failures"]) == ("closed", 0, 1)


def test_breaker_settings_of_the_runbook_take_effect_while_it_runs(site: Site) -> None:
    site.configure(site.publisher.url, failure_threshold=1, reset_timeout=3600)
    site.publisher.faults["/manifest.json"] = fail(404)
    with running(site.directory) as daemon:
        daemon.wait_event("remote-sync-error", circuit_breaker="open")
        site.configure(site.publisher.url, failure_threshold=5, reset_timeout=120)
        event = daemon.wait_event("remote-sync-error", circuit_breaker="closed")
    assert event["consecutive_failures"] == 2
