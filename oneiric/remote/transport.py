"""The HTTP client as we let it run, and its errors in our words.

httpx2 is kept from everything a fetch has no use for: it follows no redirect, keeps no cookie and no connection, asks
for no compression, and never sees a query string it could log. Proxies are those of ``HTTP_PROXY``, ``HTTPS_PROXY`` and
``NO_PROXY``; this machine is never asked through one.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from http.client import responses
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import anyio
import httpx2

from oneiric.core.origin import is_link_local, to_address
from oneiric.errors import FetchError
from oneiric.remote.urls import printable, refusal

_HEADERS: Final = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "oneiric"}
_DIRECT: Final = ("all://localhost", "all://127.0.0.0/8", "all://[::1]")
_MAX_WORDS: Final = 200

_HINTS: Final = {
    "timeout": "oneiric doctor, or raise remote.timeout if the publisher is slow",
    "connection": "curl -v the URL from this machine; check firewall, HTTPS_PROXY and NO_PROXY",
    "dns": "check the host in remote.manifest_url, and HTTPS_PROXY if there is a proxy",
    "tls": "check the certificate and this machine's clock; SSL_CERT_FILE names authorities of your own",
    "http": "curl -v the URL from this machine; check remote.manifest_url",
    "redirect": "use the URL where the file really is",
}


def open_client(*, idle_timeout: float, ssl_context: ssl.SSLContext) -> httpx2.AsyncClient:
    """Return a client; raises FetchError if the environment does not allow one."""
    try:
        return httpx2.AsyncClient(
            headers=_HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            verify=ssl_context,
            timeout=httpx2.Timeout(idle_timeout),
            mounts=dict.fromkeys(_DIRECT),
        )
    except (ImportError, ValueError, httpx2.InvalidURL):
        what = "a proxy variable of the environment cannot be used"  # nor shown: it may hold a password
        hint = "set HTTP_PROXY and HTTPS_PROXY to http://host:port"
        raise FetchError(f"connection: {what}", reason="connection", hint=hint) from None


class Route:
    """The way of one request: knows whom it connects to, refuses a link-local peer, and closes the connection.

    Closing is left to us because httpx2 forgets a connection whose TLS handshake is cancelled, and a server that never
    shakes hands would cost a file descriptor each time.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._host = httpx2.URL(url).raw_host.decode("ascii")
        self._stream: Any = None
        self.peer = self._host
        """Whom it connects to: the host of the URL, or ``the proxy`` and where that is."""

    @property
    def is_proxied(self) -> bool:
        """Whether a proxy stands between; who named the host of the URL as its proxy is taken to ask it directly."""
        return self.peer != self._host

    @property
    def is_connected(self) -> bool:
        """Whether somebody took the connection."""
        return self._stream is not None

    async def __call__(self, event: str, details: dict[str, Any]) -> None:
        """Take one of httpx2's trace events; raises FetchError before anything is sent to a forbidden peer."""
        if event == "connection.connect_tcp.started":
            host, port = str(details["host"]), details["port"]
            if host != self._host:
                self.peer = f"the proxy {f'[{host}]' if ':' in host else host}:{port}"
        elif event == "connection.connect_tcp.complete":
            self._stream = details["return_value"]
            if not self.is_proxied:  # a proxy is the operator's choice, and looks up names itself
                peer = self._stream.get_extra_info("server_addr")
                if peer is None:  # reset already; whom we would have sent to cannot be told
                    raise failure("connection", self._url, "reset as soon as it was made")
                self._require_routed(peer[0])

    def _require_routed(self, peer: str) -> None:
        address = to_address(peer.partition("%")[0])
        if address is not None and is_link_local(address):
            raise refusal(self._url, f"its host has the link-local address {address}", "use an address that is routed")

    async def aclose(self) -> None:
        """Close what was connected, if anything still is."""
        if self._stream is not None:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()


def build_request(client: httpx2.AsyncClient, url: str, headers: dict[str, str], route: Route) -> httpx2.Request:
    """Return the request for *url*. Its query travels beside the URL, which httpx2 writes to its log."""
    parsed = httpx2.URL(url)
    bare = parsed.copy_with(query=None, fragment=None)
    return client.build_request("GET", bare, headers=headers, extensions={"target": parsed.raw_path, "trace": route})


def failure(reason: str, url: str, what: str) -> FetchError:
    """Return the error of one fetch: its category, where, and what happened."""
    return FetchError(f"{reason}: {printable(url)}: {what}", reason=reason, hint=_HINTS[reason])


def http_failure(url: str, status: int, retry_after: float | None) -> FetchError:
    """Return the error for an answer whose status we cannot use."""
    phrase = f"{status} {responses.get(status, '')}".strip()
    hint = "check that the publisher lets us in, and the token" if status in (401, 403) else _HINTS["http"]
    message = f"http: {phrase} from {printable(url)}"
    return FetchError(message, reason="http", hint=hint, status=status, retry_after=retry_after)


def translate(error: Exception, url: str, route: Route, *, has_begun: bool) -> FetchError:
    """Return what a failure of the client means.

    Args:
        has_begun: whether the head of the answer had arrived.
    """
    causes = list(_causes(error))
    told = (_tell(cause, route, is_handshake=isinstance(error, httpx2.ConnectError)) for cause in causes)
    reason, what = next(filter(None, told), ("connection", _lower(str(error) or type(error).__name__)))
    if reason == "connection" and route.is_proxied and not route.is_connected:
        what = f"{route.peer}: {what}"
    elif reason == "connection" and has_begun:
        what = f"the answer broke off: {what}"
    elif reason == "connection" and type(causes[-1]).__module__.startswith("h11"):
        reason, what = "http", f"the answer is malformed: {what}"
    return failure(reason, url, what)


def _tell(cause: BaseException, route: Route, *, is_handshake: bool) -> tuple[str, str] | None:
    """Return category and words for a cause we know."""
    match cause:
        case socket.gaierror():
            told = "dns", f"{route.peer}: {_lower(cause.strerror or 'does not resolve')}; no connection"
        case ssl.SSLCertVerificationError():
            told = "tls", _lower(cause.verify_message)
        case ssl.SSLEOFError():
            told = "connection", "cut in the middle of TLS"
        case ssl.SSLError():
            words = _lower((cause.reason or str(cause)).replace("_", " ").lower())
            told = "tls" if is_handshake else "connection", words
        case httpx2.ProxyError():
            told = "connection", f"{route.peer} answered {_lower(str(cause))}"
        case OSError(errno=int(number)):
            told = "connection", os.strerror(number).lower()
        case _:
            return None
    return told


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and what caused it, one of several causes where there were several."""
    while error is not None:
        yield error
        nested = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = nested or error.__cause__ or error.__context__


def _lower(text: str) -> str:
    """Return words of a library as the rest of a sentence of ours; the other side may have chosen some of them."""
    text = "".join(character if character.isprintable() else "?" for character in text[:_MAX_WORDS])
    return text[:1].lower() + text[1:].rstrip(".")
