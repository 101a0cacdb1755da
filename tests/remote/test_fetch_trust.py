"""Where a fetch goes, what it carries there, and whom it believes: redirects, tokens, TLS, proxies."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from oneiric.errors import FetchError
from oneiric.remote.fetch import Fetched, Fetcher
from oneiric.remote.urls import allowed_by
from tests.harness.servers import (
    Answer,
    Authority,
    Connection,
    Server,
    believes_nobody,
    by_path,
    never,
    proxy,
    raw,
    respond,
    serving,
)

pytestmark = pytest.mark.anyio

BODY = b"what was asked for"
TOKEN = "TOP-SECRET"
BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(autouse=True)
def _no_proxies_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def fetcher(authority: Authority) -> AsyncIterator[Fetcher]:
    async with Fetcher(idle_timeout=5, ssl_context=authority.client()) as fetcher:
        yield fetcher


@asynccontextmanager
async def open_fetcher(*hosts: str, **more: object) -> AsyncIterator[Fetcher]:
    """Open a fetcher that lets artifacts come from *hosts*."""
    options: dict[str, object] = {"ssl_context": believes_nobody(), "idle_timeout": 5, **more}
    async with Fetcher(allow=allowed_by(hosts), **options) as fetcher:  # type: ignore[arg-type]
        yield fetcher


async def artifact(fetcher: Fetcher, server: Server, uri: str, *, token: str | None = TOKEN) -> bytes:
    """Fetch an artifact of the manifest that *server* has."""
    found = await fetcher.fetch(uri, limit_bytes=1000, deadline=5, same_origin_as=server.url(), token=token)
    assert isinstance(found, Fetched)
    return found.content


async def failure(fetcher: Fetcher, url: str, **more: str) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await fetcher.fetch(url, limit_bytes=1000, deadline=5, **more)  # type: ignore[arg-type]
    assert caught.value.message.startswith(f"{caught.value.reason}: ")
    assert TOKEN not in caught.value.render()
    return caught.value


def sent(server: Server) -> list[str | None]:
    """Return the credentials of each request *server* got."""
    return [request.headers.get("authorization") for request in server.requests]


def redirect(location: str, status: int = 302) -> Answer:
    return respond(status, location=location)


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_manifest_is_not_looked_for_elsewhere(fetcher: Fetcher, status: int) -> None:
    with serving(by_path(manifest=redirect("/other?sig=QUERY", status), other=respond(200, BODY))) as server:
        error = await failure(fetcher, server.url("/manifest"))
    assert (error.reason, len(server.requests), "QUERY" in error.message) == ("redirect", 1, False)


async def test_artifact_follows_three_redirects(fetcher: Fetcher) -> None:
    steps = by_path(a=redirect("/b"), b=redirect("c"), c=redirect("./d"), d=respond(200, BODY))
    with serving(steps) as server:
        assert await artifact(fetcher, server, "/a") == BODY


async def test_artifact_does_not_follow_a_fourth_redirect(fetcher: Fetcher) -> None:
    steps = by_path(a=redirect("/b"), b=redirect("/c"), c=redirect("/d"), d=redirect("/e"), e=respond(200, BODY))
    with serving(steps) as server:
        error = await failure(fetcher, "/a", same_origin_as=server.url())
    assert (error.reason, len(server.requests)) == ("redirect", 4)


async def test_redirect_loop_ends(fetcher: Fetcher) -> None:
    with serving(redirect("/loop")) as server:
        error = await failure(fetcher, "/loop", same_origin_as=server.url())
    assert (error.reason, len(server.requests)) == ("redirect", 4)


async def test_redirect_to_a_host_that_is_not_allowed_is_refused_unasked(fetcher: Fetcher) -> None:
    with serving(respond(200, BODY)) as other, serving(redirect(other.url("/x"))) as server:
        error = await failure(fetcher, "/a", same_origin_as=server.url(), token=TOKEN)
    assert (error.reason, other.requests) == ("policy", [])


async def test_redirect_away_from_https_is_refused_unasked(authority: Authority) -> None:
    with (
        serving(respond(200, BODY)) as plain,
        serving(redirect(plain.url("/x")), tls=authority.server("127.0.0.1")) as server,
    ):
        async with open_fetcher("127.0.0.1", ssl_context=authority.client(), allow_plain_http=True) as fetcher:
            error = await failure(fetcher, "/a", same_origin_as=server.url())
    assert (error.reason, plain.requests) == ("redirect", [])


@pytest.mark.parametrize(
    "location",
    [
        "http://user:pw@127.0.0.1/x", "http://169.254.169.254/latest", "http://[fe80::1]/", "file:///etc/passwd",
        "ftp://127.0.0.1/", "mailto:x", "http://[", "http://127.0.0.1:99999/", "javascript:1", "//publisher.test/x",
        "http://127.0.0.1\\@publisher.test/", "data:,x", "http://0x7f000001/", "http://2130706433/",
    ],
)  # fmt: skip
async def test_redirect_to_a_place_we_do_not_go_is_refused(location: str) -> None:
    async with open_fetcher("127.0.0.1", "169.254.169.254", "fe80::1", "publisher.test") as fetcher:
        with serving(redirect(location)) as server:
            error = await failure(fetcher, "/a", same_origin_as=server.url())
    assert error.reason in ("policy", "redirect")
    assert len(server.requests) == 1


async def test_artifact_from_an_origin_that_is_not_allowed_is_refused_unasked(fetcher: Fetcher) -> None:
    with serving(respond(200, BODY)) as other, serving(respond(200, BODY)) as server:
        error = await failure(fetcher, other.url(), same_origin_as=server.url())
    assert (error.reason, other.requests) == ("policy", [])
    assert "remote.allowed_hosts" in error.hint


async def test_artifact_from_an_allowed_host_is_fetched() -> None:
    with serving(respond(200, BODY)) as other, serving(respond(404)) as server:
        async with open_fetcher("127.0.0.1") as fetcher:
            assert await artifact(fetcher, server, other.url()) == BODY


async def test_artifact_of_a_local_manifest_may_come_from_an_allowed_host() -> None:
    with serving(respond(200, BODY)) as server:
        async with open_fetcher(f"127.0.0.1:{server.port}") as fetcher:
            found = await fetcher.fetch(
                server.url(), limit_bytes=1000, deadline=5, same_origin_as="/srv/manifest.json", token=TOKEN
            )
    assert isinstance(found, Fetched)
    assert sent(server) == [None]


# Tokens


async def test_token_goes_to_the_manifest_and_its_own_artifacts(fetcher: Fetcher) -> None:
    with serving(respond(200, BODY)) as server:
        await fetcher.fetch(server.url(), limit_bytes=1000, deadline=5, token=TOKEN)
        await artifact(fetcher, server, "/wheel")
    assert sent(server) == [f"Bearer {TOKEN}"] * 2


async def test_token_does_not_go_to_an_allowed_host() -> None:
    with serving(respond(200, BODY)) as other, serving(respond(404)) as server:
        async with open_fetcher("127.0.0.1") as fetcher:
            await artifact(fetcher, server, other.url())
    assert sent(other) == [None]


async def test_token_does_not_follow_a_redirect_to_another_origin() -> None:
    with serving(respond(200, BODY)) as other, serving(redirect(other.url("/x"))) as server:
        async with open_fetcher("127.0.0.1") as fetcher:
            assert await artifact(fetcher, server, "/a") == BODY
    assert (sent(server), sent(other)) == ([f"Bearer {TOKEN}"], [None])


async def test_token_does_not_come_back_with_a_redirect_home() -> None:
    home: list[Answer] = []
    with (
        serving(lambda connection: home[0](connection)) as other,
        serving(by_path(a=redirect(other.url("/x")), b=respond(200, BODY))) as server,
    ):
        home.append(redirect(server.url("/b")))
        async with open_fetcher("127.0.0.1") as fetcher:
            assert await artifact(fetcher, server, "/a") == BODY
    assert sent(server) == [f"Bearer {TOKEN}", None]


async def test_token_stays_with_a_redirect_inside_its_origin(fetcher: Fetcher) -> None:
    with serving(by_path(a=redirect("/b"), b=respond(200, BODY))) as server:
        await artifact(fetcher, server, "/a")
    assert sent(server) == [f"Bearer {TOKEN}"] * 2


async def test_token_is_not_sent_over_plain_http_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(proxy()) as recorder:
        monkeypatch.setenv("HTTP_PROXY", recorder.url(""))
        async with open_fetcher(allow_plain_http=True) as fetcher:
            error = await failure(fetcher, "http://publisher.test/m.json", token=TOKEN)
    assert (error.reason, recorder.requests) == ("policy", [])


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "ä", ""])
async def test_token_that_no_header_can_carry_is_refused_unshown(fetcher: Fetcher, token: str) -> None:
    with serving(respond(200, BODY)) as server:
        error = await failure(fetcher, server.url(), token=token)
    assert error.reason == "policy"
    assert not token or token not in error.render()


# Places


@pytest.mark.parametrize(
    "url",
    [
        "http://publisher.test/m.json", "https://user:pw@127.0.0.1/m.json", "https://user@127.0.0.1/", "ftp://127.0.0.1/m",
        "https://169.254.169.254/latest/meta-data", "https://[fe80::1]/", "https://[::ffff:169.254.169.254]/",
        "https://[64:ff9b::a9fe:a9fe]/", "https://0xa9fea9fe/", "https://2852039166/", "https://127.1/", "https:///m.json",
        "https://host:0x50/", "https://a..b/", "https://" + "a" * 64 + ".test/", "https://host/a b", "https://hóst/",
        "http://[64:ff9b::7f00:1]/", "https://[::ffff:10.0.0.1]/", "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/", "http://localhost.publisher.test/", "https://-a.test/",
    ],
)  # fmt: skip
async def test_place_we_do_not_go_is_refused(fetcher: Fetcher, url: str) -> None:
    error = await failure(fetcher, url)
    assert error.reason == "policy"
    assert error.hint
    assert "pw" not in error.render()


async def test_url_with_credentials_is_refused_with_the_reason(fetcher: Fetcher) -> None:
    error = await failure(fetcher, "https://me:pw@publisher.test/m.json")
    assert error.message == "policy: https://publisher.test/m.json: the URL holds a user or a password"


async def test_name_that_leads_to_a_link_local_address_is_refused_before_anything_is_sent(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is real only to us: the peer's name is read from the socket, which says what a hostile DNS would."""
    monkeypatch.setattr("oneiric.remote.transport.is_link_local", lambda address: str(address) == "127.0.0.1")
    with serving(respond(200, BODY)) as server:
        error = await failure(fetcher, server.url(host="localhost"))
    assert (error.reason, server.requests) == ("policy", [])
    assert "link-local address 127.0.0.1" in error.message


