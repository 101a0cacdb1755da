"""The documents of the control API. ``oneiric <command> --json`` prints the same ones.

``schema`` names a document and its version; fields are added, never renamed. Instants are RFC 3339 in UTC; durations
are seconds unless the name ends in ``_ms``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from oneiric.observability.kinds import Group, Kind

Domain = Literal["adapter", "service", "task", "event", "workflow", "action"]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$", max_length=128)]
Note = Annotated[str, Meta(max_length=500)]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What every document has: ``live`` is false when it was answered from disk, with no daemon."""

    schema: str = ""
    live: bool = True


class PlacingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate's place in a resolution."""

    provider: str
    verdict: Literal["active", "shadowed", "rejected"]
    reason: str
    source: str
    stack: str
    stack_level: int
    priority: int
    version: str
    tie: bool = False


class ListRow(msgspec.Struct, frozen=True, kw_only=True):
    """One slot: the provider that wins it (empty when none does), and the losers when they were asked for."""

    domain: str
    key: str
    provider: str
    source: str
    stack_level: int
    priority: int
    version: str
    state: str
    pinned: bool
    summary: str
    candidates: int
    shadowed: tuple[PlacingRow, ...] = ()


class ListDocument(Document, frozen=True, kw_only=True):
    """``oneiric list``."""

    schema: str = "oneiric.list/1"
    slots: tuple[ListRow, ...] = ()


class ExplainDocument(Document, frozen=True, kw_only=True):
    """``oneiric explain``: ``text`` is what a person reads, the rest is the same for a program."""

    schema: str = "oneiric.explain/1"
    domain: str
    key: str
    provider: str
    summary: str
    failure: str
    selection: str
    pin: PinRow | None = None
    near_misses: tuple[str, ...] = ()
    placings: tuple[PlacingRow, ...] = ()
    text: str


