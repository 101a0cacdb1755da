"""The servers of the daemon: the control API on its Unix socket, and read-only HTTP for probes.

Verbs exist on the socket alone: mode 0600, and each peer's uid is checked (the daemon's own or root), so that a web
page, a container on the host network or another user cannot reach them. TCP answers GET on three paths and changes
nothing.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec
import uvicorn
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from oneiric.api.connections import MAX_HEAD_BYTES, READ_TIMEOUT, BoundedProtocol, Listener, PeerProtocol
from oneiric.api.openapi import openapi
from oneiric.api.routes import ROUTES, Asked, Route
from oneiric.api.views import error_document
from oneiric.errors import OneiricError, UsageError

if TYPE_CHECKING:
    from oneiric.runtime.daemon import Daemon, Listeners

MAX_BODY_BYTES: Final = 65_536
MAX_REQUESTS: Final = 128


class _Server(uvicorn.Server):
    """A server that leaves signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(daemon: Daemon, listeners: Listeners) -> None:
    """Serve both sockets until cancelled, then let answers under way finish."""
    hosts = frozenset(daemon.runtime.settings.app.api.allowed_hosts)
    control = _server(control_app(daemon), protocol=PeerProtocol)
    public = _server(public_app(daemon, hosts), protocol=BoundedProtocol)
    async with anyio.create_task_group() as tasks:
        for server, listener in ((control, listeners.control), (public, listeners.http)):
            tasks.start_soon(_run, server, listener)


async def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    finished = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with anyio.CancelScope(shield=True):
                await server.serve(sockets=[Listener(fileno=os.dup(listener.fileno()))])
            finished.set()

        tasks.start_soon(run)
        try:
            await finished.wait()
        finally:
            server.should_exit = True


def _server(app: Starlette, *, protocol: type[BoundedProtocol]) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            backlog=1,
            limit_concurrency=MAX_REQUESTS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
    )


def control_app(daemon: Daemon) -> Starlette:
    """Return the control API as an ASGI application."""

    async def document(_request: Request) -> Response:
        return _json(openapi())

    routes = [
        *(StarletteRoute(route.path, _endpoint(daemon, route), methods=[route.method]) for route in ROUTES),
        StarletteRoute("/openapi.json", document, methods=["GET"]),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_error, OneiricError: _oneiric_error, Exception: _bug},  # type: ignore[dict-item]
    )


def _endpoint(daemon: Daemon, route: Route) -> Any:
    async def endpoint(request: Request) -> Response:
        uid, pid = request.scope["state"]["uid"], request.scope["state"]["pid"]
        asked = Asked(_query(request, route), await _body(request, route), by=_user(uid))
        if route.method == "GET":
            return _json(await route.handle(daemon, asked))
        target = f"{getattr(asked.body, 'domain', None) or ''}/{getattr(asked.body, 'key', None) or ''}".strip("/")
        outcome = "failed"
        try:
            answer = await route.handle(daemon, asked)
            outcome = "success"
        finally:
            verb = route.path.removeprefix("/v1/")
            daemon.runtime.emit("control-request", verb=verb, target=target, uid=uid, pid=pid, outcome=outcome)
        return _json(answer)

    return endpoint


def _query(request: Request, route: Route) -> msgspec.Struct:
    pairs = request.query_params.multi_items()
    if len(dict(pairs)) != len(pairs):
        raise UsageError("a query parameter is given twice")
    try:
        return msgspec.convert(dict(pairs), route.query, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{route.path}: {error}", hint="GET /openapi.json lists what is accepted") from None


async def _body(request: Request, route: Route) -> msgspec.Struct | None:
    if route.body is None:
        return None
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send the body as Content-Type: application/json")
    parts, size = [], 0
    try:
        with anyio.fail_after(READ_TIMEOUT):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise HTTPException(413, f"a body may have {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        text = f"the body did not arrive within {READ_TIMEOUT:g} s"
        raise HTTPException(408, text, headers={"Connection": "close"}) from None
    except ClientDisconnect:  # it gave up waiting for us; there is nobody to answer, and no bug to log
        raise HTTPException(400, "the connection ended before the body did") from None
    try:
        return msgspec.json.decode(b"".join(parts) or b"{}", type=route.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{route.path}: {error}", hint="GET /openapi.json lists what is accepted") from None


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def public_app(daemon: Daemon, hosts: frozenset[str]) -> Starlette:
    """Return what TCP serves: probes and metrics, to a Host that a browser cannot be tricked into naming."""

    async def healthz(_request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def readyz(_request: Request) -> Response:
        return Response(
            "ready\n" if daemon.ready else "not ready\n", 200 if daemon.ready else 503, media_type="text/plain"
        )

    async def metrics(_request: Request) -> Response:
        from oneiric.observability.exposition import CONTENT_TYPE, expose

        page = await to_thread.run_sync(expose, await daemon.readings())
        return Response(page, headers={"content-type": CONTENT_TYPE})

    def guarded(answer: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            if not _is_allowed(request.headers.get("host", ""), hosts):
                raise HTTPException(421, "Host must be an IP address, localhost or listed in api.allowed_hosts")
            response: Response = await answer(request)
            return response

        return endpoint

    return Starlette(
        routes=[
            StarletteRoute("/healthz", guarded(healthz), methods=["GET"]),
            StarletteRoute("/metrics", guarded(metrics), methods=["GET"]),
            StarletteRoute("/readyz", guarded(readyz), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},  # type: ignore[dict-item]
    )


def _is_allowed(host: str, allowed: frozenset[str]) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name in allowed:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _json(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


async def _oneiric_error(_request: Request, error: OneiricError) -> Response:
    return _json(error_document(error), error.http_status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    text = f"nothing is at {request.url.path}" if error.status_code == 404 else str(error.detail)
    hint = "GET /openapi.json lists what there is" if error.status_code in (404, 405) else ""
    response = _json(error_document(UsageError(text, hint=hint)), error.status_code)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _bug(_request: Request, error: Exception) -> Response:
    return _json(error_document(OneiricError(f"{type(error).__name__}: {error}", hint="see the daemon's log")), 500)
