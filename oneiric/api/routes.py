"""The control API as a table: the server, the OpenAPI document and the tests read the same rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
from anyio import to_thread
from msgspec import Meta

from oneiric.api import schemas, views
from oneiric.api.doctor_view import doctor_document
from oneiric.api.metrics_view import metrics_document
from oneiric.api.remote_views import remote_document, remote_sync_document
from oneiric.core.candidate import Slot
from oneiric.core.states import Activity
from oneiric.lifecycle.memory import ESTIMATE_BYTES, OVERHEAD_BYTES, resident_bytes
from oneiric.observability.kinds import Group
from oneiric.runtime.daemon import Daemon
from oneiric.runtime.snapshot import SlotRecord


class Asked(NamedTuple):
    """A request after validation: its query, its body and who sent it."""

    query: Any
    body: Any
    by: str


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class ListQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which slots, and whether with their losers."""

    domain: Annotated[schemas.Domain | None, Meta(description="Only this domain.")] = None
    shadowed: Annotated[bool, Meta(description="Also the candidates that lost, and why.")] = False


class SlotQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One slot."""

    domain: Annotated[schemas.Domain, Meta(description="The slot's domain.")]
    key: Annotated[schemas.Name, Meta(description="The slot's key.")]


class SlotsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The slots of a domain, of a key, or all."""

    domain: Annotated[schemas.Domain | None, Meta(description="Only this domain.")] = None
    key: Annotated[schemas.Name | None, Meta(description="Only this key.")] = None


class MetricsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The metrics of a domain, of a group, or all."""

    domain: Annotated[schemas.Domain | None, Meta(description="Only this domain.")] = None
    group: Annotated[Group | None, Meta(description="Only this kind of numbers.")] = None


Handler = Callable[[Daemon, Asked], Awaitable[msgspec.Struct]]


class Route(NamedTuple):
    """One thing the API can be asked."""

    method: str
    path: str
    summary: str
    handle: Handler
    answer: type[msgspec.Struct]
    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None


async def _list(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    query: ListQuery = asked.query
    return views.list_document(daemon.runtime.snapshot(domain=query.domain), shadowed=query.shadowed)


async def _explain(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    slot = _slot(asked.query)
    return views.explain_document(daemon.runtime.snapshot(domain=slot.domain, key=slot.key), slot)


async def _status(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    query: SlotsQuery = asked.query
    snapshot = daemon.runtime.snapshot(domain=query.domain, key=query.key)
    instances = daemon.runtime.instances
    row = schemas.DaemonRow(
        pid=_pid(),
        version=_version(),
        started_at=views.instant(daemon.started_at),
        settings=str(daemon.directory),
        http=daemon.http,
        watch=daemon.watch,
        degraded="; ".join(filter(None, (daemon.config_error, daemon.runtime.degraded, daemon.log_error))),
        abandoned_calls=daemon.runtime.abandoned_calls,
        instances=instances,
        memory_bytes=resident_bytes(),
        memory_estimate_bytes=instances * ESTIMATE_BYTES + OVERHEAD_BYTES,
    )
    return views.status_document(snapshot, domain=query.domain, key=query.key, daemon=row)


async def _health(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    query: SlotsQuery = asked.query
    return views.health_document(daemon.runtime.snapshot(domain=query.domain, key=query.key))


async def _probe(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    body: SlotsQuery = asked.body
    await daemon.runtime.probe_all(domain=body.domain, key=body.key)
    return views.health_document(daemon.runtime.snapshot(domain=body.domain, key=body.key), probed=True)


async def _metrics(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    query: MetricsQuery = asked.query
    readings = await daemon.readings()
    document = partial(metrics_document, started_at=daemon.started_at, domain=query.domain, group=query.group)
    return await to_thread.run_sync(document, readings)


async def _doctor(daemon: Daemon, _asked: Asked) -> msgspec.Struct:
    return await to_thread.run_sync(doctor_document, await daemon.vitals())


async def _events(daemon: Daemon, _asked: Asked) -> msgspec.Struct:
    rows = tuple(
        schemas.EventRow(at=views.instant(one.at), level=one.level, event=one.event, fields=one.fields)
        for one in daemon.recent.happenings
    )
    return schemas.EventsDocument(events=rows)


async def _plugins(daemon: Daemon, _asked: Asked) -> msgspec.Struct:
    return views.plugins_document(daemon.runtime.snapshot(), daemon.runtime.settings.app.plugins)


async def _config(daemon: Daemon, _asked: Asked) -> msgspec.Struct:
    return views.config_document(daemon.runtime.settings)


async def _swap(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    body: schemas.SwapBody = asked.body
    report = await daemon.runtime.swap(
        _slot(body),
        provider=body.provider,
        force=body.force,
        skip_health=body.skip_health,
        dry_run=body.dry_run,
        by=asked.by,
    )
    pinned = body.provider is not None and not body.dry_run and not report.soak  # a trial pins when it was passed
    return views.swap_document(report, pinned=pinned)


async def _unpin(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    body: schemas.SlotBody = asked.body
    slot = _slot(body)
    pin, report, unrecorded = await daemon.runtime.unpin(slot, by=asked.by)
    return schemas.UnpinDocument(
        domain=slot.domain,
        key=slot.key,
        provider=pin.provider if pin is not None else "",
        serving=report.provider if report is not None else "",
        warnings=tuple(filter(None, (unrecorded, report.cleanup_error if report is not None else ""))),
    )


async def _pause(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    return await _set_activity(daemon, asked, Activity.PAUSED)


async def _resume(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    return await _set_activity(daemon, asked, Activity.OPEN)


async def _set_activity(daemon: Daemon, asked: Asked, activity: Activity) -> msgspec.Struct:
    slot = _slot(asked.body)
    unrecorded = await daemon.runtime.set_activity(slot, activity, note=asked.body.note, by=asked.by)
    record = _record(daemon, slot)
    return views.activity_document(record, "resume" if activity is Activity.OPEN else "pause", unrecorded)


async def _drain(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    slot = _slot(asked.body)
    report, unrecorded = await daemon.runtime.drain(slot, note=asked.body.note, by=asked.by)
    return views.activity_document(_record(daemon, slot), "drain", unrecorded, drained=report.drained)


async def _watch_pause(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    daemon.set_watch(paused=True, by=asked.by)
    return schemas.WatchDocument(watch=daemon.watch)


async def _watch_resume(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    daemon.set_watch(paused=False, by=asked.by)
    return schemas.WatchDocument(watch=daemon.watch)


async def _remote(daemon: Daemon, _asked: Asked) -> msgspec.Struct:
    delivery = daemon.delivery
    facts = await to_thread.run_sync(delivery.facts)
    return remote_document(facts, settings=daemon.runtime.settings.app.remote)


async def _remote_sync(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    body: schemas.RemoteSyncBody = asked.body
    report = await daemon.delivery.syncer.sync(body.manifest, force=body.force, dry_run=body.dry_run)
    return remote_sync_document(report)


async def _reload(daemon: Daemon, asked: Asked) -> msgspec.Struct:
    steps = await daemon.reload(by=asked.by)
    return schemas.ReloadDocument(steps=tuple(f"{step.action} {step.slot}: {step.reason}" for step in steps))


def _record(daemon: Daemon, slot: Slot[Any]) -> SlotRecord:
    return daemon.runtime.snapshot(domain=slot.domain, key=slot.key).record(slot)


def _slot(named: Any) -> Slot[Any]:
    return Slot[Any](named.domain, named.key)


def _pid() -> int:
    import os

    return os.getpid()


def _version() -> str:
    from oneiric import __version__

    return __version__


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/list", "Who fills each slot", _list, schemas.ListDocument, query=ListQuery),
    Route("GET", "/v1/explain", "Why one slot is filled as it is", _explain, schemas.ExplainDocument, query=SlotQuery),
    Route("GET", "/v1/status", "Slots in operation", _status, schemas.StatusDocument, query=SlotsQuery),
    Route("GET", "/v1/health", "What the last probes said", _health, schemas.HealthDocument, query=SlotsQuery),
    Route("POST", "/v1/probe", "Probe live instances now", _probe, schemas.HealthDocument, body=SlotsQuery),
    Route(
        "GET", "/v1/metrics", "What was counted, and what is true now", _metrics, schemas.MetricsDocument, MetricsQuery
    ),
    Route("GET", "/v1/doctor", "What is wrong, and what to do about it", _doctor, schemas.DoctorDocument),
    Route("GET", "/v1/events", "The last lines of the log", _events, schemas.EventsDocument),
    Route("GET", "/v1/plugins", "Entry points and what became of them", _plugins, schemas.PluginsDocument),
    Route("GET", "/v1/config", "Effective settings, secrets masked", _config, schemas.ConfigDocument),
    Route("POST", "/v1/swap", "Replace what fills a slot", _swap, schemas.SwapDocument, body=schemas.SwapBody),
    Route("POST", "/v1/unpin", "Let precedence choose again", _unpin, schemas.UnpinDocument, body=schemas.SlotBody),
    Route("POST", "/v1/pause", "Stop new leases", _pause, schemas.ActivityDocument, body=schemas.SlotBody),
    Route("POST", "/v1/resume", "Allow new leases", _resume, schemas.ActivityDocument, body=schemas.SlotBody),
    Route("POST", "/v1/drain", "Stop and wait for the last", _drain, schemas.ActivityDocument, body=schemas.SlotBody),
    Route("POST", "/v1/watch/pause", "Stop following settings", _watch_pause, schemas.WatchDocument, body=NoQuery),
    Route("POST", "/v1/watch/resume", "Follow settings again", _watch_resume, schemas.WatchDocument, body=NoQuery),
    Route("GET", "/v1/remote", "What is known of the manifest", _remote, schemas.RemoteDocument),
    Route(
        "POST",
        "/v1/remote/sync",
        "Fetch, verify and apply the manifest now",
        _remote_sync,
        schemas.RemoteSyncDocument,
        body=schemas.RemoteSyncBody,
    ),
    Route("POST", "/v1/reload", "Read the settings again", _reload, schemas.ReloadDocument, body=NoQuery),
)
