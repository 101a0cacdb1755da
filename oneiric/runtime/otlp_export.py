"""Metrics for an OpenTelemetry collector: OTLP over HTTP, at intervals, and nothing waits for it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Final
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import anyio
import httpx2
from anyio import to_thread

from oneiric import __version__
from oneiric.core.config import MetricsSettings
from oneiric.core.retry import read_retry_after
from oneiric.errors import OneiricError
from oneiric.observability.describe import describe
from oneiric.observability.logs import Emit
from oneiric.observability.meters import Reading
from oneiric.remote.authorities import Authorities
from oneiric.remote.transport import Route, failure, http_failure, open_client, translate
from oneiric.remote.urls import printable

_DEADLINE: Final = 10.0
_LOOK: Final = 1.0  # seconds between two looks at the settings
_MAX_ANSWER_BYTES: Final = 65_536
_HEADERS: Final = {"Content-Type": "application/x-protobuf", "Accept": "application/x-protobuf"}
_REMEDY: Final = 'pip install "oneiric[otel]"'


class OtlpExport:
    """Hands all readings to the collector that the settings name, while they name one.

    An export that fails is not repeated: the next one holds all that it held. The first failure of a streak is
    reported, with how many there were in all.

    Args:
        started_at: since when counters count.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], MetricsSettings],
        read: Callable[[], Awaitable[tuple[Reading, ...]]],
        emit: Emit,
        started_at: datetime,
    ) -> None:
        self._settings = settings
        self._read = read
        self._emit = emit
        self._started_at = started_at
        self._authorities = Authorities()
        self._resource = {
            "service.name": "oneiric",
            "service.version": __version__,
            "service.instance.id": str(uuid4()),
        }
        self._failures = 0
        self._failing = ""

    async def run(self) -> None:
        """Export for ever."""
        last, asked = -math.inf, 0.0
        while True:
            settings = self._settings()
            rest = last + max(settings.otlp_interval, asked) - anyio.current_time()
            if settings.otlp_endpoint is None:
                await anyio.sleep(_LOOK)
            elif rest > 0:
                await anyio.sleep(min(rest, _LOOK))
            else:
                last = anyio.current_time()
                asked = await self._export(settings.otlp_endpoint)

    async def _export(self, endpoint: str) -> float:
        """Export once; return the seconds for which the collector asks not to be asked again."""
        try:
            readings = await self._read()
            now = datetime.now(UTC)
            content = await to_thread.run_sync(self._encode, readings, now, abandon_on_cancel=True)
            await self._hand_over(_target(endpoint), content)
        except Exception as error:  # whatever the network, the collector or a library does, the daemon goes on
            self._failures += 1
            if self._failing != endpoint:
                self._failing = endpoint
                text = str(error) if isinstance(error, OneiricError) else describe(error)
                told = {"endpoint": printable(endpoint), "failures": self._failures}
                self._emit("metrics-export-failed", **told, error=text)
            return getattr(error, "retry_after", None) or 0.0
        self._failing = ""
        return 0.0

    def _encode(self, readings: tuple[Reading, ...], now: datetime) -> bytes:
        try:
            from oneiric.observability.otlp import export_request
        except ImportError as error:
            raise OneiricError(f"{describe(error)}; try: {_REMEDY}") from error
        return export_request(readings, resource=self._resource, started_at=self._started_at, now=now)

    async def _hand_over(self, url: str, content: bytes) -> None:
        """Send *content*. Raises FetchError when it did not arrive in time, or was not taken."""
        from oneiric.observability.otlp import refused

        try:
            with anyio.fail_after(_DEADLINE):
                answer = await self._post(url, content)
            words = refused(answer)
        except TimeoutError as error:
            raise failure("timeout", url, f"not complete within {_DEADLINE:g} s") from error
        except ValueError as error:
            raise failure("http", url, str(error)) from error
        if words:
            raise failure("http", url, words)

    async def _post(self, url: str, content: bytes) -> bytes:
        """Send *content* and return the answer of a collector that took it."""
        context = await to_thread.run_sync(self._authorities)
        opened = partial(open_client, idle_timeout=2 * _DEADLINE, ssl_context=context)  # ours ends first
        client = await to_thread.run_sync(opened)
        route, has_begun = Route(url), False
        try:
            async with client:
                response = await client.send(_request(client, url, content, route), stream=True)
                async with aclosing(response):
                    has_begun = True
                    return await _taken(response, url)
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise translate(error, url, route, has_begun=has_begun) from error
        finally:
            await route.aclose()


def _target(endpoint: str) -> str:
    """Return where an *endpoint* takes metrics."""
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/v1/metrics", fragment=""))


def _request(client: httpx2.AsyncClient, url: str, content: bytes, route: Route) -> httpx2.Request:
    """Return the request. Its query travels beside the URL, which httpx2 writes to its log."""
    parsed = httpx2.URL(url)
    extensions = {"target": parsed.raw_path, "trace": route}
    return client.build_request(
        "POST", parsed.copy_with(query=None), content=content, headers=_HEADERS, extensions=extensions
    )


async def _taken(response: httpx2.Response, url: str) -> bytes:
    """Return the body of an answer that says the export was taken."""
    if not response.is_success:
        wait = read_retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC))
        raise http_failure(url, response.status_code, wait)
    body = bytearray()
    async with aclosing(response.aiter_raw()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > _MAX_ANSWER_BYTES:
                raise failure("http", url, "the answer is too long to be a collector's")
    return bytes(body)
