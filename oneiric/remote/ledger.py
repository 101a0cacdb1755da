"""What is remembered of the manifest's source: the trust floor, counters and the breaker, in one file of the state dir.

The floor is what keeps an old manifest out, so a file that cannot be read is not the same as none: it fails closed.
Every function here blocks.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from oneiric.core.breaker import Breaker
from oneiric.core.trust import Floor, VerifiedManifest
from oneiric.errors import TrustError

FILE: Final = "remote.json"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is remembered; instants are None where nothing happened yet."""

    version: int = 1
    source: str = ""
    url: str = ""
    floor: Floor | None = None
    accepted_at: datetime | None = None
    expires_at: datetime | None = None
    manifest_version: int | None = None
    key_ids: tuple[str, ...] = ()
    registrations: dict[str, int] = {}
    etag: str = ""
    successes: int = 0
    failures: int = 0
    consecutive_failures: int = 0
    last_sync_at: datetime | None = None
    last_success_at: datetime | None = None
    last_duration: float = 0.0
    last_error: str = ""
    breaker: dict[str, Any] = {}


def accepted(record: Record, verified: VerifiedManifest, *, url: str, etag: str, now: datetime) -> Record:
    """Return the record once *verified* is accepted; its floor keeps older ones out from now on."""
    manifest = verified.manifest
    return msgspec.structs.replace(
        record,
        source=manifest.source,
        url=url,
        etag=etag,
        floor=verified.floor,
        accepted_at=now,
        expires_at=manifest.expires_at,
        manifest_version=manifest.manifest_version,
        key_ids=tuple(sorted(verified.key_ids)),
        registrations=dict(Counter(entry.domain for entry in manifest.entries)),
    )


def succeeded(record: Record, *, now: datetime, duration: float, breaker: Breaker) -> Record:
    """Return the record after a round that went well."""
    return msgspec.structs.replace(
        record,
        successes=record.successes + 1,
        consecutive_failures=0,
        last_sync_at=now,
        last_success_at=now,
        last_duration=duration,
        last_error="",
        breaker=breaker.to_record(),
    )


def failed(record: Record, *, now: datetime, duration: float, breaker: Breaker, error: str) -> Record:
    """Return the record after a round that failed."""
    return msgspec.structs.replace(
        record,
        failures=record.failures + 1,
        consecutive_failures=record.consecutive_failures + 1,
        last_sync_at=now,
        last_duration=duration,
        last_error=error,
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
            return msgspec.json.decode(self.path.read_bytes(), type=Record)
        except FileNotFoundError:
            return Record()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise TrustError(
                f"{self.path}, which keeps old manifests out, cannot be read: {error}",
                reason="state",
                hint=f"restore {self.path} from a backup, or remove it to accept any version the publisher signed",
            ) from error

    def save(self, record: Record) -> None:
        """Keep *record*: the old one or the new one, whenever the machine stops."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{FILE}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123
                file.write(msgspec.json.encode(record))
                file.flush()
                os.fsync(descriptor)
            temporary.replace(self.path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
