"""Vitals for the rules of delivery and premises: a healthy daemon with remote delivery, and ways to spoil it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

from oneiric.doctor.vitals import Disk, Evidence, Happening, ProcessVital, RemoteVital, Vitals

NOW = datetime(2026, 3, 4, 14, 2, 11, tzinfo=UTC)
URL = "https://manifests.example/oneiric/manifest.json"
TRUSTED, STRANGE = "00112233445566aa", "ffeeddccbbaa9988"
WHEEL = "0123456789ab-shop-1.0-py3-none-any.whl"

ERRORS = {
    "dns": f"dns: {URL}: manifests.example: name or service not known; no connection",
    "connection": f"connection: {URL}: connection refused",
    "timeout": f"timeout: {URL}: nothing heard from manifests.example for 30 s",
    "tls": f"tls: {URL}: certificate has expired",
    "http": f"http: 503 Service Unavailable from {URL}",
}


def at(seconds: float) -> datetime:
    """Return the instant so many seconds from now."""
    return NOW + timedelta(seconds=seconds)


def remote(**changed: Any) -> RemoteVital:
    """Return a source from which all is well."""
    well: dict[str, Any] = {
        "url": URL,
        "trusted_keys": (TRUSTED,),
        "claimed_keys": (TRUSTED,),
        "last_sync_at": at(-20),
        "last_success_at": at(-20),
        "manifest_version": 7,
        "accepted_at": at(-86_400),
        "expires_at": at(30 * 86_400),
    }
    return RemoteVital(**{**well, **changed})


def failing(reason: str, error: str = "", **changed: Any) -> RemoteVital:
    """Return a source whose last three synchronisations failed for *reason*; the breaker has not opened."""
    usual = ERRORS.get(reason, f"manifest: TrustError: what {reason} says")
    bad: dict[str, Any] = {
        "last_reason": reason,
        "last_error": error or usual.replace(URL, changed.get("url", URL)),
        "consecutive_failures": 3,
        "last_success_at": at(-900),
    }
    return remote(**{**bad, **changed})


def process(**changed: Any) -> ProcessVital:
    """Return a daemon that has run for two hours and is well."""
    well = {"pid": 4711, "version": "1.0", "started_at": at(-7200), "resident_bytes": 90 << 20, "loop_lag": 0.01}
    return ProcessVital(**{**well, **changed})


def vitals(**changed: Any) -> Vitals:
    """Return a daemon with remote delivery, all well."""
    well: dict[str, Any] = {
        "at": NOW,
        "settings": "settings",
        "remote": remote(),
        "disks": (disk(),),
        "process": process(),
    }
    return Vitals(**{**well, **changed})


def disk(**changed: Any) -> Disk:
    """Return a disk with room."""
    return Disk(**{"path": ".oneiric_state", "free_bytes": 20 << 30, "total_bytes": 100 << 30, **changed})


def wrong(artifact: str = WHEEL, origin: str = "cache", seconds: float = -30.0) -> Evidence:
    """Return evidence of a wrong digest."""
    return Evidence(artifact=artifact, origin=origin, at=at(seconds), expected="a" * 64, actual="b" * 64)


def happened(event: str, seconds: float = -10.0, level: str = "warning", **fields: Any) -> Happening:
    """Return an event of the log."""
    return Happening(at=at(seconds), level=level, event=event, fields=fields)


# Any vitals at all


def anything(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for values of *kind*; texts are often ones that rules look for."""
    found = kind if isinstance(kind, inspect.Type) else inspect.type_info(kind)
    match found:
        case inspect.StructType():
            return st.builds(found.cls, **{field.name: anything(field.type) for field in found.fields})
        case inspect.VarTupleType():
            return st.lists(anything(found.item_type), max_size=3).map(tuple)
        case inspect.TupleType():
            return st.tuples(*map(anything, found.item_types))
        case inspect.UnionType():
            return st.one_of(*map(anything, found.types))
        case _:
            return _SCALARS[type(found)]


_WORDS = (
    *("", "open", "half-open", "closed", "paused", "cache", "fetched", "remote-sync-warning", "digest-check-failed"),
    *("digest-check-success", "artifact", "error", "http://[", URL, f"tuf+{URL}", "/srv/manifest.json", TRUSTED),
    *("HTTPS_PROXY=http://proxy.example:3128", "NO_PROXY=*,10.0.0.0/8", "x did not serve: timeout: y", "key_id"),
    *("dns", "timeout", "connection", "tls", "http", "signature", "digest", "expired", "state", "disk", "size"),
    *ERRORS.values(),
    *("the log cannot be written: OSError: No space left on device", "task-failed", "watch-paused"),
)
_TEXTS = st.sampled_from(_WORDS) | st.text(max_size=12)
_SCALARS: dict[type[inspect.Type], st.SearchStrategy[Any]] = {
    inspect.DictType: st.dictionaries(_TEXTS, st.none() | _TEXTS | st.integers(), max_size=4),
    inspect.DateTimeType: st.datetimes(timezones=st.just(UTC)) | st.integers(-10_000, 10_000).map(at),
    inspect.NoneType: st.none(),
    inspect.BoolType: st.booleans(),
    inspect.IntType: st.integers(-1, 10) | st.integers(),
    inspect.FloatType: st.floats(-1, 1000) | st.floats(),
    inspect.StrType: _TEXTS,
}
ANY_VITALS = anything(Vitals)
