"""``oneiric metrics``: the daemon's numbers without Prometheus, once and again and again."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from oneiric.api.metrics_view import metrics_document
from oneiric.cli import metrics, readout
from oneiric.cli.desk import document
from oneiric.cli.readout import Readout
from oneiric.observability.catalog import METRICS
from oneiric.observability.kinds import Group
from oneiric.observability.meters import Meters, Reading, Sample, Spread
from tests.cli.conftest import Typing
from tests.harness.daemon import Daemon, oneiric, project, running

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SWAPS, CLEANUPS, ACTIVE = (f"oneiric_lifecycle_{name}" for name in ("swap_total", "cleanup_total", "active_instances"))
READINGS: tuple[Reading, ...] = (
    Sample("oneiric_resolution_total", ("success", "adapter", "cache"), 1234),
    Sample("oneiric_resolution_total", ("failed", "service", "pricing"), 3),
    Spread("oneiric_resolution_duration_seconds", ("adapter",), (0, 10, *[0] * 11), 0.0002),
    Sample(SWAPS, ("success", "adapter", "cache", "redis"), 3),
    Sample(SWAPS, ("rollback", "adapter", "cache", "memory"), 1),
    Sample(SWAPS, ("failed", "adapter", "cache", "memory"), 0),
    Sample(CLEANUPS, ("adapter",), 2),
    Sample(ACTIVE, ("adapter",), 1),
    Sample("oneiric_remote_sync_total", ("success", "remote"), 5),
    Sample("oneiric_remote_sync_total", ("failed", "remote"), 1),
    Sample("oneiric_remote_sync_consecutive_failures", ("remote",), 1),
    Sample("oneiric_remote_last_sync_timestamp_seconds", ("remote",), NOW.timestamp() - 12),
    Sample("oneiric_remote_manifest_expires_timestamp_seconds", ("remote",), NOW.timestamp() + 86_400),
    Sample("oneiric_remote_circuit_breaker_open", ("remote",), 1),
    Sample("oneiric_cache_size_bytes", (), 3 * 1_048_576),
    Sample("oneiric_config_last_reload_successful", ("adapter",), 0),
    Sample("oneiric_config_last_reload_successful", ("app",), 1),
)
TEXT = """\
since the start 2 h 5 min ago, 2026-03-01T09:55:00.000Z

resolution
  99.75 % of 1,237 questions who fills a slot were answered
  failed: 3 service; why: oneiric explain KEY --domain D
  oneiric_resolution_total: questions who fills a slot that the running program asked: leases, resolve() and \
reconciliations
    adapter/cache success   1,234
    service/pricing failed  3
  oneiric_resolution_duration_seconds: how long ranking the candidates of a slot took; answers that are remembered are \
sampled
    adapter                 10, p50 17.5 µs, p95 24.2 µs, mean 20 µs

lifecycle
  75 % of 4 swaps succeeded: 3 success, 1 rollback, 0 failed
  4 swaps - 2 cleanups - 1 active = 1 leaked
  leaked, or not closed yet: 1 adapter; which: oneiric status
  oneiric_lifecycle_swap_total: attempts to put an instance in place, first activations included
    adapter/cache redis success    3
    adapter/cache memory rollback  1
  oneiric_lifecycle_active_instances: instances that serve, or wait in a pool to serve again
    adapter                        1
  oneiric_lifecycle_cleanup_total: completed disposals; swaps minus these are the instances that serve or leak
    adapter                        2

remote
  83.33 % of 6 synchronisations succeeded
  last sync 12 s ago, failed, 1 in a row
  the circuit breaker is open: nobody is asked until it closes; at once: oneiric remote-sync --force
  oneiric_remote_sync_total: synchronisations that were attempted
    remote success  5
    remote failed   1
  oneiric_remote_sync_consecutive_failures: synchronisations that failed since the last that succeeded; kept across \
restarts
    remote          1
  oneiric_remote_last_sync_timestamp_seconds: when the last synchronisation ended, as Unix time; 0 for never
    remote          12 s ago
  oneiric_remote_manifest_expires_timestamp_seconds: when the manifest in force expires, as Unix time; 0 for never, or \
where none is in force
    remote          in 1 d
  oneiric_remote_circuit_breaker_open: 1 while the circuit breaker keeps synchronisations back
    remote          yes
  oneiric_cache_size_bytes: bytes in the cache, looked at once a minute
    all             3.0 MiB

settings
  invalid: adapter; why: oneiric config check
  oneiric_config_last_reload_successful: 0 while the settings file of a domain, or app.yml, is invalid and the last \
