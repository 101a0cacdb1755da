"""Something that listens where a daemon should, and answers as it likes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
Respond = Callable[[bytes], bytes | None]


def http(document: Any, status: int = 200) -> bytes:
    """Return *document* as the answer of an HTTP server."""
    return f"HTTP/1.1 {status} Said So\r\nConnection: close\r\n\r\n".encode() + json.dumps(document).encode()


class Impostor:
    """Listens on *path* and sends what *respond* returns. After CONTINUE, or for None, it says nothing more."""

    def __init__(self, path: Path, respond: Respond) -> None:
        self.asked = threading.Event()
        self._respond = respond
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # which accept() raises when we are closed
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):  # who asked may leave
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        answer = self._respond(connection.recv(65536))
        self.asked.set()
        connection.sendall(answer or b"")
        if answer in (None, CONTINUE):
            while connection.recv(65536):
                pass

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)


@contextmanager
def impostor(directory: Path, respond: Respond) -> Iterator[Impostor]:
    """Put an impostor where the daemon of *directory* would listen."""
    state = directory / ".oneiric_state"
    state.mkdir()
    found = Impostor(state / "oneiric.sock", respond)
    try:
        yield found
    finally:
        found.close()
