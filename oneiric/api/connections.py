"""Connections to the daemon's servers: bounded in number, size and time, and on the socket for its own user only."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from oneiric.runtime.premises import BACKLOG

if TYPE_CHECKING:
    import asyncio

MAX_HEAD_BYTES: Final = 16_384
READ_TIMEOUT: Final = 10.0
MAX_CONNECTIONS: Final = 256
"""On each listener; beyond it the newest is cut off, so that the instances find descriptors left for themselves."""
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)


class Listener(socket.socket):
    """A listening socket whose queue is as long as before, although asyncio is told of a backlog of one.

    asyncio accepts as many connections a turn as the backlog. Out of descriptors it also fails, reports and schedules a
    retry that often, and each retry does so again: 3,000 log lines a second, and nobody was answered.
    """

    def listen(self, _backlog: int = 0, /) -> None:
        """Listen."""
        super().listen(BACKLOG)


class BoundedProtocol(H11Protocol):
    """HTTP that lets no client take its time: one that owes the rest of a request for ``READ_TIMEOUT`` is cut off.

    A body that is waited for has the same bound elsewhere, which can still say so.
    """

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection on, or cut it off when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._watch_the_clock()

    def data_received(self, data: bytes) -> None:
        """Read on, in pieces: a head that arrives whole would escape its bound, and parsing it hold up the loop."""
        for start in range(0, len(data), MAX_HEAD_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[start : start + MAX_HEAD_BYTES])
        self._watch_the_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        super().connection_lost(exc)
        self._stop_the_clock()

    def _watch_the_clock(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._stop_the_clock()  # a request is in hand, now the client waits for us
        elif self._overdue is None:
            self._overdue = self.loop.call_later(READ_TIMEOUT, self.transport.abort)

    def _stop_the_clock(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


class PeerProtocol(BoundedProtocol):
    """HTTP on a Unix socket for the daemon's own user and root; others are cut off before a byte is read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look up who connected, and refuse strangers."""
        peer: socket.socket = transport.get_extra_info("socket")
        pid, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        super().connection_made(transport)
        self.app_state = {**self.app_state, "uid": uid, "pid": pid}
        if uid not in (os.geteuid(), 0):
            transport.abort()
