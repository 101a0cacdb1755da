"""One synchronisation: fetch, verify, collect what is named, keep, publish; whole or not at all.

Nothing is published before everything was verified and kept. Whatever goes wrong changes nothing that serves, is
reported and counted, and leaves the next round to try again.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import anyio
import msgspec
from anyio import to_thread

from oneiric.core.breaker import Breaker, Permit
from oneiric.core.candidate import Candidate
from oneiric.core.config import RemoteSettings
from oneiric.core.retry import Retry
from oneiric.core.trust import Floor, TrustPolicy, VerifiedManifest
from oneiric.errors import ConfigError, FetchError, ManifestError, OneiricError, Problem, TrustError
from oneiric.observability.describe import describe
from oneiric.observability.logs import Emit
from oneiric.remote import ledger
from oneiric.remote.artifact import Artifact
from oneiric.remote.cache import ARTIFACTS, MANIFEST, Cache
from oneiric.remote.collect import Collector, Progress, release
from oneiric.remote.fetch import Fetched, Fetcher, NotModified, retrying
from oneiric.remote.kept import place_of, prune, verify_cached
from oneiric.remote.ledger import Ledger, Record
from oneiric.remote.local import settled
from oneiric.remote.offers import offers
from oneiric.remote.places import Answer, InForce, Inquiry, places_of
from oneiric.remote.reports import SyncReport, reason_of, report_of
from oneiric.remote.source import Source, verify
from oneiric.remote.telling import ADHOC, Teller, source_of
from oneiric.remote.urls import allowed_by, printable

Publish = Callable[[tuple[Candidate[Any], ...]], Awaitable[None]]
"""Makes candidates the remote source's whole offer."""


