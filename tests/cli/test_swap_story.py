"""A swap and what follows from it, each step typed in a shell of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.daemon import Daemon, oneiric, project, running

SLOT = ("--domain", "adapter", "--key", "cache")
BODY = {"domain": "adapter", "key": "cache"}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(project(tmp_path_factory.mktemp("story") / "p", app="watch: {debounce: 0.1}\n")) as daemon:
        yield daemon


@pytest.fixture
def daemon(lasting: Daemon) -> Daemon:
    """A daemon where ``memory`` serves and nothing was decided."""
    lasting.client.post("/v1/resume", BODY)
    lasting.client.post("/v1/unpin", BODY)
    row = lasting.slot("adapter", "cache")
    assert (row["provider"], row["state"], row["pin"]) == ("memory", "ready", None)
    return lasting


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose daemon is gone; before that it was swapped to ``redis`` and paused."""
    directory = project(tmp_path_factory.mktemp("left") / "p")
    with running(directory) as daemon:
        assert daemon.cli("swap", *SLOT, "--provider", "redis").returncode == 0
        assert daemon.cli("pause", *SLOT, "--note", "moving the disk").returncode == 0
    return directory


def document(directory: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(oneiric(directory, *arguments, "--json").stdout)
    return found


def test_swap_says_what_it_did_and_how_to_undo_it(daemon: Daemon) -> None:
    answer = daemon.cli("swap", *SLOT, "--provider", "redis")
    did, undo = answer.stdout.splitlines()
    assert (answer.returncode, answer.stderr) == (0, "")
    assert did.startswith("adapter/cache: memory -> redis in ")
    assert undo == "pinned to redis; undo: oneiric unpin --domain adapter --key cache"


def test_swap_is_seen_by_the_next_status_and_list(daemon: Daemon) -> None:
    daemon.cli("swap", *SLOT, "--provider", "redis")
    status = document(daemon.directory, "status", *SLOT)["slots"][0]
    listed = document(daemon.directory, "list", "--domain", "adapter")["slots"][0]
    assert (status["provider"], status["pin"]["provider"], status["history"][-1]["previous"]) == (
        "redis",
        "redis",
        "memory",
    )
    assert (listed["provider"], listed["pinned"], listed["state"]) == ("redis", True, "ready")


def test_swap_without_a_provider_pins_nothing(daemon: Daemon) -> None:
    answer = daemon.cli("swap", *SLOT)
    assert (answer.returncode, "pinned" in answer.stdout) == (0, False)
    assert daemon.slot("adapter", "cache")["pin"] is None


def test_swap_in_json_is_one_document(daemon: Daemon) -> None:
    answer = document(daemon.directory, "swap", *SLOT, "--provider", "redis")
    assert (answer["schema"], answer["previous"], answer["provider"], answer["pinned"]) == (
        "oneiric.swap/1",
        "memory",
        "redis",
        True,
    )


def test_dry_run_changes_nothing(daemon: Daemon) -> None:
    before = daemon.slot("adapter", "cache")
    answer = daemon.cli("swap", *SLOT, "--provider", "redis", "--dry-run")
    after = daemon.slot("adapter", "cache")
    assert (answer.returncode, answer.stdout) == (
        0,
        "adapter/cache: redis was built, is healthy and was closed again; nothing changed\n",
    )
    assert (after["instance_id"], after["pin"]) == (before["instance_id"], None)


def test_dry_run_of_a_sick_provider_fails(daemon: Daemon) -> None:
    answer = daemon.cli("swap", *SLOT, "--provider", "sick", "--dry-run")
    assert (answer.returncode, answer.stdout) == (1, "")


@pytest.mark.parametrize(
    ("provider", "why"),
    [("sick", "health() returned False"), ("exploding", "no such luck"), ("lost", "ImportError(ModuleNotFoundError)")],
)
def test_failed_swap_exits_1_and_the_old_one_serves(daemon: Daemon, provider: str, why: str) -> None:
    answer = daemon.cli("swap", *SLOT, "--provider", provider)
    first, second = answer.stderr.splitlines()
    assert (answer.returncode, answer.stdout) == (1, "")
    assert first.startswith(f"error[swap-failed]: adapter/cache: {provider} did not take over")
    assert why in first
    assert second.startswith("try: ")
    assert daemon.slot("adapter", "cache")["provider"] == "memory"


def test_force_never_reports_a_failure_as_success(daemon: Daemon) -> None:
    answer = daemon.cli("swap", *SLOT, "--provider", "sick", "--force")
    assert (answer.returncode, daemon.slot("adapter", "cache")["provider"]) == (1, "memory")


def test_swap_to_nobody_shows_who_there_is(daemon: Daemon) -> None:
    answer = daemon.cli("swap", *SLOT, "--provider", "nobody")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("error[no-candidate]: ")
    assert "  shadowed  redis " in answer.stderr


def test_failed_swap_in_json_is_a_document_too(daemon: Daemon) -> None:
    answer = daemon.cli("swap", *SLOT, "--provider", "sick", "--json")
    found = json.loads(answer.stdout)
    assert (found["schema"], found["error"]["code"], found["error"]["exit_code"]) == (
        "oneiric.error/1",
        "swap-failed",
        1,
    )
    assert answer.stderr.startswith("error[swap-failed]: ")


def test_skipped_health_is_warned_of_and_commits(daemon: Daemon) -> None:
    answer = daemon.cli("swap", *SLOT, "--provider", "sick", "--skip-health")
    assert (answer.returncode, daemon.slot("adapter", "cache")["provider"]) == (0, "sick")
    assert answer.stderr.startswith("warning: --skip-health: ")


def test_unpin_returns_to_precedence(daemon: Daemon) -> None:
    daemon.client.post("/v1/swap", {**BODY, "provider": "redis"})
    answer = daemon.cli("unpin", *SLOT)
    assert (answer.returncode, answer.stdout) == (0, "adapter/cache is no longer pinned to redis; memory serves\n")
    assert daemon.slot("adapter", "cache")["provider"] == "memory"


def test_unpin_of_what_is_not_pinned_says_so(daemon: Daemon) -> None:
    answer = daemon.cli("unpin", *SLOT)
    assert (answer.returncode, answer.stdout) == (0, "adapter/cache was not pinned\n")


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        ("pause", "adapter/cache is paused (moving the disk)\n"),
        ("drain", "adapter/cache is draining: the last lease ended\n"),
    ],
)
def test_stopped_leases_show_their_note_until_resumed(daemon: Daemon, verb: str, says: str) -> None:
    stopped = daemon.cli(verb, *SLOT, "--note", "moving the disk")
    status = daemon.cli("status", *SLOT).stdout.splitlines()
    resumed = daemon.cli("resume", *SLOT)
    assert (stopped.returncode, stopped.stdout) == (0, says)
    assert status[1].removeprefix("state:").strip() in ("paused (moving the disk)", "draining (moving the disk)")
    assert (resumed.returncode, resumed.stdout) == (0, "adapter/cache is ready\n")


