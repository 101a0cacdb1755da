"""Fetch a manifest or an artifact into memory, within bounds that hold whatever the other side does.

Every transfer has a deadline for all of it and a cap on its bytes. A manifest comes from the URL the operator named and
from nowhere else; an artifact from where ``allow`` says, each redirect asked again. A token goes to the manifest's own
origin and no further. All that goes wrong is a FetchError whose text begins with its category.
"""

from __future__ import annotations

import random
import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Final, Self, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx2

from oneiric.core.retry import Retry, read_retry_after
from oneiric.errors import FetchError
from oneiric.remote.authorities import Authorities
from oneiric.remote.local import read_beside, read_typed, settled, to_path, too_large
from oneiric.remote.transport import Route, build_request, failure, http_failure, open_client, translate
from oneiric.remote.urls import (
    Allow,
    Origin,
    allowed_by,
    is_local,
    origin_of,
    printable,
    refusal,
    require_safe,
    resolve,
)

Progress = Callable[[int, int | None], None]
"""Receives the bytes read so far, and how many there will be where the server says so."""

MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_TOKEN: Final = re.compile(r"[!-~]+")
_ETAG: Final = re.compile(r'(?:W/)?"[!#-~]{0,256}"')
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched: all of it, the tag to ask with next time, and where it came from in the end."""

    content: bytes = field(repr=False)
    etag: str | None
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotModified:
    """The server says that what the tag stands for is still current."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Transfer:
    """What one fetch may do. ``manifest_url`` is None for a manifest itself."""

    limit_bytes: int
    etag: str | None
    manifest_url: str | None
    token: str | None = field(repr=False)
    progress: Progress | None


