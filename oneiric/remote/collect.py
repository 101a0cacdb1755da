"""The artifacts that a manifest names: from the cache when they are right, else fetched; all verified, or none used."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final

import anyio
from anyio import to_thread

from oneiric.core.manifest import Entry
from oneiric.errors import FetchError, OneiricError, TrustError
from oneiric.observability.logs import Emit
from oneiric.remote.artifact import Artifact, DigestError
from oneiric.remote.cache import Cache, artifact_name
from oneiric.remote.fetch import Fetched, NotModified
from oneiric.remote.source import Source
from oneiric.remote.urls import printable

Progress = Callable[[int, int], None]
"""Receives how many artifacts are here, and how many there are."""
AT_ONCE: Final = 4
TOTAL_BYTES: Final = 2 << 30
"""How much one synchronisation may fetch."""


class Collector:
    """Collects the artifacts of one manifest.

    Args:
        source: where the manifest came from; None collects from the cache alone.
        limit_bytes: the size of the largest artifact that is accepted.
        patiently: calls again while a failure may pass.
        progress: is told about every artifact that is here.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        source: Source | None,
        limit_bytes: int,
        patiently: Callable[[Callable[[], Awaitable[Fetched | NotModified]]], Awaitable[Fetched | NotModified]],
        emit: Emit,
        now: Callable[[], datetime],
        progress: Progress = lambda _here, _all: None,
    ) -> None:
        self.fetched = 0
        self._received = 0
        self._cache = cache
        self._source = source
        self._limit_bytes = limit_bytes
        self._patiently = patiently
        self._emit = emit
        self._now = now
        self._progress = progress
        self._failures: list[Exception] = []

    async def collect(self, entries: Iterable[Entry], *, keep: bool = True) -> dict[str, Artifact]:
        """Return every artifact that *entries* name, opened, by the name under which it is cached.

        Args:
            keep: whether the cache may change: what is fetched goes into it, and what is wrong becomes evidence.

        Raises FetchError, TrustError or ManifestError for the first that is not to be had; then none stays open.
        """
        wanted = {name_of(entry): entry for entry in entries if entry.uri is not None}
        if keep and self._source is not None:
            await to_thread.run_sync(self._require_room, wanted)
        opened: dict[str, Artifact] = {}
        turns = anyio.CapacityLimiter(AT_ONCE)

        def arrived(entry: Entry, artifact: Artifact) -> None:
            opened[name_of(entry)] = artifact
            self._progress(len(opened), len(wanted))

        try:
            async with anyio.create_task_group() as tasks:
                for entry in wanted.values():
                    tasks.start_soon(self._one, entry, turns, arrived, keep, tasks.cancel_scope)
        except BaseException:
            release(opened)
            raise
        if self._failures:
            release(opened)
            raise self._failures[0]
        return opened

    async def _one(
        self,
        entry: Entry,
        turns: anyio.CapacityLimiter,
        arrived: Callable[[Entry, Artifact], None],
        keep: bool,
        others: anyio.CancelScope,
    ) -> None:
        async with turns:
            try:
                arrived(entry, await self._cached(entry, keep=keep) or await self._fetched(entry, keep=keep))
            except Exception as error:  # the first failure ends the collection, outside of an exception group
                self._failures.append(error)
                others.cancel()

    async def _cached(self, entry: Entry, *, keep: bool) -> Artifact | None:
        """Return an artifact from the cache if it is right there; what is wrong becomes evidence."""
        name = name_of(entry)
        content = await to_thread.run_sync(self._cache.read_artifact, name, self._limit_bytes)
        if content is None:
            return None
        try:
            return await self._open(entry, content, origin="cache")
        except TrustError:
            if keep:
                evidence = partial(self._cache.quarantine, name, at=self._now().isoformat())
                with suppress(OSError):  # what replaces it takes its place all the same
                    await to_thread.run_sync(evidence)
            return None

    async def _fetched(self, entry: Entry, *, keep: bool) -> Artifact:
        name = name_of(entry)
        if self._source is None:
            raise TrustError(
                f"artifact {name} is not in the cache, or not what it was",
                reason="digest",
                hint="oneiric remote-sync, when the network is there",
            )
        content = await self._fetch(self._source, entry)
        self._count(content)
        try:
            artifact = await self._open(entry, content, origin="fetched")
        except DigestError:
            evidence = partial(self._cache.keep_evidence, name, content, at=self._now().isoformat())
            with suppress(OSError, OneiricError):
                if keep:
                    await to_thread.run_sync(evidence)
            raise
        try:
            if keep:
                await to_thread.run_sync(self._cache.write_artifact, name, content)
        except BaseException:
            artifact.release()
            raise
        self.fetched += 1
        return artifact

    async def _fetch(self, source: Source, entry: Entry) -> bytes:
        fetched = await self._patiently(partial(source.artifact, entry))
        if not isinstance(fetched, Fetched):
            raise FetchError(f"http: {printable(entry.uri or '')}: 304 without being asked for it", reason="http")
        return fetched.content

    async def _open(self, entry: Entry, content: bytes, *, origin: str) -> Artifact:
        """Verify and open; each check of a digest is reported, with where the bytes come from."""
        name = name_of(entry)
        published = name.partition("-")[2]
        make = partial(Artifact.open, published, content, sha256=entry.sha256 or "", length=entry.length)
        told = {"artifact": name, "expected_digest": entry.sha256 or "", "origin": origin}
        try:
            artifact = await to_thread.run_sync(make)
        except DigestError as error:
            self._emit("digest-check-failed", **told, actual_digest=error.actual)
            raise
        self._emit("digest-check-success", **told, actual_digest=entry.sha256 or "")
        return artifact

    def _require_room(self, wanted: Mapping[str, Entry]) -> None:
        """Refuse to begin what the disk cannot take."""
        cached = set(self._cache.names())
        need = sum(entry.length or 0 for name, entry in wanted.items() if name not in cached)
        with suppress(OSError):
            directory = self._cache.directory
            free = shutil.disk_usage(directory if directory.exists() else directory.absolute().parent).free
            if need * 1.1 > free:
                raise FetchError(
                    f"size: {need:,} bytes are needed in {directory}, {free:,} are free",
                    reason="size",
                    hint=f"free some space: oneiric cache prune; df -h {directory}",
                )

    def _count(self, content: bytes) -> None:
        """Refuse more than we take in all, whatever lengths the manifest gives or leaves out."""
        self._received += len(content)
        if self._received > TOTAL_BYTES:
            raise FetchError(
                f"size: the artifacts have more than the {TOTAL_BYTES:,} bytes that one synchronisation takes",
                reason="size",
                hint="publish fewer or smaller artifacts",
            )


def name_of(entry: Entry) -> str:
    """Return the name under which the artifact of *entry* is cached."""
    return artifact_name(entry.sha256 or "", entry.uri or "")


def release(opened: Mapping[str, Artifact]) -> None:
    """Let go of artifacts."""
    for artifact in opened.values():
        artifact.release()
