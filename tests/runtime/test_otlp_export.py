"""Metrics are handed to a collector at intervals; nothing that the collector does is felt elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from oneiric.config.loader import load
from oneiric.core.config import MetricsSettings
from oneiric.errors import ConfigError
from oneiric.observability.catalog import METRICS
from oneiric.observability.logs import Reporter
from oneiric.observability.meters import Meters, Reading
from oneiric.runtime.otlp_export import OtlpExport
from oneiric.testing import Events
from tests.harness.daemon import oneiric, project, running, wait_until

STARTED = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Post(NamedTuple):
    """What the collector was sent."""

    path: str
    headers: dict[str, str]
    request: ExportMetricsServiceRequest


class Collector:
    """Takes exports over HTTP, and answers as told."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.status = 200
        self.answer = b""
        self.headers: dict[str, str] = {}
        self.silent = threading.Event()  # set: does not answer
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportMetricsServiceRequest()
                request.ParseFromString(body)
                collector.posts.append(Post(self.path, dict(self.headers), request))
                if collector.silent.is_set():
                    self.rfile.read()  # until the other side gives up
                    return
                self.send_response(collector.status)
                for name, value in {**collector.headers, "Content-Length": str(len(collector.answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(BrokenPipeError):  # the exporter gave up waiting, as it should
                    self.wfile.write(collector.answer)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """Stop, unless it did."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.fixture
def anyio_backend() -> object:
    return "asyncio"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


class Exporting:
    """An export under way: what it read, and the settings it follows."""

    def __init__(self, settings: MetricsSettings) -> None:
        self.settings = settings
        self.reads = 0

    async def read(self) -> tuple[Reading, ...]:
        self.reads += 1
        return Meters().read()


@asynccontextmanager
async def exporting(events: Events, endpoint: str | None, interval: float = 0.02) -> AsyncIterator[Exporting]:
    """Export for the length of a block."""
    under_way = Exporting(MetricsSettings(otlp_endpoint=endpoint, otlp_interval=interval))
    export = OtlpExport(
        settings=lambda: under_way.settings, read=under_way.read, emit=Reporter(events), started_at=STARTED
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(export.run)
        yield under_way
        tasks.cancel_scope.cancel()


async def until(holds: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not holds():
            await anyio.sleep(0.01)


def failures(events: Events) -> list[dict[str, Any]]:
    return events.named("metrics-export-failed")


@contextmanager
def refusing() -> Iterator[str]:
    """Yield an endpoint at which nobody listens."""
    gone = Collector()
    gone.close()
    yield gone.url


@pytest.mark.anyio
async def test_export_is_posted_as_protobuf_where_metrics_belong(collector: Collector, events: Events) -> None:
    async with exporting(events, f"{collector.url}/base/"):
        await until(lambda: collector.posts)
    post = collector.posts[0]
    assert (post.path, post.headers["Content-Type"]) == ("/base/v1/metrics", "application/x-protobuf")


@pytest.mark.anyio
async def test_export_holds_every_reading(collector: Collector, events: Events) -> None:
    async with exporting(events, collector.url):
        await until(lambda: collector.posts)
    (resource,) = collector.posts[0].request.resource_metrics
    assert {metric.name for scope in resource.scope_metrics for metric in scope.metrics} == {
        reading.metric for reading in Meters().read()
    }


@pytest.mark.anyio
async def test_exports_follow_each_other_from_one_instance(collector: Collector, events: Events) -> None:
    async with exporting(events, collector.url):
        await until(lambda: len(collector.posts) >= 3)
    assert len({post.request.resource_metrics[0].resource.SerializeToString() for post in collector.posts}) == 1
    assert not events.all


@pytest.mark.anyio
async def test_query_and_login_of_the_endpoint_reach_the_collector(collector: Collector, events: Events) -> None:
    async with exporting(events, f"http://me:secret@127.0.0.1:{collector.port}?tenant=a"):
        await until(lambda: collector.posts)
    post = collector.posts[0]
    assert post.path == "/v1/metrics?tenant=a"
    assert post.headers["Authorization"] == "Basic bWU6c2VjcmV0"


@pytest.mark.anyio
async def test_endpoint_that_the_settings_name_later_is_followed(collector: Collector, events: Events) -> None:
    async with exporting(events, None) as under_way:
        await anyio.wait_all_tasks_blocked()
        assert under_way.reads == 0
        under_way.settings = MetricsSettings(otlp_endpoint=collector.url)
        await until(lambda: collector.posts)


@pytest.mark.anyio
async def test_streak_of_failures_is_one_event(events: Events) -> None:
    with refusing() as url:
        async with exporting(events, url, 0.01) as under_way:
            await until(lambda: under_way.reads >= 4)
    assert len(failures(events)) == 1


@pytest.mark.anyio
async def test_next_streak_is_an_event_again_that_counts_all_failures(collector: Collector, events: Events) -> None:
    collector.status = 500
    async with exporting(events, collector.url):
        await until(lambda: len(collector.posts) >= 3)
        collector.status = 200
        passed = len(collector.posts)
        await until(lambda: len(collector.posts) >= passed + 2)
        collector.status = 500
        await until(lambda: len(failures(events)) == 2)
    assert failures(events)[1]["failures"] >= 3


@pytest.mark.anyio
async def test_failure_names_the_endpoint_without_login_and_query(events: Events) -> None:
    with refusing() as url:
        async with exporting(events, f"{url.replace('//', '//me:secret@')}/x?token=secret"):
            await until(lambda: failures(events))
    assert failures(events)[0]["endpoint"] == f"{url}/x"
    assert "secret" not in str(events.all)


@pytest.mark.anyio
async def test_failure_says_why_as_other_events_do(events: Events) -> None:
    with refusing() as url:
        async with exporting(events, url):
            await until(lambda: failures(events))
    assert failures(events)[0]["error"] == f"connection: {url}/v1/metrics: connection refused"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (503, b"", "http: 503 Service Unavailable from "),
        (302, b"", "http: 302 Found from "),
        (200, b"<html>", "the answer is not that of a collector"),
        (200, b"\0" * 100_000, "the answer is too long to be a collector's"),
        (
            200,
            ExportMetricsServiceResponse(
                partial_success=ExportMetricsPartialSuccess(rejected_data_points=2, error_message="too old")
            ).SerializeToString(),
            "2 data points were refused: too old",
        ),
    ],
    ids=["unavailable", "redirect", "page", "flood", "partial"],
)
async def test_answer_that_is_not_yes_is_a_failure(
    collector: Collector, events: Events, status: int, answer: bytes, error: str
) -> None:
    collector.status, collector.answer, collector.headers = status, answer, {"Location": collector.url}
    async with exporting(events, collector.url):
        await until(lambda: failures(events))
    assert error in failures(events)[0]["error"]


@pytest.mark.anyio
async def test_collector_that_asks_for_patience_gets_it(collector: Collector, events: Events) -> None:
    collector.status, collector.headers = 429, {"Retry-After": "3600"}
    async with exporting(events, collector.url):
        await until(lambda: failures(events))
        with anyio.move_on_after(0.3):
            await until(lambda: len(collector.posts) > 1)
    assert len(collector.posts) == 1


@pytest.mark.anyio
async def test_collector_that_does_not_answer_fails_in_time(
    collector: Collector, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneiric.runtime.otlp_export._DEADLINE", 0.2)
    collector.silent.set()
    async with exporting(events, collector.url):
        await until(lambda: failures(events))
    assert failures(events)[0]["error"] == f"timeout: {collector.url}/v1/metrics: not complete within 0.2 s"


@pytest.mark.anyio
async def test_missing_extra_is_one_event_with_the_remedy(
    collector: Collector, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "oneiric.observability.otlp", raising=False)
    monkeypatch.delattr("oneiric.observability.otlp", raising=False)
    async with exporting(events, collector.url, 0.01) as under_way:
        await until(lambda: under_way.reads >= 4)
    (failure,) = failures(events)
    assert failure["error"].startswith("ImportError(ModuleNotFoundError): ")
    assert failure["error"].endswith('; try: pip install "oneiric[otel]"')


# Settings


@pytest.mark.parametrize("value", ["collector:4318", "ftp://collector", "http://", "https://:4318", "http://a:b@"])
def test_endpoint_that_is_no_url_is_refused_with_its_place(tmp_path: Path, value: str) -> None:
    project(tmp_path, app=f"metrics: {{otlp_endpoint: '{value}'}}")
    with pytest.raises(ConfigError, match=r"app.yml:1:\d+: metrics.otlp_endpoint.*not an http or https URL"):
        load(tmp_path / "settings", environ={}, flags={})


def test_endpoint_and_interval_come_from_the_environment(tmp_path: Path) -> None:
    environ = {"ONEIRIC_METRICS__OTLP_ENDPOINT": "http://c:4318", "ONEIRIC_METRICS__OTLP_INTERVAL": "3"}
    found = load(project(tmp_path) / "settings", environ=environ, flags={}).app.metrics
    assert found == MetricsSettings(otlp_endpoint="http://c:4318", otlp_interval=3.0)


# The daemon


def test_daemon_exports_every_metric_of_the_catalog(tmp_path: Path, collector: Collector) -> None:
    app = f"metrics: {{otlp_endpoint: '{collector.url}', otlp_interval: 0.2}}"
    with running(project(tmp_path, app=app)):
        wait_until(lambda: len(collector.posts) >= 2, "a second export")
    (resource,) = collector.posts[-1].request.resource_metrics
    sent = {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
    of_a_source = {name for name, metric in METRICS.items() if metric.kind == "gauge" and "source" in metric.labels}
    assert METRICS.keys() - of_a_source <= sent


def test_daemon_without_a_collector_serves_and_says_so_once(tmp_path: Path) -> None:
    with (
        refusing() as url,
        running(project(tmp_path, app=f"metrics: {{otlp_endpoint: '{url}', otlp_interval: 0.1}}")) as daemon,
    ):
        daemon.wait_event("metrics-export-failed", endpoint=url)
        assert daemon.slot("adapter", "cache")["state"] == "ready"


def test_config_show_hides_the_login_of_the_endpoint(tmp_path: Path) -> None:
    project(tmp_path, app="metrics: {otlp_endpoint: 'http://me:hunter2@127.0.0.1:4318'}")
    assert "hunter2" not in oneiric(tmp_path, "config", "show").stdout
