"""Clients of the control API that are slow, rude, many or gone: the daemon serves the others all the same."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.api.connections import MAX_CONNECTIONS, READ_TIMEOUT
from oneiric.api.server import MAX_BODY_BYTES
from tests.harness.daemon import Daemon, oneiric, running, wait_until
from tests.harness.hazards import at_work, hazardous, swap_to

GET = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLACK = 8.0  # seconds a busy machine may take longer than the daemon's own bound


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(hazardous(tmp_path_factory.mktemp("api") / "p")) as daemon:
        yield daemon


def connect(daemon: Daemon, *, http: bool = False) -> socket.socket:
    if http:
        host, _, port = daemon.http.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=20)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(daemon.client.path)
    return connection


def cut_off(connection: socket.socket) -> bool:
    """Say whether the daemon ended the connection without an answer."""
    return rest(connection) == b""


def rest(connection: socket.socket) -> bytes:
    """Return what arrives until the other side ends; being cut off is an end too."""
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def answer(daemon: Daemon, *requests: bytes, timeout: float = 20) -> bytes:
    with connect(daemon) as connection:
        connection.settimeout(timeout)
        with suppress(ConnectionError):
            for request in requests:
                connection.sendall(request)
        return rest(connection)


def post(path: str, body: bytes, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", "Connection: close", *fields]
    lines += [] if fields else [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def serves(daemon: Daemon) -> bool:
    """Say whether the daemon answers as ever."""
    return bool(daemon.slot("adapter", "cache")["state"] == "ready")


# Slow


class Slow(NamedTuple):
    """A client that takes its time: what it sends at once, and what it then sends byte after byte, for ever."""

    at_once: bytes
    then: bytes = b""
    http: bool = False


BODY_TO_COME = b"Content-Type: application/json\r\nContent-Length: 9000\r\n\r\n"
SLOW = {
    "says nothing": Slow(b""),
    "stops in its head": Slow(GET[:9]),
    "sends its head byte by byte": Slow(GET[:-2], b"X: " + b"y" * 60_000),
    "stops in its second head": Slow(GET + GET[:9], b"y"),
    "stops in its body": Slow(b"POST /v1/pause HTTP/1.1\r\nHost: x\r\n" + BODY_TO_COME + b"{"),
    "sends its body byte by byte": Slow(b"POST /v1/pause HTTP/1.1\r\nHost: x\r\n" + BODY_TO_COME, b" " * 60_000),
    "goes on after its answer": Slow(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n" + BODY_TO_COME, b" " * 60_000),
    "says nothing to HTTP": Slow(b"", http=True),
    "sends its head to HTTP byte by byte": Slow(HEALTHZ[:-2], b"X: " + b"y" * 60_000, http=True),
}


def take_time(daemon: Daemon, slow: Slow) -> tuple[float, bytes]:
    """Be slow until cut off; return after how long that was and what was answered."""
    started, answered, left = time.monotonic(), b"", slow.then
    with connect(daemon, http=slow.http) as connection, suppress(ConnectionError):
        connection.sendall(slow.at_once)
        connection.settimeout(0.5)
        while time.monotonic() - started < READ_TIMEOUT + 3 * SLACK:
            try:
                part = connection.recv(65536)
            except TimeoutError:
                connection.sendall(left[:1])
                left = left[1:]
                continue
            if not part:
                break
            answered += part
    return time.monotonic() - started, answered


class Ordeal(NamedTuple):
    """What became of every slow client, and how long others waited meanwhile."""

    clients: dict[str, Future[tuple[float, bytes]]]
    longest_wait: float


@pytest.fixture(scope="module")
def ordeal(daemon: Daemon) -> Ordeal:
    waits = []
    with ThreadPoolExecutor(len(SLOW)) as at_once:
        clients = {name: at_once.submit(take_time, daemon, slow) for name, slow in SLOW.items()}
        while wait(clients.values(), timeout=0.1).not_done:
            asked = time.monotonic()
            assert serves(daemon)
            waits.append(time.monotonic() - asked)
    return Ordeal(clients, max(waits))


@pytest.mark.parametrize("name", SLOW)
def test_slow_client_is_cut_off(name: str, ordeal: Ordeal) -> None:
    seconds, _ = ordeal.clients[name].result()
    assert seconds < READ_TIMEOUT + SLACK


@pytest.mark.parametrize("name", ["stops in its body", "sends its body byte by byte"])
def test_client_with_a_slow_body_is_told_why(name: str, ordeal: Ordeal) -> None:
    _, answered = ordeal.clients[name].result()
    assert answered.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 10 s" in answered


def test_slow_clients_keep_nobody_waiting(ordeal: Ordeal) -> None:
    assert ordeal.longest_wait < 5


# Rude

RUDE: dict[str, bytes] = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200,
    "zeroes": bytes(1000),
    "no request line": b"\r\n" * 50 + b"Host: x\r\n\r\n",
    "another protocol": b"GET / SSH/2.0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "field without a colon": b"GET /v1/status HTTP/1.1\r\nHost x\r\n\r\n",
    "no host": b"GET /v1/status HTTP/1.1\r\n\r\n",
    "endless request line": b"GET /" + b"a" * (MAX_BODY_BYTES + 10_000),
    "endless field": b"GET / HTTP/1.1\r\nX: " + b"a" * (MAX_BODY_BYTES + 10_000),
    "many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 15_000 + b"\r\n",
    "negative length": post("/v1/pause", b"{}", "Content-Length: -1"),
    "two lengths": post("/v1/pause", b"{}", "Content-Length: 2", "Content-Length: 3"),
    "length and chunks": post("/v1/pause", b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "chunk of no size": post("/v1/pause", b"xyz\r\n{}\r\n", "Transfer-Encoding: chunked"),
    "endless chunks": post("/v1/pause", (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 8, "Transfer-Encoding: chunked"),
    "oversized body": post("/v1/pause", b" " * (MAX_BODY_BYTES + 1)),
    "deep body": post("/v1/pause", b"[" * 60_000),
    "upgrade": b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "proxy request": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


STATUS = {"endless chunks": 413, "oversized body": 413, "upgrade": 200, "asterisk": 404, "proxy request": 404}


@pytest.mark.parametrize("name", RUDE)
def test_rude_request_is_refused_at_once_and_changes_nothing(name: str, daemon: Daemon) -> None:
    answered = answer(daemon, RUDE[name], timeout=READ_TIMEOUT / 2)
    assert answered.startswith(b"HTTP/1.1 %d " % STATUS.get(name, 400))
    assert serves(daemon)


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: GET[:-2] + tail + b"\r\n\r\n"))
def test_arbitrary_bytes_leave_the_daemon_serving(daemon: Daemon, request_bytes: bytes) -> None:
    with connect(daemon) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        rest(connection)
    assert serves(daemon)


def test_pipelined_requests_are_answered_in_order(daemon: Daemon) -> None:
    explain = b"GET /v1/explain?domain=adapter&key=cache HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v1/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answered = answer(daemon, GET + explain + last)
    assert [part.split(b'"')[0] for part in answered.split(b'{"schema":"oneiric.')[1:]] == [
        b"status/1",
        b"explain/1",
        b"list/1",
    ]


def test_thousand_pipelined_requests_nobody_reads_keep_nobody_waiting(daemon: Daemon) -> None:
    with connect(daemon) as connection:
        connection.settimeout(1)
        with suppress(TimeoutError):  # once the buffers are full
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert serves(daemon)


def test_client_that_closed_its_sending_half_leaves_the_daemon_serving(daemon: Daemon) -> None:
    with connect(daemon) as connection:
        connection.sendall(GET)
        connection.shutdown(socket.SHUT_WR)
        rest(connection)
    assert serves(daemon)


def test_client_that_leaves_in_the_middle_of_a_swap_does_not_stop_it(place: Path) -> None:
    os.mkfifo(place / "gate")
    with running(place) as daemon:
        connection = connect(daemon)
        connection.sendall(post("/v1/swap", json.dumps(swap_to("gated")).encode()))
        with at_work(place):
            connection.close()
            assert daemon.slot("adapter", "cache")["state"] == "swapping"
        daemon.wait_event("selection-pinned", provider="gated")
        row = daemon.slot("adapter", "cache")
    assert (row["provider"], row["pin"]["provider"], row["swaps"]["failed"]) == ("gated", "gated", 0)


# Many


@contextmanager
def crowd(daemon: Daemon, number: int, *, http: bool) -> Iterator[list[socket.socket]]:
    """Hold connections that say nothing."""
    with ExitStack() as held:
        yield [held.enter_context(connect(daemon, http=http)) for _ in range(number)]


def test_two_hundred_clients_at_once_are_all_answered(daemon: Daemon) -> None:
    with ThreadPoolExecutor(200) as at_once:
        request = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        answers = list(at_once.map(lambda _: answer(daemon, request), range(200)))
    statuses = {text[:13] for text in answers}
    assert statuses <= {b"HTTP/1.1 200 ", b"HTTP/1.1 503 "}
    assert sum(text.startswith(b"HTTP/1.1 200") for text in answers) >= 100
    assert serves(daemon)


@pytest.mark.parametrize("http", [False, True], ids=["control", "http"])
def test_crowd_takes_no_more_descriptors_than_it_may(http: bool, daemon: Daemon) -> None:
    before = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    with crowd(daemon, MAX_CONNECTIONS + 100, http=http) as connections:
        connections[-1].settimeout(READ_TIMEOUT / 2)
        assert cut_off(connections[-1])
        assert len(os.listdir(f"/proc/{daemon.process.pid}/fd")) <= before + MAX_CONNECTIONS + 10
    wait_until(lambda: answer(daemon, GET[:-2] + b"Connection: close\r\n\r\n")[9:12] == b"200", "it serves again")


def test_crowd_on_one_listener_leaves_the_other_serving(daemon: Daemon) -> None:
    with crowd(daemon, MAX_CONNECTIONS + 20, http=True):
        assert serves(daemon)


def test_daemon_ends_in_its_time_whoever_is_connected(place: Path) -> None:
    with running(place) as daemon, crowd(daemon, 50, http=False) as connections, crowd(daemon, 50, http=True):
        connections[0].settimeout(0.5)
        with suppress(TimeoutError):  # once the buffers are full
            connections[0].sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        started = time.monotonic()
        code = daemon.stop()
    assert (code, time.monotonic() - started < 10) == (0, True)


# Where the socket is


def test_socket_is_made_for_its_owner_only_whatever_the_umask(place: Path) -> None:
    with running(place, within=["sh", "-c", 'umask 0; exec "$@"', "sh"]) as daemon:
        daemon.client.post("/v1/swap", swap_to("redis"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place / ".oneiric_state").iterdir()}
        directory = stat.S_IMODE((place / ".oneiric_state").stat().st_mode)
    assert modes == {"lock": 0o600, "oneiric.sock": 0o600, "state.db": 0o600}
    assert directory == 0o700


def test_daemon_serves_in_a_directory_deeper_than_a_socket_address_is_long(tmp_path: Path) -> None:
    place = hazardous(tmp_path / ("d" * 120) / ("e" * 120))
    with running(place) as daemon:
        asked = daemon.cli("status", "--key", "cache")
    assert (asked.returncode, "memory" in asked.stdout) == (0, True)


def test_start_takes_no_socket_from_a_daemon_that_serves(place: Path, tmp_path: Path) -> None:
    with running(place) as first:
        shared = place / ".oneiric_state" / "oneiric.sock"
        other = hazardous(tmp_path / "other")
        asked = oneiric(other, "--socket", str(shared), "orchestrate", "--http", "127.0.0.1:0", timeout=20)
        assert serves(first)
    assert asked.returncode == 1
    assert f"another daemon, with another state directory, serves on {shared}" in asked.stderr


def test_socket_left_behind_by_a_kill_is_replaced_by_one_for_the_owner_only(place: Path) -> None:
    path = place / ".oneiric_state" / "oneiric.sock"
    with running(place) as first:
        first.stop(9)
    path.chmod(0o777)
    with running(place) as second:
        assert serves(second)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
