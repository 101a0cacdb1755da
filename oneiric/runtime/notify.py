"""systemd's notification protocol: one datagram to the socket named in ``NOTIFY_SOCKET`` (sd_notify(3))."""

from __future__ import annotations

import socket
from collections.abc import Mapping


class Notifier:
    """Tells the service manager how the daemon is; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = environ.get("WATCHDOG_USEC", "")
        self.watchdog_interval = int(microseconds) / 2_000_000 if microseconds.isdecimal() else 0.0
        """Seconds between signs of life: half of what systemd allows; 0 where it wants none."""

    def send(self, *lines: str) -> None:
        """Send ``READY=1`` and the like; a service manager that went away is not our problem."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(1.0)
            try:
                channel.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return
