"""One synchronisation: fetch, verify, collect what is named, keep, publish; whole or not at all.

Nothing is published before everything was verified and kept. Whatever goes wrong changes nothing that serves, is
reported and counted, and leaves the next round to try again.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple

import anyio
import msgspec
from anyio import to_thread

from oneiric.core.breaker import Breaker, Permit
from oneiric.core.candidate import Candidate
from oneiric.core.config import RemoteSettings
from oneiric.core.manifest import Manifest
from oneiric.core.retry import Retry
from oneiric.core.trust import Floor, TrustPolicy, VerifiedManifest, require_fresh, verify_manifest
from oneiric.errors import ConfigError, FetchError, ManifestError, OneiricError, Problem, TrustError
from oneiric.observability.describe import describe
from oneiric.observability.logs import Emit
from oneiric.remote import ledger
from oneiric.remote.artifact import Artifact
from oneiric.remote.cache import Cache
from oneiric.remote.collect import Collector
from oneiric.remote.fetch import Fetched, Fetcher, NotModified
from oneiric.remote.ledger import Ledger, Record
from oneiric.remote.offers import SOURCE, offers
from oneiric.remote.reports import SyncReport, report_of
from oneiric.remote.urls import allowed_by, printable

Publish = Callable[[tuple[Candidate[Any], ...]], Awaitable[None]]
"""Makes candidates the remote source's whole offer."""
_SIGNATURE_REASONS: Final = ("signature", "unsigned", "threshold", "algorithm", "timestamps", "no-key")


class _InForce(NamedTuple):
    """What this process published last: without its entries, and what the cache looked like then."""

    head: Manifest
    digest: str
    policy: TrustPolicy
    floor: Floor
    cached: object
    report: SyncReport


