"""The settings tree: every setting, its type, its bounds and its default, once.

``config/loader`` reads files and environment into it, ``config schema`` prints it, the documentation is checked
against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from oneiric.core.domain import DOMAINS
from oneiric.core.places import CACHE_DIR, CONTROL_SOCKET, STATE_DIR

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections: immutable, and an unknown key is an error."""


class LifecycleSettings(_Section, frozen=True):
    """How long foreign code may take, and how often a slot may swap by itself."""

    activation_timeout: Seconds = 30.0
    health_timeout: Seconds = 5.0
    cleanup_timeout: Seconds = 10.0
    hook_timeout: Seconds = 5.0
    drain_timeout: Seconds = 30.0
    health_interval: Seconds = 30.0
    failure_threshold: Count = 3
    max_swaps_per_minute: Count = 12


class RemoteSettings(_Section, frozen=True):
    """Where signed manifests come from and what makes one acceptable."""

    manifest_url: str | None = None
    mirrors: tuple[str, ...] = ()
    token: str | None = None
    public_key: str | None = None
    public_keys: tuple[str, ...] = ()
    signature_threshold: Count = 1
    require_signature: bool = True
    tuf_root: str | None = None
    failure_threshold: Count = 3
    reset_timeout: Seconds = 60.0
    refresh_interval: Seconds = 300.0
    max_age: Seconds | None = None
    max_stale: Annotated[float, Meta(ge=0, le=31_536_000)] = 604_800.0
    min_version: Annotated[int, Meta(ge=0)] | None = None
    timeout: Seconds = 30.0
    max_manifest_bytes: Bytes = 33_554_432
    max_artifact_bytes: Bytes = 268_435_456
    allowed_factories: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_plain_http: bool = False


class PluginsSettings(_Section, frozen=True):
    """Which installed plugins may offer candidates; ``disabled`` names distributions or entry points."""

    enabled: bool = True
    disabled: tuple[str, ...] = ()


class WatchSettings(_Section, frozen=True):
    """Whether the settings directory is watched, and how long it must be quiet before it is read."""

    enabled: bool = True
    debounce: Seconds = 0.5


class ApiSettings(_Section, frozen=True):
    """Where the daemon listens: the control socket, and HTTP for probes and metrics."""

    socket: str = CONTROL_SOCKET
    http: str = "127.0.0.1:9464"
    allowed_hosts: tuple[str, ...] = ()


class LoggingSettings(_Section, frozen=True):
    """What the daemon writes to stdout."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class MetricsSettings(_Section, frozen=True):
    """Where metrics are sent by OTLP over HTTP, and how often; they can always be fetched from ``api.http``."""

    otlp_endpoint: str | None = None
    otlp_interval: Seconds = 15.0


class AppSettings(_Section, frozen=True):
    """``settings/app.yml``."""

    lifecycle: LifecycleSettings = LifecycleSettings()
    remote: RemoteSettings = RemoteSettings()
    plugins: PluginsSettings = PluginsSettings()
    watch: WatchSettings = WatchSettings()
    api: ApiSettings = ApiSettings()
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()
    cache_dir: str = CACHE_DIR
    state_dir: str = STATE_DIR


class CandidateSettings(_Section, frozen=True):
    """One entry of ``candidates:`` in a domain's file; the fields of a Candidate, as text."""

    key: str
    provider: str
    factory: str
    stack: str = "settings"
    stack_level: int | None = None
    priority: int = 0
    version: str = "0"
    capabilities: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    python_version: str = ""
    os_platform: tuple[str, ...] = ()
    exclusive: bool = False
    poolable: bool = False
    metadata: dict[str, Any] = {}


class SlotSettings(_Section, frozen=True):
    """How one slot is swapped.

    ``soak``: seconds for which the old instance stays warm after callers moved, and takes over again when the new one
    turns unhealthy. ``failover``: whether the next best takes over when the one that serves is quarantined.
    ``before_swap`` and ``after_swap``: ``module:attribute`` of a hook.
    """

    soak: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    failover: bool = False
    before_swap: str | None = None
    after_swap: str | None = None


class DomainSettings(_Section, frozen=True):
    """``settings/<domain>s.yml``."""

    selections: dict[str, str] = {}
    candidates: tuple[CandidateSettings, ...] = ()
    provider_settings: dict[str, dict[str, Any]] = {}
    capabilities: dict[str, tuple[str, ...]] = {}
    slots: dict[str, SlotSettings] = {}


def _no_domains() -> Mapping[str, DomainSettings]:
    return MappingProxyType({name: DomainSettings() for name in DOMAINS})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings: the app's and each domain's. ``origins`` says where each value that is not a default came from."""

    app: AppSettings = AppSettings()
    domains: Mapping[str, DomainSettings] = msgspec.field(default_factory=_no_domains)
    stack_order: str = ""
    origins: Mapping[str, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))

    def provider_settings(self, domain: str, key: str, provider: str) -> Mapping[str, Any]:
        """Return the keyword arguments for a provider's factory; ``key/provider`` wins over ``provider``."""
        chosen = self.domains[domain].provider_settings
        settings: Mapping[str, Any] = chosen.get(f"{key}/{provider}", chosen.get(provider, {}))
        return settings

    def slot_settings(self, domain: str, key: str) -> SlotSettings:
        """Return how a slot is swapped."""
        return self.domains[domain].slots.get(key, SlotSettings())


# Files of the settings directory and the type each is read into.
FILES: Final[Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {"app.yml": AppSettings, **{domain.settings_file: DomainSettings for domain in DOMAINS.values()}}
)

# Environment sections (ONEIRIC_<SECTION>__<KEY>) and where each lands: (file, section of it or None).
ENV_SECTIONS: Final[Mapping[str, tuple[str, str | None]]] = MappingProxyType(
    {
        **{
            name.upper(): ("app.yml", name)
            for name in ("lifecycle", "remote", "plugins", "watch", "api", "logging", "metrics")
        },
        **{domain.plural.upper(): (domain.settings_file, None) for domain in DOMAINS.values()},
    }
)


def keep_trust(running: RemoteSettings, proposed: RemoteSettings) -> tuple[RemoteSettings, tuple[str, ...]]:
    """Return *proposed* without what would weaken trust in a running daemon, and the names of the settings held back.

    Strictness may be added at any time; taking it away needs a restart.
    """
    weaker = {
        "require_signature": running.require_signature and not proposed.require_signature,
        "tuf_root": proposed.tuf_root != running.tuf_root,
        "allow_plain_http": proposed.allow_plain_http and not running.allow_plain_http,
        "signature_threshold": proposed.signature_threshold < running.signature_threshold,
        "allowed_factories": not set(proposed.allowed_factories) <= set(running.allowed_factories),
        "allowed_hosts": not set(proposed.allowed_hosts) <= set(running.allowed_hosts),
        "max_age": running.max_age is not None and (proposed.max_age is None or proposed.max_age > running.max_age),
        "max_stale": proposed.max_stale > running.max_stale,
        "min_version": (proposed.min_version or 0) < (running.min_version or 0),
    }
    held = {name: getattr(running, name) for name, weakens in weaker.items() if weakens}
    keys = {key for key in (proposed.public_key, *proposed.public_keys) if key}
    if len(keys) < max(running.signature_threshold, proposed.signature_threshold) and (
        running.public_key or running.public_keys
    ):
        held |= {"public_key": running.public_key, "public_keys": running.public_keys}
    return msgspec.structs.replace(proposed, **held), tuple(sorted(held))
