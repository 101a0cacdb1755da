"""Open the shop: a Redis server if there can be one, a publisher, the daemon, and what to type next.

    python start.py [--port 8080]

``make run`` starts it. Ctrl-C closes the shop and stops what was started.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from textwrap import indent
from types import FrameType

from oneiric.api.client import Client
from oneiric.config.control import control_socket
from oneiric.errors import OneiricError

SHOP = Path(__file__).resolve().parent
AUTHORITY = SHOP / ".shop" / "authority.pem"
BIN = os.path.relpath(Path(sys.executable).parent, SHOP)
SHOP_PORT = 8080
PROBE_PORT = 9464
FRONTS = ("http", "fresh")
START_TIMEOUT = 30.0
REFRESH_INTERVAL = 2.0


def main() -> int:
    """Open the shop and wait until it is closed; return the daemon's exit code."""
    parser = argparse.ArgumentParser(description="Open the shop.")
    parser.add_argument(
        "--port", type=int, default=SHOP_PORT, help="for the shop's front (%(default)s if free; 0: any)"
    )
    port, probes = _free_port(parser.parse_args().port), _free_port(PROBE_PORT)
    with ExitStack() as stack:
        running = _Signals()
        redis = stack.enter_context(_redis())
        manifest = stack.enter_context(_publisher())
        remote = ["--manifest", manifest, "--refresh-interval", str(REFRESH_INTERVAL)] if manifest else []
        environ = _environment(redis, port, trusting=AUTHORITY if manifest else None)
        daemon = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "oneiric", "orchestrate", "--http", f"127.0.0.1:{probes}", *remote],
                cwd=SHOP,
                env=environ,
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C reaches this process alone, which passes it on, once
            )
        )
        stack.callback(daemon.terminate)
        running.daemon = daemon
        if _wait_ready(daemon, probes):
            client = Client(SHOP / control_socket(SHOP / "settings", environ, None))
            print(_welcome(port, _delivered(client) if manifest else ""), flush=True)
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


def _environment(redis_url: str | None, port: int, *, trusting: Path | None) -> dict[str, str]:
    """Return the daemon's environment, which says what settings/ cannot know."""
    environ = {"ONEIRIC_LOGGING__FORMAT": "text", **os.environ}
    if trusting is not None:
        environ["SSL_CERT_FILE"] = str(trusting)
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


@contextmanager
def _publisher() -> Iterator[str | None]:
    """Publish the member prices on this machine, with keys made anew; give the manifest's URL, or None without one."""
    with ExitStack() as stack:
        here = os.open(SHOP, os.O_RDONLY)
        stack.callback(os.close, here)
        try:
            fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None  # another shop is open here and needs its keys; the daemon will say so
            return
        for left in (AUTHORITY.parent, SHOP / ".oneiric_cache"):  # signed with keys of the last time
            shutil.rmtree(left, ignore_errors=True)
        publisher = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "publish.py", "--serve"],
                cwd=SHOP,
                stdin=subprocess.PIPE,  # it ends with us, whatever ends us
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                process_group=0,
            )
        )
        yield _published(publisher)
        try:
            publisher.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            publisher.kill()


def _published(publisher: subprocess.Popen[str]) -> str | None:
    """Return the URL that the publisher prints, or None when it ends without one or takes too long."""
    too_long = threading.Timer(START_TIMEOUT, publisher.kill)
    too_long.start()
    line = ""
    for line in publisher.stdout or ():
        if line.startswith("https:"):
            break
    too_long.cancel()
    if line.startswith("https:"):
        return line.strip()
    print(f"no publisher here: the shop goes on without member prices ({line.strip()})", flush=True)
    return None


def _delivered(client: Client) -> str:
    """Wait until the daemon has what the publisher offers; return why it serves, or why it does not."""
    try:
        client.post("/v1/remote/sync")
        text: str = client.get("/v1/explain", domain="service", key="pricing")["text"]
        return text
    except OneiricError as error:
        return error.render()


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


def _welcome(port: int, delivered: str) -> str:
    """Ask the open shop for a price, and return that and what to try."""
    answer = _get(port, "/price/tea")
    if not answer:
        return "The daemon runs, but the shop does not answer; the log above says why.\n"
    url = f"http://127.0.0.1:{port}"
    load = f"{BIN}/python load.py" + ("" if port == SHOP_PORT else f" --url {url}")
    explained = f"\nIts prices come from a signed manifest:\n{indent(delivered, '  ')}\n" if delivered else ""
    soon = f"# version 2: signed, fetched and swapped in within {REFRESH_INTERVAL:g} seconds"
    publish = f"\n  {BIN}/python publish.py --percent 25   {soon}" if delivered else ""
    return f"""
The shop is open: {url}/price/tea
  {answer}
{explained}
Try in another shell, load.py first and the rest while it runs:
  cd {shlex.quote(str(SHOP))}
  {load}
  {BIN}/oneiric explain cache --domain adapter{publish}
  {BIN}/oneiric swap --domain service --key pricing --provider sale
  {BIN}/oneiric status --domain service --key pricing

Ctrl-C closes the shop.
"""


if __name__ == "__main__":
    sys.exit(main())