class _Judge(Protocol):
    """Verifies what was fetched; as ``verify``."""

    def __call__(self, *, floor: Floor | None, now: datetime) -> VerifiedManifest:
        """Return the verified manifest."""
        ...


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
        self._in_force: InForce | None = None

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
            place = place_of(record, settings)
            policy = await to_thread.run_sync(self._policy, settings)
            check = partial(verify_cached, content, record=record, settings=settings, policy=policy, now=self._now())
            try:
                verified, stale = await to_thread.run_sync(check)
            except ManifestError as error:
                Teller(self._emit, self._source(place, settings)).refused(place, error)
                raise
            artifacts = await self._collector(settings, None).collect(verified.manifest.entries)
            try:
                report = report_of(verified.manifest, "success", printable(place), warnings=verified.warnings)
                if verified.floor != record.floor and not stale:  # a crash, or a loss of the state, came in between
                    await self._save(partial(_taken_over, before=record, verified=verified, url=place, now=self._now()))
                await self._put_in_force(verified, artifacts, policy=policy, report=report, place=place, etag=None)
            finally:
                release(artifacts)
            return replace(report, warnings=(*stale, *report.warnings))

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
            teller = Teller(self._emit, self._source(place, settings), is_rehearsal=dry_run)
            record = await self._remembered(place, teller)
            with self._located(place):
                if dry_run:  # a rehearsal counts for nothing: not in the ledger, not for the breaker, not as evidence
                    started = anyio.current_time()
                    report = await self._round(settings, place, record, teller)
                    return replace(report, duration=anyio.current_time() - started, dry_run=True)
                if teller.source == ADHOC and settings.manifest_url is not None:
                    return await self._counted(settings, place, record, None, teller)
                self._breaker, permit = self.breaker(record).ask(self._now(), force=force)
                if permit is Permit.REFUSED:
                    wait = self._breaker.wait(self._now())
                    reason = f"the circuit breaker is open for {wait:.0f} s more"
                    teller.skipped(place, reason)
                    return SyncReport("skipped", printable(place), reason=reason)
                return await self._counted(settings, place, record, permit, teller)

    def _source(self, place: str, settings: RemoteSettings) -> str:
        configured = filter(None, (settings.manifest_url, *settings.mirrors))
        return source_of(_spelled(place), configured=map(_spelled, configured))

    async def _remembered(self, place: str, teller: Teller) -> Record:
        """Return what the ledger has; that it cannot be read is reported, for nothing is fetched until it can be."""
        try:
            return await to_thread.run_sync(self._ledger.load)
        except TrustError as error:
            breaker = self.breaker(Record()).state(self._now()).value
            teller.failed(place, error, consecutive_failures=1, breaker=breaker, duration=0.0)
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

    async def _counted(
        self, settings: RemoteSettings, place: str, record: Record, permit: Permit | None, teller: Teller
    ) -> SyncReport:
        """Carry out one round and count how it went; one that is cancelled proves nothing.

        Without a *permit* it says nothing about the configured source: its breaker and its failures stay as they are.
        """
        started, before = anyio.current_time(), self.breaker(record).state(self._now())
        outcome: Breaker | None = None
        try:
            report = await self._round(settings, place, record, teller)
            report = replace(report, duration=anyio.current_time() - started)
            outcome = None if permit is None else self.breaker(record).succeeded()
            count = partial(ledger.succeeded, url=report.url, duration=report.duration, breaker=outcome)
            await self._save(partial(count, now=self._now()))
            teller.ended(report)
            return report
        except Exception as error:  # whatever it is, it is counted, or nobody would know that nothing is synchronised
            if permit is not None and outcome is None:
                outcome = self.breaker(record).failed(self._now(), permit)
            duration = anyio.current_time() - started
            text = teller.failed(
                place,
                error,
                consecutive_failures=record.consecutive_failures + (permit is not None),
                breaker=(outcome or self.breaker(record)).state(self._now()).value,
                duration=duration,
            )
            count = partial(
                ledger.failed,
                duration=duration,
                breaker=outcome,
                error=text,
                reason=reason_of(error),
                key_ids=tuple(getattr(error, "claimed", ())),
            )
            await self._save(partial(count, now=self._now()))
            raise
        finally:
            if permit is not None:
                self._breaker = outcome if outcome is not None else self.breaker(record).withdrawn(permit)
                after = self._breaker.state(self._now())
                if after is not before:
                    teller.breaker_changed(after.value, before.value)

    async def _round(self, settings: RemoteSettings, place: str, record: Record, teller: Teller) -> SyncReport:
        policy = await to_thread.run_sync(self._policy, settings)
        current = await self._current(policy, record)
        artifacts: dict[str, Artifact] = {}
        with ExitStack() as held:
            held.callback(release, artifacts)
            async with self._fetcher(
                idle_timeout=settings.timeout,
                allow=allowed_by(settings.allowed_hosts),
                allow_plain_http=settings.allow_plain_http,
            ) as fetcher:
                inquiry = Inquiry(
                    fetcher=fetcher,
                    settings=settings,
                    policy=policy,
                    floor=record.floor,
                    current=current,
                    cache=self._cache,
                    token=self._token,
                    now=self._now,
                    patiently=self._patiently,
                    teller=teller,
                )
                answer, fetched = await self._first_whole(inquiry, places_of(place, settings), artifacts, held)
            if answer.verified is None:
                report = self._unchanged(answer)
                return replace(report, warnings=(*report.warnings, *teller.passed_by()))
            verified = answer.verified
            report = report_of(verified.manifest, "success", printable(answer.url), warnings=verified.warnings)
            report = replace(report, fetched=fetched)
            if teller.is_rehearsal:
                return replace(report, warnings=(*report.warnings, *teller.passed_by()))
            before = await self._accept(answer, verified, artifacts, policy=policy, floor=record.floor, report=report)
        return replace(report, warnings=(*report.warnings, *teller.passed_by(), *await self._prune(verified, before)))

    async def _first_whole(
        self, inquiry: Inquiry, places: tuple[str, ...], artifacts: dict[str, Artifact], held: ExitStack
    ) -> tuple[Answer, int]:
        """Return the first answer of which every artifact is to be had, and how many were fetched.

        The artifacts, opened, are put into *artifacts*; the cache keeps them until *held* is closed. Raises what the
        first place failed with when there is none.
        """
        async with aclosing(inquiry.answers(places)) as answers:
            async for answer in answers:
                if answer.verified is None:
                    return answer, 0
                collector = self._collector(inquiry.settings, answer.source)
                entries, keep = answer.verified.manifest.entries, not inquiry.teller.is_rehearsal
                if keep and any(entry.uri is not None for entry in entries):
                    await to_thread.run_sync(held.enter_context, self._cache.collecting())
                try:
                    artifacts.update(await collector.collect(entries, keep=keep))
                except (FetchError, ManifestError) as error:
                    inquiry.teller.refused(answer.url, error)
                else:
                    return answer, collector.fetched
        raise inquiry.teller.refusals[0][1]

    async def _accept(
        self,
        answer: Answer,
        verified: VerifiedManifest,
        artifacts: dict[str, Artifact],
        *,
        policy: TrustPolicy,
        floor: Floor | None,
        report: SyncReport,
    ) -> bytes | None:
        """Keep and publish what was verified against *floor*; return the manifest that was cached before."""
        fetched, previous = answer.found, None
        assert isinstance(fetched, Fetched)  # noqa: S101 - what was verified was fetched
        with anyio.CancelScope(shield=True):  # what is kept is also published
            judge = partial(verify, fetched, place=answer.url, policy=policy)
            keep = partial(self._keep, fetched.content, verified, judge=judge, before=floor, url=report.url)
            verified, previous = await to_thread.run_sync(keep)
            await self._put_in_force(
                verified, artifacts, policy=policy, report=report, place=answer.url, etag=fetched.etag
            )
        return previous

    async def _prune(self, verified: VerifiedManifest, previous: bytes | None) -> tuple[str, ...]:
        """Remove what is needed no more from the cache; return a warning where that fails."""
        try:
            gone = await to_thread.run_sync(prune, self._cache, verified, previous)
        except (OneiricError, OSError) as error:
            return (f"artifacts that nothing names stay in the cache: {describe(error)}",)
        current = self._in_force
        if current is not None and current.cached is not None:
            paths = {f"{ARTIFACTS}/{name}" for name in gone}
            cached = {path: found for path, found in current.cached.items() if path not in paths}
            self._in_force = current._replace(cached=cached)
        return ()

    async def _current(self, policy: TrustPolicy, record: Record) -> InForce | None:
        """Return what is in force, if it is the same as what is remembered, cached and asked for by the settings."""
        current = self._in_force
        if current is None or (current.policy, current.floor) != (policy, record.floor):
            return None
        cached = await to_thread.run_sync(self._cache.fingerprint)
        return current if current.cached == cached else None

    def _unchanged(self, answer: Answer) -> SyncReport:
        """Leave in force what is."""
        current = self._in_force
        assert current is not None  # noqa: S101 - it was compared with the answer
        etag = answer.found.etag if isinstance(answer.found, Fetched) else current.etag
        self._in_force = current._replace(place=answer.url, etag=etag)
        return replace(current.report, outcome="unchanged", url=printable(answer.url), fetched=0)

    async def _patiently(self, ask: Callable[[], Awaitable[Fetched | NotModified]]) -> Fetched | NotModified:
        """Call *ask*, again while its failure may pass."""
        return await retrying(ask, retry=Retry(), chance=self._chance)

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
    ) -> tuple[VerifiedManifest, bytes | None]:
        """Keep a manifest that was verified against the floor *before*; return it as it is accepted, and the last one.

        The floor goes last: after a crash in between the next start verifies what is cached, and takes its floor over.
        """
        with self._cache.lock(), self._ledger.lock():
            record = self._ledger.load()
            if record.floor != before:  # another process accepted one meanwhile
                verified = judge(floor=record.floor, now=self._now())
            previous = self._cache.read_manifest(self._settings().max_manifest_bytes)
            with self._ledger.staged(ledger.accepted(record, verified, url=url, now=self._now())) as commit:
                self._cache.write_manifest(content)
                commit()
        return verified, previous

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
        self._in_force = InForce(
            head, verified.digest, policy, verified.floor, report, place, etag, cached if is_whole else None
        )

    async def _save(self, change: Callable[[Record], Record]) -> None:
        """Keep the counters; a full disk is reported and stops nothing."""
        try:
            await to_thread.run_sync(self._ledger.update, change)
        except (OneiricError, OSError) as error:
            self._emit("state-degraded", error=f"{self._ledger.path}: {describe(error)}")


def _spelled(url: str) -> str:
    """Return *url* as it is compared with others: a path in one spelling."""
    try:
        return settled(url)
    except FetchError:  # it names no file of ours, which whoever asks there is told
        return url


def _taken_over(last: Record, *, before: Record, verified: VerifiedManifest, url: str, now: datetime) -> Record:
    """Return what to remember once *verified* was found in the cache; what another process accepted since stays."""
    return last if last.floor != before.floor else ledger.accepted(last, verified, url=printable(url), now=now)
