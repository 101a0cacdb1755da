"""From a snapshot to the documents of the API: the one place where the two meet, with a daemon or without."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from oneiric.api.schemas import (
    ActivityDocument,
    ConfigDocument,
    ConfigRow,
    DaemonRow,
    ErrorDocument,
    ErrorRow,
    ExplainDocument,
    HealthDocument,
    HealthRow,
    LeakRow,
    ListDocument,
    ListRow,
    PinRow,
    PlacingRow,
    PluginRow,
    PluginsDocument,
    StatusDocument,
    StatusRow,
    SwapDocument,
    SwapRow,
)
from oneiric.core.candidate import Slot
from oneiric.core.resolution import Placing, Policy
from oneiric.errors import OneiricError

if TYPE_CHECKING:
    from oneiric.core.config import PluginsSettings, Settings
    from oneiric.lifecycle.reports import Health, Leak, SwapRecord, SwapReport
    from oneiric.runtime.remembered import Pin
    from oneiric.runtime.snapshot import SlotRecord, Snapshot


def list_document(snapshot: Snapshot, *, domain: str | None = None, shadowed: bool = False) -> ListDocument:
    """Return one row a slot, with its losers if *shadowed*."""
    rows = [_list_row(record, snapshot.policy, shadowed=shadowed) for record in snapshot.select(domain=domain)]
    return ListDocument(live=snapshot.live, slots=tuple(rows))


def explain_document(snapshot: Snapshot, slot: Slot[Any]) -> ExplainDocument:
    """Return who fills *slot* and why."""
    record = snapshot.record(slot)
    resolution = record.resolution
    text = str(resolution)
    if record.provider and record.provider != (resolution.winner.provider if resolution.winner else ""):
        text += f"\n  serving now: {record.provider}" + (
            f" (last error: {record.last_error})" if record.last_error else ""
        )
    return ExplainDocument(
        live=snapshot.live,
        domain=slot.domain,
        key=slot.key,
        provider=resolution.winner.provider if resolution.winner is not None else "",
        summary=resolution.summary,
        failure=resolution.failure or "",
        selection=str(resolution.selection or ""),
        pin=_pin_row(record.pin),
        near_misses=resolution.near_misses,
        placings=tuple(_placing_row(placing, snapshot.policy) for placing in resolution.placings),
        text=text,
    )


def status_document(
    snapshot: Snapshot, *, domain: str | None = None, key: str | None = None, daemon: DaemonRow | None = None
) -> StatusDocument:
    """Return every slot in operation; a slot named by domain and key is there even if nothing was offered for it."""
    records = snapshot.select(domain=domain, key=key)
    if not records and domain is not None and key is not None:
        records = (snapshot.record(Slot[Any](domain, key)),)
    return StatusDocument(live=snapshot.live, slots=tuple(_status_row(record) for record in records), daemon=daemon)


def health_document(
    snapshot: Snapshot, *, domain: str | None = None, key: str | None = None, probed: bool = False
) -> HealthDocument:
    """Return what the last probe of each live instance said."""
    rows = tuple(_health_row(r, r.health) for r in snapshot.select(domain=domain, key=key) if r.provider)
    healthy = all(row.healthy is not False for row in rows)
    return HealthDocument(live=snapshot.live, probed=probed, healthy=healthy, instances=rows)


def plugins_document(snapshot: Snapshot, settings: PluginsSettings) -> PluginsDocument:
    """Return every entry point of the six groups, and what *settings* disable in vain."""
    from oneiric.plugins.discovery import unmatched

    rows = [
        PluginRow(
            group=plugin.entry_point.group,
            name=plugin.entry_point.name,
            value=plugin.entry_point.value,
            distribution=plugin.entry_point.distribution,
            version=plugin.entry_point.version,
            candidates=tuple(f"{candidate.slot} {candidate.provider}" for candidate in plugin.candidates),
            error=plugin.error,
            disabled=plugin.disabled,
        )
        for plugin in snapshot.plugins
    ]
    in_vain = unmatched(settings, snapshot.plugins)
    return PluginsDocument(live=snapshot.live, plugins=tuple(rows), unmatched=in_vain)


def config_document(settings: Settings, *, live: bool = True) -> ConfigDocument:
    """Return the settings in force."""
    from oneiric.config.show import effective

    rows = tuple(ConfigRow(path=row.path, value=row.value, origin=row.origin) for row in effective(settings))
    return ConfigDocument(live=live, settings=rows)


def swap_document(report: SwapReport, *, pinned: bool) -> SwapDocument:
    """Return what a swap did."""
    return SwapDocument(
        domain=report.slot.domain,
        key=report.slot.key,
        previous=report.previous,
        provider=report.provider,
        changed=report.changed,
        dry_run=report.dry_run,
        pinned=pinned,
        duration_ms=_milliseconds(report.duration),
        gap_ms=_milliseconds(report.gap),
        soak=report.soak,
        warnings=tuple(text for text in (report.cleanup_error, report.pin_error) if text),
        text=str(report),
    )


def activity_document(
    record: SlotRecord, verb: Literal["pause", "resume", "drain"], unrecorded: str, *, drained: bool | None = None
) -> ActivityDocument:
    """Return whether a slot takes new leases now; a slot that nobody offers to fill is probably misspelt."""
    resolution = record.resolution
    close = f"; did you mean {', '.join(resolution.near_misses)}?" if resolution.near_misses else ""
    unknown = "" if resolution.placings else f"nobody offers to fill {record.slot}{close}"
    return ActivityDocument(
        schema=f"oneiric.{verb}/1",  # type: ignore[arg-type]
        domain=record.slot.domain,
        key=record.slot.key,
        state=record.state.value,
        note=record.note,
        drained=drained,
        leases=record.leases,
        warnings=tuple(filter(None, (unknown, unrecorded))),
    )


def error_document(error: OneiricError) -> ErrorDocument:
    """Return an error as a document."""
    return ErrorDocument(
        error=ErrorRow(
            code=error.code,
            message=str(error),
            hint=error.hint,
            exit_code=error.exit_code,
            explanation=getattr(error, "explanation", ""),
        )
    )


def instant(at: datetime) -> str:
    """Return *at* as RFC 3339 with ``Z``, to the millisecond."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _list_row(record: SlotRecord, policy: Policy, *, shadowed: bool) -> ListRow:
    winner = record.resolution.winner
    placings = record.resolution.placings
    losers = [placing for placing in placings if placing.candidate is not winner] if shadowed else []
    return ListRow(
        domain=record.slot.domain,
        key=record.slot.key,
        provider=winner.provider if winner is not None else "",
        source=winner.source if winner is not None else "",
        stack_level=policy.stack_order.level(winner) if winner is not None else 0,
        priority=winner.priority if winner is not None else 0,
        version=winner.version if winner is not None else "",
        state=record.state.value,
        pinned=record.pin is not None,
        summary=record.resolution.summary,
        candidates=len(placings),
        shadowed=tuple(_placing_row(placing, policy) for placing in losers),
    )