@BOTH
async def test_name_that_does_not_exist_is_a_dns_failure(fetcher: Fetcher) -> None:
    error = await failure(fetcher, "https://publisher.invalid/m.json?sig=QUERY")
    assert error.message.startswith("dns: https://publisher.invalid/m.json: publisher.invalid: ")


@BOTH
async def test_dns_failure_is_among_the_network_errors_of_the_runbook(fetcher: Fetcher) -> None:
    error = await failure(fetcher, "https://publisher.invalid/m.json")
    assert re.fullmatch(".*timeout.*|.*connection.*", error.message)


@BOTH
async def test_port_that_nobody_listens_on_is_a_connection_failure(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await failure(fetcher, f"http://127.0.0.1:{port}/m.json?sig=QUERY")
    assert error.message == f"connection: http://127.0.0.1:{port}/m.json: connection refused"


async def test_host_none_of_whose_addresses_answers_is_a_connection_failure(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert (await failure(fetcher, f"http://localhost:{port}/")).message.endswith("connection refused")


# TLS


@BOTH
async def test_publisher_whom_our_authority_vouches_for_is_believed(fetcher: Fetcher, authority: Authority) -> None:
    with serving(respond(200, BODY), tls=authority.server("localhost")) as server:
        found = await fetcher.fetch(server.url(host="localhost"), limit_bytes=1000, deadline=5)
    assert isinstance(found, Fetched)


@contextmanager
def distrusted(authority: Authority, flaw: str) -> Iterator[Server]:
    """Run a server whose certificate has one flaw."""
    if flaw == "expired":
        past = datetime.now(UTC) - timedelta(days=1)
        context = authority.server(certificate=authority.ca.issue_cert("127.0.0.1", not_after=past))
    elif flaw == "wrong-host":
        context = authority.server("publisher.test")
    else:
        context = Authority().server("127.0.0.1")
    with serving(respond(200, BODY), tls=context) as server:
        yield server


@BOTH
@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ("expired", "certificate has expired"),
        ("wrong-host", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ("unknown-authority", "unable to get local issuer certificate"),
    ],
)
async def test_certificate_with_a_flaw_is_refused_by_name(
    fetcher: Fetcher, authority: Authority, flaw: str, words: str
) -> None:
    with distrusted(authority, flaw) as server:
        error = await failure(fetcher, server.url(), token=TOKEN)
    assert error.message.startswith("tls: https://127.0.0.1:")
    assert error.message.lower().endswith(words.lower())
    assert server.requests == []


@BOTH
async def test_server_without_tls_is_a_tls_failure(fetcher: Fetcher) -> None:
    with serving(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), reads=False) as server:
        error = await failure(fetcher, f"https://127.0.0.1:{server.port}/")
    assert (error.reason, "wrong version number" in error.message) == ("tls", True)


