"""A real Redis server for tests: private, empty, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

INSTALL = "apt-get install -y redis-server"


@dataclass(frozen=True)
class RedisServer:
    """Where the server listens, and its process, for tests that stop or freeze it."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a blocking client, for what a test does behind a cache's back."""
        return redis.Redis(port=self.port, decode_responses=True)


def require_program(name: str, install: str) -> str:
    """Return the path of a program; where it is missing skip the test, or fail it under CI."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed; try: {install}"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def redis_server(*, port: int | None = None, password: str = "") -> Iterator[RedisServer]:
    """Run a server on a free port of 127.0.0.1, in a directory of its own, without persistence."""
    program = require_program("redis-server", INSTALL)
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="oneiric-redis-") as directory:
        log = Path(directory, "log")
        options = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", directory)
        options += ("--requirepass", password) if password else ()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, *options], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            _wait_answering(port, password, log)
            yield RedisServer(port, process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # frozen by a test
                process.kill()
                process.wait()


def _wait_answering(port: int, password: str, log: Path) -> None:
    """Let the client retry until the server answers, for at most five seconds."""
    retry = Retry(ConstantBackoff(0.02), 250)
    with redis.Redis(port=port, password=password or None, retry=retry, socket_timeout=5) as client:
        try:
            client.ping()
        except redis.ConnectionError as error:
            raise AssertionError(f"redis-server did not start: {error}\n{log.read_text()}") from None
