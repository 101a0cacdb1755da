"""A publisher to try things out with: packs a wheel, signs a manifest, serves both over HTTPS on this machine.

    python -m examples.publisher.serve [--directory DIR] [--private-key FILE] [--port 8443] [--plain]

The wheel holds a third provider of the shop's prices. What to put into ``settings/app.yml`` is printed. Tests use
``Publisher``, which also misbehaves as told: ``publisher.faults["/manifest.json"] = fail(503)``.
"""

from __future__ import annotations

import argparse
import hashlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from examples.publisher.press import build_wheel, public_key, publish
from oneiric.remote.signing import generate_keys, read_signer, write_keys

BARGAIN = '''\
"""The shop's prices, a third off."""

from shop.pricing import Price, Regular


class Bargain:
    """A third off the price on the label."""

    async def price(self, item: str) -> Price:
        """Return the reduced price of *item*."""
        label = await Regular().price(item)
        return Price(label.cents * 2 // 3, "bargain")
'''


class Asked(NamedTuple):
    """One request that was made."""

    path: str
    headers: dict[str, str]


class Publisher:
    """Serves the files of a directory on 127.0.0.1, with tags; a context manager.

    Args:
        tls: whether to prove itself with a certificate of a new authority, whose own is in ``authority``.
    """

    def __init__(self, directory: Path, *, port: int = 0, tls: bool = True) -> None:
        self.directory = directory.resolve()
        self.requests: list[Asked] = []
        self.faults: dict[str, Fault] = {}
        """What to do instead of serving a path such as ``/manifest.json``; ``*`` stands for all others."""
        self.closing = threading.Event()
        self.authority = b""
        self._context = self._certify() if tls else None
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """The URL of the manifest."""
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self._server.server_port}/manifest.json"

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context that believes this publisher and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.authority.decode())
        return context

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.cut()
        self._server.server_close()

    def wrap(self, connection: socket.socket) -> socket.socket:
        """Return a connection as it is served. Its handshake waits for the first read, in the thread that serves it."""
        if self._context is None:
            return connection
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def _certify(self) -> ssl.SSLContext:
        import trustme

        authority = trustme.CA()
        self.authority = authority.cert_pem.bytes()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        return context


class _Server(ThreadingHTTPServer):
    """Knows its open connections, so that it can end while a client still waits."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], publisher: Publisher) -> None:
        self.publisher = publisher
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection = self.publisher.wrap(connection)
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """Cut what is still open."""
        for connection in tuple(self._connections):
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet about clients that went away or did not believe us."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30
    server: _Server

    def do_GET(self) -> None:
        publisher, path = self.server.publisher, unquote(urlsplit(self.path).path)
        publisher.requests.append(Asked(path, {name.lower(): value for name, value in self.headers.items()}))
        content = self._content(publisher.directory, path)
        fault = publisher.faults.get(path) or publisher.faults.get("*")
        if fault is not None:
            fault(self, content or b"")
        elif content is None:
            self.reply(404)
        else:
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            if self.headers["If-None-Match"] == tag:
                self.reply(304, ETag=tag)
            else:
                self.reply(200, content, ETag=tag)

    def reply(self, status: int, content: bytes = b"", **headers: str) -> None:
        """Send a whole answer; spell headers as keywords."""
        self.send_response(status)
        length = {} if status == 304 else {"Content-Length": str(len(content))}
        for name, value in {**length, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Write nothing: ``Publisher.requests`` tells who asked for what."""

    def _content(self, directory: Path, path: str) -> bytes | None:
        file = directory / path.lstrip("/")
        hidden = any(part.startswith(".") for part in path.split("/"))
        return None if hidden or "\0" in path or not file.is_file() else file.read_bytes()


# Misbehave

Fault = Callable[[_Handler, bytes], None]
"""Receives the request and what would have been served."""


def fail(status: int, **headers: str) -> Fault:
    """Answer *status*."""
    return lambda handler, _content: handler.reply(status, b"", **headers)


def hang(handler: _Handler, _content: bytes) -> None:
    """Say nothing until the publisher closes."""
    handler.server.publisher.closing.wait()
    handler.close_connection = True


def tamper(handler: _Handler, content: bytes) -> None:
    """Serve the content with its last byte changed."""
    handler.reply(200, content[:-1] + bytes([content[-1] ^ 1]))


def cut(handler: _Handler, content: bytes) -> None:
    """Promise the content and hang up after half of it."""
    handler.reply(200, content[: len(content) // 2], Content_Length=str(len(content)))
    handler.close_connection = True


def hang_up(handler: _Handler, _content: bytes) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def replace(with_content: bytes) -> Fault:
    """Serve something else."""
    return lambda handler, _content: handler.reply(200, with_content)


# Try out


def main() -> int:
    """Publish the bargain and serve it until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m examples.publisher.serve", description="Publish a wheel.")
    parser.add_argument("--directory", type=Path, default=Path("published"), help="what is served (%(default)s)")
    parser.add_argument("--private-key", type=Path, default=Path("publisher.key"), help="made if missing (%(default)s)")
    parser.add_argument("--port", type=int, default=8443, help="on 127.0.0.1 (%(default)s)")
    parser.add_argument("--plain", action="store_true", help="http, which is good enough on one machine")
    options = parser.parse_args()
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    if not options.private_key.exists():
        write_keys(generate_keys(), options.private_key, options.private_key.with_suffix(".pub"), force=False)
    signer = read_signer(options.private_key)
    wheel = build_wheel(directory, "shop-bargain", "1.0", {"shop_bargain.py": BARGAIN})
    entry = {"domain": "service", "key": "pricing", "provider": "bargain", "version": "1.0"}
    publish(directory, {**entry, "factory": "shop_bargain:Bargain", "wheel": wheel}, signer=signer, source="shop")
    with Publisher(directory, port=options.port, tls=not options.plain) as publisher:
        print(f"remote: {{manifest_url: {publisher.url}, public_key: {public_key(signer)}}}", flush=True)
        if publisher.authority:
            authority = directory / ".authority.pem"
            authority.write_bytes(publisher.authority)
            print(f"export SSL_CERT_FILE={authority.resolve()}", flush=True)
        with suppress(KeyboardInterrupt):
            publisher.closing.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