def _placing_row(placing: Placing, policy: Policy) -> PlacingRow:
    candidate = placing.candidate
    return PlacingRow(
        provider=candidate.provider,
        verdict=placing.verdict,
        reason=placing.reason,
        source=candidate.source,
        stack=candidate.stack,
        stack_level=policy.stack_order.level(candidate),
        priority=candidate.priority,
        version=candidate.version,
        tie=placing.tie,
    )


def _status_row(record: SlotRecord) -> StatusRow:
    return StatusRow(
        domain=record.slot.domain,
        key=record.slot.key,
        state=record.state.value,
        provider=record.provider,
        wanted=record.resolution.winner.provider if record.resolution.winner is not None else "",
        instance_id=record.instance_id,
        since=instant(record.built_at) if record.built_at is not None else "",
        pin=_pin_row(record.pin),
        note=record.note,
        leases=record.leases,
        leaked=len(record.leaks),
        leaks=tuple(_leak_row(leak) for leak in record.leaks),
        instances=record.instances,
        memory_bytes=record.memory_bytes,
        swaps={outcome: record.outcomes.get(outcome, 0) for outcome in ("success", "failed", "rollback")},
        last_error=record.last_error or ("" if record.resolution.winner is not None else record.resolution.summary),
        last_health=_health_row(record, record.health) if record.health is not None else None,
        last_swap_ms=_milliseconds(record.history[-1].duration) if record.history else None,
        history=tuple(_swap_row(swap) for swap in record.history),
    )


def _leak_row(leak: Leak) -> LeakRow:
    age = (datetime.now(UTC) - leak.built_at).total_seconds()
    return LeakRow(
        provider=leak.provider,
        instance_id=leak.instance_id,
        kind=leak.kind,
        age=round(age, 3),
        leases=leak.leases,
        holder=leak.holder,
    )


def _pin_row(pin: Pin | None) -> PinRow | None:
    return None if pin is None else PinRow(provider=pin.provider, by=pin.by, since=instant(pin.since))


def _health_row(record: SlotRecord, health: Health | None) -> HealthRow:
    return HealthRow(
        domain=record.slot.domain,
        key=record.slot.key,
        provider=record.provider,
        healthy=health.healthy if health is not None else None,
        at=instant(health.at) if health is not None else "",
        error=health.error if health is not None else "",
    )


def _swap_row(swap: SwapRecord) -> SwapRow:
    return SwapRow(
        at=instant(swap.at),
        provider=swap.provider,
        previous=swap.previous,
        outcome=swap.outcome,
        reason=swap.reason,
        error=swap.error,
        duration_ms=_milliseconds(swap.duration),
        by=swap.by,
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
