"""Open the shop: a Redis server if there can be one, the daemon, and what to type next. ``make run`` starts it.

    python start.py [--port 8080]

Ctrl-C closes the shop and stops what was started.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType

SHOP = Path(__file__).resolve().parent
BIN = os.path.relpath(Path(sys.executable).parent, SHOP)
SHOP_PORT = 8080
PROBE_PORT = 9464
FRONTS = ("http", "fresh")
START_TIMEOUT = 30.0


def main() -> int:
    """Open the shop and wait until it is closed; return the daemon's exit code."""
    parser = argparse.ArgumentParser(description="Open the shop.")
    parser.add_argument(
        "--port", type=int, default=SHOP_PORT, help="for the shop's front (%(default)s if free; 0: any)"
    )
    port, probes = _free_port(parser.parse_args().port), _free_port(PROBE_PORT)
    with ExitStack() as stack:
        running = _Signals()
        url = stack.enter_context(_redis())
        daemon = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "oneiric", "orchestrate", "--http", f"127.0.0.1:{probes}"],
            cwd=SHOP,
            env=_environment(url, port),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C reaches this process alone, which passes it on, once
        )
        running.daemon = daemon
        if _wait_ready(daemon, probes):
            print(_welcome(port), flush=True)
        return daemon.wait()


class _Signals:
    """Passes signals on to the daemon, once there is one; before that they end the program."""

    def __init__(self) -> None:
        self.daemon: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if self.daemon is None:
            sys.exit(128 + number)
        self.daemon.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)


def _environment(redis_url: str | None, port: int) -> dict[str, str]:
    """Return the daemon's environment, which says what settings/ cannot know."""
    environ = {"ONEIRIC_LOGGING__FORMAT": "text", **os.environ}
    if redis_url is not None:
        environ["SHOP_REDIS_URL"] = redis_url
    if port != SHOP_PORT:
        environ["ONEIRIC_SERVICES__PROVIDER_SETTINGS"] = json.dumps({name: {"port": port} for name in FRONTS})
    return environ


@contextmanager
def _redis() -> Iterator[str | None]:
    """Run a private Redis server, installing it if that takes no question; give its URL, or None without one."""
    if os.environ.get("SHOP_REDIS_URL"):
        yield None  # the caller's own
        return
    program = shutil.which("redis-server") or _installed_redis()
    if program is None:
        print("no redis-server here: the shop goes on with the memory cache", flush=True)
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="oneiric-shop-") as directory:
        path = f"{directory}/redis.sock"
        options = {"--port": "0", "--unixsocket": path, "--unixsocketperm": "700", "--dir": directory}
        options |= {"--save": "", "--appendonly": "no", "--maxmemory": "64mb", "--maxmemory-policy": "allkeys-lru"}
        server = subprocess.Popen(  # noqa: S603 - our own command
            [program, *(text for pair in options.items() for text in pair)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,  # must outlive the daemon, which drains first
        )
        try:
            yield f"unix://{path}" if _wait_listening(server, path) else None
        finally:
            server.terminate()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _installed_redis() -> str | None:
    """Install the Debian package if this is Debian and we are root; return the program, or None."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return None
    print("installing redis-server ...", flush=True)
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", "redis-server"]):
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(  # noqa: S603 - our own command
                [apt, "-qq", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=10", *arguments],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=180,
                check=False,
            )
    return shutil.which("redis-server")


def _free_port(wanted: int) -> int:
    """Return *wanted*, or any free port when somebody has it."""
    for port in (wanted, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as listener:
            found: int = listener.getsockname()[1]
            return found
    raise SystemExit("error: 127.0.0.1 has no free port")


def _wait_listening(server: subprocess.Popen[bytes], path: str) -> bool:
    until = time.monotonic() + 5
    while server.poll() is None and time.monotonic() < until:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            return True
        time.sleep(0.05)
    return False


def _wait_ready(daemon: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + START_TIMEOUT
    while daemon.poll() is None and time.monotonic() < until:
        if _get(port, "/readyz"):
            return True
        time.sleep(0.05)
    return False


def _get(port: int, path: str) -> str:
    """Return the body of a 200 answer of 127.0.0.1, or nothing."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        return body if answer.status == 200 else ""
    except (OSError, HTTPException):
        return ""
    finally:
        connection.close()


def _welcome(port: int) -> str:
    """Ask the open shop for a price, and return that and what to try."""
    answer = _get(port, "/price/tea")
    if not answer:
        return "The daemon runs, but the shop does not answer; the log above says why.\n"
    url = f"http://127.0.0.1:{port}"
    load = f"{BIN}/python load.py" + ("" if port == SHOP_PORT else f" --url {url}")
    return f"""
The shop is open: {url}/price/tea
  {answer}

Try in another shell, the last three while the first one runs:
  cd {shlex.quote(str(SHOP))}
  {load}
  {BIN}/oneiric explain cache --domain adapter
  {BIN}/oneiric swap --domain service --key pricing --provider sale
  {BIN}/oneiric status --domain service --key pricing

Ctrl-C closes the shop.
"""


if __name__ == "__main__":
    sys.exit(main())
