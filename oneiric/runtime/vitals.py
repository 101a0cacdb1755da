"""Everything a diagnosis needs, gathered: from a running daemon, or from what is on disk."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from anyio import to_thread

from oneiric.core.breaker import Breaker
from oneiric.core.config import AppSettings, RemoteSettings
from oneiric.doctor.vitals import (
    Attempt,
    Disk,
    Evidence,
    Happening,
    Offer,
    PluginVital,
    ProcessVital,
    RemoteVital,
    Residue,
    SlotVital,
    Vitals,
)
from oneiric.errors import ConfigError, OneiricError
from oneiric.observability.describe import describe
from oneiric.observability.meters import Reading, Sample
from oneiric.remote.cache import Cache
from oneiric.remote.ledger import Ledger, Record
from oneiric.remote.policy import trust_policy
from oneiric.remote.sync import Syncer
from oneiric.remote.urls import printable
from oneiric.runtime.runtime import Runtime
from oneiric.runtime.snapshot import SlotRecord, Snapshot

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_PATIENCE: Final = 1.0
_LOOK_BYTES: Final = 512 << 20
"""How much of a cache is read to see whether it is right."""
_DIGEST: Final = re.compile(r"[0-9a-f]{12}")
_BUSIEST: Final = 5


async def live_vitals(
    runtime: Runtime,
    *,
    syncer: Syncer | None,
    settings: Path,
    problems: Iterable[str],
    process: Callable[[Snapshot], ProcessVital],
    recent: tuple[Happening, ...],
    environ: Mapping[str, str],
) -> Vitals:
    """Return everything about a running daemon, as of now.

    Args:
        syncer: what synchronises; None in a daemon without remote delivery.
        problems: what is wrong with the settings on disk.
        process: what is to be said of the process.
        recent: what happened.
    """
    app = runtime.settings.app
    snapshot = runtime.snapshot()
    look = partial(remote_vital, app, syncer=syncer, recent=recent, environ=environ)
    return Vitals(
        at=datetime.now(UTC),
        settings=str(settings),
        cache_dir=app.cache_dir,
        state_dir=app.state_dir,
        slots=slot_vitals(snapshot),
        plugins=plugin_vitals(snapshot),
        config_problems=tuple(problems),
        remote=await to_thread.run_sync(look),
        disks=await to_thread.run_sync(disk_vitals, app),
        process=process(snapshot),
        recent=recent,
    )


def busiest(readings: Iterable[Reading]) -> tuple[tuple[str, int], ...]:
    """Return the slots that were resolved most, with how often."""
    resolved = [
        (f"{reading.labels[1]}/{reading.labels[2]}", int(reading.value))
        for reading in readings
        if isinstance(reading, Sample)
        and reading.metric == "oneiric_resolution_total"
        and reading.labels[0] == "success"
        and reading.value
    ]
    return tuple(sorted(resolved, key=lambda one: -one[1])[:_BUSIEST])


def disk_only(
    app: AppSettings,
    snapshot: Snapshot | None,
    *,
    settings: Path,
    problems: Iterable[str] = (),
    unreachable: str = "",
    environ: Mapping[str, str],
) -> Vitals:
    """Return what can be known without a daemon; blocks.

    Args:
        app: the settings, or the defaults where they cannot be read.
        snapshot: what a daemon started now would know; None where the settings cannot be read.
        problems: what is wrong with the settings.
        unreachable: why a daemon that should answer does not.
    """
    return Vitals(
        at=datetime.now(UTC),
        settings=str(settings),
        cache_dir=app.cache_dir,
        state_dir=app.state_dir,
        slots=slot_vitals(snapshot) if snapshot is not None else (),
        plugins=plugin_vitals(snapshot) if snapshot is not None else (),
        config_problems=tuple(problems),
        remote=remote_vital(app, syncer=None, recent=(), environ=environ),
        disks=disk_vitals(app),
        unreachable=unreachable,
    )


def slot_vitals(snapshot: Snapshot, *, wanted: Iterable[Any] = ()) -> tuple[SlotVital, ...]:
    """Return every slot; those of *wanted* that nobody offers to fill are there too."""
    known = {record.slot for record in snapshot.slots}
    missing = {slot for slot in (*wanted, *snapshot.policy.selections) if slot not in known}
    records = (*snapshot.slots, *(snapshot.record(slot) for slot in sorted(missing)))
    return tuple(_slot(record, snapshot) for record in records)


def _slot(record: SlotRecord, snapshot: Snapshot) -> SlotVital:
    resolution = record.resolution
    now = datetime.now(UTC)
    in_use = bool(record.provider) or record.state.value not in ("inactive", "stopped")
    return SlotVital(
        domain=record.slot.domain,
        key=record.slot.key,
        state=record.state.value,
        serving=record.provider,
        winner=resolution.winner.provider if resolution.winner is not None else "",
        failure=resolution.failure or "",
        summary=resolution.summary,
        selection=str(resolution.selection or ""),
        selected=resolution.selection.provider if resolution.selection is not None else "",
        wanted=in_use or record.slot in snapshot.policy.selections,
        pinned=record.pin is not None,
        offers=tuple(
            Offer(
                provider=placing.candidate.provider,
                verdict=placing.verdict,
                reason=placing.reason,
                source=placing.candidate.source,
                stack_level=snapshot.policy.stack_order.level(placing.candidate),
                version=placing.candidate.version,
            )
            for placing in resolution.placings
        ),
        health=record.health.error if record.health is not None else "",
        last_error=record.last_error,
        leases=record.leases,
        instances=record.instances,
        memory_bytes=record.memory_bytes,
        residues=tuple(
            Residue(
                kind=leak.kind,
                provider=leak.provider,
                instance_id=leak.instance_id,
                age=(now - leak.built_at).total_seconds(),
                leases=leak.leases,
                holder=leak.holder,
            )
            for leak in record.leaks
        ),
        attempts=tuple(
            Attempt(
                at=swap.at,
                provider=swap.provider,
                previous=swap.previous,
                outcome=swap.outcome,
                reason=swap.reason,
                error=swap.error,
                duration=swap.duration,
            )
            for swap in record.history
        ),
        near_misses=resolution.near_misses,
    )


def plugin_vitals(snapshot: Snapshot) -> tuple[PluginVital, ...]:
    """Return every installed plugin."""
    return tuple(
        PluginVital(name=plugin.entry_point.name, distribution=plugin.entry_point.distribution, error=plugin.error)
        for plugin in snapshot.plugins
    )


def disk_vitals(app: AppSettings) -> tuple[Disk, ...]:
    """Return how much room there is where we write, and whether we may; blocks."""
    return tuple(_disk(Path(path)) for path in (app.state_dir, app.cache_dir))


def _disk(path: Path) -> Disk:
    there = next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))
    error = ""
    if not os.access(there, os.W_OK | os.X_OK):
        error = "is not writable"
    try:
        usage = shutil.disk_usage(there)
    except OSError as failure:
        return Disk(path=str(path), free_bytes=0, total_bytes=0, error=describe(failure))
    return Disk(path=str(path), free_bytes=usage.free, total_bytes=usage.total, error=error)


def remote_vital(
    app: AppSettings, *, syncer: Syncer | None, recent: tuple[Happening, ...], environ: Mapping[str, str]
) -> RemoteVital | None:
    """Return what is known of the manifest's source, None where there never was one; blocks while it looks.

    Args:
        syncer: what synchronises in the daemon that asks; None where nothing does.
        recent: what happened; it tells the digests of what was refused.
    """
    settings = app.remote
    try:
        record, unreadable = Ledger(Path(app.state_dir)).load(), ""
    except OneiricError as error:
        record, unreadable = Record(), str(error)
    place = settings.manifest_url or record.url
    if not place:
        return None
    now = datetime.now(UTC)
    breaker = syncer.breaker(record) if syncer is not None else _breaker(record, settings)
    in_trouble = bool(record.consecutive_failures or unreadable)
    return RemoteVital(
        url=printable(place),
        require_signature=settings.require_signature,
        trusted_keys=_trusted(settings),
        claimed_keys=record.last_key_ids,
        last_sync_at=record.last_sync_at,
        last_success_at=record.last_success_at,
        consecutive_failures=record.consecutive_failures,
        failure_threshold=settings.failure_threshold,
        refresh_interval=settings.refresh_interval,
        last_error=unreadable or record.last_error,
        last_reason="state" if unreadable else record.last_reason,
        breaker=breaker.state(now).value,
        breaker_wait=breaker.wait(now),
        manifest_version=record.manifest_version,
        accepted_at=record.accepted_at,
        expires_at=record.expires_at,
        refreshed=syncer is not None and settings.manifest_url is not None,
        evidence=_evidence(Cache(Path(app.cache_dir)), record, recent, look=in_trouble or syncer is None),
        reachable=unreachable(place) if in_trouble else None,
        proxies=tuple(_proxies(environ)),
    )


def _proxies(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the proxy variables that are set, without credentials."""
    for name in (*_PROXIES, *map(str.lower, _PROXIES)):
        value = environ.get(name)
        if value:
            yield f"{name}={printable(value) if '//' in value else value.rpartition('@')[2]}"


