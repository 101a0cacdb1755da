"""The pinned root of a TUF repository, and what was accepted under it and is used again without the network.

python-tuf is not needed here: whatever verified the manifest then, the state directory remembers what it was.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from oneiric.core.config import RemoteSettings
from oneiric.core.keys import TrustedKey
from oneiric.core.trust import TrustPolicy, VerifiedManifest, verify_manifest
from oneiric.errors import ConfigError, Problem, TrustError
from oneiric.remote.ledger import Record

_SCHEME: Final = "tuf+"
_LIMIT_BYTES: Final = 512_000
"""What python-tuf takes of a root, too."""
_SYNC: Final = "oneiric remote-sync, when the network is there"


def is_tuf(url: str) -> bool:
    """Say whether *url* is that of a TUF repository: ``tuf+https:``, ``tuf+http:`` or ``tuf+file:``."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def address_of(url: str) -> str:
    """Return where the repository of a TUF *url* is, with a slash at its end."""
    address = url[len(_SCHEME) :]
    return address if address.endswith("/") else f"{address}/"


class PinnedRoot(NamedTuple):
    """The root metadata that the operator trusts, as it came from the publisher."""

    content: bytes

    @property
    def id(self) -> str:
        """What tells it from others."""
        return f"tuf-{hashlib.sha256(self.content).hexdigest()[:16]}"

    def key(self, key_id: str) -> TrustedKey:
        """Return a key of the repository as a floor remembers it: under another root it is another key."""
        return TrustedKey(f"{self.id}-{key_id[:16]}", b"")


def read_root(settings: RemoteSettings) -> PinnedRoot:
    """Return the root that ``remote.tuf_root`` names, relative to the working directory. Blocks.

    Raises ConfigError when there is none.
    """
    accepted = "the path of the repository's root.json, as the publisher gave it to you"
    if settings.tuf_root is None:
        raise ConfigError(Problem("remote.tuf_root", "is not set, and a tuf+ URL is trusted by nothing else", accepted))
    try:
        with Path(settings.tuf_root).open("rb") as file:
            content = file.read(_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        what = f"{settings.tuf_root}: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(Problem("remote.tuf_root", what, accepted)) from error
    if len(content) > _LIMIT_BYTES:
        what = f"{settings.tuf_root}: larger than the {_LIMIT_BYTES:,} bytes that a root may have"
        raise ConfigError(Problem("remote.tuf_root", what, accepted))
    return PinnedRoot(content)


def verify_kept(
    content: bytes, *, record: Record, place: str, settings: RemoteSettings, policy: TrustPolicy, now: datetime
) -> VerifiedManifest:
    """Return the manifest that was accepted before, as *record* has it, if it may still be acted on. Blocks.

    A plain one is vouched for by its signatures. One of a TUF repository is the very one that the repository's metadata
    vouched for under the root that is pinned now, no longer than ``remote.max_stale`` ago.

    Raises ManifestError, TrustError or ConfigError.
    """
    if not is_tuf(place):
        return verify_manifest(content, policy=policy, floor=record.floor, now=now, url=place)
    root = read_root(settings)
    signers = record.key_ids
    if not signers or not all(signer.startswith(f"{root.id}-") for signer in signers):
        what = "the cached manifest was not accepted under the root that remote.tuf_root names"
        raise TrustError(what, reason="signature", hint=_SYNC)
    confirmed_at = record.last_success_at or record.accepted_at
    if confirmed_at is None or (now - confirmed_at).total_seconds() > settings.max_stale:
        what = "the repository last vouched for the cached manifest longer ago than remote.max_stale allows"
        raise TrustError(what, reason="stale", hint=_SYNC)
    policy = msgspec.structs.replace(
        policy, keys=tuple(TrustedKey(signer, b"") for signer in signers), threshold=1, allowed_hosts=()
    )
    verified = verify_manifest(
        content, policy=policy, floor=record.floor, now=now, url=address_of(place), vouched_by=signers
    )
    if record.floor is None or verified.floor.digest != record.floor.digest:
        raise TrustError("the cached manifest is not the one that was accepted", reason="digest", hint=_SYNC)
    return verified
