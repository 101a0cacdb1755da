"""What is remembered of the manifest's source: the trust floor, counters and the breaker, in one file of the state dir.

The floor is what keeps an old manifest out, so a file that cannot be read is not the same as none: it fails closed.
Every function here blocks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from oneiric.core.breaker import Breaker
from oneiric.core.trust import Floor, VerifiedManifest
from oneiric.errors import OneiricError, TrustError
from oneiric.remote import files

FILE: Final = "remote.json"
LOCK: Final = "remote.lock"
_LIMIT_BYTES: Final = 1 << 20


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is remembered; instants are None where nothing happened yet."""

    source: str = ""
    url: str = ""
    floor: Floor | None = None
    accepted_at: datetime | None = None
    expires_at: datetime | None = None
    manifest_version: int | None = None
    key_ids: tuple[str, ...] = ()
    registrations: dict[str, int] = {}
    successes: int = 0
    failures: int = 0
    consecutive_failures: int = 0
    last_sync_at: datetime | None = None
    last_success_at: datetime | None = None
    last_duration: float = 0.0
    last_error: str = ""
    last_reason: str = ""
    last_key_ids: tuple[str, ...] = ()
    breaker: dict[str, Any] = {}


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds: a record as JSON, and the SHA-256 of that, by which damage is told from an older floor."""

    sha256: str
    record: msgspec.Raw


def accepted(record: Record, verified: VerifiedManifest, *, url: str, now: datetime) -> Record:
    """Return the record once *verified* is accepted; its floor keeps older ones out from now on."""
    manifest = verified.manifest
    return msgspec.structs.replace(
        record,
        source=manifest.source,
        url=url,
        floor=verified.floor,
        accepted_at=now,
        expires_at=manifest.expires_at,
        manifest_version=manifest.manifest_version,
        key_ids=tuple(sorted(verified.key_ids)),
        registrations=dict(Counter(entry.domain for entry in manifest.entries)),
    )


def succeeded(record: Record, *, url: str, now: datetime, duration: float, breaker: Breaker | None) -> Record:
    """Return the record after a round that went well, with the manifest from *url*.

    Without a *breaker* the round was none of the configured source, and what is wrong with that stays remembered.
    """
    record = msgspec.structs.replace(
        record,
        url=url,
        successes=record.successes + 1,
        last_sync_at=now,
        last_duration=duration,
    )
    if breaker is None:
        return record
    return msgspec.structs.replace(
        record,
        last_success_at=now,
        consecutive_failures=0,
        last_error="",
        last_reason="",
        last_key_ids=(),
        breaker=breaker.to_record(),
    )


def failed(
    record: Record,
    *,
    now: datetime,
    duration: float,
    breaker: Breaker | None,
    error: str,
    reason: str = "",
    key_ids: tuple[str, ...] = (),
) -> Record:
    """Return the record after a round that failed; without a *breaker* it was none of the configured source.

    Args:
        reason: why, in one word.
        key_ids: by which keys the manifest that was refused says it is signed.
    """
    record = msgspec.structs.replace(record, failures=record.failures + 1, last_sync_at=now, last_duration=duration)
    if breaker is None:
        return record
    return msgspec.structs.replace(
        record,
        consecutive_failures=record.consecutive_failures + 1,
        last_error=error,
        last_reason=reason,
        last_key_ids=key_ids,
        breaker=breaker.to_record(),
    )


class Ledger:
    """Keeps a Record in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE

    def load(self) -> Record:
        """Return what is remembered, an empty record when nothing ever was.

        Raises TrustError when the file is there and cannot be read as ours.
        """
        try:
            with files.opened(self.path.parent) as here:
                content = files.read(here, FILE, _LIMIT_BYTES)
            return Record() if content is None else _decoded(content)
        except FileNotFoundError:
            return Record()
        except OneiricError as error:
            raise TrustError(error.message, reason="state", hint=error.hint) from error
        except (OSError, msgspec.DecodeError, ValueError, RecursionError) as error:
            raise TrustError(
                f"{self.path}, which keeps old manifests out, cannot be read: {error}",
                reason="state",
                hint=f"restore {self.path} from a backup, or remove it to accept any version the publisher signed",
            ) from error

    def lock(self) -> AbstractContextManager[None]:
        """Keep every other process from changing what is remembered, between a look at it and ``staged``."""
        return files.locked(self.path.parent, LOCK)

    @contextmanager
    def staged(self, record: Record) -> Iterator[Callable[[], None]]:
        """Get *record* to the disk; calling what is given makes it what is remembered. Hold the lock.

        The old one stays, whenever the machine stops before that; raises OSError when the disk fails.
        """
        with files.opened(self.path.parent, make=True) as here:
            files.sweep(here)
            with files.staged(here, FILE, _encoded(record)) as commit:
                yield commit

    def update(self, change: Callable[[Record], Record]) -> None:
        """Remember what *change* makes of what is remembered now; takes the lock."""
        with self.lock(), self.staged(change(self.load())) as commit:
            commit()


def _encoded(record: Record) -> bytes:
    content = msgspec.json.encode(record)
    return msgspec.json.encode(_Kept(hashlib.sha256(content).hexdigest(), msgspec.Raw(content)))


def _decoded(content: bytes) -> Record:
    kept = msgspec.json.decode(content, type=_Kept)
    if hashlib.sha256(kept.record).hexdigest() != kept.sha256:
        raise ValueError("it is not what was written")
    return msgspec.json.decode(kept.record, type=Record)
