"""From what delivery knows to the documents of the API."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from oneiric.api.schemas import RemoteDocument, RemoteSyncDocument
from oneiric.api.views import instant

if TYPE_CHECKING:
    from oneiric.core.config import RemoteSettings
    from oneiric.remote.reports import SyncReport
    from oneiric.runtime.delivery import Facts


def remote_document(facts: Facts, *, settings: RemoteSettings, live: bool = True) -> RemoteDocument:
    """Return what is known of the manifest's source."""
    from oneiric.remote.urls import printable

    record = facts.record
    return RemoteDocument(
        live=live,
        manifest_url=printable(settings.manifest_url) if settings.manifest_url else "",
        url=record.url,
        source=record.source,
        signature_required=settings.require_signature,
        manifest_version=record.manifest_version,
        accepted_at=_instant(record.accepted_at),
        expires_at=_instant(record.expires_at),
        key_ids=record.key_ids,
        registrations=record.registrations,
        successes=record.successes,
        failures=record.failures,
        consecutive_failures=record.consecutive_failures,
        last_sync_at=_instant(record.last_sync_at),
        last_success_at=_instant(record.last_success_at),
        last_duration_ms=round(record.last_duration * 1000, 3),
        last_error=record.last_error,
        circuit_breaker=facts.breaker.value,
        quarantined=facts.quarantined,
        cache_bytes=facts.cache_bytes,
    )


def remote_sync_document(report: SyncReport, *, live: bool = True) -> RemoteSyncDocument:
    """Return what a synchronisation did."""
    return RemoteSyncDocument(
        live=live,
        outcome=report.outcome,
        url=report.url,
        source=report.source,
        manifest_version=report.manifest_version,
        entries=report.entries,
        fetched=report.fetched,
        registrations=dict(report.registrations),
        duration_ms=round(report.duration * 1000, 3),
        dry_run=report.dry_run,
        reason=report.reason,
        warnings=report.warnings,
        text=str(report),
    )


def _instant(at: datetime | None) -> str:
    return "" if at is None else instant(at)