good settings stay
    adapter  no"""


def answered(*readings: Reading, up: timedelta = timedelta(hours=2, minutes=5), **chosen: Any) -> dict[str, Any]:
    """Return the document of *readings* of a daemon that has been up for a while, without its process."""
    found = metrics_document(readings, started_at=datetime(2026, 3, 1, 9, 55, tzinfo=UTC), now=NOW, **chosen)
    answer = {**document(found), "uptime": up.total_seconds()}
    answer["metrics"] = [row for row in answer["metrics"] if row["name"] in METRICS]
    answer["samples"] = [row for row in answer["samples"] if row["metric"] in METRICS]
    return answer


def text(*readings: Reading, verbose: bool = False, **chosen: Any) -> str:
    return Readout(answered(*readings, **chosen)).text(verbose=verbose)


# The text of a document


def test_text_explains_each_group_and_then_its_metrics() -> None:
    assert text(*READINGS) == TEXT


def test_text_leaves_zeros_out() -> None:
    assert "adapter/cache memory failed" not in text(*READINGS)


def test_verbose_text_shows_zeros() -> None:
    assert "adapter/cache memory failed    0" in text(*READINGS, verbose=True)


def test_text_of_a_daemon_to_which_nothing_happened_has_no_ratio() -> None:
    assert "%" not in text(*Meters().read())


def test_text_of_a_daemon_to_which_nothing_happened_balances() -> None:
    assert "0 swaps - 0 cleanups - 0 active = 0 leaked" in text(*Meters().read())


@pytest.mark.parametrize("name", METRICS)
def test_verbose_text_shows_every_metric(name: str) -> None:
    metric = METRICS[name]
    labels = tuple((values or ("x",))[0] for values in metric.labels.values())
    reading: Reading = Sample(name, labels, 0)
    if metric.kind == "histogram":
        reading = Spread(name, labels, (0,) * (len(metric.buckets) + 1), 0)
    assert f"{name}: {metric.tells}" in text(reading, verbose=True)


def test_slow_swaps_are_said_to_lie_beyond_the_last_bucket() -> None:
    slow = Spread("oneiric_lifecycle_swap_duration_ms", ("adapter",), (*[0] * 15, 1), 200_000)
    assert "1, p50 over 2 min, p95 over 2 min, mean 3 min 20 s" in text(slow)


def test_hostile_names_cannot_move_the_cursor() -> None:
    assert "\x1b" not in text(Sample(SWAPS, ("success", "adapter", "\x1b[2J", "x"), 1))


@pytest.mark.parametrize(("before", "rate"), [(0, "2/s"), (3, "0.5/s"), (4, "0/s")])
def test_counter_says_what_it_gained_a_second(before: int, rate: str) -> None:
    first = answered(Sample(CLEANUPS, ("adapter",), before), up=timedelta(seconds=10))
    second = answered(Sample(CLEANUPS, ("adapter",), 4), up=timedelta(seconds=12))
    assert f"adapter  4  {rate}" in Readout(second, first).text(verbose=False)


def test_gauge_says_nothing_of_the_kind() -> None:
    first = answered(Sample(ACTIVE, ("adapter",), 1), up=timedelta(seconds=10))
    second = answered(Sample(ACTIVE, ("adapter",), 3), up=timedelta(seconds=12))
    assert "/s" not in Readout(second, first).text(verbose=False)


def test_another_daemon_has_no_past() -> None:
    first = answered(Sample(CLEANUPS, ("adapter",), 9), up=timedelta(seconds=10)) | {"started_at": "before"}
    second = answered(Sample(CLEANUPS, ("adapter",), 4), up=timedelta(seconds=12))
    assert "/s" not in Readout(second, first).text(verbose=False)


# The document


def test_document_names_samples_as_prometheus_does() -> None:
    spread = Spread("oneiric_lifecycle_swap_duration_ms", ("adapter",), (1, 2, *[0] * 13, 4), 9.5)
    found = metrics_document([spread], started_at=NOW, group="lifecycle").samples
    told = {(row.name.rpartition("_")[2], row.labels.get("le")): row.value for row in found}
    assert len(told) == 18
    assert (told["bucket", "1.0"], told["bucket", "5.0"], told["bucket", "+Inf"]) == (1, 3, 7)
    assert (told["count", None], told["sum", None]) == (7, 9.5)


def test_document_of_a_domain_has_no_other_series() -> None:
    found = metrics_document(READINGS, started_at=NOW, domain="service")
    assert {row.labels["domain"] for row in found.samples} == {"service"}


def test_document_of_a_group_has_no_other_metrics() -> None:
    found = metrics_document(READINGS, started_at=NOW, group="remote")
    assert {row.group for row in found.metrics} == {"remote"}


def test_document_of_the_process_says_its_memory() -> None:
    found = metrics_document([], started_at=NOW, group="process")
    assert next(row.value for row in found.samples if row.name == "process_resident_memory_bytes") > 1_000_000


def test_groups_are_those_of_the_catalog() -> None:
    assert metrics.GROUPS == readout.GROUPS == get_args(Group)


# The command and a daemon


def test_command_explains_what_the_daemon_counted(shared: Daemon) -> None:
    ran = shared.cli("metrics", "--group", "lifecycle")
    assert "oneiric_lifecycle_swap_total: attempts to put an instance in place" in ran.stdout
    assert "adapter/cache memory success" in ran.stdout


def test_command_prints_the_daemons_document_as_json(shared: Daemon) -> None:
    found = json.loads(shared.cli("metrics", "--json").stdout)
    assert found["schema"] == "oneiric.metrics/1"
    assert {"metric", "name", "labels", "value"} == found["samples"][0].keys()


def test_json_has_every_metric_of_a_program_without_a_manifest(shared: Daemon) -> None:
    found = json.loads(shared.cli("metrics", "--json").stdout)
    of_a_source = {name for name, metric in METRICS.items() if metric.kind == "gauge" and "source" in metric.labels}
    assert METRICS.keys() - of_a_source <= {row["name"] for row in found["metrics"]}


def test_json_of_one_domain_is_of_that_domain(shared: Daemon) -> None:
    found = json.loads(shared.cli("metrics", "--domain", "adapter", "--json").stdout)
    assert {row["labels"]["domain"] for row in found["samples"]} == {"adapter"}


def test_looking_changes_no_number_of_the_resolver(shared: Daemon) -> None:
    def counted() -> list[Any]:
        rows = json.loads(shared.cli("metrics", "--group", "resolution", "--json").stdout)["samples"]
        return [row for row in rows if row["metric"] == "oneiric_resolution_total"]

    assert counted() == counted()


def test_command_without_a_daemon_exits_3(quiet: Path, typed: Typing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(quiet)
    answer = typed("metrics")
    assert (answer.code, answer.out) == (3, "")
    assert "try: oneiric orchestrate" in answer.err


@pytest.mark.parametrize("seconds", ["0", "never"])
def test_watch_takes_a_sensible_number_of_seconds(typed: Typing, seconds: str) -> None:
    assert typed("metrics", "--watch", seconds).code == 2


# Again and again


@contextmanager
def watching(directory: Path, *arguments: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    # a shell's background job, as a whole test run may be, hands down that interrupts are ignored
    default = ("env", "--default-signal=INT")
    command = [*default, sys.executable, "-m", "oneiric", "metrics", "--watch", "0.2", *arguments]
    with subprocess.Popen(
        command, cwd=directory, stdin=subprocess.DEVNULL, text=True, **{"stdout": subprocess.PIPE, **streams}
    ) as process:
        watchdog = threading.Timer(30, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def blocks(process: subprocess.Popen[str], count: int) -> list[list[str]]:
    """Read *count* blocks as they come; one ends where the next begins."""
    assert process.stdout is not None
    found: list[list[str]] = []
    for line in process.stdout:
        if line.startswith("since the start"):
            found.append([])
            if len(found) > count:
                return found[:count]
        found[-1].append(line.rstrip("\n"))
    raise AssertionError(f"ended after {len(found)} blocks")


def test_watch_prints_blocks_apart_and_with_rates(shared: Daemon) -> None:
    with watching(shared.directory, "--group", "lifecycle") as process:
        first, second = blocks(process, 2)
    assert first[-1] == ""
    assert not any(line.endswith("/s") for line in first)
    assert any(line.endswith("0/s") for line in second)


def test_watch_prints_one_json_object_a_line(shared: Daemon) -> None:
    with watching(shared.directory, "--json") as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert lines[0]["uptime"] < lines[1]["uptime"]


def test_watch_ends_with_130_when_it_is_interrupted(shared: Daemon) -> None:
    with watching(shared.directory) as process:
        blocks(process, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_watch_ends_with_3_when_the_daemon_leaves(tmp_path: Path) -> None:
    with running(project(tmp_path / "p")) as daemon, watching(daemon.directory, stderr=subprocess.PIPE) as process:
        blocks(process, 1)
        daemon.stop()
        assert process.wait(20) == 3
        assert process.stderr is not None
        assert "error[" in process.stderr.read()


def test_watch_redraws_a_terminal_within_its_height(shared: Daemon) -> None:
    ours, theirs = pty.openpty()
    try:
        environ = {**os.environ, "LINES": "10", "COLUMNS": "80", "TERM": "xterm"}
        with watching(shared.directory, stdout=theirs, env=environ):
            shown = b""
            while shown.count(b"\x1b[2J") < 3:
                shown += os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    screen = shown.split(b"\x1b[2J")[1].decode().splitlines()
    assert len(screen) == 9
    assert "more lines; fewer: --group, --domain" in screen[-1]


def test_message_without_a_daemon_is_the_same_when_watching(tmp_path: Path) -> None:
    ran = oneiric(project(tmp_path / "p"), "metrics", "--watch")
    assert (ran.returncode, "does not run" in ran.stderr) == (3, True)