@BOTH
async def test_server_that_hangs_up_in_the_handshake_is_a_connection_failure(fetcher: Fetcher) -> None:
    with serving(raw(), reads=False) as server:
        assert (await failure(fetcher, f"https://127.0.0.1:{server.port}/")).reason == "connection"


@BOTH
async def test_server_that_never_shakes_hands_costs_no_connection(fetcher: Fetcher) -> None:
    hung_up = threading.Event()

    def listen(connection: Connection) -> None:
        while connection.sock.recv(65536):
            pass
        hung_up.set()

    with serving(listen, reads=False) as server:
        with pytest.raises(FetchError, match=r"^timeout: "):
            await fetcher.fetch(f"https://127.0.0.1:{server.port}/", limit_bytes=1, deadline=0.2)
        assert hung_up.wait(5)


# Proxies


async def test_plain_http_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(proxy()) as recorder:
        monkeypatch.setenv("HTTP_PROXY", recorder.url(""))
        async with open_fetcher(allow_plain_http=True) as fetcher:
            found = await fetcher.fetch("http://publisher.test/m.json?a=1", limit_bytes=1000, deadline=5)
    assert isinstance(found, Fetched)
    assert (found.content, recorder.requests[0].target) == (b"by proxy", "http://publisher.test/m.json?a=1")


