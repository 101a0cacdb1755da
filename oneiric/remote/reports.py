"""What a synchronisation says it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from oneiric.core.manifest import Manifest
from oneiric.core.words import plural
from oneiric.errors import ManifestError, OneiricError
from oneiric.observability.describe import describe

SIGNATURE_REASONS: Final = ("signature", "unsigned", "threshold", "algorithm", "timestamps", "no-key")
"""Reasons of a TrustError that say: this is not signed by whom we trust."""

Outcome = Literal["success", "unchanged", "skipped"]


@dataclass(frozen=True)
class SyncReport:
    """What a synchronisation did; ``duration`` in seconds, ``registrations`` by domain."""

    outcome: Outcome
    url: str
    source: str = ""
    manifest_version: int | None = None
    registrations: Mapping[str, int] = field(default_factory=dict)
    fetched: int = 0
    duration: float = 0.0
    dry_run: bool = False
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def entries(self) -> int:
        """How many entries the manifest has."""
        return sum(self.registrations.values())

    def __str__(self) -> str:
        if self.outcome == "skipped":
            return f"{self.url}: skipped: {self.reason}"
        version = f" version {self.manifest_version}" if self.manifest_version is not None else ""
        if self.outcome == "unchanged":
            return f"{self.url}: {self.source}{version} is unchanged"
        verb = "would be accepted" if self.dry_run else "accepted"
        entries, artifacts = plural(self.entries, "entry", "entries"), plural(self.fetched, "artifact")
        return f"{self.url}: {self.source}{version} {verb}: {entries}, {artifacts} fetched"


def report_of(manifest: Manifest, outcome: Outcome, url: str, *, warnings: tuple[str, ...] = ()) -> SyncReport:
    """Return what is to be said of *manifest*."""
    return SyncReport(
        outcome,
        url,
        source=manifest.source,
        manifest_version=manifest.manifest_version,
        registrations=dict(Counter(entry.domain for entry in manifest.entries)),
        warnings=warnings,
    )


def reason_of(error: Exception) -> str:
    """Return why, in one word of a closed set."""
    if isinstance(error, OSError):
        return "disk"
    reason: str = getattr(error, "reason", "config" if isinstance(error, OneiricError) else "internal")
    return reason


def words_of(error: Exception) -> str:
    """Return *error* as logs carry it: its category, its class and what it says."""
    if isinstance(error, ManifestError):
        category = "signature" if error.reason in SIGNATURE_REASONS else error.reason
        category = category if category in ("signature", "digest") else "manifest"
        return f"{category}: {type(error).__name__}: {error}"
    return str(error) if isinstance(error, OneiricError) else describe(error)
