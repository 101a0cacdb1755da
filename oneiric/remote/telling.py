"""What a round says in the log, and whose round it is: one of the configured source, or one that somebody typed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from oneiric.core.breaker import BreakerState
from oneiric.errors import ManifestError
from oneiric.observability.logs import Emit
from oneiric.remote.offers import SOURCE
from oneiric.remote.reports import SIGNATURE_REASONS, SyncReport, reason_of, words_of
from oneiric.remote.urls import printable

ADHOC: Final = "adhoc"
"""The source of a URL on the command line that is not configured."""
BREAKER_OPEN: Final = "circuit breaker open: too many failures in a row; the next try is after remote.reset_timeout"
"""What the log says when the breaker opens, in the words that the runbook looks for."""
_STRANGE: Final = re.compile(r"[^A-Za-z0-9._:/+=@-]")
_LONGEST: Final = 64


def source_of(url: str, *, configured: Iterable[str]) -> str:
    """Return for whom a round on *url* counts: the *configured* manifest and its mirrors, or nothing configured."""
    return SOURCE if url in configured else ADHOC


def listed_ids(key_ids: Iterable[str]) -> str:
    """Return *key_ids*, which a stranger may have chosen, as one word with commas."""
    return ",".join(dict.fromkeys(_STRANGE.sub("?", key_id[:_LONGEST]) for key_id in key_ids if key_id))


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells what happens in one round of *source*.

    Args:
        is_rehearsal: nothing is told of it.
    """

    emit: Emit
    source: str
    is_rehearsal: bool = False
    refusals: list[tuple[str, Exception]] = field(default_factory=list)
    """Each place that did not serve, and why."""

    def signed(self, key_ids: Iterable[str]) -> None:
        """Tell that a manifest is signed as it must be; of one that need not be, and is not, nothing is told."""
        if (listed := listed_ids(key_ids)) and not self.is_rehearsal:
            self.emit("signature-check-success", source=self.source, key_id=listed)

    def refused(self, url: str, error: Exception) -> None:
        """Note that the place *url* does not serve, and tell what that says about signatures."""
        self.refusals.append((url, error))
        if not isinstance(error, ManifestError):
            return
        self.signed(error.signers)
        if error.reason in SIGNATURE_REASONS and not self.is_rehearsal:
            key_id = listed_ids(error.claimed)
            self.emit("signature-verification-failed", source=self.source, key_id=key_id, error=words_of(error))

    def passed_by(self) -> tuple[str, ...]:
        """Return a warning for each place that did not serve."""
        return tuple(f"{printable(url)} did not serve: {_why(error)}" for url, error in self.refusals)

    def failed(self, url: str, error: Exception, *, consecutive_failures: int, breaker: str, duration: float) -> str:
        """Tell that the round failed; return why, as the log has it."""
        text = words_of(error)
        self.emit(
            "remote-sync-error",
            source=self.source,
            url=printable(url),
            error=text,
            reason=reason_of(error),
            consecutive_failures=consecutive_failures,
            circuit_breaker=breaker,
            duration_ms=_milliseconds(duration),
        )
        return text

    def skipped(self, url: str, reason: str) -> None:
        """Tell that nobody was asked."""
        self.emit("remote-sync-skipped", source=self.source, url=printable(url), reason=reason)

    def ended(self, report: SyncReport) -> None:
        """Tell what a round that went well did."""
        self.emit(
            "remote-sync-unchanged" if report.outcome == "unchanged" else "remote-sync-complete",
            source=self.source,
            url=report.url,
            manifest=report.source,
            manifest_version=report.manifest_version,
            entries=report.entries,
            fetched=report.fetched,
            duration_ms=_milliseconds(report.duration),
        )
        for warning in report.warnings:
            self.emit("remote-sync-warning", source=self.source, url=report.url, error=warning)

    def breaker_changed(self, state: str, previous: str) -> None:
        """Tell that the breaker opened, or closed, or lets one through."""
        error = BREAKER_OPEN if state == BreakerState.OPEN else ""
        self.emit("circuit-breaker-changed", source=self.source, state=state, previous=previous, error=error)


def _why(error: Exception) -> str:
    return f"{error.reason}: {error}" if isinstance(error, ManifestError) else words_of(error)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
