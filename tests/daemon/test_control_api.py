"""The control API over its real socket, and the read-only HTTP listener."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oneiric.api.client import RemoteError
from oneiric.api.openapi import openapi
from oneiric.api.routes import ROUTES
from tests.harness.daemon import Daemon, project, running

CACHE = {"domain": "adapter", "key": "cache"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(project(tmp_path_factory.mktemp("api") / "p")) as daemon:
        yield daemon


def raw(daemon: Daemon, request: bytes) -> tuple[int, dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(daemon.client.path)
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body) if body.startswith(b"{") else {}


def post(path: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_openapi_document_in_the_repository_is_current() -> None:
    committed = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
    assert json.loads(committed.read_text()) == json.loads(json.dumps(openapi())), "run: make openapi"


def test_openapi_document_names_every_route() -> None:
    described = {(method.upper(), path) for path, item in openapi()["paths"].items() for method in item}
    assert described == {(route.method, route.path) for route in ROUTES}


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "GET"], ids=lambda route: route.path)
def test_every_read_answers_with_its_schema(daemon: Daemon, route: Any) -> None:
    query = CACHE if route.path == "/v1/explain" else {}
    document = daemon.client.get(route.path, **query)
    assert document["schema"].startswith("oneiric.")
    assert document["live"] is True


def test_swap_answers_what_it_did_and_is_seen_by_the_next_question(daemon: Daemon) -> None:
    document = daemon.client.post("/v1/swap", {**CACHE, "provider": "redis"})
    assert (document["previous"], document["provider"], document["pinned"]) == ("memory", "redis", True)
    assert daemon.slot("adapter", "cache")["provider"] == "redis"
    daemon.client.post("/v1/unpin", CACHE)


@pytest.mark.parametrize(
    ("provider", "code"),
    [
        ("sick", "swap-failed"),
        ("exploding", "swap-failed"),
        ("lost", "swap-failed"),
        ("nobody", "no-candidate"),
    ],
)
def test_failed_swap_says_so_and_the_old_one_serves(daemon: Daemon, provider: str, code: str) -> None:
    with pytest.raises(RemoteError) as caught:
        daemon.client.post("/v1/swap", {**CACHE, "provider": provider})
    assert (caught.value.code, daemon.slot("adapter", "cache")["provider"]) == (code, "memory")


def test_dry_run_changes_nothing(daemon: Daemon) -> None:
    before = daemon.slot("adapter", "cache")["instance_id"]
    document = daemon.client.post("/v1/swap", {**CACHE, "provider": "redis", "dry_run": True})
    assert (document["dry_run"], daemon.slot("adapter", "cache")["instance_id"]) == (True, before)


def test_paused_slot_shows_its_note_until_resumed(daemon: Daemon) -> None:
    daemon.client.post("/v1/pause", {**CACHE, "note": "moving the disk"})
    paused = daemon.slot("adapter", "cache")
    daemon.client.post("/v1/resume", CACHE)
    assert (paused["state"], paused["note"]) == ("paused", "moving the disk")
    assert daemon.slot("adapter", "cache")["state"] == "ready"


def test_probe_asks_the_live_instance(daemon: Daemon) -> None:
    (daemon.directory / "sick").touch()
    try:
        document = daemon.client.post("/v1/probe", CACHE)
    finally:
        (daemon.directory / "sick").unlink()
    assert (document["healthy"], document["instances"][0]["error"]) == (False, "health() returned False, not True")


@pytest.mark.parametrize(
    ("request_bytes", "status", "says"),
    [
        (post("/v1/swap", b"{"), 400, "Input data was truncated"),
        (post("/v1/swap", b"[]"), 400, "Expected `object`"),
        (post("/v1/swap", b'{"domain": "adapter"}'), 400, "missing required field `key`"),
        (post("/v1/swap", b'{"domain": "adapter", "key": "cache", "provder": "x"}'), 400, "provder"),
        (post("/v1/swap", b'{"domain": "gadget", "key": "cache"}'), 400, "gadget"),
        (post("/v1/swap", b'{"domain": "adapter", "key": "../x"}'), 400, "key"),
        (post("/v1/swap", b'{"domain": "adapter", "key": "cache", "force": "yes"}'), 400, "force"),
        (post("/v1/swap", b"\xff\xfe"), 400, "/v1/swap"),
        (post("/v1/swap", b"{}", "text/plain"), 415, "application/json"),
        (post("/v1/swap", b" " * 70_000), 413, "65536"),
        (b"GET /v1/swap HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405, "Method Not Allowed"),
        (b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "nothing is at /v1/nothing"),
        (b"GET /v1/list?domain=x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "domain"),
        (b"GET /v1/list?domain=task&domain=event HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "twice"),
    ],
)
def test_bad_request_is_refused_with_a_reason(daemon: Daemon, request_bytes: bytes, status: int, says: str) -> None:
    answered, document = raw(daemon, request_bytes)
    assert answered == status
    assert says in document["error"]["message"]


def test_garbage_on_the_socket_leaves_the_daemon_serving(daemon: Daemon) -> None:
    raw(daemon, b"\x16\x03\x01 not http at all\r\n\r\n")
    assert daemon.slot("adapter", "cache")["state"] == "ready"


def test_client_that_leaves_does_not_stop_its_swap(daemon: Daemon) -> None:
    before = sum(event["event"] == "selection-pinned" for event in daemon.events)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(daemon.client.path)
        connection.sendall(post("/v1/swap", b'{"domain": "adapter", "key": "cache", "provider": "redis"}'))
    daemon.wait_event("selection-pinned", count=before + 1)
    assert daemon.slot("adapter", "cache")["provider"] == "redis"
    daemon.client.post("/v1/unpin", CACHE)


def test_each_change_is_logged_with_who_asked(daemon: Daemon) -> None:
    daemon.client.post("/v1/resume", CACHE)
    event = daemon.wait_event("control-request", verb="resume")
    assert (event["target"], event["outcome"], event["uid"]) == ("adapter/cache", "success", os.geteuid())
    assert event["pid"] > 0


def http(daemon: Daemon, path: str, *, method: str = "GET", host: str = "") -> int:
    data = b"" if method == "POST" else None
    request = urllib.request.Request(f"http://{daemon.http}{path}", method=method, data=data)
    if host:
        request.add_header("Host", host)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("path", "method", "host", "status"),
    [
        ("/healthz", "GET", "", 200),
        ("/readyz", "GET", "", 200),
        ("/metrics", "GET", "", 200),
        ("/metrics", "GET", "attacker.example", 421),
        ("/healthz", "GET", "localhost:9464", 200),
        ("/healthz", "GET", "[::1]:9464", 200),
        ("/healthz", "GET", "attacker.example", 421),
        ("/readyz", "GET", "169.254.169.254.attacker.example", 421),
        ("/healthz", "POST", "", 405),
        ("/v1/status", "GET", "", 404),
        ("/v1/swap", "POST", "", 404),
    ],
)
def test_http_listener_is_read_only_and_checks_its_host(
    daemon: Daemon, path: str, method: str, host: str, status: int
) -> None:
    assert http(daemon, path, method=method, host=host) == status
