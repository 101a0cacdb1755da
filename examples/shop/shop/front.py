"""The shop's HTTP front. It leases what it needs for each request, and can itself be replaced while it serves."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from oneiric import OneiricError, Runtime, Slot
from oneiric.adapters.protocols import Cache
from shop.pricing import Pricing

GREETING = """This is the shop. What does tea cost, and who says so?

    curl {base}price/tea

priced_by is the provider that named the price; cached_by is the cache that was asked first. Swap either and look again.
"""


class NamedCache(Cache, Protocol):
    """A cache that knows its provider's name."""

    provider: str


CACHE = Slot[NamedCache]("adapter", "cache")
PRICING = Slot[Pricing]("service", "pricing")
FRONT = Slot["Front"]("service", "front")

LINGER = 0.2
"""Seconds a front that was replaced goes on answering."""


async def open_front(runtime: Runtime, host: str = "127.0.0.1", port: int = 8080, price_ttl: float = 2.0) -> Front:
    """Serve the shop on *host* and *port*; a price is looked up anew after *price_ttl* seconds."""
    listener = await _inherited(runtime, (host, port)) or _listener(host, port)
    front = Front(Shop(runtime, price_ttl), (host, port), listener)
    front.start()
    return front


class Shop:
    """Answers requests."""

    def __init__(self, runtime: Runtime, price_ttl: float) -> None:
        self._runtime = runtime
        self._pricing = runtime.proxy(PRICING)  # every call of it takes a lease
        self._price_ttl = price_ttl

    @property
    def app(self) -> Starlette:
        """The shop as an ASGI application."""
        routes = [Route("/", self._greet), Route("/price/{item}", self._price)]
        return Starlette(routes=routes, exception_handlers={OneiricError: _sorry, OSError: _sorry})

    async def _greet(self, request: Request) -> Response:
        return PlainTextResponse(GREETING.format(base=request.base_url))

    async def _price(self, request: Request) -> Response:
        item = request.path_params["item"]
        async with self._runtime.use(CACHE) as cache:  # the same cache to the end of this request, whatever is swapped
            text = await cache.get(item)
            if text is None:
                price = await self._pricing.price(item)
                text = json.dumps({"price": f"{price.cents / 100:.2f}", "priced_by": price.by})
                await cache.set(item, text, self._price_ttl)
            return JSONResponse({"item": item, **json.loads(text), "cached_by": cache.provider})


async def _sorry(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error), "try": getattr(error, "hint", "")}, status_code=503)


class Front:
    """An HTTP server in this process."""

    def __init__(self, shop: Shop, address: tuple[str, int], listener: socket.socket) -> None:
        self._shop = shop.app
        self._address = address
        self._listener = listener
        self._leaving = False
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
        )
        self._server = _Server(config)

    def start(self) -> None:
        """Begin to serve."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="shop-front")

    def share(self, address: tuple[str, int]) -> socket.socket | None:
        """Return the socket it listens on, once more, if that is open and at *address*: for its successor."""
        return self._listener.dup() if address == self._address and self._listener.fileno() >= 0 else None

    async def health(self) -> bool:
        """Say whether the server serves."""
        return not self._serving.done()

    async def aclose(self) -> None:
        """Take no new connection, answer on those there are for a moment, asking each client to leave, and close."""
        self._leaving = True
        for server in self._server.servers:
            server.close()
        await asyncio.sleep(LINGER)
        self._server.should_exit = True
        await self._serving

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if self._leaving and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._shop(scope, receive, send_on)


class _Server(uvicorn.Server):
    """A server that leaves signals to the daemon."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.servers = []  # there also before it has started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _inherited(runtime: Runtime, address: tuple[str, int]) -> socket.socket | None:
    """Return the socket of the front that is being replaced, or None.

    Both accept from its one queue. A socket of the successor's own would have another, and to close the old one would
    reset the connections that wait in it.
    """
    if not runtime.snapshot().record(FRONT).provider:
        return None  # a lease would wait for the front that is being built
    async with runtime.use(FRONT) as front:
        return front.share(address)


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=128)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