def _trusted(settings: RemoteSettings) -> tuple[str, ...]:
    with suppress(ConfigError):
        return tuple(key.id for key in trust_policy(settings).keys)
    return ()


def _evidence(cache: Cache, record: Record, recent: Iterable[Happening], *, look: bool) -> tuple[Evidence, ...]:
    """Return what was put aside since the last synchronisation that succeeded; with *look* what lies there wrong too.

    A start ends at the first wrong artifact, and a round that fails before may not come to any.
    """
    told = {h.fields.get("artifact"): h.fields for h in recent if h.event == "digest-check-failed"}
    with suppress(OneiricError, OSError):
        return (
            *(
                Evidence(
                    artifact=one.artifact,
                    origin=one.origin,
                    at=one.at,
                    expected=str(told.get(one.artifact, {}).get("expected_digest", "")),
                    actual=str(told.get(one.artifact, {}).get("actual_digest", "")),
                )
                for one in cache.evidence(since=record.last_success_at)
            ),
            *(_lying_wrong(cache) if look and cache.size_bytes() <= _LOOK_BYTES else ()),
        )
    return ()


def _lying_wrong(cache: Cache) -> Iterator[Evidence]:
    """Yield the cached artifacts whose digest is not the one that their name begins with; reads them all."""
    now = datetime.now(UTC)
    for one in cache.stored():
        digest = one.name.partition("-")[0]
        if _DIGEST.fullmatch(digest) and not one.sha256.startswith(digest):
            yield Evidence(artifact=one.name, origin="cache", at=now, expected=f"{digest}...", actual=one.sha256)


def _breaker(record: Record, settings: RemoteSettings) -> Breaker:
    """Return the breaker as the last daemon left it."""
    known = Breaker.from_record(record.breaker)
    return replace(known, failure_threshold=settings.failure_threshold, reset_timeout=settings.reset_timeout)


def unreachable(url: str) -> str:
    """Return "" when the host of *url* takes connections now, else why not; waits for a second at most and blocks.

    A name is looked up within that second too: what takes longer is as good as no answer.
    """
    parts = urlsplit(url.removeprefix("tuf+"))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    said: list[str] = []

    def connect() -> None:
        try:
            with socket.create_connection(address, timeout=_PATIENCE):
                said.append("")
        except OSError as error:
            said.append(describe(error))

    trial = threading.Thread(target=connect, daemon=True)  # looking a name up cannot be given up otherwise
    trial.start()
    trial.join(_PATIENCE)
    return said[0] if said else f"timeout: no answer within {_PATIENCE:g} s"
