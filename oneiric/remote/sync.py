"""One synchronisation: fetch, verify, collect what is named, keep, publish; whole or not at all.

Nothing is published before everything was verified and kept. Whatever goes wrong changes nothing that serves, is
reported and counted, and leaves the next round to try again.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, Protocol

import anyio
import msgspec
from anyio import to_thread

from oneiric.core.breaker import Breaker, Permit
from oneiric.core.candidate import Candidate
from oneiric.core.config import RemoteSettings
from oneiric.core.manifest import Manifest
from oneiric.core.retry import Retry
from oneiric.core.trust import Floor, TrustPolicy, VerifiedManifest, require_fresh
from oneiric.errors import ConfigError, FetchError, ManifestError, OneiricError, Problem, TrustError
from oneiric.observability.describe import describe
from oneiric.observability.logs import Emit
from oneiric.remote import ledger
from oneiric.remote.artifact import Artifact
from oneiric.remote.cache import ARTIFACTS, MANIFEST, Cache
from oneiric.remote.collect import Collector, Progress, release
from oneiric.remote.engines import open_source
from oneiric.remote.fetch import Fetched, Fetcher, NotModified
from oneiric.remote.ledger import Ledger, Record
from oneiric.remote.offers import SOURCE, offers
from oneiric.remote.pinned import is_tuf, verify_kept
from oneiric.remote.reports import SIGNATURE_REASONS, SyncReport, reason_of, report_of, words_of
from oneiric.remote.source import Source, policy_for, verify
from oneiric.remote.urls import allowed_by, printable

Publish = Callable[[tuple[Candidate[Any], ...]], Awaitable[None]]
"""Makes candidates the remote source's whole offer."""


class _Judge(Protocol):
    """Verifies what was fetched; as ``verify``."""

    def __call__(self, *, floor: Floor | None, now: datetime) -> VerifiedManifest:
        """Return the verified manifest."""
        ...


class _InForce(NamedTuple):
    """What this process published last, without its entries; where it came from, and what the cache looked like then.

    ``cached`` is None where the cache did not have all of it.
    """

    head: Manifest
    digest: str
    policy: TrustPolicy
    floor: Floor
    report: SyncReport
    place: str
    etag: str | None
    cached: Mapping[str, object] | None


