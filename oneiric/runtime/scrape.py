"""All readings of a daemon: those of its runtime, and what is known of its manifest, its cache and its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

import anyio
from anyio import to_thread

from oneiric import __version__
from oneiric.core.breaker import BreakerState
from oneiric.core.config import AppSettings
from oneiric.errors import TrustError
from oneiric.observability.catalog import METRICS
from oneiric.observability.meters import Reading, Sample
from oneiric.remote.cache import Cache
from oneiric.remote.ledger import Ledger, Record
from oneiric.remote.sync import Syncer
from oneiric.runtime.lag import LoopLag
from oneiric.runtime.runtime import Runtime

_CACHE_INTERVAL: Final = 60.0


class Scrape:
    """Reads everything, one reader at a time.

    Args:
        syncer: what synchronises; None in a daemon without remote delivery.
        invalid: the domains, or "app", whose settings files are invalid now.
    """

    def __init__(
        self, runtime: Runtime, *, syncer: Syncer | None, lag: LoopLag, invalid: Callable[[], frozenset[str]]
    ) -> None:
        self._runtime = runtime
        self._syncer = syncer
        self._lag = lag
        self._invalid = invalid
        self._turn = anyio.Lock()
        self._cache_looked_at = -_CACHE_INTERVAL
        self._cache: tuple[Sample, ...] = ()

    async def read(self) -> tuple[Reading, ...]:
        """Return every metric of the catalog."""
        async with self._turn:
            counted = await self._runtime.readings()
            failed = sum(
                reading.value
                for reading in counted
                if isinstance(reading, Sample)
                and reading.metric == "oneiric_remote_sync_total"
                and reading.labels == ("failed", "remote")
            )
            found = await to_thread.run_sync(self._on_disk, int(failed))
            return (*counted, *found, *self._own())

    def _own(self) -> Iterator[Sample]:
        invalid = self._invalid()
        for domain in METRICS["oneiric_config_last_reload_successful"].labels["domain"] or ():
            yield Sample("oneiric_config_last_reload_successful", (domain,), float(domain not in invalid))
        yield Sample("oneiric_event_loop_lag_seconds", (), self._lag.worst)
        yield Sample("oneiric_build_info", (__version__,), 1)

    def _on_disk(self, failed: int) -> tuple[Sample, ...]:
        """Return what the state and cache directories say; blocks."""
        app = self._runtime.settings.app
        cache, ledger = Cache(Path(app.cache_dir)), Ledger(Path(app.state_dir))
        try:
            record = ledger.load()
        except TrustError:  # each round fails until it can be read, and cannot say so there
            record = Record(consecutive_failures=failed)
        if monotonic() - self._cache_looked_at >= _CACHE_INTERVAL:
            self._cache_looked_at = monotonic()
            self._cache = (
                Sample("oneiric_cache_size_bytes", (), cache.size_bytes()),
                Sample("oneiric_cache_artifacts", (), len(cache.names())),
            )
        unresolved = len(cache.quarantined(since=record.last_success_at))
        quarantined = Sample("oneiric_remote_quarantined_artifacts", (), unresolved)
        if self._syncer is None:
            return (*self._cache, quarantined)
        is_open = self._syncer.breaker(record).state(datetime.now(UTC)) is BreakerState.OPEN
        return (*self._cache, quarantined, *remote_gauges(record, app, is_open=is_open))


def remote_gauges(record: Record, app: AppSettings, *, is_open: bool) -> Iterator[Sample]:
    """Yield what is known of the manifest's source; nothing where there never was one.

    Args:
        is_open: whether the circuit breaker keeps synchronisations back.
    """
    if app.remote.manifest_url is None and record.last_sync_at is None:
        return
    source = ("remote" if app.remote.manifest_url is not None else "adhoc",)
    yield Sample("oneiric_remote_refresh_interval_seconds", source, app.remote.refresh_interval)
    yield Sample("oneiric_remote_last_sync_duration_seconds", source, record.last_duration)
    yield Sample("oneiric_remote_sync_consecutive_failures", source, record.consecutive_failures)
    yield Sample("oneiric_remote_last_sync_timestamp_seconds", source, _unix(record.last_sync_at))
    yield Sample("oneiric_remote_last_success_timestamp_seconds", source, _unix(record.last_success_at))
    yield Sample("oneiric_remote_manifest_expires_timestamp_seconds", source, _unix(record.expires_at))
    yield Sample("oneiric_remote_circuit_breaker_open", source, float(is_open))
    yield Sample("oneiric_remote_signature_required", source, float(app.remote.require_signature))


def _unix(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()
