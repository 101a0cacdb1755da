"""One look at everything a diagnosis needs, as plain values: taken from a running daemon, or from what is on disk.

Instants are aware UTC, durations seconds, sizes bytes. Nothing here holds a secret: texts were scrubbed before.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec


class _Vital(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all: immutable, fields by name."""


class Happening(_Vital, frozen=True):
    """One event of the log: when, how grave, what, and its fields."""

    at: datetime
    level: str
    event: str
    fields: dict[str, Any]


class Attempt(_Vital, frozen=True):
    """One finished attempt to put an instance in place; ``outcome`` and ``reason`` as in the metrics."""

    at: datetime
    provider: str
    previous: str
    outcome: str
    reason: str
    error: str
    duration: float


class Offer(_Vital, frozen=True):
    """One candidate for a slot: ``verdict`` is active, shadowed or rejected, ``reason`` says why."""

    provider: str
    verdict: str
    reason: str
    source: str
    stack_level: int = 0
    version: str = ""


class Residue(_Vital, frozen=True):
    """An instance that should be gone: ``held`` (callers keep leases), ``not-closed``, or ``referenced``."""

    kind: str
    provider: str
    instance_id: str
    age: float
    leases: int = 0
    holder: str = ""


class SlotVital(_Vital, frozen=True):
    """One slot.

    ``failure`` says why nobody may fill it (``no-candidates all-shadowed unhealthy config``), "" when somebody may.
    ``wanted``: it is selected, pinned, or in use. ``selection`` is the operator's choice in words, ``selected`` whom it
    names. ``health`` is what the last probe of what serves complained of. ``attempts`` are the last ones, oldest first.
    """

    domain: str
    key: str
    state: str = "inactive"
    serving: str = ""
    winner: str = ""
    failure: str = ""
    summary: str = ""
    selection: str = ""
    selected: str = ""
    wanted: bool = False
    pinned: bool = False
    offers: tuple[Offer, ...] = ()
    health: str = ""
    last_error: str = ""
    leases: int = 0
    instances: int = 0
    memory_bytes: int = 0
    residues: tuple[Residue, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    near_misses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.domain}/{self.key}"


class PluginVital(_Vital, frozen=True):
    """One installed plugin; ``error`` is why it was kept out."""

    name: str
    distribution: str
    error: str = ""


class Evidence(_Vital, frozen=True):
    """One artifact with a wrong digest that no right one has replaced.

    ``origin`` says where the wrong bytes were found: ``cache`` or ``fetched``.
    """

    artifact: str
    origin: str
    at: datetime
    expected: str = ""
    actual: str = ""


class RemoteVital(_Vital, frozen=True):
    """What is known of the manifest's source.

    ``last_reason`` is the word for the last failure (``timeout connection dns tls http signature unsigned digest
    malformed expired version ...``), ``claimed_keys`` the key ids that the refused manifest says it is signed with,
    ``trusted_keys`` those the settings accept. ``reachable`` is what connecting to its host just now said: "" for well,
    None when nobody tried. ``proxies`` are the proxy variables that are set, without credentials. ``accepted_at`` is
    when the manifest in force was accepted; ``refreshed`` is false where nobody is to look for a newer one: no
    ``remote.manifest_url``, or a daemon without remote.
    """

    url: str
    require_signature: bool = True
    trusted_keys: tuple[str, ...] = ()
    claimed_keys: tuple[str, ...] = ()
    last_sync_at: datetime | None = None
    last_success_at: datetime | None = None
    consecutive_failures: int = 0
    failure_threshold: int = 3
    refresh_interval: float = 300.0
    last_error: str = ""
    last_reason: str = ""
    breaker: str = "closed"
    breaker_wait: float = 0.0
    manifest_version: int | None = None
    accepted_at: datetime | None = None
    expires_at: datetime | None = None
    refreshed: bool = True
    evidence: tuple[Evidence, ...] = ()
    reachable: str | None = None
    proxies: tuple[str, ...] = ()


class Disk(_Vital, frozen=True):
    """A directory that must be writable: what is free, of how much, and why it cannot be written, or ""."""

    path: str
    free_bytes: int
    total_bytes: int
    error: str = ""

    @property
    def is_full(self) -> bool:
        """Whether so little is free that writing fails now or soon: 1 % of it, and 64 MiB unless it is small."""
        enough = max(min(self.total_bytes // 20, 64 << 20), min(self.total_bytes // 100, 1 << 30))
        return self.total_bytes > 0 and self.free_bytes < enough


class MemorySample(_Vital, frozen=True):
    """The process at one moment: resident bytes and how many instances there were."""

    at: datetime
    resident_bytes: int
    instances: int


class ProcessVital(_Vital, frozen=True):
    """The daemon's process. ``memory_limit_bytes`` is its cgroup's limit, None where there is none.

    ``samples`` are a minute apart over hours, ``recent_samples`` a second apart over minutes; both oldest first.
    ``busiest`` names the slots that were resolved most since the start, with how often.
    """

    pid: int
    version: str
    started_at: datetime
    resident_bytes: int
    memory_limit_bytes: int | None = None
    instances: int = 0
    active_instances: int = 0
    samples: tuple[MemorySample, ...] = ()
    recent_samples: tuple[MemorySample, ...] = ()
    busiest: tuple[tuple[str, int], ...] = ()
    loop_lag: float = 0.0
    abandoned_calls: int = 0
    degraded: str = ""
    watch: str = "on"


class Vitals(_Vital, frozen=True, dict=True):
    """Everything, at one moment. ``process`` is None when no daemon answers; ``unreachable`` says why if one should.

    ``settings``, ``cache_dir`` and ``state_dir`` are the directories, as an operator types them.
    """

    at: datetime
    settings: str
    cache_dir: str = ".oneiric_cache"
    state_dir: str = ".oneiric_state"
    slots: tuple[SlotVital, ...] = ()
    plugins: tuple[PluginVital, ...] = ()
    config_problems: tuple[str, ...] = ()
    remote: RemoteVital | None = None
    disks: tuple[Disk, ...] = ()
    process: ProcessVital | None = None
    unreachable: str = ""
    recent: tuple[Happening, ...] = ()

    @cached_property
    def by_slot(self) -> Mapping[tuple[Any, Any], tuple[Happening, ...]]:
        """What happened, by the domain and the key it happened to: so many slots would each read it all."""
        found: dict[tuple[Any, Any], list[Happening]] = {}
        for one in self.recent:
            found.setdefault((one.fields.get("domain"), one.fields.get("key")), []).append(one)
        return {place: tuple(happenings) for place, happenings in found.items()}

    def since(self, seconds: float, *events: str) -> tuple[Happening, ...]:
        """Return what happened in the last *seconds*; of *events* only, when they are named."""
        return tuple(
            happening
            for happening in self.recent
            if (self.at - happening.at).total_seconds() <= seconds and (not events or happening.event in events)
        )
