"""A real Prometheus for tests: private, on loopback, and gone afterwards."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlencode

import yaml

from oneiric.monitoring.profiles import DRILL
from oneiric.monitoring.rules import rules
from tests.adapters.redis_server import free_port, require_program
from tests.harness.daemon import wait_until

INSTALL = "apt-get install -y --no-install-recommends prometheus"


def write_drill_rules(directory: Path) -> Path:
    """Write the rules with the durations of drills into *directory*, and return their file."""
    path = directory / "oneiric.drill.yml"
    path.write_text(rules(DRILL))
    return path


class QueryError(Exception):
    """Prometheus refused a query."""


class Series(NamedTuple):
    """What one query found under one set of labels: its values, the oldest first."""

    labels: Mapping[str, str]
    values: tuple[float, ...]

    @property
    def empty(self) -> bool:
        """Whether there is no number among them."""
        return all(math.isnan(value) for value in self.values)


class Prometheus:
    """The real program; a context manager that is ready when its block begins.

    Its first scrape comes five to six seconds after its start, whatever the interval is: start it once for many tests.

    Args:
        directory: for its configuration and its data.
        jobs: addresses to scrape, by job.
        rule_files: files of recording and alerting rules.
        configuration: more of the file, such as ``alerting``.
    """

    def __init__(
        self,
        directory: Path,
        jobs: Mapping[str, Sequence[str]],
        *,
        rule_files: Sequence[Path] = (),
        interval: str = "1s",
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        self.program = require_program("prometheus", INSTALL)
        self.directory = directory
        self.port = free_port()
        self.configuration = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(path) for path in rule_files],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in jobs.items()
            ],
            **(configuration or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """What it printed."""
        return (self.directory / "prometheus.log").read_text()

    def __enter__(self) -> Prometheus:
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(self.configuration, sort_keys=False))
        with (self.directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self.program,
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={self.directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--log.level=warn",
                ],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._ready, "prometheus is ready")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def query(self, expr: str, *, at: float | None = None) -> list[Series]:
        """Return what *expr* finds now, or *at* a Unix time."""
        found = self._ask("query", query=expr, time=time.time() if at is None else at)
        if found["resultType"] == "scalar":
            return [Series({}, (float(found["result"][1]),))]
        return [Series(one["metric"], (float(one["value"][1]),)) for one in found["result"]]

    def query_range(self, expr: str, *, at: float | None = None, seconds: float = 30, step: float = 1) -> list[Series]:
        """Return what *expr* finds over *seconds* until now, or until *at*."""
        end = time.time() if at is None else at
        found = self._ask("query_range", query=expr, start=end - seconds, end=end, step=step)
        return [Series(one["metric"], tuple(float(value) for _, value in one["values"])) for one in found["result"]]

    def value(self, expr: str) -> float | None:
        """Return the one number that *expr* finds, or None for none."""
        found = self.query(expr)
        if len(found) > 1:
            raise AssertionError(f"{len(found)} series for {expr}")
        return found[0].values[0] if found else None

    def wait_for(self, condition: str, *, timeout: float = 20.0) -> None:
        """Wait until *condition*, a query, finds something."""
        wait_until(lambda: self.query(condition), f"{condition} in Prometheus", timeout=timeout)

    def wait_scraped(self, job: str) -> None:
        """Wait for the first scrape of *job*."""
        self.wait_for(f'up{{job="{job}"}} == 1')

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"prometheus ended with {self._process.returncode}:\n{self.output}")
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _ask(self, what: str, **parameters: Any) -> dict[str, Any]:
        status, text = self._get(f"/api/v1/{what}?{urlencode(parameters)}")
        answer: dict[str, Any] = json.loads(text)
        if status != 200:
            raise QueryError(f"{answer['errorType']}: {answer['error']}")
        found: dict[str, Any] = answer["data"]
        return found

    def _get(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()
