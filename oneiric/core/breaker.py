"""A circuit breaker as a value: after enough failures in a row callers are refused, then one is let through to see.

Nothing here waits or remembers. The caller asks with ``ask``, keeps the breaker that comes back, does what the permit
allows, and tells the outcome with ``succeeded``, ``failed`` or ``withdrawn``, keeping each time what is returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any


class BreakerState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"  # they do
    OPEN = "open"  # none does, until the reset timeout has passed
    HALF_OPEN = "half-open"  # one does, and its outcome decides


class Permit(StrEnum):
    """The answer to a caller."""

    CALL = "call"  # the breaker is closed
    PROBE = "probe"  # it is half-open, and this is the one caller that goes
    FORCED = "forced"  # it is open, or another probe is under way; an operator insists
    REFUSED = "refused"

    @property
    def is_granted(self) -> bool:
        """Whether the caller may go."""
        return self is not Permit.REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """How often calls failed in a row, and what follows from it.

    The breaker is closed as long as ``failures`` is below ``failure_threshold``: there is no second truth to disagree.
    """

    failure_threshold: int = 3
    reset_timeout: float = 60.0
    failures: int = 0
    opened_at: datetime | None = None
    is_probing: bool = False

    def state(self, now: datetime) -> BreakerState:
        """Return the state at *now*."""
        if self.failures < self.failure_threshold:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.wait(now) > 0 else BreakerState.HALF_OPEN

    def wait(self, now: datetime) -> float:
        """Return the seconds until a caller may go again; 0 if one may now. A clock set back does not lengthen it."""
        if self.failures < self.failure_threshold or self.opened_at is None or now < self.opened_at:
            return 0.0
        return max(0.0, self.reset_timeout - (now - self.opened_at).total_seconds())

    def ask(self, now: datetime, *, force: bool = False) -> tuple[Breaker, Permit]:
        """Return the breaker as it is once the caller has its answer, and the answer."""
        state = self.state(now)
        if state is BreakerState.CLOSED:
            return self, Permit.CALL
        if state is BreakerState.HALF_OPEN and not self.is_probing:
            return replace(self, is_probing=True), Permit.PROBE
        return self, Permit.FORCED if force else Permit.REFUSED

    def succeeded(self) -> Breaker:
        """Return the breaker after a call that went well: closed, whatever it was."""
        return replace(self, failures=0, opened_at=None, is_probing=False)

    def failed(self, now: datetime, permit: Permit) -> Breaker:
        """Return the breaker after a call that failed.

        A call that set out before the breaker opened counts, but neither lengthens the wait nor ends a probe.
        """
        failures = self.failures + 1
        opens = self.failures < self.failure_threshold <= failures
        return replace(
            self,
            failures=failures,
            opened_at=now if opens or permit in (Permit.PROBE, Permit.FORCED) else self.opened_at,
            is_probing=self.is_probing and permit is not Permit.PROBE,
        )

    def withdrawn(self, permit: Permit) -> Breaker:
        """Return the breaker after a call that was cancelled or skipped: it proves nothing, and the next may go."""
        return replace(self, is_probing=self.is_probing and permit is not Permit.PROBE)

    def restarted(self) -> Breaker:
        """Return the breaker as a restart leaves it: one caller may try at once, and every failure still counts."""
        return replace(self, opened_at=None, is_probing=False)

    def to_record(self) -> dict[str, Any]:
        """Return what is worth keeping, as JSON types. Settings are not, nor is a probe that ends with its process."""
        return {"failures": self.failures, "opened_at": self.opened_at and self.opened_at.isoformat()}

    @classmethod
    def from_record(
        cls, record: Mapping[str, Any], *, failure_threshold: int = 3, reset_timeout: float = 60.0
    ) -> Breaker:
        """Return the breaker that *record* describes. What it does not say, or says wrongly, counts as never failed."""
        failures, opened_at = record.get("failures"), None
        with suppress(KeyError, TypeError, ValueError):
            opened_at = datetime.fromisoformat(record["opened_at"])
        return cls(
            failure_threshold=failure_threshold,
            reset_timeout=reset_timeout,
            failures=failures if type(failures) is int and failures > 0 else 0,
            opened_at=opened_at if opened_at is not None and opened_at.tzinfo is not None else None,
        )
