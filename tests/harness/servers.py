"""Real servers on loopback for what fetches: they record what they were asked, and misbehave as told.

Every server listens on a free port, runs in threads of its own and is gone when its block ends.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

TIMEOUT = 20.0
HOUR = 3600.0


class Request(NamedTuple):
    """What a client asked."""

    method: str
    target: str
    headers: dict[str, str]


class Connection:
    """One accepted connection whose request was read."""

    def __init__(self, sock: socket.socket, request: Request, closing: threading.Event) -> None:
        self.sock = sock
        self.request = request
        self._closing = closing

    def send(self, *pieces: bytes) -> None:
        """Send each piece in a segment of its own."""
        for piece in pieces:
            self.sock.sendall(piece)

    def pause(self, seconds: float = HOUR) -> bool:
        """Do nothing for a while; return whether the server still runs."""
        return not self._closing.wait(seconds)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Answer = Callable[[Connection], None]


class Server:
    """Answers each connection as told, after its request was read and recorded."""

    def __init__(
        self, answer: Answer, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", reads: bool = True
    ) -> None:
        self.requests: list[Request] = []
        self._answer = answer
        self._reads = reads
        self._tls = tls
        self._host = f"[{host}]" if ":" in host else host
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self._threads[0].start()

    def url(self, path: str = "/manifest.json", *, host: str = "") -> str:
        """The URL of *path*, by another name if need be."""
        return f"{'https' if self._tls else 'http'}://{host or self._host}:{self.port}{path}"

    def close(self) -> None:
        """Stop, cut what is open, and wait for every thread."""
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(TIMEOUT)  # from here on nothing is accepted
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(TIMEOUT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError, ValueError):  # the client went away, or refused our certificate; or we close
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            request = _read_request(sock) if self._reads else Request("", "", {})
            if request is not None:
                self.requests.append(request)
                self._answer(Connection(sock, request, self._closing))
        sock.close()


def _read_request(sock: socket.socket) -> Request | None:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(65536)
        if not piece:
            return None
        head += piece
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, target, headers)


@contextmanager
def serving(
    answer: Answer, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", reads: bool = True
) -> Iterator[Server]:
    """Run a server for the length of a block.

    Args:
        reads: False if it answers before it hears anything.
    """
    server = Server(answer, tls=tls, host=host, reads=reads)
    try:
        yield server
    finally:
        server.close()


def response(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """Return a whole answer. Headers are spelled as keywords; ``content_length=""`` leaves that one out."""
    fields = {"content_length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value]
    return b"".join(
        [f"HTTP/1.1 {status} Said\r\n".encode(), *(line.encode("latin-1") for line in lines), b"\r\n", body]
    )


def raw(*pieces: bytes) -> Answer:
    """Send *pieces*, then close."""
    return lambda connection: connection.send(*pieces)


def respond(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """Answer well-formed."""
    return raw(response(status, body, **headers))


def by_path(**answers: Answer) -> Answer:
    """Answer by the first word of the path; 404 for others."""

    def answer(connection: Connection) -> None:
        name = connection.request.target.lstrip("/").partition("?")[0].partition("/")[0]
        answers.get(name, respond(404))(connection)

    return answer


def never(connection: Connection) -> None:
    """Take the request and say nothing."""
    connection.pause()


def trickle(*, every: float, head: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n") -> Answer:
    """Send one byte of a body every so often: no gap is long, and it never ends."""

    def answer(connection: Connection) -> None:
        connection.send(head)
        while connection.pause(every):
            connection.send(b"x")

    return answer


def endless(connection: Connection) -> None:
    """Send a body without end, as fast as it is taken."""
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.send(b"x" * 65536)


def then_reset(*pieces: bytes) -> Answer:
    """Send *pieces*, then cut the connection with RST."""

    def answer(connection: Connection) -> None:
        connection.send(*pieces)
        connection.reset()

    return answer


def proxy(**routes: int) -> Answer:
    """Be a proxy: tunnel CONNECT to the local port that *routes* has for a name, answer anything else itself.

    Args:
        routes: ``publisher`` stands for ``publisher.test``.
    """

    def answer(connection: Connection) -> None:
        if connection.request.method != "CONNECT":
            connection.send(response(200, b"by proxy"))
            return
        name = connection.request.target.partition(".test:")[0]
        if name not in routes:
            connection.send(response(403))
            return
        with socket.create_connection(("127.0.0.1", routes[name]), TIMEOUT) as upstream:
            connection.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            _pump(connection.sock, upstream)

    return answer


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until either side closes."""
    to = {one: other, other: one}
    while True:
        for source in select.select([one, other], [], [], TIMEOUT)[0] or [one]:
            piece = source.recv(65536)
            if not piece:
                return
            to[source].sendall(piece)


def believes_nobody() -> ssl.SSLContext:
    """Return a client's context that costs nothing to make, for tests without TLS."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Authority:
    """A certificate authority of our own, and contexts for both sides of TLS."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    def server(self, *names: str, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """Return the context of a server that can prove *names*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (certificate or self.ca.issue_cert(*names)).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """Return the context of a client that believes this authority and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        return context


NGINX = "scripts/system-packages nginx, or apt-get install -y nginx-light"


@contextmanager
def nginx(directory: Path, locations: str) -> Iterator[str]:
    """Run nginx with *locations* in its only server, for the length of a block; yield its base URL.

    Without nginx the test is skipped, or fails where ``CI`` is set.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        reason = f"nginx is not installed; try: {NGINX}"
        pytest.fail(reason, pytrace=False) if os.environ.get("CI") else pytest.skip(reason)
    (directory / "www").mkdir()
    (directory / "www" / "file").write_bytes(b"x" * 100_000)
    # nginx takes over a socket that already listens: no port is lost to a race, and nobody waits for it to be ready.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        configuration = directory / "nginx.conf"
        configuration.write_text(_NGINX.format(directory=directory, port=port, locations=locations, user=_nginx_user()))
        process = subprocess.Popen(
            [program, "-e", "stderr", "-p", str(directory), "-c", str(configuration)],
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT)
        (directory / "stderr").write_bytes(errors)


def _nginx_user() -> str:
    return "user root;" if os.geteuid() == 0 else ""


_NGINX = """
{user}
daemon off;
pid {directory}/pid;
worker_processes 1;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
  server {{
    listen 127.0.0.1:{port};
    root {directory}/www;
    {locations}
  }}
}}
"""
