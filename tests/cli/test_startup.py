"""What a command may import before it answers: start-up is a budget, counted in modules because time is noise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon

SERVERS = {"anyio", "asyncio", "h11", "prometheus_client", "starlette", "structlog", "uvicorn", "watchfiles"}
CLIENTS = {"cryptography", "httpcore", "httpcore2", "httpx", "httpx2", "redis", "sqlite3", "ssl"}
ENGINE = {"oneiric.api.server", "oneiric.lifecycle.manager", "oneiric.runtime.daemon", "oneiric.runtime.runtime"}
BUILT_INS = {
    "oneiric.adapters.memory",
    "oneiric.adapters.redis",
    "oneiric.adapters.sqlite",
    "oneiric.services.status",
}
HEAVY = SERVERS | CLIENTS | ENGINE | BUILT_INS
PARSERS = {"msgspec", "packaging", "yaml"}
UNASKED = {"dataclasses", "difflib", "logging", "shlex", "subprocess"}
REPORTS = {"oneiric.core.reconcile", "oneiric.lifecycle.reports", "oneiric.observability.catalog"}
METADATA = {"email", "importlib.metadata", "packaging.requirements", "packaging.specifiers", "packaging.tags"}
"""Readers of metadata, and what tells more bounds apart than a lowest version."""
WIRE = {"json", "selectors", "socket"}
OURS = {"oneiric.api", "oneiric.config", "oneiric.core", "oneiric.plugins"}

SCRIPT = """
import sys
before = set(sys.modules)
from oneiric.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    found = sorted(set(sys.modules) - before)
    import json
    print(json.dumps([ended.code, found]), file=sys.stderr)
"""


def imported(directory: Path, *arguments: str) -> list[str]:
    """Return the modules that a command imported, beyond those that Python has at its start."""
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=directory, capture_output=True, text=True, check=True
    )
    code, modules = json.loads(answer.stderr.splitlines()[-1])
    assert code == 0, answer.stderr
    assert "oneiric.cli.main" in modules
    return list(modules)


def offenders(modules: list[str], forbidden: set[str]) -> list[str]:
    """Return those of *modules* that are *forbidden*, or in a forbidden package."""
    return [name for name in modules if any(f"{name}.".startswith(f"{one}.") for one in forbidden)]


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)], ids=" ".join)
def test_help_imports_no_parser_and_none_of_our_rooms(quiet: Path, arguments: tuple[str, ...]) -> None:
    assert offenders(imported(quiet, *arguments), HEAVY | PARSERS | OURS | {"json"}) == []


@pytest.mark.parametrize(
    "arguments",
    [("swap", "--help"), ("status", "--help"), ("doctor", "--help"), ("doctor", "--size", "200")],
    ids=" ".join,
)
def test_help_of_a_command_imports_no_parser(quiet: Path, arguments: tuple[str, ...]) -> None:
    assert offenders(imported(quiet, *arguments), HEAVY | PARSERS) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("explain", "cache", "--domain", "adapter"),
        ("status", "cache", "--domain", "adapter"),
        ("health", "--probe"),
        ("metrics",),
        ("plugins",),
        ("doctor",),
        ("resume", "cache", "--domain", "adapter"),
    ],
    ids=" ".join,
)
def test_asking_the_daemon_imports_no_parser(shared: Daemon, arguments: tuple[str, ...]) -> None:
    assert offenders(imported(shared.directory, *arguments), HEAVY | PARSERS) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("list", "--show-shadowed", "--json"),
        ("explain", "cache", "--domain", "adapter"),
        ("status",),
        ("plugins",),
        ("config", "show"),
    ],
    ids=" ".join,
)
def test_answer_from_disk_imports_no_server_no_client_and_no_built_in(quiet: Path, arguments: tuple[str, ...]) -> None:
    assert offenders(imported(quiet, *arguments), HEAVY) == []


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("explain", "cache", "--domain", "adapter"), ("status",)],
    ids=" ".join,
)
def test_answer_from_disk_for_people_imports_only_what_finds_it(quiet: Path, arguments: tuple[str, ...]) -> None:
    assert offenders(imported(quiet, *arguments), UNASKED | METADATA | REPORTS | WIRE) == []


def test_answer_from_disk_without_settings_imports_no_yaml(tmp_path: Path) -> None:
    assert offenders(imported(tmp_path, "list"), {"yaml"}) == []


@pytest.mark.parametrize("arguments", [("list",), ("explain", "cache", "--domain", "adapter")], ids=" ".join)
def test_asking_the_daemon_imports_no_reader_of_paths(shared: Daemon, arguments: tuple[str, ...]) -> None:
    assert offenders(imported(shared.directory, *arguments), {"pathlib", "urllib"}) == []


def test_offenders_are_found_in_packages_and_not_by_mere_prefix() -> None:
    assert offenders(["ssl", "sslproto", "yaml.loader", "_ssl"], {"ssl", "yaml"}) == ["ssl", "yaml.loader"]
