"""The blocking client of the control API: HTTP/1.1 over the Unix socket, on the standard library's ``socket`` alone.

An HTTP library would cost every command more to import than the command takes.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from oneiric.errors import DaemonAbsentError, DaemonUnreachableError, OneiricError

if TYPE_CHECKING:
    import socket
    from pathlib import Path

CONNECT_TIMEOUT: Final = 3.0
READ_TIMEOUT: Final = 10.0
"""Within this a daemon that is alive answers a question, and begins to listen to a request."""
CHANGE_TIMEOUT: Final = 300.0
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024

_ELSEWHERE: Final = "oneiric --socket PATH ..., or api.socket in settings/app.yml"
_SHORT_BYTES: Final = 100  # a socket's path may be a little longer, how much depends on the kernel
_CREDENTIALS_BYTES: Final = 12  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)


class RemoteError(OneiricError):
    """An error that the daemon answered, with its own code, hint and exit code."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        super().__init__(str(row.get("message", "")), hint=str(row.get("hint", "")))
        self.code = str(row.get("code", "error"))
        self.exit_code = int(row.get("exit_code", 1))
        self.explanation = str(row.get("explanation", ""))


class Client:
    """Asks the daemon behind *path*, a Unix socket.

    Every request raises DaemonAbsentError when none runs, DaemonUnreachableError when it does not answer as it should,
    and RemoteError for the errors that it answers.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)

    def get(self, route: str, *, timeout: float = READ_TIMEOUT, **query: Any) -> dict[str, Any]:
        """Return the document at *route*; parameters that are None are left out."""
        given = [f"{name}={_quoted(value)}" for name, value in query.items() if value not in (None, False)]
        text = f"?{'&'.join(given)}" if given else ""
        return self._ask(f"GET {route}{text}", "", b"", timeout)

    def post(
        self, route: str, body: Mapping[str, Any] | None = None, *, timeout: float = CHANGE_TIMEOUT
    ) -> dict[str, Any]:
        """Have the daemon do something and return what it says it did.

        The body is sent when the daemon asks for it (100 Continue), which it does at once if it is alive at all: one
        that hangs is found out within ``READ_TIMEOUT``, and will not carry out later what we gave up.
        """
        import json

        payload = json.dumps(body or {}).encode()
        fields = f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\nExpect: 100-continue\r\n"
        return self._ask(f"POST {route}", fields, payload, timeout)

    def _ask(self, what: str, fields: str, payload: bytes, timeout: float) -> dict[str, Any]:
        self._require_there()
        import socket

        head = f"{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: application/json\r\n{fields}\r\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            self._connect(connection)
            try:
                begun = self._begin(connection, head.encode(), READ_TIMEOUT if payload else timeout)
                if payload and begun.startswith(b"HTTP/1.1 100 "):
                    connection.sendall(payload)
                    begun = b""
                answer = self._rest(connection, begun, timeout)
            except OSError as error:
                raise self._unreachable(f"broke off: {error.strerror or error}", "oneiric status") from None
        return self._document(answer)

    def _require_there(self) -> None:
        """Raise DaemonAbsentError when nothing is at the path, which is found out before ``socket`` is imported."""
        if len(os.fsencode(self.path)) > _SHORT_BYTES:  # perhaps too long for a socket, which connecting will tell
            return
        try:
            os.stat(self.path)  # noqa: PTH116 - the path as connect takes it
        except (FileNotFoundError, NotADirectoryError):
            raise self._absent("no socket there") from None
        except (OSError, ValueError):  # as connecting will tell; ValueError: a NUL, which abstract names begin with
            return

    def _connect(self, connection: socket.socket) -> None:
        connection.settimeout(CONNECT_TIMEOUT)
        try:
            connection.connect(self.path)
        except (FileNotFoundError, NotADirectoryError):
            raise self._absent("no socket there") from None
        except ConnectionRefusedError:
            if not stat.S_ISSOCK(os.stat(self.path).st_mode):  # noqa: PTH116 - the path as connect took it
                raise self._unreachable("cannot be reached: no socket is there but a file", _ELSEWHERE) from None
            raise self._absent("nobody listens on the socket it left behind") from None
        except PermissionError:
            what = "belongs to another user: the socket admits its own user and root only"
            raise self._unreachable(what, "the same command as the daemon's user, or as root") from None
        except (TimeoutError, BlockingIOError):  # Linux says the latter when the queue of the unadmitted is full
            raise self._silent("", CONNECT_TIMEOUT) from None
        except OSError as error:
            raise self._unreachable(f"cannot be reached: {error.strerror or error}", _ELSEWHERE) from None

    def _begin(self, connection: socket.socket, head: bytes, timeout: float) -> bytes:
        """Send *head* and return the first bytes that come back."""
        connection.settimeout(timeout)
        try:
            connection.sendall(head)
            return connection.recv(65536)
        except TimeoutError:
            raise self._silent(_listener(connection), timeout) from None

    def _rest(self, connection: socket.socket, begun: bytes, timeout: float) -> bytes:
        """Return *begun* and all that follows it within *timeout*."""
        deadline = time.monotonic() + timeout
        parts, size = [begun], len(begun)
        try:
            while part := self._part(connection, deadline):
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise self._unreachable("sent more than an answer can be", _ELSEWHERE)
        except TimeoutError:
            raise self._unreachable(f"did not finish within {timeout:g} s and may go on", "oneiric status") from None
        return b"".join(parts)

    def _part(self, connection: socket.socket, deadline: float) -> bytes:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        return connection.recv(65536)

    def _document(self, answer: bytes) -> dict[str, Any]:
        if not answer:
            raise self._unreachable("closed the connection without an answer", "oneiric status")
        header, _, text = answer.partition(b"\r\n\r\n")
        import json

        try:
            document: dict[str, Any] = json.loads(text)
            if int(header.split(b" ", 2)[1]) < 400 and document["schema"].startswith("oneiric."):
                return document
            error = RemoteError(document["error"])
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as reason:
            what = "gave an answer that is cut off, or not the control API's"
            raise self._unreachable(what, _ELSEWHERE) from reason
        raise error

    def _absent(self, what: str) -> DaemonAbsentError:
        return DaemonAbsentError(f"the daemon at {self.path} does not run: {what}", hint="oneiric orchestrate")

    def _silent(self, pid: str, waited: float) -> DaemonUnreachableError:
        hint = f"ps -o pid,stat,etime,args -p {pid}   # stat T: stopped; kill -CONT {pid}" if pid else "oneiric status"
        return self._unreachable(f"does not answer within {waited:g} s; it may be stopped or blocked", hint)

    def _unreachable(self, what: str, hint: str) -> DaemonUnreachableError:
        return DaemonUnreachableError(f"the daemon at {self.path} {what}", hint=hint)


def _quoted(value: object) -> str:
    """Return *value* as a query holds it; names, as most are, without an import that takes longer than the answer."""
    text = str(value).lower()
    if re.fullmatch(r"[a-z0-9._-]*", text):
        return text
    from urllib.parse import quote_plus

    return quote_plus(text)


def _listener(connection: socket.socket) -> str:
    """Return the process id of who listens, or an empty text where that cannot be known."""
    import socket

    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS_BYTES)
    except (AttributeError, OSError):
        return ""
    pid = int.from_bytes(credentials[:4], sys.byteorder)
    return str(pid) if pid else ""