class PinRow(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's choice."""

    provider: str
    by: str
    since: str


class HealthRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the last probe said; ``healthy`` is null when there was none."""

    domain: str
    key: str
    provider: str
    healthy: bool | None
    at: str = ""
    error: str = ""


class SwapRow(msgspec.Struct, frozen=True, kw_only=True):
    """One finished attempt to put an instance in place."""

    at: str
    provider: str
    previous: str
    outcome: Literal["success", "failed", "rollback"]
    reason: str
    error: str
    duration_ms: float
    by: str


class LeakRow(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that should be gone; ``age`` in seconds since it was built, ``holder`` of its last lease if known."""

    provider: str
    instance_id: str
    kind: Literal["held", "not-closed", "referenced"]
    age: float
    leases: int
    holder: str


class StatusRow(msgspec.Struct, frozen=True, kw_only=True):
    """One slot in operation. ``provider`` serves; ``wanted`` is whom precedence chooses."""

    domain: str
    key: str
    state: str
    provider: str
    wanted: str
    instance_id: str
    since: str
    pin: PinRow | None
    note: str
    leases: int
    leaked: int
    leaks: tuple[LeakRow, ...]
    instances: int
    memory_bytes: int
    swaps: dict[str, int]
    last_error: str
    last_health: HealthRow | None
    last_swap_ms: float | None
    history: tuple[SwapRow, ...]


class DaemonRow(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon itself. ``degraded`` says what it cannot do just now, or is empty.

    ``memory_bytes`` is measured (resident), ``memory_estimate_bytes`` is the runbook's formula for as many instances.
    """

    pid: int
    version: str
    started_at: str
    settings: str
    http: str
    watch: Literal["on", "paused", "off"]
    degraded: str
    abandoned_calls: int
    instances: int
    memory_bytes: int
    memory_estimate_bytes: int


class StatusDocument(Document, frozen=True, kw_only=True):
    """``oneiric status``."""

    schema: str = "oneiric.status/1"
    slots: tuple[StatusRow, ...] = ()
    daemon: DaemonRow | None = None


class HealthDocument(Document, frozen=True, kw_only=True):
    """``oneiric health``: ``healthy`` is false when any instance's last probe failed."""

    schema: str = "oneiric.health/1"
    probed: bool
    healthy: bool
    instances: tuple[HealthRow, ...] = ()


class PluginRow(msgspec.Struct, frozen=True, kw_only=True):
    """One entry point, and its candidates or the error that kept it out."""

    group: str
    name: str
    value: str
    distribution: str
    version: str
    candidates: tuple[str, ...]
    error: str
    disabled: bool


class PluginsDocument(Document, frozen=True, kw_only=True):
    """``oneiric plugins``."""

    schema: str = "oneiric.plugins/1"
    plugins: tuple[PluginRow, ...] = ()
    unmatched: Annotated[
        tuple[str, ...], Meta(description="Names in plugins.disabled that nothing installed is called by.")
    ] = ()


class MetricRow(msgspec.Struct, frozen=True, kw_only=True):
    """One metric, by what kind it is, where it belongs and what it tells."""

    name: str
    type: Kind
    group: Group
    tells: str


class SampleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One number, named as Prometheus names it: a histogram has ``_bucket`` (cumulative), ``_count`` and ``_sum``."""

    metric: str
    name: str
    labels: dict[str, str]
    value: float


class MetricsDocument(Document, frozen=True, kw_only=True):
    """``oneiric metrics``: what was counted since ``started_at``, ``uptime`` seconds ago, and what is true ``at``."""

    schema: str = "oneiric.metrics/1"
    at: str
    started_at: str
    uptime: float
    metrics: tuple[MetricRow, ...] = ()
    samples: tuple[SampleRow, ...] = ()


class FindingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: where the runbook treats it, what was seen, what to type, and what will end it.

    ``code`` is a scenario of the runbook, such as ``1A``, or a word; ``runbook`` is null and ``scenario`` empty for a
    word. ``caused_by`` is the code of the finding that comes first.
    """

    code: str
    runbook: int | None
    scenario: str
    heading: str
    priority: Literal["P0", "P1", "P2", "P3"]
    title: str
    subject: str
    variant: str
    evidence: tuple[str, ...]
    commands: tuple[str, ...]
    confirm: tuple[str, ...]
    caused_by: str


class DoctorDocument(Document, frozen=True, kw_only=True):
    """``oneiric doctor``: what is wrong ``at`` an instant, causes and the gravest first; nothing when all is well."""

    schema: str = "oneiric.doctor/1"
    at: str
    findings: tuple[FindingRow, ...] = ()


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log."""

    at: str
    level: str
    event: str
    fields: dict[str, Any]


class EventsDocument(Document, frozen=True, kw_only=True):
    """The last lines of the daemon's log, oldest first."""

    schema: str = "oneiric.events/1"
    events: tuple[EventRow, ...] = ()


class SwapBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``swap`` asks; without a provider precedence decides and nothing is pinned."""

    domain: Annotated[Domain, Meta(description="The slot's domain.")]
    key: Annotated[Name, Meta(description="The slot's key.")]
    provider: Annotated[Name | None, Meta(description="Whom to swap to and pin; without it precedence decides.")] = None
    force: Annotated[bool, Meta(description="Do not wait for the drain and the cleanup of the old instance.")] = False
    skip_health: Annotated[bool, Meta(description="Commit without asking the new instance whether it is healthy.")] = (
        False
    )
    dry_run: Annotated[bool, Meta(description="Build, probe and close the new instance; change nothing.")] = False


class SwapDocument(Document, frozen=True, kw_only=True):
    """``oneiric swap``. ``warnings`` name what went wrong after the commit."""

    schema: str = "oneiric.swap/1"
    domain: str
    key: str
    previous: str
    provider: str
    changed: bool
    dry_run: bool
    pinned: bool
    duration_ms: float
    gap_ms: float = 0.0
    soak: float = 0.0
    warnings: tuple[str, ...] = ()
    text: str


class SlotBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A slot, and a note that ``status`` shows."""

    domain: Annotated[Domain, Meta(description="The slot's domain.")]
    key: Annotated[Name, Meta(description="The slot's key.")]
    note: Annotated[Note, Meta(description="Why; status shows it.")] = ""


class ActivityDocument(Document, frozen=True, kw_only=True):
    """``oneiric pause``, ``resume`` and ``drain``. ``drained`` is null but for ``drain``."""

    schema: Literal["oneiric.pause/1", "oneiric.resume/1", "oneiric.drain/1"] = "oneiric.pause/1"
    domain: str
    key: str
    state: str
    note: str
    drained: bool | None = None
    leases: int = 0
    warnings: tuple[str, ...] = ()


class UnpinDocument(Document, frozen=True, kw_only=True):
    """``oneiric unpin``: ``provider`` was pinned (empty when none was), ``serving`` serves now."""

    schema: str = "oneiric.unpin/1"
    domain: str
    key: str
    provider: str
    serving: str
    warnings: tuple[str, ...] = ()


class WatchDocument(Document, frozen=True, kw_only=True):
    """``oneiric watch pause`` and ``resume``."""

    schema: str = "oneiric.watch/1"
    watch: Literal["on", "paused", "off"]


class ReloadDocument(Document, frozen=True, kw_only=True):
    """What a reload of the settings led to."""

    schema: str = "oneiric.reload/1"
    steps: tuple[str, ...] = ()


class RemoteSyncBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``remote-sync`` asks: another place to fetch from, a rehearsal, or not to heed an open breaker."""

    manifest: Annotated[
        Annotated[str, Meta(max_length=4096)] | None, Meta(description="Another place to fetch from.")
    ] = None
    force: Annotated[bool, Meta(description="Go ahead although the circuit breaker is open.")] = False
    dry_run: Annotated[bool, Meta(description="Fetch and verify everything, change nothing.")] = False


class RemoteSyncDocument(Document, frozen=True, kw_only=True):
    """``oneiric remote-sync``."""

    schema: str = "oneiric.remote-sync/1"
    outcome: Literal["success", "unchanged", "skipped"]
    url: str
    source: str
    manifest_version: int | None
    entries: int
    fetched: int
    registrations: dict[str, int]
    duration_ms: float
    dry_run: bool
    reason: str
    warnings: tuple[str, ...] = ()
    text: str


class RemoteDocument(Document, frozen=True, kw_only=True):
    """``oneiric remote-status``; instants are empty where nothing happened yet. ``url`` is where it came from last."""

    schema: str = "oneiric.remote-status/1"
    manifest_url: str
    url: str
    source: str
    signature_required: bool
    manifest_version: int | None
    accepted_at: str
    expires_at: str
    key_ids: tuple[str, ...]
    registrations: dict[str, int]
    successes: int
    failures: int
    consecutive_failures: int
    last_sync_at: str
    last_success_at: str
    last_duration_ms: float
    last_error: str
    circuit_breaker: Literal["closed", "open", "half-open"]
    quarantined: int
    cache_bytes: int


class ConfigRow(msgspec.Struct, frozen=True, kw_only=True):
    """One effective setting; secrets read ``***``."""

    path: str
    value: Any
    origin: str


class ConfigDocument(Document, frozen=True, kw_only=True):
    """``oneiric config show``."""

    schema: str = "oneiric.config-show/1"
    settings: tuple[ConfigRow, ...] = ()


class ErrorRow(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, where, and what to type next."""

    code: str
    message: str
    hint: str
    exit_code: int
    explanation: str = ""


class ErrorDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that failed."""

    schema: str = "oneiric.error/1"
    error: ErrorRow
