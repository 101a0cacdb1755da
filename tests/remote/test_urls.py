"""URLs: what is shown of them, whose they are, and that no two parsers read them differently."""

from __future__ import annotations

from contextlib import suppress

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oneiric.errors import FetchError
from oneiric.remote.urls import Origin, allowed_by, is_local, origin_of, printable, require_safe

SECRET = st.text("abcdefghXYZ%$!*(),;=", min_size=8, max_size=16)


@given(user=SECRET, password=SECRET, query=SECRET, fragment=SECRET)
def test_printable_shows_no_user_password_query_or_fragment(
    user: str, password: str, query: str, fragment: str
) -> None:
    text = printable(f"https://{user}:{password}@host.test:8443/a/b.json?{query}#{fragment}")
    assert text == "https://host.test:8443/a/b.json"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://[::1]:1/x", "https://[::1]:1/x"),
        ("file:///srv/m.json?q#f", "file:///srv/m.json"),
        ("./m.json?token=x", "./m.json"),
        ("//me:pw@host/x", "//host/x"),
        ("me:pw@host/x", "<malformed URL>"),
        ("https://me:p/w@host/", "<malformed URL>"),
        ("http://[", "<malformed URL>"),
        ("https://host/\x1b[31m\u2028", "https://host/\\x1b[31m\\x2028"),
        ("https://host/" + "x" * 9999, "https://host/" + "x" * 499 + "..."),
        ("", ""),
    ],
)
def test_printable_of_odd_urls(url: str, shown: str) -> None:
    assert printable(url) == shown


@given(url=st.text())
def test_printable_of_anything_is_one_short_line(url: str) -> None:
    assert printable(url).isprintable()
    assert len(printable(url)) <= 515


HOST = st.sampled_from(
    ["host.test", "127.0.0.1", "[::1]", "localhost", "xn--hst-gna.test", "HOST.test", "1.2.3.4", "a_b"]
)
PIECES = st.lists(
    HOST
    | st.sampled_from(
        ["@", ":", "/", "\\", "//", "?", "#", "%2f", "%40", ".", "..", ":80", "[", "]", "0x7f", "é", "\t"]
    ),
    max_size=6,
).map("".join)


@given(scheme=st.sampled_from(["https", "http", "HTTPS", "file", ""]), rest=PIECES)
@example(scheme="https", rest="127.0.0.1:443")
@example(scheme="https", rest="host.test:0")
@example(scheme="https", rest="host.test.")
@example(scheme="https", rest="host.test[::1]")
@example(scheme="https", rest="host.test/" + "x" * 70_000)
def test_url_that_passes_leads_where_the_client_goes(scheme: str, rest: str) -> None:
    url = f"{scheme}://{rest}"
    origin = None
    with suppress(FetchError):
        origin = require_safe(url, allow_plain_http=True)
    if origin is not None:
        client = httpx2.URL(url)
        port = {"https": 443, "http": 80}[client.scheme] if client.port is None else client.port
        assert (origin, client.userinfo) == (Origin(client.scheme, client.raw_host.decode(), port), b"")


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://127.8.9.1:1/", "http://localhost/", "http://[::1]/"])
def test_plain_http_to_this_machine_is_safe(url: str) -> None:
    assert require_safe(url).is_private


def test_plain_http_to_another_machine_is_safe_only_if_allowed() -> None:
    assert require_safe("http://host.test/", allow_plain_http=True) == Origin("http", "host.test", 80)
    with pytest.raises(FetchError, match=r"^policy: http://host.test/: plain http"):
        require_safe("http://host.test/")


def test_origin_knows_the_port_that_is_not_written() -> None:
    assert origin_of("https://Host.test/a") == origin_of("https://host.test:443/b")


@pytest.mark.parametrize("url", ["https://host.test:444/", "http://host.test/", "https://www.host.test/"])
def test_origin_differs_by_scheme_host_and_port(url: str) -> None:
    assert origin_of(url) != origin_of("https://host.test/")


@pytest.mark.parametrize(
    ("hosts", "url", "allowed"),
    [
        ((), "https://home.test/x", True),
        ((), "https://home.test:444/x", False),
        (("CDN.test",), "https://cdn.test:444/x", True),
        (("cdn.test:443",), "https://cdn.test/x", True),
        (("cdn.test:443",), "https://cdn.test:444/x", False),
        (("cdn.test",), "https://evil.cdn.test/x", False),
        (("cdn.test",), "https://cdn.test.evil/x", False),
        (("[::1]", "::2"), "https://[::1]/x", True),
        (("[::1]", "::2"), "https://[0::2]/x", True),
    ],
)
def test_allowed_hosts_are_the_manifests_own_and_those_named(hosts: tuple[str, ...], url: str, allowed: bool) -> None:
    assert allowed_by(hosts)(url, "https://home.test/m.json") is allowed


@pytest.mark.parametrize(
    ("url", "local"),
    [("m.json", True), ("/m.json", True), ("FILE:///m", True), ("https://h/m", False), ("x:m.json", False)],
)
def test_path_is_told_from_a_url(url: str, local: bool) -> None:
    assert is_local(url) is local
