"""Fetching from servers that are broken or mean: everything ends in time, within the cap, as one FetchError."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiric.core.retry import Retry, is_passing
from oneiric.errors import FetchError
from oneiric.remote.fetch import Fetched, Fetcher, retrying
from oneiric.remote.transport import Route
from oneiric.testing import virtual_clock
from tests.harness.servers import (
    Answer,
    Connection,
    Server,
    believes_nobody,
    by_path,
    endless,
    never,
    raw,
    respond,
    response,
    serving,
    then_reset,
    trickle,
)

pytestmark = pytest.mark.anyio

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher(idle_timeout=5, ssl_context=believes_nobody()) as fetcher:
        yield fetcher


async def failure(fetcher: Fetcher, url: str, *, limit_bytes: int = 1 << 20, deadline: float = 10) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await fetcher.fetch(url, limit_bytes=limit_bytes, deadline=deadline)
    assert caught.value.message.startswith(f"{caught.value.reason}: ")
    return caught.value


async def failure_from(fetcher: Fetcher, answer: Answer, **bounds: float) -> FetchError:
    with serving(answer) as server:
        return await failure(fetcher, server.url(), **bounds)  # type: ignore[arg-type]


# Slow


async def test_server_that_never_answers_ends_at_the_deadline(fetcher: Fetcher) -> None:
    began = time.monotonic()
    error = await failure_from(fetcher, never, deadline=0.3)
    assert 0.3 <= time.monotonic() - began < 1.3
    assert error.reason == "timeout"


async def test_body_that_trickles_ends_at_the_deadline_although_no_gap_is_long(fetcher: Fetcher) -> None:
    began = time.monotonic()
    error = await failure_from(fetcher, trickle(every=0.02), deadline=0.4)
    assert 0.4 <= time.monotonic() - began < 1.4
    assert error.message.endswith("not complete within 0.4 s")


async def test_head_that_trickles_ends_at_the_deadline(fetcher: Fetcher) -> None:
    error = await failure_from(fetcher, trickle(every=0.02, head=b"HTTP/1.1 200 OK\r\nX: "), deadline=0.3)
    assert error.reason == "timeout"


async def test_provisional_answers_without_end_end_at_the_deadline(fetcher: Fetcher) -> None:
    def answer(connection: Connection) -> None:
        while connection.pause(0.001):
            connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10)

    assert (await failure_from(fetcher, answer, deadline=0.3)).reason == "timeout"


async def test_silence_ends_at_the_idle_timeout_before_the_deadline() -> None:
    async with Fetcher(idle_timeout=0.2, ssl_context=believes_nobody()) as fetcher:
        error = await failure_from(fetcher, never, deadline=60)
    assert error.message.endswith("nothing heard from 127.0.0.1 for 0.2 s")


@pytest.mark.parametrize("anyio_backend", [virtual_clock()], ids=["virtual"])
async def test_deadline_of_an_hour_holds_on_the_virtual_clock() -> None:
    async with Fetcher(idle_timeout=7200, ssl_context=believes_nobody()) as fetcher:
        began = time.monotonic()
        error = await failure_from(fetcher, never, deadline=3600)
        assert time.monotonic() - began < 10
    assert error.message.endswith("not complete within 3600 s")


async def test_body_in_one_byte_pieces_lets_others_run(fetcher: Fetcher) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await anyio.sleep(0)
            turns += 1

    with serving(raw(CHUNKED + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            found = await fetcher.fetch(server.url(), limit_bytes=1 << 20, deadline=20)
            tasks.cancel_scope.cancel()
    assert isinstance(found, Fetched)
    assert (found.content, turns > 5_000) == (b"x" * 10_000, True)


# Cut, or with lengths that lie


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (raw(response(200, b"half", content_length="8")), "received 4 bytes, expected 8"),
        (raw(CHUNKED + b"5\r\nhello\r\n5\r\nwor"), "incomplete chunked read"),
        (raw(CHUNKED + b"5\r\nhello\r\n"), "incomplete chunked read"),
        (then_reset(response(200, b"half", content_length="8")), "connection reset by peer"),
        (then_reset(), "connection reset by peer"),
        (raw(), "server disconnected without sending a response"),
        (raw(b"HTTP/1.1 200 O"), "disconnected"),
    ],
    ids=["length-too-long", "chunk-cut", "last-chunk-missing", "reset-in-body", "reset", "empty", "head-cut"],
)
async def test_answer_that_is_cut_is_a_connection_failure(fetcher: Fetcher, answer: Answer, words: str) -> None:
    error = await failure_from(fetcher, answer)
    assert error.reason == "connection"
    assert words in error.message
    assert is_passing(error)


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello!"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n"),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nbad header\r\n\r\n"),
    ],
    ids=[
        "two-lengths",
        "length-list",
        "negative",
        "length-and-chunked",
        "coding",
        "long-head",
        "not-http",
        "bad-header",
    ],
)
async def test_answer_that_breaks_the_rules_is_refused(fetcher: Fetcher, answer: Answer) -> None:
    error = await failure_from(fetcher, answer)
    assert error.reason == "http"
    assert "malformed" in error.message
    assert not is_passing(error)


async def test_body_beyond_its_length_answers_no_later_request(fetcher: Fetcher) -> None:
    planted = response(200, b"planted")
    with serving(raw(response(200, b"hello") + planted)) as server:
        found = [await fetcher.fetch(server.url(), limit_bytes=100, deadline=5) for _ in range(2)]
    assert [answer.content for answer in found if isinstance(answer, Fetched)] == [b"hello", b"hello"]
    assert len(server.requests) == 2


# Too large


async def test_length_beyond_the_cap_is_refused_before_the_body(fetcher: Fetcher) -> None:
    def answer(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
        connection.pause()

    error = await failure_from(fetcher, answer, limit_bytes=1000, deadline=5)
    assert error.message.endswith("larger than the 1,000 bytes allowed")


async def test_chunked_body_beyond_the_cap_is_refused(fetcher: Fetcher) -> None:
    body = CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"
    assert (await failure_from(fetcher, raw(body), limit_bytes=1000)).reason == "size"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x"])
async def test_compressed_body_is_refused_unread(fetcher: Fetcher, encoding: str) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    error = await failure_from(fetcher, respond(200, bomb, content_encoding=encoding))
    assert error.reason == "http"
    assert "compressed" in error.message


MEMORY = """
import sys
from pathlib import Path
import anyio
from oneiric.errors import FetchError
from oneiric.remote.fetch import Fetcher

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

