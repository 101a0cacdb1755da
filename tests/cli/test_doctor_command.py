"""``oneiric doctor``: what a person reads at 3 a.m., what a program reads, and what a real daemon has it say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft202012Validator

from tests.cli.conftest import Typing
from tests.cli.impostor import http, impostor
from tests.harness.daemon import Daemon, oneiric, project, running, wait_until
from tests.harness.delivery import Upstream, serving

OPENAPI = json.loads((Path(__file__).parents[2] / "docs" / "reference" / "openapi.json").read_text())
FROM_DISK = "no daemon answers: judged from the disk; instances, swaps and memory could not be looked at"
BREAKER = {
    "code": "3D",
    "runbook": 3,
    "scenario": "D",
    "heading": "Runbook 3 (Remote Sync Failures), scenario D: Circuit Breaker Open",
    "priority": "P2",
    "title": "the circuit breaker keeps synchronisations back",
    "subject": "https://manifests.example/m.json",
    "variant": "",
    "evidence": ["circuit breaker open, 42 s left; 3 failures in a row, 3 open it"],
    "commands": ["# first cure 3A", "oneiric remote-sync --force"],
    "confirm": ["oneiric remote-status: circuit breaker closed"],
    "caused_by": "3A",
}
DISK = {
    "code": "disk",
    "runbook": None,
    "scenario": "",
    "heading": "disk",
    "priority": "P1",
    "title": "a directory that oneiric writes to is on a full disk",
    "subject": ".oneiric_state",
    "variant": "full",
    "evidence": [".oneiric_state: 1.0 MiB of 100.0 GiB are free"],
    "commands": ["df -h .oneiric_state"],
    "confirm": ["df -h .oneiric_state: more is free"],
    "caused_by": "",
}
TEXT = """\
1. P1  a directory that oneiric writes to is on a full disk (full)
   .oneiric_state
   seen:
     - .oneiric_state: 1.0 MiB of 100.0 GiB are free
   type:
     $ df -h .oneiric_state
   over when:
     - df -h .oneiric_state: more is free

2. P2  the circuit breaker keeps synchronisations back
   Runbook 3 (Remote Sync Failures), scenario D: Circuit Breaker Open
   https://manifests.example/m.json
   follows from 3A: cure that first
   seen:
     - circuit breaker open, 42 s left; 3 failures in a row, 3 open it
   type:
     # first cure 3A
     $ oneiric remote-sync --force
   over when:
     - oneiric remote-status: circuit breaker closed
