"""The artifacts that a manifest names: from the cache when they are right, else fetched; all verified, or none used."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final

import anyio
from anyio import to_thread

from oneiric.core.manifest import Entry
from oneiric.errors import FetchError, TrustError
from oneiric.observability.logs import Emit
from oneiric.remote.artifact import Artifact, DigestError
from oneiric.remote.cache import Cache, artifact_name
from oneiric.remote.fetch import Fetched, Fetcher, NotModified
from oneiric.remote.urls import printable

AT_ONCE: Final = 4
TOTAL_BYTES: Final = 2 << 30
"""How much one synchronisation may fetch."""
_BASE_DEADLINE: Final = 30.0
_SLOWEST: Final = 16 * 1024
"""Bytes a second below which a server is taken for one that wants to keep us waiting."""
_UNKNOWN_LENGTH: Final = 64 << 20


class Collector:
    """Collects the artifacts of one manifest.

    Args:
        fetcher: None collects from the cache alone.
        limit_bytes: the size of the largest artifact that is accepted.
        patiently: calls again while a failure may pass.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        fetcher: Fetcher | None,
        manifest_url: str,
        limit_bytes: int,
        patiently: Callable[[Callable[[], Awaitable[Fetched | NotModified]]], Awaitable[Fetched | NotModified]],
        token: Callable[[], str | None],
        emit: Emit,
        now: Callable[[], datetime],
    ) -> None:
        self.fetched = 0
        self._cache = cache
        self._fetcher = fetcher
        self._manifest_url = manifest_url
        self._limit_bytes = limit_bytes
        self._patiently = patiently
        self._token = token
        self._emit = emit
        self._now = now
        self._failures: list[Exception] = []

    async def collect(self, entries: Iterable[Entry], *, keep: bool = True) -> dict[str, Artifact]:
        """Return every artifact that *entries* name, opened, by digest.

        Args:
            keep: whether what is fetched goes into the cache.

        Raises FetchError, TrustError or ManifestError for the first that is not to be had; then none stays open.
        """
        wanted = {entry.sha256: entry for entry in entries if entry.uri is not None and entry.sha256 is not None}
        self._require_room(wanted.values())
        opened: dict[str, Artifact] = {}
        turns = anyio.CapacityLimiter(AT_ONCE)
        try:
            async with anyio.create_task_group() as tasks:
                for entry in wanted.values():
                    tasks.start_soon(self._one, entry, turns, opened, keep, tasks.cancel_scope)
        except BaseException:
            _release(opened)
            raise
        if self._failures:
            _release(opened)
            raise self._failures[0]
        return opened

    async def _one(
        self,
        entry: Entry,
        turns: anyio.CapacityLimiter,
        opened: dict[str, Artifact],
        keep: bool,
        others: anyio.CancelScope,
    ) -> None:
        async with turns:
            try:
                opened[entry.sha256 or ""] = await self._cached(entry) or await self._fetched(entry, keep=keep)
            except Exception as error:  # the first failure ends the collection, outside of an exception group
                self._failures.append(error)
                others.cancel()

    async def _cached(self, entry: Entry) -> Artifact | None:
        """Return an artifact from the cache if it is right there; what is wrong becomes evidence."""
        name = artifact_name(entry.sha256 or "", entry.uri or "")
        content = await to_thread.run_sync(self._cache.read_artifact, name, self._limit_bytes)
        if content is None:
            return None
        try:
            return await self._open(entry, content)
        except TrustError:
            await to_thread.run_sync(partial(self._cache.quarantine, name, at=self._now().isoformat()))
            return None

    async def _fetched(self, entry: Entry, *, keep: bool) -> Artifact:
        name = artifact_name(entry.sha256 or "", entry.uri or "")
        if self._fetcher is None:
            raise TrustError(
                f"artifact {name} is not in the cache, or not what it was",
                reason="digest",
                hint="oneiric remote-sync, when the network is there",
            )
        content = await self._fetch(self._fetcher, entry)
        try:
            artifact = await self._open(entry, content)
        except DigestError:
            evidence = partial(self._cache.keep_evidence, name, content, at=self._now().isoformat())
            with suppress(OSError):
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

    async def _fetch(self, fetcher: Fetcher, entry: Entry) -> bytes:
        ask = partial(
            fetcher.fetch,
            entry.uri or "",
            limit_bytes=min(entry.length or self._limit_bytes, self._limit_bytes),
            deadline=_BASE_DEADLINE + (entry.length or min(_UNKNOWN_LENGTH, self._limit_bytes)) / _SLOWEST,
            same_origin_as=self._manifest_url,
            token=self._token(),
        )
        fetched = await self._patiently(ask)
        if not isinstance(fetched, Fetched):
            raise FetchError(f"http: {printable(entry.uri or '')}: 304 without being asked for it", reason="http")
        return fetched.content

    async def _open(self, entry: Entry, content: bytes) -> Artifact:
        """Verify and open; each check of a digest is reported."""
        name = artifact_name(entry.sha256 or "", entry.uri or "")
        published = name.partition("-")[2]
        make = partial(Artifact.open, published, content, sha256=entry.sha256 or "", length=entry.length)
        told = {"artifact": name, "expected_digest": entry.sha256 or ""}
        try:
            artifact = await to_thread.run_sync(make)
        except DigestError as error:
            self._emit("digest-check-failed", **told, actual_digest=error.actual)
            raise
        self._emit("digest-check-success", **told, actual_digest=entry.sha256 or "")
        return artifact

    def _require_room(self, wanted: Iterable[Entry]) -> None:
        """Refuse to begin what cannot end well: more than we take, or than the disk has."""
        need = sum(entry.length or 0 for entry in wanted)
        if need > TOTAL_BYTES:
            raise FetchError(
                f"size: the manifest names {need:,} bytes of artifacts, and one synchronisation takes {TOTAL_BYTES:,}",
                reason="size",
                hint="publish fewer or smaller artifacts",
            )
        with suppress(OSError):
            directory = self._cache.directory
            free = shutil.disk_usage(directory if directory.exists() else directory.absolute().parent).free
            if need * 1.1 > free:
                raise FetchError(
                    f"size: {need:,} bytes are needed in {directory}, {free:,} are free",
                    reason="size",
                    hint=f"free some space: oneiric cache prune; df -h {directory}",
                )


def _release(opened: dict[str, Artifact]) -> None:
    for artifact in opened.values():
        artifact.release()