def test_explain_says_who_pinned_it_and_when(daemon: Daemon) -> None:
    daemon.cli("swap", *SLOT, "--provider", "redis")
    pin = daemon.slot("adapter", "cache")["pin"]
    answer = daemon.cli("explain", *SLOT)
    assert f"selection: pin names redis (by {pin['by']} since {pin['since'][:19]}" in answer.stdout
    assert "(uid " in pin["by"]


def test_watch_says_whether_it_is_on(daemon: Daemon) -> None:
    paused = daemon.cli("watch", "pause")
    status = document(daemon.directory, "status")["daemon"]["watch"]
    resumed = daemon.cli("watch", "resume")
    assert (paused.returncode, paused.stdout, status) == (0, "watch is paused\n", "paused")
    assert (resumed.returncode, resumed.stdout) == (0, "watch is on\n")


def test_pin_and_pause_survive_a_restart(left: Path) -> None:
    with running(left) as daemon:
        row = daemon.slot("adapter", "cache")
    assert (row["provider"], row["pin"]["provider"]) == ("redis", "redis")
    assert (row["state"], row["note"]) == ("paused", "moving the disk")


def test_explain_from_disk_says_who_pinned_it_and_when(left: Path) -> None:
    answer = oneiric(left, "explain", *SLOT)
    pin = document(left, "explain", *SLOT)["pin"]
    assert "selection: pin names redis (by " in answer.stdout
    assert f"since {pin['since'][:19]}" in answer.stdout


def test_status_from_disk_knows_what_the_last_daemon_left(left: Path) -> None:
    row = document(left, "status", *SLOT)["slots"][0]
    assert (row["wanted"], row["pin"]["provider"], row["note"]) == ("redis", "redis", "moving the disk")
    assert ("memory", "redis", "success") in [(s["previous"], s["provider"], s["outcome"]) for s in row["history"]]


def test_list_from_disk_marks_the_pin(left: Path) -> None:
    row = document(left, "list", "--domain", "adapter")["slots"][0]
    assert (row["provider"], row["pinned"]) == ("redis", True)