class Fetcher:
    """Fetches; an asynchronous context manager that owns the HTTP client.

    Args:
        idle_timeout: seconds in which the other side must be heard.
        allow: where artifacts may come from besides the manifest's own directory or origin.
        allow_plain_http: lets http leave this machine.
        ssl_context: whom to believe, or what says so; the system's authorities and ``SSL_CERT_FILE`` if omitted.
    """

    def __init__(
        self,
        *,
        idle_timeout: float = 30.0,
        allow: Allow | None = None,
        allow_plain_http: bool = False,
        ssl_context: ssl.SSLContext | Authorities | None = None,
    ) -> None:
        self._idle_timeout = idle_timeout
        self._allow = allow or allowed_by(())
        self._allow_plain_http = allow_plain_http
        self._ssl_context = ssl_context or Authorities()
        self._client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        self._client = await anyio.to_thread.run_sync(self._open)
        return self

    def _open(self) -> httpx2.AsyncClient:
        believed = self._ssl_context
        context = believed() if isinstance(believed, Authorities) else believed
        return open_client(idle_timeout=self._idle_timeout, ssl_context=context)

    async def __aexit__(self, *_: object) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def fetch(
        self,
        url: str,
        *,
        limit_bytes: int,
        deadline: float,
        etag: str | None = None,
        same_origin_as: str | None = None,
        token: str | None = None,
        progress: Progress | None = None,
    ) -> Fetched | NotModified:
        """Fetch a manifest, or an artifact of one.

        Args:
            url: http, https, file: or a path. An artifact's may be relative.
            limit_bytes: more than that is refused, whatever the server announced.
            deadline: seconds for the whole transfer, redirects included.
            etag: the tag of what is already here; NotModified is returned if it is still current.
            same_origin_as: the URL of the manifest, for an artifact.
            token: sent as a bearer token, to the manifest's own origin only.
            progress: is told about every piece that arrives.

        Raises:
            FetchError: with one of its reasons.
        """
        if same_origin_as is not None:
            same_origin_as = settled(same_origin_as)
            url = resolve(same_origin_as, url)
        transfer = _Transfer(limit_bytes, etag, same_origin_as, token, progress)
        try:
            with anyio.fail_after(deadline):
                return await (self._read if is_local(url) else self._download)(url, transfer)
        except TimeoutError as error:
            raise failure("timeout", url, f"not complete within {deadline:g} s") from error

    async def _read(self, url: str, transfer: _Transfer) -> Fetched:
        """Read a file in a thread."""
        manifest_url, limit_bytes = transfer.manifest_url, transfer.limit_bytes
        if manifest_url is not None and not is_local(manifest_url):
            raise refusal(url, "a manifest from the network names a file of this machine", "publish the artifact")

        def read() -> bytes:
            if manifest_url is None:
                return read_typed(url, limit_bytes)
            return read_beside(url, manifest_url, limit_bytes)

        content = await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
        return Fetched(content, None, to_path(url).as_uri())

    async def _download(self, url: str, transfer: _Transfer) -> Fetched | NotModified:
        """Ask, and follow where that is allowed."""
        origin = self._require_allowed(url, transfer)
        token = _token_for(url, origin, transfer)
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._ask(url, token, transfer)
            if not isinstance(found, str):
                return found
            url, previous, origin = found, origin, self._require_allowed(found, transfer)
            if origin != previous:
                token = None  # for good: whoever sends us back home chose the URL that would see it
        raise failure("redirect", url, f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, url: str, token: str | None, transfer: _Transfer) -> Fetched | NotModified | str:
        """Make one request; return what came, or the URL it leads to."""
        if self._client is None:
            raise RuntimeError("the fetcher is not open")
        headers = {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if transfer.etag is not None and _ETAG.fullmatch(transfer.etag):
            headers["If-None-Match"] = transfer.etag
        route, has_begun = Route(url), False
        request = build_request(self._client, url, headers, route)
        try:
            response = await self._client.send(request, stream=True)
            async with aclosing(response):
                has_begun = True
                return await self._take(response, url, transfer, asked="If-None-Match" in headers)
        except httpx2.TimeoutException as error:
            what = f"nothing heard from {route.peer} for {self._idle_timeout:g} s"
            raise failure("timeout", url, what) from error
        except httpx2.InvalidURL as error:  # ours was looked at before, so it is that of a redirect
            raise failure("redirect", url, "leads to something that is no URL") from error
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise translate(error, url, route, has_begun=has_begun) from error
        finally:
            await route.aclose()

    async def _take(
        self, response: httpx2.Response, url: str, transfer: _Transfer, *, asked: bool
    ) -> Fetched | NotModified | str:
        """Judge the head of an answer, and read its body if it is wanted."""
        status = response.status_code
        if status == 304 and asked:
            return NotModified(url)
        if status in _REDIRECTS and "Location" in response.headers:
            return self._redirect(url, response.headers["Location"], transfer)
        if status != 200:
            wait = read_retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC))
            raise http_failure(url, status, wait)
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise failure("http", url, "the answer is compressed although we asked for it as it is")
        if "Content-Length" in response.headers and "Transfer-Encoding" in response.headers:
            raise failure("http", url, "the answer is malformed: it has a length and is chunked too")
        content = await self._collect(response, url, transfer)
        etag = response.headers.get("ETag", "")
        return Fetched(content, etag if _ETAG.fullmatch(etag) else None, url)

    async def _collect(self, response: httpx2.Response, url: str, transfer: _Transfer) -> bytes:
        """Read a body up to the cap."""
        length = response.headers.get("Content-Length")
        expected = None if length is None else int(length)
        if expected is not None and expected > transfer.limit_bytes:
            raise too_large(url, transfer.limit_bytes)
        received, buffer = 0, BytesIO()  # getvalue() hands its bytes over without a copy
        async with aclosing(response.aiter_raw()) as pieces:
            async for piece in pieces:
                received += len(piece)
                if received > transfer.limit_bytes:
                    raise too_large(url, transfer.limit_bytes)
                buffer.write(piece)
                if transfer.progress is not None:
                    transfer.progress(received, expected)
                await anyio.lowlevel.checkpoint()  # a body in one-byte chunks must not hold the loop
        return buffer.getvalue()

    def _redirect(self, url: str, location: str, transfer: _Transfer) -> str:
        """Return where an answer sends us; raises FetchError where redirects of its kind are not followed."""
        target = resolve(url, location)
        if transfer.manifest_url is None:
            raise failure("redirect", url, f"leads to {printable(target)}; a manifest is not looked for elsewhere")
        if origin_of(url).scheme == "https" and not target.startswith("https:"):
            raise failure("redirect", url, f"leads away from https, to {printable(target)}")
        return target

    def _require_allowed(self, url: str, transfer: _Transfer) -> Origin:
        """Return the origin of a URL that may be asked; raises FetchError for others."""
        origin = require_safe(url, allow_plain_http=self._allow_plain_http)
        if transfer.manifest_url is not None and not self._allow(url, transfer.manifest_url):
            what = f"artifacts of {printable(transfer.manifest_url)} may not come from {origin.host}:{origin.port}"
            raise refusal(url, what, f"add {origin.host} to remote.allowed_hosts, if you trust it")
        return origin


def _token_for(url: str, origin: Origin, transfer: _Transfer) -> str | None:
    """Return the token if *origin* is the manifest's own; raises FetchError if it cannot be sent there unseen."""
    home = url if transfer.manifest_url is None else transfer.manifest_url
    if transfer.token is None or is_local(home) or origin != origin_of(home):
        return None
    if _TOKEN.fullmatch(transfer.token) is None:
        raise refusal(url, "the token holds a character that no header can carry", "check the token")
    if not origin.is_private:
        raise refusal(url, "a token is not sent over plain http to another machine", "use https")
    return transfer.token


async def retrying(call: Callable[[], Awaitable[T]], *, retry: Retry, chance: Callable[[], float] = random.random) -> T:
    """Return what *call* returns, tried again as *retry* says after failures that may pass.

    Raises the FetchError of the last attempt.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return await call()
        except FetchError as error:
            wait = retry.wait(attempt, error, chance=chance())
            if wait is None:
                raise
        await anyio.sleep(wait)
