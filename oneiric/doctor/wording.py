"""The words that findings have in common: instants, spans, sizes, and names as a shell takes them."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from oneiric.doctor.vitals import Vitals

_LONGEST: Final = 600


def instant(at: datetime | None) -> str:
    """Return *at* as RFC 3339 in UTC, to the second."""
    return "never" if at is None else at.isoformat(timespec="seconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """Return how long that is, in the unit that suits it."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 or seconds % 1 == 0 else f"{seconds:.1f} s"


def ago(at: datetime | None, now: datetime) -> str:
    """Return *at*, and how long before *now* that was."""
    return "never" if at is None else f"{instant(at)} ({span(max(0.0, (now - at).total_seconds()))} ago)"


def size(number: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if abs(number) >= 1 << power:
            return f"{number / (1 << power):.1f} {unit}"
    return f"{number} bytes"


def cut(text: str) -> str:
    """Return the beginning of *text*, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def quoted(text: str) -> str:
    """Return *text* as one word of a shell."""
    return shlex.quote(text)


def app_file(vitals: Vitals) -> str:
    """Return the name of the settings file that has no domain."""
    return f"{vitals.settings.rstrip('/')}/app.yml"


def host_of(url: str) -> str:
    """Return the host of *url*, "" where it has none."""
    try:
        return urlsplit(url.removeprefix("tuf+")).hostname or ""
    except ValueError:
        return ""


def port_of(url: str) -> int:
    """Return the port of *url*, the usual one of its scheme where it names none."""
    try:
        parts = urlsplit(url.removeprefix("tuf+"))
        return parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        return 443