class Syncer:
    """Keeps what a signed manifest offers up to date.

    Args:
        settings: the remote settings in force, asked for at each round.
        policy: what makes a manifest acceptable by those settings; raises ConfigError for a key that cannot be read.
        publish: receives the candidates of an accepted manifest; None where nobody takes them (the command line alone).
        token: the bearer token for the manifest's own origin.
        fetcher: makes a fetcher.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], RemoteSettings],
        policy: Callable[[RemoteSettings], TrustPolicy],
        cache: Cache,
        ledger: Ledger,
        emit: Emit,
        publish: Publish | None = None,
        token: Callable[[], str | None] = lambda: None,
        fetcher: Callable[..., Fetcher] = Fetcher,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._cache = cache
        self._ledger = ledger
        self._emit = emit
        self._publish = publish
        self._token = token
        self._fetcher = fetcher
        self._now = now
        self._chance = chance
        self._turn = anyio.Lock()
        self._breaker: Breaker | None = None
        self._in_force: _InForce | None = None

    def breaker(self, record: Record) -> Breaker:
        """Return the breaker as the settings and *record* have it; a restart lets one round through at once."""
        settings = self._settings()
        known = self._breaker or Breaker.from_record(record.breaker).restarted()
        self._breaker = replace(
            known, failure_threshold=settings.failure_threshold, reset_timeout=settings.reset_timeout
        )
        return self._breaker

    # Rounds

    async def restore(self) -> SyncReport | None:
        """Publish the cached manifest, verified again, without the network; None when there is none.

        One that expired since it was accepted is good for ``remote.max_stale`` seconds more, and said to be stale.
        Raises ManifestError or TrustError when it is no longer acceptable.
        """
        async with self._turn:
            settings = self._settings()
            content = await to_thread.run_sync(self._cache.read_manifest, settings.max_manifest_bytes)
            if not content:
                return None
            record = await to_thread.run_sync(self._ledger.load)
            place = record.url or settings.manifest_url or ""
            policy = await to_thread.run_sync(self._policy, settings)
            verified, stale = await self._verify_cached(content, record, place, policy)
            artifacts = await self._collector(settings, place, None).collect(verified.manifest.entries)
            report = report_of(verified.manifest, "success", printable(place), warnings=stale)
            await self._put_in_force(verified, artifacts, policy, report)
            return report

    async def _verify_cached(
        self, content: bytes, record: Record, place: str, policy: TrustPolicy
    ) -> tuple[VerifiedManifest, tuple[str, ...]]:
        now = self._now()
        try:
            return await self._verify(content, record, place, policy, now), ()
        except TrustError as error:
            since = (now - record.expires_at).total_seconds() if record.expires_at is not None else None
            if error.reason != "expired" or since is None or since > self._settings().max_stale:
                raise
            fresh = await self._verify(content, record, place, policy, record.accepted_at or now)
            return fresh, (f"stale: it expired {since:.0f} s ago, and remote.max_stale allows that at a start",)

    async def sync(self, url: str | None = None, *, force: bool = False, dry_run: bool = False) -> SyncReport:
        """Bring what is offered to what the publisher signed last.

        Args:
            url: another place to ask; trust is the same wherever it is.
            force: goes ahead although the breaker is open.
            dry_run: verifies everything and changes nothing.

        Raises FetchError, ManifestError, TrustError or ConfigError, reported and counted; nothing was changed then.
        """
        async with self._turn:
            settings = self._settings()
            place = url or settings.manifest_url
            if place is None:
                raise ConfigError(
                    Problem("remote.manifest_url", "is not set, and no --manifest was given"),
                    hint="oneiric remote-sync --manifest https://..., or set remote.manifest_url in settings/app.yml",
                )
            record = await to_thread.run_sync(self._ledger.load)
            self._breaker, permit = self.breaker(record).ask(self._now(), force=force)
            if permit is Permit.REFUSED:
                wait = self._breaker.wait(self._now())
                return SyncReport(
                    "skipped", printable(place), reason=f"the circuit breaker is open for {wait:.0f} s more"
                )
            return await self._counted(settings, place, record, permit, dry_run=dry_run)

    async def _counted(
        self, settings: RemoteSettings, place: str, record: Record, permit: Permit, *, dry_run: bool
    ) -> SyncReport:
        """Carry out one round and count how it went; one that is cancelled proves nothing."""
        started, before = anyio.current_time(), self.breaker(record).state(self._now())
        outcome: Breaker | None = None
        try:
            report, accepted = await self._round(settings, place, record, dry_run=dry_run)
            report = replace(report, duration=anyio.current_time() - started)
            outcome = self.breaker(record).succeeded()
            if not dry_run:
                done = ledger.succeeded(accepted, now=self._now(), duration=report.duration, breaker=outcome)
                await self._save(done)
                self._tell(report)
            return report
        except (OneiricError, OSError) as error:
            outcome = self.breaker(record).failed(self._now(), permit)
            duration = anyio.current_time() - started
            await self._save(self._report_failure(record, place, error, duration, outcome))
            if isinstance(error, OSError):
                hint = f"df -h {self._cache.directory}"
                raise OneiricError(f"{self._cache.directory}: {error.strerror or error}", hint=hint) from error
            raise
        finally:
            self._breaker = outcome if outcome is not None else self.breaker(record).withdrawn(permit)
            after = self._breaker.state(self._now())
            if after is not before:
                self._emit("circuit-breaker-changed", source=SOURCE, state=after.value, previous=before.value)

    async def _round(
        self, settings: RemoteSettings, place: str, record: Record, *, dry_run: bool
    ) -> tuple[SyncReport, Record]:
        policy = await to_thread.run_sync(self._policy, settings)
        cached = await to_thread.run_sync(self._cache.fingerprint)
        current = self._in_force if self._in_force is not None and self._in_force[2:5:2] == (policy, cached) else None
        known = current is not None or await to_thread.run_sync(self._cache.has_manifest)
        async with self._fetcher(
            idle_timeout=settings.timeout,
            allow=allowed_by(settings.allowed_hosts),
            allow_plain_http=settings.allow_plain_http,
        ) as fetcher:
            etag = record.etag if known and record.url == printable(place) else ""
            fetched, place = await self._fetch(fetcher, settings, place, etag or None)
            tag = (fetched.etag or "") if isinstance(fetched, Fetched) else etag
            if current is not None and await self._is_current(fetched, current):
                require_fresh(current.head, policy, floor=current.floor, now=self._now())
                return replace(current.report, outcome="unchanged", fetched=0), msgspec.structs.replace(
                    record, etag=tag, url=printable(place)
                )
            content = await self._content(fetched, settings)
            verified = await self._verify(content, record, place, policy, self._now())
            collector = self._collector(settings, place, fetcher)
            artifacts = await collector.collect(verified.manifest.entries, keep=not dry_run)
        report = report_of(verified.manifest, "success", printable(place), warnings=verified.warnings)
        report = replace(report, fetched=collector.fetched)
        accepted = ledger.accepted(record, verified, url=printable(place), etag=tag, now=self._now())
        if dry_run:
            for artifact in artifacts.values():
                artifact.release()
            return replace(report, dry_run=True), record
        with anyio.CancelScope(shield=True):  # what is kept is also published
            await to_thread.run_sync(self._keep, content, accepted)
            await self._put_in_force(verified, artifacts, policy, report)
        return report, accepted

    async def _is_current(self, fetched: Fetched | NotModified, current: _InForce) -> bool:
        if isinstance(fetched, NotModified):
            return True
        digest = await to_thread.run_sync(lambda: hashlib.sha256(fetched.content).hexdigest())
        return digest == current.digest

    async def _content(self, fetched: Fetched | NotModified, settings: RemoteSettings) -> bytes:
        if isinstance(fetched, Fetched):
            return fetched.content
        return await to_thread.run_sync(self._cache.read_manifest, settings.max_manifest_bytes) or b""

    async def _fetch(
        self, fetcher: Fetcher, settings: RemoteSettings, place: str, etag: str | None
    ) -> tuple[Fetched | NotModified, str]:
        """Fetch the manifest from the first place that gives it; each is asked again while its failure may pass."""
        failures: list[FetchError] = []
        for url in dict.fromkeys((place, *settings.mirrors)):
            ask = partial(
                fetcher.fetch,
                url,
                limit_bytes=settings.max_manifest_bytes,
                deadline=settings.timeout,
                etag=etag if url == place else None,
                token=self._token(),
            )
            try:
                return await self._patiently(ask), url
            except FetchError as error:
                failures.append(error)
        raise failures[0]

    async def _patiently(self, ask: Callable[[], Awaitable[Fetched | NotModified]]) -> Fetched | NotModified:
        """Call *ask*, again while its failure may pass."""
        retry, attempt = Retry(), 1
        while True:
            try:
                return await ask()
            except FetchError as error:
                wait = retry.wait(attempt, error, chance=self._chance())
                if wait is None:
                    raise
                await anyio.sleep(wait)
                attempt += 1

    async def _verify(
        self, content: bytes, record: Record, place: str, policy: TrustPolicy, now: datetime
    ) -> VerifiedManifest:
        return await to_thread.run_sync(
            partial(verify_manifest, content, policy=policy, floor=record.floor, now=now, url=place)
        )

    def _collector(self, settings: RemoteSettings, place: str, fetcher: Fetcher | None) -> Collector:
        return Collector(
            cache=self._cache,
            fetcher=fetcher,
            manifest_url=place,
            limit_bytes=settings.max_artifact_bytes,
            patiently=self._patiently,
            token=self._token,
            emit=self._emit,
            now=self._now,
        )

    # What follows

    def _keep(self, content: bytes, accepted: Record) -> None:
        """Keep an accepted manifest; the floor first, so that a crash in between can only be too strict."""
        with self._cache.lock():
            self._ledger.save(accepted)
            self._cache.write_manifest(content)

    async def _put_in_force(
        self, verified: VerifiedManifest, artifacts: dict[str, Artifact], policy: TrustPolicy, report: SyncReport
    ) -> None:
        candidates = await to_thread.run_sync(offers, verified.manifest, artifacts)
        if self._publish is not None:
            await self._publish(candidates)
        head = msgspec.structs.replace(verified.manifest, entries=())
        cached = await to_thread.run_sync(self._cache.fingerprint)
        self._in_force = _InForce(head, verified.digest, policy, verified.floor, cached, report)

    async def _save(self, record: Record) -> None:
        """Keep the counters; a full disk is reported and stops nothing."""
        try:
            await to_thread.run_sync(self._ledger.save, record)
        except OSError as error:
            self._emit("state-degraded", error=f"{self._ledger.path}: {describe(error)}")

    def _report_failure(
        self, record: Record, place: str, error: OneiricError | OSError, duration: float, breaker: Breaker
    ) -> Record:
        reason = getattr(error, "reason", "") or ("disk" if isinstance(error, OSError) else "config")
        text = _words(error)
        if reason in _SIGNATURE_REASONS:
            self._emit("signature-verification-failed", source=SOURCE, key_id="", error=text)
        self._emit(
            "remote-sync-error",
            source=SOURCE,
            url=printable(place),
            error=text,
            reason=reason,
            consecutive_failures=record.consecutive_failures + 1,
            circuit_breaker=breaker.state(self._now()).value,
            duration_ms=round(duration * 1000, 3),
        )
        return ledger.failed(record, now=self._now(), duration=duration, breaker=breaker, error=text)

    def _tell(self, report: SyncReport) -> None:
        self._emit(
            "remote-sync-unchanged" if report.outcome == "unchanged" else "remote-sync-complete",
            source=SOURCE,
            url=report.url,
            manifest=report.source,
            manifest_version=report.manifest_version,
            entries=report.entries,
            fetched=report.fetched,
            duration_ms=round(report.duration * 1000, 3),
        )
        for warning in report.warnings:
            self._emit("remote-sync-warning", source=SOURCE, url=report.url, error=warning)


def _words(error: OneiricError | OSError) -> str:
    """Return *error* as logs carry it: its category, its class and what it says."""
    if isinstance(error, ManifestError):
        category = "signature" if error.reason in _SIGNATURE_REASONS else error.reason
        category = category if category in ("signature", "digest") else "manifest"
        return f"{category}: {type(error).__name__}: {error}"
    return str(error) if isinstance(error, OneiricError) else describe(error)