class Syncer:
    """Keeps what a signed manifest offers up to date.

    Args:
        settings: the remote settings in force, asked for at each round.
        policy: what makes a manifest acceptable by those settings; raises ConfigError for a key that cannot be read.
        publish: receives the candidates of an accepted manifest; None where nobody takes them (the command line alone).
        token: the bearer token for the manifest's own origin.
        fetcher: makes a fetcher.
        progress: is told about every artifact that is here.
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
        progress: Progress = lambda _here, _all: None,
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
        self._progress = progress
        self._turn = anyio.Lock()
        self._breaker: Breaker | None = None
        self._in_force: _InForce | None = None

    def breaker(self, record: Record) -> Breaker:
        """Return the breaker as the settings and *record* have it; a restart lets one round through at once."""
        settings = self._settings()
        known = self._breaker or Breaker.from_record(record.breaker).restarted()
        return replace(known, failure_threshold=settings.failure_threshold, reset_timeout=settings.reset_timeout)

    # Rounds

    async def restore(self) -> SyncReport | None:
        """Publish the cached manifest, verified again, without the network; None when there is none.

        One that expired since it was accepted is good for ``remote.max_stale`` seconds more, and said to be stale.
        Raises ManifestError or TrustError when it is no longer acceptable.
        """
        async with self._turn:
            settings = self._settings()
            content = await to_thread.run_sync(self._cache.read_manifest, settings.max_manifest_bytes)
            if content is None:
                return None
            record = await to_thread.run_sync(self._ledger.load)
            place = record.url or settings.manifest_url or ""
            policy = await to_thread.run_sync(self._policy, settings)
            verified, stale = await self._verify_cached(content, record, place, policy)
            artifacts = await self._collector(settings, None).collect(verified.manifest.entries)
            try:
                report = report_of(verified.manifest, "success", printable(place), warnings=verified.warnings)
                if verified.floor != record.floor and not stale:  # a crash, or a loss of the state, came in between
                    await self._save(partial(_taken_over, before=record, verified=verified, url=place, now=self._now()))
                await self._put_in_force(verified, artifacts, policy=policy, report=report, place=place, etag=None)
            finally:
                release(artifacts)
            return replace(report, warnings=(*stale, *report.warnings))

    async def _verify_cached(
        self, content: bytes, record: Record, place: str, policy: TrustPolicy
    ) -> tuple[VerifiedManifest, tuple[str, ...]]:
        now, settings = self._now(), self._settings()
        again = partial(verify_kept, content, record=record, place=place, settings=settings, policy=policy)
        try:
            return await to_thread.run_sync(partial(again, now=now)), ()
        except TrustError as error:
            expired_at = _expired_at(record, policy)
            if error.reason != "expired" or expired_at is None:
                raise
            since = (now - expired_at).total_seconds()
            if since > settings.max_stale:
                raise
            fresh = await to_thread.run_sync(partial(again, now=record.accepted_at or now))
            if record.floor is None or fresh.floor.digest != record.floor.digest:  # not the one that was accepted then
                raise
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
            record = await self._remembered(place)
            with self._located(place):
                if dry_run:  # a rehearsal counts for nothing: not in the ledger, not for the breaker, not as evidence
                    started = anyio.current_time()
                    report = await self._round(settings, place, record, dry_run=True)
                    return replace(report, duration=anyio.current_time() - started, dry_run=True)
                self._breaker, permit = self.breaker(record).ask(self._now(), force=force)
                if permit is Permit.REFUSED:
                    wait = self._breaker.wait(self._now())
                    reason = f"the circuit breaker is open for {wait:.0f} s more"
                    return SyncReport("skipped", printable(place), reason=reason)
                return await self._counted(settings, place, record, permit)

    async def _remembered(self, place: str) -> Record:
        """Return what the ledger has; that it cannot be read is reported, for nothing is fetched until it can be."""
        try:
            return await to_thread.run_sync(self._ledger.load)
        except TrustError as error:
            self._report_failure(Record(), place, error, 0.0, self.breaker(Record()))
            raise

    @contextmanager
    def _located(self, place: str) -> Iterator[None]:
        """Have every error say which check failed and where, as a FetchError does by itself."""
        try:
            yield
        except ManifestError as error:
            error.message = f"{error.reason}: {printable(place)}: {error.message}"
            raise
        except OSError as error:
            cache, state = self._cache.directory, self._ledger.path.parent
            what = f"{error.strerror or error}, in {cache} or {state}"
            raise OneiricError(what, hint=f"df -h {cache} {state}") from error

    async def _counted(self, settings: RemoteSettings, place: str, record: Record, permit: Permit) -> SyncReport:
        """Carry out one round and count how it went; one that is cancelled proves nothing."""
        started, before = anyio.current_time(), self.breaker(record).state(self._now())
        outcome: Breaker | None = None
        try:
            report = await self._round(settings, place, record)
            report = replace(report, duration=anyio.current_time() - started)
            outcome = self.breaker(record).succeeded()
            count = partial(ledger.succeeded, url=report.url, duration=report.duration, breaker=outcome)
            await self._save(partial(count, now=self._now()))
            self._tell(report)
            return report
        except Exception as error:  # whatever it is, it is counted, or nobody would know that nothing is synchronised
            outcome = outcome or self.breaker(record).failed(self._now(), permit)
            duration = anyio.current_time() - started
            text = self._report_failure(record, place, error, duration, outcome)
            count = partial(ledger.failed, duration=duration, breaker=outcome, error=text)
            await self._save(partial(count, now=self._now()))
            raise
        finally:
            self._breaker = outcome if outcome is not None else self.breaker(record).withdrawn(permit)
            after = self._breaker.state(self._now())
            if after is not before:
                self._emit("circuit-breaker-changed", source=SOURCE, state=after.value, previous=before.value)

    async def _round(
        self, settings: RemoteSettings, place: str, record: Record, *, dry_run: bool = False
    ) -> SyncReport:
        policy = await to_thread.run_sync(self._policy, settings)
        current = await self._current(policy, record)
        artifacts: dict[str, Artifact] = {}
        try:
            async with self._fetcher(
                idle_timeout=settings.timeout,
                allow=allowed_by(settings.allowed_hosts),
                allow_plain_http=settings.allow_plain_http,
            ) as fetcher:
                source = await to_thread.run_sync(
                    partial(open_source, place, fetcher, settings=settings, cache=self._cache, token=self._token)
                )
                etag = current.etag if current is not None and current.place == place else None
                fetched, place = await self._fetch(source, settings, place, etag)
                if current is not None and await self._is_current(fetched, current):
                    return self._unchanged(current, fetched, policy, place)
                if not isinstance(fetched, Fetched):
                    what = f"http: {printable(place)}: 304 without being asked for it"
                    raise FetchError(what, reason="http")
                judge = partial(verify, fetched, place=place, policy=policy)
                verified = await to_thread.run_sync(partial(judge, floor=record.floor, now=self._now()))
                collector = self._collector(settings, source)
                artifacts = await collector.collect(verified.manifest.entries, keep=not dry_run)
            report = report_of(verified.manifest, "success", printable(place), warnings=verified.warnings)
            report = replace(report, fetched=collector.fetched)
            if dry_run:
                return report
            with anyio.CancelScope(shield=True):  # what is kept is also published
                keep = partial(self._keep, fetched.content, verified, judge=judge, before=record.floor, url=report.url)
                verified = await to_thread.run_sync(keep)
                await self._put_in_force(
                    verified, artifacts, policy=policy, report=report, place=place, etag=fetched.etag
                )
            return report
        finally:
            release(artifacts)

    async def _current(self, policy: TrustPolicy, record: Record) -> _InForce | None:
        """Return what is in force, if it is the same as what is remembered, cached and asked for by the settings."""
        current = self._in_force
        if current is None or (current.policy, current.floor) != (policy, record.floor):
            return None
        cached = await to_thread.run_sync(self._cache.fingerprint)
        return current if current.cached == cached else None

    async def _is_current(self, fetched: Fetched | NotModified, current: _InForce) -> bool:
        if isinstance(fetched, NotModified):
            return True
        digest = await to_thread.run_sync(lambda: hashlib.sha256(fetched.content).hexdigest())
        return digest == current.digest

    def _unchanged(
        self, current: _InForce, fetched: Fetched | NotModified, policy: TrustPolicy, place: str
    ) -> SyncReport:
        """Leave in force what is; it may have expired meanwhile."""
        require_fresh(current.head, policy_for(fetched, policy), floor=current.floor, now=self._now())
        etag = fetched.etag if isinstance(fetched, Fetched) else current.etag
        self._in_force = current._replace(place=place, etag=etag)
        return replace(current.report, outcome="unchanged", url=printable(place), fetched=0)

    async def _fetch(
        self, source: Source, settings: RemoteSettings, place: str, etag: str | None
    ) -> tuple[Fetched | NotModified, str]:
        """Fetch the manifest from the first place that gives it; each is asked again while its failure may pass."""
        failures: list[FetchError] = []
        mirrors = (url for url in settings.mirrors if is_tuf(url) == is_tuf(place))
        for url in dict.fromkeys((place, *mirrors)):
            try:
                return await self._patiently(partial(source.manifest, url, etag=etag if url == place else None)), url
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

    def _collector(self, settings: RemoteSettings, source: Source | None) -> Collector:
        return Collector(
            cache=self._cache,
            source=source,
            limit_bytes=settings.max_artifact_bytes,
            patiently=self._patiently,
            emit=self._emit,
            now=self._now,
            progress=self._progress,
        )

    # What follows

    def _keep(
        self, content: bytes, verified: VerifiedManifest, *, judge: _Judge, before: Floor | None, url: str
    ) -> VerifiedManifest:
        """Keep a manifest that was verified against the floor *before*; return it as it is accepted.

        The floor goes last: after a crash in between the next start verifies what is cached, and takes its floor over.
        """
        with self._cache.lock(), self._ledger.lock():
            record = self._ledger.load()
            if record.floor != before:  # another process accepted one meanwhile
                verified = judge(floor=record.floor, now=self._now())
            with self._ledger.staged(ledger.accepted(record, verified, url=url, now=self._now())) as commit:
                self._cache.write_manifest(content)
                commit()
        return verified

    async def _put_in_force(
        self,
        verified: VerifiedManifest,
        artifacts: dict[str, Artifact],
        *,
        policy: TrustPolicy,
        report: SyncReport,
        place: str,
        etag: str | None,
    ) -> None:
        """Publish what *verified* offers; the candidates take the artifacts over."""
        paths = {MANIFEST, *(f"{ARTIFACTS}/{name}" for name in artifacts)}
        candidates = await to_thread.run_sync(offers, verified.manifest, artifacts)
        artifacts.clear()
        if self._publish is not None:
            await self._publish(candidates)
        head = msgspec.structs.replace(verified.manifest, entries=())
        cached = await to_thread.run_sync(self._cache.fingerprint)
        is_whole = paths <= cached.keys()
        self._in_force = _InForce(
            head, verified.digest, policy, verified.floor, report, place, etag, cached if is_whole else None
        )

    async def _save(self, change: Callable[[Record], Record]) -> None:
        """Keep the counters; a full disk is reported and stops nothing."""
        try:
            await to_thread.run_sync(self._ledger.update, change)
        except (OneiricError, OSError) as error:
            self._emit("state-degraded", error=f"{self._ledger.path}: {describe(error)}")

    def _report_failure(self, record: Record, place: str, error: Exception, duration: float, breaker: Breaker) -> str:
        """Report *error*; return its words."""
        reason, text = reason_of(error), words_of(error)
        if reason in SIGNATURE_REASONS:
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
        return text

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


def _taken_over(last: Record, *, before: Record, verified: VerifiedManifest, url: str, now: datetime) -> Record:
    """Return what to remember once *verified* was found in the cache; what another process accepted since stays."""
    return last if last.floor != before.floor else ledger.accepted(last, verified, url=printable(url), now=now)


def _expired_at(record: Record, policy: TrustPolicy) -> datetime | None:
    """Return when the manifest that was accepted last expired, or will; None where it never does."""
    signed_at = record.floor.signed_at if record.floor is not None else None
    too_old_at = None if policy.max_age is None or signed_at is None else signed_at + timedelta(seconds=policy.max_age)
    return min((at for at in (record.expires_at, too_old_at) if at is not None), default=None)
