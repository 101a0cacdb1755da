"""When to try again after a fetch that failed, and how long to wait first.

Full jitter: the wait is drawn between nothing and a bound that doubles, so a thousand daemons that lost the same server
do not come back to it in step. Who calls passes the random number in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from oneiric.errors import FetchError

MAX_RETRY_AFTER: Final = 3600.0
"""Seconds a server can make us wait, whatever it asks for."""
_TOO_MANY_REQUESTS: Final = 429
_MOST_DOUBLINGS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often to try, and how long to wait between."""

    attempts: int = 3
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def wait(self, attempt: int, error: FetchError, *, chance: float) -> float | None:
        """Return the seconds to wait after *attempt* (1 is the first) failed with *error*; None to give up.

        Args:
            chance: a random number from 0 up to 1.

        A server that asks for more patience than ``longest_wait`` is not waited for here: ``error.retry_after`` tells
        whoever plans the next round.
        """
        if attempt >= self.attempts or not is_passing(error):
            return None
        wait = max(backoff(attempt, chance, first=self.first_wait, longest=self.longest_wait), error.retry_after or 0.0)
        return wait if wait <= self.longest_wait else None


def backoff(attempt: int, chance: float, *, first: float = 0.5, longest: float = 30.0) -> float:
    """Return *chance* times a bound that is *first* after one attempt and doubles with each, up to *longest*."""
    return chance * min(longest, first * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))


def is_passing(error: FetchError) -> bool:
    """Say whether the same request may succeed later with nothing changed by us.

    A server that is down, busy or unreachable comes back. A wrong certificate, a file that is too large, a refusal and
    a redirect we do not follow stay what they are until somebody acts.
    """
    if error.reason == "http":
        return error.status is not None and (error.status >= 500 or error.status == _TOO_MANY_REQUESTS)
    return error.reason in ("timeout", "connection", "dns")


def read_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return the seconds that the header ``Retry-After`` asks for, in either of its forms, at most an hour.

    None where it is missing, in the past or unreadable: it is advice, and bad advice is ignored.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            until = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        seconds = (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    return min(seconds, MAX_RETRY_AFTER) if seconds > 0 else None
