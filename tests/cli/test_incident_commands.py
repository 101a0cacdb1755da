"""What is written down afterwards: the post-incident review and the support bundle."""

from __future__ import annotations

import json
import stat
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from oneiric.cli.incident import review
from tests.harness.daemon import Daemon, oneiric, project, running

SECRET = "hunter2-of-the-drill"


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A daemon in which a swap failed, with a secret in its environment."""
    directory = project(tmp_path_factory.mktemp("incident") / "p")
    with running(directory, environ={"SHOP_SECRET": SECRET}) as daemon:
        daemon.cli("swap", "--domain", "adapter", "--key", "cache", "--provider", "exploding")
        yield daemon


def parts(path: Path) -> dict[str, Any]:
    """Return the documents of a bundle by name."""
    with tarfile.open(path) as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {Path(name).stem: json.load(content) for name, content in members.items() if content is not None}


def test_review_has_the_timeline_of_what_went_wrong(failed: Daemon) -> None:
    text = failed.cli("incident", "new", "--title", "The cache", "--severity", "P0").stdout
    assert text.startswith("# Post-Incident Review: The cache\n")
    assert "| swap-failed domain=adapter key=cache provider=exploding" in text


def test_review_has_what_the_doctor_finds(failed: Daemon) -> None:
    assert "Runbook 2 (Hot-Swap Failures)" in failed.cli("incident", "new").stdout


def test_review_leaves_out_what_is_longer_ago(failed: Daemon) -> None:
    failed.wait_event("swap-failed")
    document = json.loads(failed.cli("incident", "new", "--since", "1s", "--json").stdout)
    earliest = datetime.now(UTC).timestamp() - 30
    assert all(datetime.fromisoformat(one["at"]).timestamp() > earliest for one in document["events"])


def test_review_is_never_written_over_another(failed: Daemon) -> None:
    target = failed.directory / "pir.md"
    assert failed.cli("incident", "new", "-o", str(target)).returncode == 0
    target.write_text("what people wrote")
    refused = failed.cli("incident", "new", "-o", str(target))
    assert (refused.returncode, target.read_text()) == (2, "what people wrote")


def test_review_without_a_daemon_says_how_to_start_one(tmp_path: Path) -> None:
    refused = oneiric(tmp_path, "incident", "new")
    assert (refused.returncode, "oneiric orchestrate" in refused.stderr) == (3, True)


def test_hostile_words_stay_in_their_cell() -> None:
    event = {
        "at": "2030-01-15T12:00:00.000Z",
        "level": "error",
        "event": "swap-failed",
        "fields": {"error": "a|b\n| c"},
    }
    text = review([event], [], now=datetime(2030, 1, 15, tzinfo=UTC), title="x", number="1", severity="P1")
    (row,) = [line for line in text.splitlines() if "swap-failed" in line]
    assert row.count("|") - row.count("\\|") == 3


@pytest.mark.parametrize("since", ["", "0m", "2x", "-1h", "99999999h"])
def test_length_of_time_that_is_none_is_refused(since: str, tmp_path: Path) -> None:
    assert oneiric(tmp_path, "incident", "new", "--since", since).returncode == 2


def test_bundle_holds_what_others_need(failed: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    assert failed.cli("support-bundle", "-o", str(path)).returncode == 0
    found = parts(path)
    wanted = {
        "versions",
        "status",
        "list",
        "config",
        "metrics",
        "doctor",
        "events",
        "explain",
        "cache",
        "remote-status",
    }
    assert wanted <= found.keys()
    assert not [name for name, document in found.items() if "error" in document]


def test_bundle_is_for_its_owner_alone(failed: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    failed.cli("support-bundle", "-o", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_bundle_holds_no_secret_of_the_environment(failed: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    failed.cli("support-bundle", "-o", str(path))
    assert SECRET not in json.dumps(parts(path))


def test_bundle_never_replaces_a_file(failed: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    path.write_text("mine")
    assert failed.cli("support-bundle", "-o", str(path)).returncode == 1
    assert path.read_text() == "mine"


def test_bundle_without_a_daemon_holds_what_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    done = oneiric(tmp_path, "support-bundle", "-o", str(path))
    assert (done.returncode, {"versions", "cache"} <= parts(path).keys()) == (0, True)
