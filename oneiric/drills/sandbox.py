"""A temporary project with a daemon of its own, and the commands that an operator types at it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from urllib.request import ProxyHandler, build_opener

import yaml

from oneiric.drills.publisher import Publisher
from oneiric.drills.timeline import Timeline
from oneiric.errors import OneiricError

START_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 40.0
_STEP: Final = 0.1


class DrillFailedError(OneiricError):
    """A step of a drill did not do what the runbook says it does."""

    code = "drill"


class Result(NamedTuple):
    """How a command ended and what it said."""

    command: str
    exit_code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def document(self) -> Any:
        """The JSON it printed; raises DrillFailedError when it is none."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            raise DrillFailedError(f"{self.command}: exit {self.exit_code}, and no JSON: {self.stderr}") from None


class Backend:
    """A server that only accepts connections, as what stands behind an adapter."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None
        self._port = 0
        self.start()

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = self._listener.getsockname()[1]

    def stop(self) -> None:
        """Refuse connections."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None


class Sandbox:
    """The project in *directory*. What is done to it is noted in *timeline*."""

    def __init__(self, directory: Path, timeline: Timeline) -> None:
        self.directory = directory
        self.timeline = timeline
        self.backend = Backend()
        self.publisher: Publisher | None = None
        self.http = f"127.0.0.1:{_free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._over = threading.Event()
        self._repeating: threading.Thread | None = None
        self._open = build_opener(ProxyHandler({})).open
        (directory / "settings").mkdir(parents=True)

    # The project

    def write(self, name: str, content: str | Mapping[str, Any]) -> None:
        """Replace a file of the project at once; a mapping is written as YAML."""
        path = self.directory / name
        text = content if isinstance(content, str) else yaml.safe_dump(dict(content), sort_keys=False)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
        self.timeline.note("edit", name)

    def read(self, name: str) -> Any:
        """Return a settings file of the project, as plain values."""
        return yaml.safe_load((self.directory / name).read_text(encoding="utf-8"))

    def publish(self, *names: str) -> Publisher:
        """Set up a publisher that offers *names*, and return it."""
        place = self.directory / "published"
        place.mkdir()
        self.publisher = Publisher(place)
        self.publisher.publish(*names)
        return self.publisher

    # The daemon

    def start(self) -> None:
        """Start the daemon and wait until it serves."""
        self._log = (self.directory / "daemon.log").open("ab")
        command = [sys.executable, "-m", "oneiric", "orchestrate", "--http", self.http]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self.timeline.note("daemon", "started")
        self.wait(self._serves, "the daemon to serve", timeout=START_TIMEOUT)

    def _serves(self) -> bool:
        assert self._process is not None  # noqa: S101 - started
        if self._process.poll() is not None:
            tail = (self.directory / "daemon.log").read_text(errors="replace")[-2000:]
            raise DrillFailedError(f"the daemon ended with exit code {self._process.returncode}:\n{tail}")
        with suppress(OSError):
            return bool(self._open(f"http://{self.http}/readyz", timeout=1).status == 200)
        return False

    def stop(self) -> int:
        """Stop the daemon as an init system does; return its exit code."""
        if self._process is None:
            return 0
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        if self._log is not None:
            self._log.close()
        self.timeline.note("daemon", f"stopped, exit code {code}")
        return code

    def restart(self) -> None:
        """Do what ``systemctl restart oneiric`` does."""
        self.stop()
        self.start()

    def repeat(self, work: Callable[[], None], *, interval: float) -> None:
        """Do *work* every *interval* seconds until ``stop_repeating``."""
        over = self._over = threading.Event()

        def go() -> None:
            while not over.wait(interval):
                work()

        self._repeating = threading.Thread(target=go, daemon=True)
        self._repeating.start()

    def stop_repeating(self) -> None:
        """Stop what is repeated."""
        if self._repeating is not None:
            self._over.set()
            self._repeating.join()
            self._repeating = None

    def close(self) -> None:
        """Stop all that was started."""
        self.stop_repeating()
        self.stop()
        self.backend.stop()
        if self.publisher is not None:
            self.publisher.stop()

    # What an operator types and sees

    def oneiric(self, *arguments: str, expect: int | None = None, quiet: bool = False) -> Result:
        """Run an ``oneiric`` command; raises DrillFailedError when it does not end with the exit code *expect*."""
        command = "oneiric " + " ".join(arguments)
        begun = time.monotonic()
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "oneiric", *arguments],
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        result = Result(command, done.returncode, done.stdout, done.stderr, time.monotonic() - begun)
        if not quiet:
            self.timeline.note("command", f"{command}  -> exit {result.exit_code}")
        if expect is not None and result.exit_code != expect:
            said = (result.stderr or result.stdout).strip()
            raise DrillFailedError(f"{command}: exit {result.exit_code}, not {expect}: {said}")
        return result

    def log(self, event: str = "", **fields: Any) -> list[dict[str, Any]]:
        """Return the daemon's log lines about *event*, or all, that have *fields*."""
        path = self.directory / "daemon.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [one for one in found if event in ("", one["event"]) and fields.items() <= one.items()]

    def metrics(self) -> str:
        """Return the daemon's metrics as Prometheus scrapes them."""
        with self._open(f"http://{self.http}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def wait(self, condition: Callable[[], bool], what: str, *, timeout: float) -> float:
        """Wait until *condition* holds; return the seconds that took, or raise DrillFailedError naming *what*."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > timeout:
                raise DrillFailedError(f"waited {timeout:g} s in vain for {what}")
            time.sleep(_STEP)
        return time.monotonic() - begun

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
        kept = {name: value for name, value in kept.items() if not name.startswith("ONEIRIC_")}
        return {**kept, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}


@contextmanager
def sandbox(timeline: Timeline, *, keep: bool = False) -> Iterator[Sandbox]:
    """Make a sandbox in a temporary directory, and remove it afterwards unless to *keep* it.

    The directory's name is short: a Unix socket's address has room for 107 bytes.
    """
    directory = Path(tempfile.mkdtemp(prefix="oneiric-drill-"))
    made = Sandbox(directory, timeline)
    try:
        yield made
    finally:
        made.close()
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
