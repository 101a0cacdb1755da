"""A real daemon in a process of its own, and the commands an operator types at it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any

from oneiric.api.client import Client

TIMEOUT = 20.0


class Daemon:
    """``python -m oneiric orchestrate`` in *directory*; its log lines arrive as they are written.

    Args:
        within: a command that runs the daemon under other conditions and becomes it, such as ``prlimit --nofile=64``.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.environ = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(environ or {})}
        self.lines: list[str] = []
        self._arrived = threading.Condition()
        command = [*within, sys.executable, "-m", "oneiric", "orchestrate", "--http", "127.0.0.1:0", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._arrived:
                self.lines.append(line.rstrip("\n"))
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()

    @property
    def output(self) -> str:
        """All it printed so far."""
        return "\n".join(self.lines)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log lines, decoded."""
        return [json.loads(line) for line in tuple(self.lines) if line.startswith("{")]

    def wait_event(self, name: str, *, count: int = 1, timeout: float = TIMEOUT, **fields: Any) -> dict[str, Any]:
        """Wait for the *count*-th event *name* with *fields* and return it."""

        def matching() -> list[dict[str, Any]]:
            return [e for e in self.events if e["event"] == name and fields.items() <= e.items()]

        with self._arrived:
            found = self._arrived.wait_for(
                lambda: len(matching()) >= count or not self._reader.is_alive(), timeout=timeout
            )
            if not found or len(matching()) < count:
                raise AssertionError(f"no {name} {fields} within {timeout} s in:\n{self.output}")
            return matching()[count - 1]

    def wait_ready(self) -> Daemon:
        """Wait until it serves."""
        self.wait_event("daemon-ready")
        return self

    @property
    def http(self) -> str:
        """``host:port`` of its HTTP listener."""
        return str(self.wait_event("daemon-ready")["http"])

    @property
    def client(self) -> Client:
        """A client of its control socket."""
        return Client(self.directory / ".oneiric_state" / "oneiric.sock")

    @property
    def degraded(self) -> str:
        """What it says is wrong with it."""
        return str(self.client.get("/v1/status")["daemon"]["degraded"])

    def slot(self, domain: str, key: str) -> dict[str, Any]:
        """Return the status of one slot."""
        row: dict[str, Any] = self.client.get("/v1/status", domain=domain, key=key)["slots"][0]
        return row

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Type a command in the daemon's directory."""
        return oneiric(self.directory, *arguments, environ=self.environ)

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self, number: int = SIGTERM, timeout: float = TIMEOUT) -> int:
        """End it by a signal; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._reader.join(5)
            if self.process.stdout is not None:
                self.process.stdout.close()


def wait_until(holds: Callable[[], object], what: str, *, timeout: float = TIMEOUT) -> None:
    """Look until *holds* says so, at most *timeout* seconds."""
    deadline = time.monotonic() + timeout
    pace = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        pace.wait(0.02)


@contextmanager
def running(
    directory: Path, *arguments: str, environ: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> Iterator[Daemon]:
    """Run a daemon that serves, for the length of a block."""
    daemon = Daemon(directory, *arguments, environ=environ, within=within)
    try:
        yield daemon.wait_ready()
    finally:
        daemon.stop()


def oneiric(
    directory: Path, *arguments: str, environ: Mapping[str, str] | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m oneiric.cli`` in *directory*."""
    return subprocess.run(
        [sys.executable, "-m", "oneiric.cli", *arguments],
        cwd=directory,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


PROVIDERS = '''
"""Providers for tests; every instance leaves a trace in the file TRACE names."""
import os, time
from pathlib import Path
from signal import SIGTERM

def _trace(line):
    path = os.environ.get("TRACE")
    if path:
        with open(path, "a") as file:
            file.write(line + "\\n")

class Memory:
    def __init__(self, label="memory"):
        self.label = label
        _trace(f"built {label}")
    async def get(self, key):
        return key
    async def health(self):
        return not Path("sick").exists()
    async def aclose(self):
        _trace(f"closed {self.label}")

class Other(Memory):
    def __init__(self, label="other", url="", password=""):
        super().__init__(label)

class Unhealthy(Memory):
    async def health(self):
        return False

def explode():
    raise RuntimeError("no such luck")

def block():
    time.sleep(3600)

class SlowToClose(Memory):
    async def aclose(self):
        import asyncio
        await asyncio.sleep(0.3)
        _trace(f"closed {self.label}")
'''

ADAPTERS = """
selections: {cache: memory}
candidates:
  - {key: cache, provider: memory, factory: "providers:Memory", priority: 5}
  - {key: cache, provider: redis, factory: "providers:Other", priority: 10}
  - {key: cache, provider: sick, factory: "providers:Unhealthy", priority: -1}
  - {key: cache, provider: exploding, factory: "providers:explode", priority: -1}
  - {key: cache, provider: blocking, factory: "providers:block", priority: -1}
  - {key: cache, provider: lost, factory: "no.such.module:Cache", priority: -1}
"""


def project(directory: Path, **files: str) -> Path:
    """Make a small project: providers, ``settings/adapters.yml``, and what *files* says by the files' stems."""
    settings = directory / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    (directory / "providers.py").write_text(PROVIDERS)
    for name, text in {"adapters": ADAPTERS, **files}.items():
        (settings / f"{name}.yml").write_text(text)
    return directory
