"""Misbehaving plugins beside a good one, as a daemon meets them: rows in the report, and it serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.daemon import Daemon, running

GOOD = """
from oneiric import Candidate, Slot
one = Candidate(slot=Slot("adapter", "cache"), provider="good", factory="oneiric.adapters.memory:MemoryCache")
"""
PLUGINS = {
    "raising": ("raise ValueError('broken')", "ValueError: broken"),
    "exiting": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "interrupting": ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
    "junk": ("one = 42", "TypeError: junk:one is of type int, not a Candidate or an iterable of them"),
    "lost": ("import no_such_module", "ImportError(ModuleNotFoundError): No module named 'no_such_module'"),
    "hanging": ("import threading\nthreading.Event().wait()", "timeout: TimeoutError: no answer within 0.5 s"),
    "good": (GOOD, ""),
}
BROKEN = [name for name, (_, error) in PLUGINS.items() if error]


def program(place: Path) -> Path:
    """Make a program's directory, with all of them installed in ``site``."""
    site, settings = place / "site", place / "settings"
    for name, (source, _) in PLUGINS.items():
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "entry_points.txt").write_text(f"[oneiric.adapters]\nmain = {name}:one\n")
        (site / f"{name}.py").write_text(source)
    settings.mkdir()
    (settings / "app.yml").write_text("lifecycle: {activation_timeout: 0.5}\n")
    (settings / "adapters.yml").write_text("selections: {cache: good}\n")
    return place


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that tests only ask."""
    place = program(tmp_path_factory.mktemp("plugins"))
    with running(place, environ={"PYTHONPATH": "site"}) as started:
        yield started


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_is_a_row_with_its_error(name: str, daemon: Daemon) -> None:
    rows: list[dict[str, Any]] = daemon.client.get("/v1/plugins")["plugins"]
    assert [row["error"] for row in rows if row["distribution"] == name] == [PLUGINS[name][1]]


@pytest.mark.parametrize("name", BROKEN)
def test_plugin_that_misbehaves_is_logged_by_name(name: str, daemon: Daemon) -> None:
    assert daemon.wait_event("plugin-failed", distribution=name)["error"] == PLUGINS[name][1]


def test_good_plugin_serves_beside_them(daemon: Daemon) -> None:
    row = daemon.slot("adapter", "cache")
    assert (row["state"], row["provider"]) == ("ready", "good")


def test_daemon_ends_at_once_and_in_order_although_a_plugin_still_hangs(tmp_path: Path) -> None:
    with running(program(tmp_path), environ={"PYTHONPATH": "site"}) as daemon:
        assert daemon.stop(timeout=10) == 0
