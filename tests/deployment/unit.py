"""A reader of systemd units, and as much of a service manager as a unit of ``Type=notify`` needs."""

from __future__ import annotations

import array
import shlex
import socket
import struct
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deployment/systemd/oneiric.service"
SOCKET = ROOT / "deployment/systemd/oneiric.socket"
PROGRAM = "/opt/oneiric/bin/oneiric"


def parse(text: str) -> dict[str, dict[str, list[str]]]:
    """Return a unit's values by section and name; a name may stand there more than once."""
    sections: dict[str, dict[str, list[str]]] = {}
    values: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("["):
            values = sections.setdefault(line.strip("[]"), {})
        elif not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            values.setdefault(name, []).append(value)
    return sections


SERVICE = parse(UNIT.read_text())["Service"]


def one(name: str) -> str:
    """Return the value of what the service sets once."""
    (value,) = SERVICE[name]
    return value


def seconds(name: str) -> float:
    """Return a span of time that is plain seconds."""
    return float(one(name))


def command(name: str, **variables: str) -> list[str]:
    """Return the words of a command of the unit; Oneiric is that of the Python that runs the tests."""
    words = shlex.split(one(name))
    words = [variables.get(word.removeprefix("$"), word) if word.startswith("$") else word for word in words]
    return [sys.executable, "-m", "oneiric", *words[1:]] if words[0] == PROGRAM else words


def environ(root: Path) -> dict[str, str]:
    """Return the unit's environment with its directories below *root*, as they would be below ``/``."""
    roots = {"%S": "var/lib", "%C": "var/cache", "%t": "run"}
    values: dict[str, str] = {}
    for setting in SERVICE["Environment"]:
        name, _, value = setting.partition("=")
        specifier, _, rest = value.partition("/")
        values[name] = str(root / roots[specifier] / rest) if specifier in roots else value
    return values


def directories(root: Path) -> None:
    """Make what the unit has systemd make, below *root*."""
    for name, where in (("State", "var/lib"), ("Cache", "var/cache"), ("Runtime", "run"), ("Configuration", "etc")):
        mode = int(SERVICE.get(f"{name}DirectoryMode", ["0755"])[0], 8)
        (root / where).mkdir(parents=True, exist_ok=True)
        (root / where / one(f"{name}Directory")).mkdir(mode=mode)


class Manager:
    """The service manager's end of sd_notify(3), at a path, or at a name that begins with ``@``."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.address = address

    def receive(self, timeout: float) -> tuple[int, list[str]]:
        """Return the next message and the pid of its sender; raises TimeoutError."""
        self.socket.settimeout(timeout)
        size = struct.calcsize("3i")
        message, extra, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(size))
        pid = next(array.array("i", data[:size])[0] for _, kind, data in extra if kind == socket.SCM_CREDENTIALS)
        return pid, message.decode().split("\n")

    def wait(self, line: str, *, timeout: float = 30.0) -> int:
        """Wait for a message that says *line*; return the pid of its sender. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            pid, lines = self.receive(max(deadline - time.monotonic(), 0.001))
            if line in lines:
                return pid

    def drain(self) -> None:
        """Forget what has arrived."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(4096):
                pass
        except BlockingIOError:
            pass
