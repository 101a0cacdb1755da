"""Every command of the runbook that asks or tells the local daemon, as the runbook writes it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon, project, running

READS = [
    "python -m oneiric.cli list --domain adapter --json",
    "python -m oneiric.cli list --domain service --json",
    "python -m oneiric.cli explain status --domain service",
    "python -m oneiric.cli explain status --domain adapter",
    "python -m oneiric.cli list --domain adapter",
    "python -m oneiric.cli list --domain adapter --show-shadowed",
    "python -m oneiric.cli status --domain adapter --key cache --json",
    "python -m oneiric.cli status --domain adapter --key cache",
    "python -m oneiric.cli status --domain adapter --json",
    "python -m oneiric.cli plugins",
]
PROBE = "python -m oneiric.cli health --probe --domain adapter --key cache"
SWAPS = [
    "python -m oneiric.cli swap --domain adapter --key cache --provider redis",
    "python -m oneiric.cli swap --domain adapter --key cache --provider redis --force",
]
FROM_DISK = "no daemon runs: answered from settings and plugins on disk\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(project(tmp_path_factory.mktemp("runbook") / "p")) as daemon:
        yield daemon


def run(line: str, directory: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(line)
    assert program == "python"
    return subprocess.run([sys.executable, *arguments], cwd=directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("line", [*READS, PROBE])
def test_question_is_answered_by_the_daemon(daemon: Daemon, line: str) -> None:
    answer = run(line, daemon.directory)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout)["live"] is True if line.endswith("--json") else answer.stdout.strip()


@pytest.mark.parametrize("line", READS)
def test_question_is_answered_from_disk_without_a_daemon(quiet: Path, line: str) -> None:
    answer = run(line, quiet)
    assert (answer.returncode, answer.stderr) == (0, FROM_DISK)
    assert json.loads(answer.stdout)["live"] is False if line.endswith("--json") else answer.stdout.strip()


@pytest.mark.parametrize("line", SWAPS)
def test_swap_leaves_the_slot_ready_with_the_provider(daemon: Daemon, line: str) -> None:
    swapped = run(line, daemon.directory)
    status = run("python -m oneiric.cli status --domain adapter --key cache", daemon.directory).stdout.splitlines()
    assert (swapped.returncode, swapped.stderr) == (0, "")
    assert [line.split() for line in status[1:3]] == [["state:", "ready"], ["provider:", "redis"]]


def test_status_spells_ready_and_the_provider_as_the_runbook_expects(daemon: Daemon) -> None:
    run(SWAPS[0], daemon.directory)
    row = json.loads(run(READS[6], daemon.directory).stdout)["slots"][0]
    assert (row["state"], row["provider"]) == ("ready", "redis")


@pytest.mark.parametrize("line", [PROBE, *SWAPS])
def test_what_needs_a_daemon_says_how_to_start_one(quiet: Path, line: str) -> None:
    answer = run(line, quiet)
    assert (answer.returncode, answer.stdout) == (3, "")
    assert answer.stderr == (
        "error[no-daemon]: the daemon at .oneiric_state/oneiric.sock does not run: no socket there\n"
        "try: oneiric orchestrate\n"
    )


def test_health_without_a_daemon_knows_nothing_and_says_how_to_start_one(quiet: Path) -> None:
    answer = run("python -m oneiric.cli health", quiet)
    assert (answer.returncode, answer.stdout) == (
        3,
        "nothing is known: instances live in a daemon; start one: oneiric orchestrate\n",
    )


def test_health_without_a_daemon_is_not_healthy_for_a_program(quiet: Path) -> None:
    answer = run("python -m oneiric.cli health --json", quiet)
    document = json.loads(answer.stdout)
    assert (answer.returncode, document["live"], document["healthy"]) == (3, False, False)


def test_health_of_a_sick_instance_exits_1_and_says_why(daemon: Daemon) -> None:
    (daemon.directory / "sick").touch()
    sick = run(PROBE, daemon.directory)
    (daemon.directory / "sick").unlink()
    assert (sick.returncode, sick.stderr) == (1, "")
    assert "unhealthy" in sick.stdout
    assert "health() returned False" in sick.stdout
    assert run(PROBE, daemon.directory).returncode == 0


def test_health_of_a_slot_without_an_instance_exits_1(daemon: Daemon) -> None:
    answer = run("python -m oneiric.cli health --domain adapter --key kv", daemon.directory)
    assert (answer.returncode, answer.stdout) == (1, "no live instance\n")


def test_list_shows_what_the_runbook_reads_from_it(quiet: Path) -> None:
    lines = run("python -m oneiric.cli list --domain adapter --show-shadowed", quiet).stdout.splitlines()
    assert " ".join(lines[0].split()) == "DOMAIN KEY PROVIDER STATE STACK LEVEL PRIORITY VERSION SOURCE WHY"
    assert lines[1].split()[:4] == ["adapter", "cache", "memory", "inactive"]
    assert [line for line in lines if line.split()[:2] == ["redis", "shadowed"] and "not the selection" in line]


def test_plugins_says_which_disabled_names_nothing_is_called_by(quiet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEIRIC_PLUGINS__DISABLED", "[oneiric, shpo, 'oneiric:man']")
    answer = run("python -m oneiric.cli plugins", quiet)
    last = answer.stdout.splitlines()[-1]
    assert (last, answer.returncode) == ("plugins.disabled: nothing installed is called shpo or oneiric:man", 0)


def test_plugins_shows_each_entry_point_with_its_candidates(quiet: Path) -> None:
    lines = [line.split() for line in run("python -m oneiric.cli plugins", quiet).stdout.splitlines()]
    assert ["oneiric.services", "oneiric", "oneiric"] in [line[:3] for line in lines]
    assert lines[1][4:7] == ["active", "adapter/cache", "memory,"]
