"""One small interface for the ways to a manifest and its artifacts.

Whatever the way, the same checks of what a manifest says and names follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import msgspec

from oneiric.core.config import RemoteSettings
from oneiric.core.keys import TrustedKey
from oneiric.core.manifest import Entry
from oneiric.core.trust import Floor, TrustPolicy, VerifiedManifest, verify_manifest
from oneiric.remote.fetch import Fetched, NotModified
from oneiric.remote.urls import origin_of

Token = Callable[[], str | None]

_BASE_DEADLINE: Final = 30.0
_SLOWEST: Final = 16 * 1024
"""Bytes a second below which a server is taken for one that wants to keep us waiting."""
_UNKNOWN_LENGTH: Final = 64 << 20


class Source(Protocol):
    """One round's way to a manifest and to what it names. Raises FetchError, and TrustError where it vouches itself."""

    async def manifest(self, url: str, *, etag: str | None) -> Fetched | NotModified:
        """Return the manifest at *url*; NotModified if it is still what *etag* stands for."""
        ...

    async def artifact(self, entry: Entry) -> Fetched | NotModified:
        """Return the artifact that *entry* of the manifest names."""
        ...


@dataclass(frozen=True, slots=True)
class Vouched(Fetched):
    """A manifest for which others than its own signatures vouch: *signers* among *keys*, *threshold* of them enough."""

    keys: tuple[TrustedKey, ...]
    threshold: int
    signers: tuple[str, ...]


def deadline_of(length: int | None, limit_bytes: int) -> float:
    """Return the seconds in which an artifact must be here."""
    return _BASE_DEADLINE + (length or min(_UNKNOWN_LENGTH, limit_bytes)) / _SLOWEST


def token_for(url: str, *, settings: RemoteSettings, token: Token) -> str | None:
    """Return the token to send for the manifest at *url*: a mirror, or another place somebody typed, gets none.

    It was given for the origin of ``remote.manifest_url``; where that is not set, for any that is named instead.
    """
    home = settings.manifest_url
    if home is None:
        return token()
    try:
        is_home = origin_of(url.removeprefix("tuf+")) == origin_of(home.removeprefix("tuf+"))
    except ValueError:  # a file
        return None
    return token() if is_home else None


def policy_for(found: Fetched | NotModified, policy: TrustPolicy) -> TrustPolicy:
    """Return what makes *found* acceptable: *policy*, with the keys that vouch for it where those are others."""
    if not isinstance(found, Vouched):
        return policy
    return msgspec.structs.replace(policy, keys=found.keys, threshold=found.threshold, allowed_hosts=())


def verify(found: Fetched, *, place: str, policy: TrustPolicy, floor: Floor | None, now: datetime) -> VerifiedManifest:
    """Return the manifest found at *place* if it may be acted on; as ``verify_manifest``."""
    vouched_by = found.signers if isinstance(found, Vouched) else ()
    url = found.url if isinstance(found, Vouched) else place
    policy = policy_for(found, policy)
    return verify_manifest(found.content, policy=policy, floor=floor, now=now, url=url, vouched_by=vouched_by)