async def main(url, cap):
    async with Fetcher() as fetcher:
        await fetcher.fetch(url + "small", limit_bytes=cap, deadline=30)
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        try:
            size = len((await fetcher.fetch(url + sys.argv[3], limit_bytes=cap, deadline=30)).content)
        except FetchError as error:
            size = error.reason
        print(size, (peak() - before) / cap)

anyio.run(main, sys.argv[1], int(sys.argv[2]))
"""
CAP = 64 << 20


@pytest.mark.parametrize(("path", "outcome"), [("endless", "size"), ("whole", str(CAP))])
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory can be measured on Linux only")
def test_memory_stays_below_twice_the_cap(path: str, outcome: str) -> None:
    whole = by_path(small=respond(200, b"x"), endless=endless, whole=respond(200, b"x" * CAP))
    with serving(whole) as server:
        command = [sys.executable, "-c", MEMORY, server.url("/"), str(CAP), path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    size, growth = done.stdout.split()
    assert size == outcome
    assert 0.5 < float(growth) < 2.0


# Refusals, and trying again


async def patiently(fetcher: Fetcher, server: Server) -> Fetched:
    retry = Retry(attempts=3, first_wait=0.01)
    found = await retrying(lambda: fetcher.fetch(server.url(), limit_bytes=100, deadline=5), retry=retry)
    assert isinstance(found, Fetched)
    return found


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_refusal_is_asked_for_once(fetcher: Fetcher, status: int) -> None:
    with serving(respond(status, b"no")) as server, pytest.raises(FetchError, match=rf"^http: {status} .* from http:"):
        await patiently(fetcher, server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [204, 206, 300, 302, 500, 599, 999])
async def test_status_that_is_not_success_is_refused(fetcher: Fetcher, status: int) -> None:
    assert (await failure_from(fetcher, respond(status))).status == status


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_busy_server_is_asked_again_until_it_answers(fetcher: Fetcher, status: int) -> None:
    answers = [respond(status), respond(status), respond(200, b"at last")]
    with serving(lambda connection: answers.pop(0)(connection)) as server:
        assert (await patiently(fetcher, server)).content == b"at last"


async def test_retrying_raises_the_last_failure(fetcher: Fetcher) -> None:
    with serving(respond(503)) as server, pytest.raises(FetchError, match=r"^http: 503 Service Unavailable from http:"):
        await patiently(fetcher, server)
    assert len(server.requests) == 3


@pytest.mark.parametrize("anyio_backend", [virtual_clock()], ids=["virtual"])
async def test_retrying_waits_as_long_as_the_server_asks() -> None:
    waits = [20.0, None]

    async def call() -> float:
        wait = waits.pop(0)
        if wait is not None:
            raise FetchError("", reason="http", status=429, retry_after=wait)
        return anyio.current_time()

    began = anyio.current_time()
    assert await retrying(call, retry=Retry(), chance=lambda: 0.0) - began == 20.0


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("120", 120, 120), ("7200", 3600, 3600), ("Fri, 31 Dec 9999 23:59:59 GMT", 3600, 3600)],
)
async def test_retry_after_is_handed_on_capped(fetcher: Fetcher, header: str, least: float, most: float) -> None:
    error = await failure_from(fetcher, respond(429, retry_after=header))
    assert error.retry_after is not None
    assert least <= error.retry_after <= most


@pytest.mark.parametrize("header", ["soon", "-5", "Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_retry_after_that_is_garbage_is_ignored(fetcher: Fetcher, header: str) -> None:
    assert (await failure_from(fetcher, respond(503, retry_after=header))).retry_after is None


# Whatever the bytes

LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200\r\n", b"HTTP/1.1 302 Found\r\n", b"HTTP/1.1 100 C\r\n",
        b"HTTP/2 200\r\n", b"Content-Length: 3\r\n", b"Content-Length: 99\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Location: \r\n", b"Location: http://[\r\n", b"Location: mailto:x\r\n", b"Retry-After: \xff\r\n",
        b"ETag: \xff\r\n", b"Content-Encoding: \xff\r\n", b"Connection: upgrade\r\n", b"Set-Cookie: \xff=;;=\r\n",
        b"\r\n", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\0", b"fffffffffffffffffffff\r\n",
    ]
)  # fmt: skip


def test_no_answer_whatever_its_bytes_raises_anything_but_a_fetch_error() -> None:
    answer: list[bytes] = []

    async def fetch(server: Server) -> None:
        async with Fetcher(idle_timeout=5, ssl_context=believes_nobody()) as fetcher:
            for manifest in (None, server.url()):
                with suppress(FetchError):
                    await fetcher.fetch(server.url(), limit_bytes=100, deadline=5, same_origin_as=manifest)

    @given(pieces=st.lists(LINES | st.binary(max_size=20), max_size=12))
    @settings(max_examples=80)
    def holds(pieces: list[bytes]) -> None:
        answer[:] = pieces
        anyio.run(fetch, server)

    with serving(lambda connection: connection.send(*answer)) as server:
        holds()


class Reset:
    """A stream whose peer was gone before anybody asked who it is."""

    def get_extra_info(self, _info: str) -> None:
        return None


async def test_connection_that_is_reset_as_soon_as_it_is_made_is_a_connection_failure() -> None:
    route = Route("https://publisher.example/m.json")
    with pytest.raises(FetchError, match=r"^connection: https://publisher\.example/m\.json: ") as caught:
        await route("connection.connect_tcp.complete", {"return_value": Reset()})
    assert is_passing(caught.value)