"""


def said(*findings: dict[str, Any]) -> bytes:
    """Return what a daemon answers that finds *findings*."""
    at = "2026-03-04T14:02:11.000Z"
    return http({"schema": "oneiric.doctor/1", "live": True, "at": at, "findings": list(findings)})


def findings(directory: Path) -> list[tuple[str, str, str]]:
    found = json.loads(oneiric(directory, "doctor", "--json").stdout)["findings"]
    return [(finding["code"], finding["variant"], finding["caused_by"]) for finding in found]


def codes(directory: Path) -> list[str]:
    return [code for code, _, _ in findings(directory)]


# What is shown


def test_findings_are_shown_with_what_was_seen_what_to_type_and_what_ends_them(tmp_path: Path, typed: Typing) -> None:
    with impostor(tmp_path, lambda _: said(DISK, BREAKER)) as there:
        answer = typed("doctor", "--socket", str(tmp_path / ".oneiric_state" / "oneiric.sock"))
        assert there.asked.is_set()
    assert (answer.code, answer.out, answer.err) == (1, TEXT, "")


def test_nothing_to_do_is_said_and_exits_0(tmp_path: Path, typed: Typing) -> None:
    with impostor(tmp_path, lambda _: said()):
        answer = typed("doctor", "--socket", str(tmp_path / ".oneiric_state" / "oneiric.sock"))
    assert answer == (0, "nothing to do\n", "")


def test_words_of_strangers_cannot_move_the_cursor(tmp_path: Path, typed: Typing) -> None:
    evil = {**DISK, "title": "a\x1b[2Jb", "evidence": ["c\nd\x07"], "commands": ["ls '\x9b'\n# x"]}
    with impostor(tmp_path, lambda _: said(evil)):
        out = typed("doctor", "--socket", str(tmp_path / ".oneiric_state" / "oneiric.sock")).out
    assert [line for line in out.splitlines() if not line.isprintable() or line.startswith(("d", "# x"))] == []


@pytest.mark.parametrize(("count", "gib"), [("1", 1), ("200", 12)])
def test_size_tells_the_limit_to_set(typed: Typing, count: str, gib: int) -> None:
    answer = typed("doctor", "--size", count)
    assert (answer.code, f"docker update --memory {gib}g oneiric" in answer.out) == (0, True)
    assert f"MemoryMax={gib}G" in answer.out
    assert f'"memory":"{gib}Gi"' in answer.out


def test_size_as_json_names_bytes(typed: Typing) -> None:
    document = typed("doctor", "--size", "200", "--json").document
    assert (document["schema"], document["needed_bytes"]) == ("oneiric.doctor-size/1", 10_500_000_000)
    assert document["limit_bytes"] == 12 << 30


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_size_of_nothing_is_refused(typed: Typing, count: str) -> None:
    assert typed("doctor", "--size", count).code == 2


def test_watch_looks_again_until_interrupted(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def respond(request: bytes) -> bytes:
        asked.append(request)
        return said(BREAKER)

    with impostor(tmp_path, respond):
        default = ("env", "--default-signal=INT")  # a run of tests in the background hands down that it is ignored
        command = [*default, sys.executable, "-m", "oneiric", "doctor", "--watch", "0.1"]
        watching = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: len(asked) > 2, "three questions")
            watching.send_signal(signal.SIGINT)
            out, err = watching.communicate(timeout=20)
        finally:
            watching.kill()
    assert (watching.returncode, err.strip()) == (130, "")
    assert out.count("1. P2  the circuit breaker keeps synchronisations back") >= 2


# Without a daemon


def test_without_a_daemon_it_judges_from_the_disk_and_says_so(quiet: Path) -> None:
    answer = oneiric(quiet, "doctor")
    assert (answer.returncode, answer.stdout) == (0, f"{FROM_DISK}\n\nnothing to do\n")
    assert answer.stderr == "no daemon runs: answered from settings and plugins on disk\n"


def test_without_a_daemon_invalid_settings_are_1d(tmp_path: Path) -> None:
    directory = project(tmp_path / "p", services="selections: {pricing: [")
    assert codes(directory)[0] == "1D"


def test_daemon_that_does_not_answer_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = project(tmp_path / "p")
    with impostor(directory, lambda _: b""):
        assert codes(directory) == ["daemon"]


# With a real one


def test_healthy_daemon_is_silent(shared: Daemon) -> None:
    answer = shared.cli("doctor")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "nothing to do\n", "")


def test_document_is_as_the_api_describes_it(shared: Daemon) -> None:
    schema = {"$ref": "#/components/schemas/DoctorDocument", "components": OPENAPI["components"]}
    Draft202012Validator(schema).validate(shared.client.get("/v1/doctor"))


def test_findings_are_as_the_api_describes_them() -> None:
    schema = {"$ref": "#/components/schemas/FindingRow", "components": OPENAPI["components"]}
    assert [list(Draft202012Validator(schema).iter_errors(row)) for row in (DISK, BREAKER)] == [[], []]


def test_invalid_settings_of_a_running_daemon_are_1d_until_they_are_corrected(tmp_path: Path) -> None:
    with running(project(tmp_path / "p", app="watch: {debounce: 0.1}\n")) as daemon:
        good = (tmp_path / "p/settings/adapters.yml").read_text()
        (tmp_path / "p/settings/adapters.yml").write_text("selections: {cache: [\n")
        daemon.wait_event("config-rejected")
        answer = daemon.cli("doctor")
        (tmp_path / "p/settings/adapters.yml").write_text(good)
        daemon.wait_event("config-changed")
        healed = daemon.cli("doctor")
    assert answer.returncode == 1
    assert answer.stdout.splitlines()[1] == "   Runbook 1 (Resolution Failures), scenario D: Config File Errors"
    assert (healed.returncode, healed.stdout) == (0, "nothing to do\n")


def test_open_breaker_follows_from_a_publisher_that_is_gone_until_it_is_back(tmp_path: Path) -> None:
    upstream = Upstream(tmp_path / "up")
    upstream.publish()
    quick = {"refresh_interval": 0.3, "failure_threshold": 2, "reset_timeout": 600}
    with ExitStack() as published:
        publisher = published.enter_context(serving(upstream))
        directory = project(tmp_path / "p", app=upstream.settings(publisher.url, **quick))
        with running(directory) as daemon:
            daemon.wait_event("remote-sync-complete")
            healthy = findings(directory)
            published.close()
            daemon.wait_event("circuit-breaker-changed", state="open")
            gone = findings(directory)
            with serving(upstream, port=urlsplit(publisher.url).port or 0):
                back = findings(directory)
                daemon.cli("remote-sync", "--force")
                cured = findings(directory)
    assert healthy == []
    assert gone == [("3A", "connection refused", ""), ("3D", "", "3A")]
    assert back == [("3D", "", "")]
    assert cured == []
