"""The manifest in the cache: whether the next start may act on it, what it names, and what nobody names any more.

Every function here blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from oneiric.core.config import RemoteSettings
from oneiric.core.manifest import Entry, parse_manifest, read_packed, read_strictly
from oneiric.core.trust import TrustPolicy, VerifiedManifest
from oneiric.errors import ManifestError, TrustError
from oneiric.remote.cache import Cache, artifact_name
from oneiric.remote.ledger import Record
from oneiric.remote.pinned import verify_kept


class Kept(NamedTuple):
    """A cached manifest that may be acted on, and what an operator should know about its age."""

    verified: VerifiedManifest
    stale: tuple[str, ...]


PRUNED: Final = 1000
"""How many artifacts are removed after one manifest; what is left goes after the next."""
_PATIENCE: Final = 1.0


def place_of(record: Record, settings: RemoteSettings) -> str:
    """Return where the cached manifest came from; the addresses of its artifacts are judged by it."""
    return record.url or settings.manifest_url or ""


def verify_cached(
    content: bytes, *, record: Record, settings: RemoteSettings, policy: TrustPolicy, now: datetime
) -> Kept:
    """Return the cached manifest if a start may use it, without the network.

    One that expired since it was accepted is good for ``remote.max_stale`` seconds more, and said to be stale.

    Raises ManifestError, TrustError or ConfigError.
    """
    place = place_of(record, settings)
    verify = partial(verify_kept, content, record=record, place=place, settings=settings, policy=policy)
    try:
        return Kept(verify(now=now), ())
    except TrustError as error:
        expired_at = _expired_at(record, policy)
        if error.reason != "expired" or expired_at is None:
            raise
        since = (now - expired_at).total_seconds()
        if since > settings.max_stale:
            raise
        fresh = verify(now=record.accepted_at or now)
        if record.floor is None or fresh.floor.digest != record.floor.digest:  # not the one that was accepted then
            raise
        return Kept(fresh, (f"stale: it expired {since:.0f} s ago, and remote.max_stale allows that at a start",))


def named_by(content: bytes) -> dict[str, str]:
    """Return the artifacts that the manifest *content* names, by the names under which they are cached, with digests.

    Nothing is trusted by it: the manifest is only asked what it names. Raises ManifestError when it cannot be read.
    """
    document = (read_packed(content) or read_strictly(content)).document
    return _named(parse_manifest(document).entries)


def prune(cache: Cache, accepted: VerifiedManifest, previous: bytes | None) -> tuple[str, ...]:
    """Remove the artifacts that neither the manifest *accepted* last nor the one before it names; return their names.

    So a publisher who goes on with what was there before finds it here. Where the *previous* one is not known, nothing
    is removed, and nothing while another process collects.

    Raises OneiricError and OSError as the cache does.
    """
    if previous is None or hashlib.sha256(previous).hexdigest() == accepted.digest:
        return ()
    try:
        named = named_by(previous).keys() | _named(accepted.manifest.entries).keys()
    except ManifestError:
        return ()
    with cache.lock(timeout=_PATIENCE):
        return cache.forget(named, most=PRUNED)


def _named(entries: Iterable[Entry]) -> dict[str, str]:
    return {artifact_name(e.sha256, e.uri): e.sha256 for e in entries if e.uri is not None and e.sha256 is not None}


def _expired_at(record: Record, policy: TrustPolicy) -> datetime | None:
    """Return when the manifest that was accepted last expired, or will; None where it never does."""
    signed_at = record.floor.signed_at if record.floor is not None else None
    too_old_at = None if policy.max_age is None or signed_at is None else signed_at + timedelta(seconds=policy.max_age)
    return min((at for at in (record.expires_at, too_old_at) if at is not None), default=None)