@BOTH
async def test_https_goes_through_the_proxy_unread(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    with (
        serving(respond(200, BODY), tls=authority.server("publisher.test")) as server,
        serving(proxy(publisher=server.port)) as recorder,
    ):
        monkeypatch.setenv("HTTPS_PROXY", recorder.url("").replace("://", "://me:PASSWORD@"))
        async with open_fetcher(ssl_context=authority.client()) as fetcher:
            found = await fetcher.fetch("https://publisher.test/m.json", limit_bytes=1000, deadline=5, token=TOKEN)
    assert isinstance(found, Fetched)
    assert recorder.requests[0].target == "publisher.test:443"
    assert (sent(recorder), sent(server)) == ([None], [f"Bearer {TOKEN}"])


@pytest.mark.parametrize("exempt", ["publisher.invalid", ".invalid", "*", "localhost,publisher.invalid"])
async def test_host_in_no_proxy_is_asked_directly(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    with serving(proxy()) as recorder:
        monkeypatch.setenv("HTTP_PROXY", recorder.url(""))
        monkeypatch.setenv("NO_PROXY", exempt)
        async with open_fetcher(allow_plain_http=True) as fetcher:
            error = await failure(fetcher, "http://publisher.invalid/")
    assert (error.reason, recorder.requests) == ("dns", [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_this_machine_is_asked_directly(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with serving(proxy()) as recorder, serving(respond(200, BODY)) as server:
        monkeypatch.setenv("HTTP_PROXY", recorder.url(""))
        async with open_fetcher() as fetcher:
            await fetcher.fetch(server.url(host=host), limit_bytes=1000, deadline=5, token=TOKEN)
    assert (recorder.requests, sent(server)) == ([], [f"Bearer {TOKEN}"])


async def test_proxy_that_refuses_is_a_connection_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(proxy()) as recorder:
        monkeypatch.setenv("HTTPS_PROXY", recorder.url(""))
        async with open_fetcher() as fetcher:
            error = await failure(fetcher, "https://publisher.test/")
    said = f"the proxy 127.0.0.1:{recorder.port} answered 403 Said"
    assert error.message == f"connection: https://publisher.test/: {said}"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_proxy_that_takes_no_connection_is_named(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:PASSWORD@{host}:1")
    async with open_fetcher() as fetcher:
        error = await failure(fetcher, "https://publisher.test/")
    assert error.message == f"connection: https://publisher.test/: the proxy {host}:1: connection refused"
    assert "PASSWORD" not in error.render()


async def test_proxy_that_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(never) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url(""))
        async with open_fetcher(idle_timeout=0.2) as fetcher:
            error = await failure(fetcher, "https://publisher.test/")
    heard = f"nothing heard from the proxy 127.0.0.1:{server.port} for 0.2 s"
    assert error.message == f"timeout: https://publisher.test/: {heard}"


async def test_proxy_whose_name_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:PASSWORD@proxy.invalid:8080")
    async with open_fetcher() as fetcher:
        error = await failure(fetcher, "https://publisher.test/")
    assert error.message.startswith("dns: https://publisher.test/: the proxy proxy.invalid:8080: ")
    assert "PASSWORD" not in error.render()


@pytest.mark.parametrize("value", ["gopher://x:PASSWORD@h", "http://h:PASSWORD", "socks5://h:1080"])
async def test_proxy_variable_that_cannot_be_used_is_refused_unshown(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(FetchError, match=r"^connection: a proxy variable") as caught:
        await Fetcher(ssl_context=believes_nobody()).__aenter__()
    assert "PASSWORD" not in caught.value.render()
