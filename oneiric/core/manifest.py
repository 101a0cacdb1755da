"""A manifest: what it says once it is read, and which of its bytes a signature covers. Nothing here is trusted yet."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from oneiric.core.candidate import NAME_RULE, is_name
from oneiric.core.document import read_document
from oneiric.core.entry import Entry, iterate_entries
from oneiric.core.json_document import JSON_VALUES, quoted, read_json
from oneiric.core.words import misfit, reworded
from oneiric.errors import ManifestError

__all__ = [
    "Entry",
    "Manifest",
    "Reading",
    "Signature",
    "canonical_bytes",
    "iterate_entries",
    "parse_head",
    "parse_manifest",
    "read_packed",
    "read_strictly",
    "rows_of",
]

SIGNATURE_FIELDS: Final = frozenset({"signature", "signature_algorithm", "signatures"})
MAX_VERSION: Final = (1 << 53) - 1
_FIELDS: Final = SIGNATURE_FIELDS | {"source", "entries", "signed_at", "expires_at", "manifest_version"}
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A signature as published. ``key_id`` is what the publisher calls the key, which proves nothing."""

    signature: str
    algorithm: str = "ed25519"
    key_id: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest as published; what the format does not know is in ``extra`` and never trusted."""

    source: str
    entries: tuple[Entry, ...] = ()
    signatures: tuple[Signature, ...] = ()
    signed_at: datetime | None = None
    expires_at: datetime | None = None
    manifest_version: int | None = None
    extra: dict[str, Any] = {}


class Reading(NamedTuple):
    """A manifest's bytes as read: the document, and the bytes that its signatures must cover."""

    document: Mapping[str, Any]
    signed: bytes


def canonical_bytes(document: Mapping[str, Any]) -> bytes:
    """Return the bytes that a signature of *document*, as ``read_document`` returns it, covers."""
    unsigned = {name: value for name, value in document.items() if name not in SIGNATURE_FIELDS}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def read_strictly(content: bytes) -> Reading:
    """Return what *content* says, and its canonical bytes; raises ManifestError when it cannot be read."""
    document = read_document(content)
    return Reading(document, canonical_bytes(document))


def read_packed(content: bytes) -> Reading | None:
    """Return what *content* says if it is JSON without a byte to spare, else None.

    Its entries stay undecoded. ``signed`` is the received bytes themselves, without the signatures: of a manifest as
    ``manifest pack`` writes it those are the canonical bytes, and a signature over them is one over what was received.
    """
    if content.count(b",") >= JSON_VALUES:
        return None
    try:
        envelope = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        names = {name: f'"{name}":'.encode() for name in sorted(envelope)}
        # Shorter it cannot be written. So there is no white space, no escaped name, and no name that is there twice.
        shortest = 1 + sum(len(names[name]) + len(raw) + 1 for name, raw in envelope.items())
        if len(content) - content.endswith(b"\n") != shortest:
            return None
        document = {name: _read_raw(raw) for name, raw in envelope.items() if name != "entries"}
        document["entries"] = msgspec.json.decode(envelope["entries"], type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError, ManifestError):
        return None  # what is wrong with it, a strict reading will tell
    parts = [(names[name], envelope[name]) for name in names if name not in SIGNATURE_FIELDS]
    pieces = chain.from_iterable((b",", name, raw) for name, raw in parts)
    next(pieces)
    return Reading(document, b"".join([b"{", *pieces, b"}"]))


def _read_raw(raw: msgspec.Raw) -> Any:
    return read_json(bytes(raw).decode())


def parse_manifest(document: Mapping[str, Any]) -> Manifest:
    """Return the manifest that *document* is; raises ManifestError, with the entry's index and field, if it is none."""
    entries = tuple(chain.from_iterable(iterate_entries(rows_of(document))))
    return msgspec.structs.replace(parse_head(document), entries=entries)


def parse_head(document: Mapping[str, Any]) -> Manifest:
    """Return all of a manifest but its entries."""
    source = _given(document, "source", str, "remote")
    if not is_name(source):
        _refuse("source", f"{quoted(source)} is not a name", NAME_RULE)
    version = _given(document, "manifest_version", int, None)
    if version is not None and not 0 < version <= MAX_VERSION:
        _refuse("manifest_version", f"{version} is out of range", "a whole number from 1 to 2**53 - 1")
    return Manifest(
        source=source,
        signatures=_signatures(document),
        signed_at=_instant(document, "signed_at"),
        expires_at=_instant(document, "expires_at"),
        manifest_version=version,
        extra={name: value for name, value in document.items() if name not in _FIELDS},
    )


def rows_of(document: Mapping[str, Any]) -> list[Any]:
    """Return the entries of *document* as they stand there; that they are missing is no way to say there are none."""
    rows = document.get("entries")
    if not isinstance(rows, list):
        _refuse("entries", "is missing" if rows is None else "is not a list", "[] when there are none")
    return rows


def _signatures(document: Mapping[str, Any]) -> tuple[Signature, ...]:
    found: list[Signature] = []
    single = _given(document, "signature", str, None)
    algorithm = _given(document, "signature_algorithm", str, "ed25519")
    if single is not None:
        found.append(Signature(signature=single, algorithm=algorithm))
    for index, item in enumerate(_given(document, "signatures", list, [])):
        try:
            given = {"signature": item} if isinstance(item, str) else item
            found.append(msgspec.convert(given, Signature))
        except msgspec.ValidationError as error:
            _refuse(f"signatures[{index}]", reworded(str(error)), "{signature, algorithm, key_id}")
    return tuple(found)


def _instant(document: Mapping[str, Any], name: str) -> datetime | None:
    text = _given(document, name, str, None)
    if text is None:
        return None
    instant = _utc(text) if _INSTANT.fullmatch(text) else None
    if instant is None:
        _refuse(name, f"{quoted(text)} is not an instant", "2030-01-31T12:00:00Z")
    return instant


def _utc(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _given(document: Mapping[str, Any], name: str, kind: type, otherwise: Any) -> Any:
    """Return a field, *otherwise* where it is absent or null; raises ManifestError when it is of another kind."""
    value = document.get(name)
    if value is None:
        return otherwise
    if type(value) is not kind:
        _refuse(name, misfit(kind, value), "see oneiric manifest schema")
    return value


def _refuse(field: str, what: str, accepted: str) -> NoReturn:
    raise ManifestError(f"{field}: {what}", reason="schema", hint=accepted)
