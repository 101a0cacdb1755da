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
Span = Annotated[float, Meta(gt=0, le=315_360_000)]
"""A time that may be longer than a day: at most ten years."""
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections: immutable, and an unknown key is an error."""


class LifecycleSettings(_Section, frozen=True):
    """How long foreign code may take, and how often a slot may swap by itself."""

    activation_timeout: Annotated[Seconds, Meta(description="How long a factory may take to build an instance.")] = 30.0
    health_timeout: Annotated[Seconds, Meta(description="How long one probe may take.")] = 5.0
    cleanup_timeout: Annotated[Seconds, Meta(description="How long closing an instance may take.")] = 10.0
    hook_timeout: Annotated[Seconds, Meta(description="How long one hook of a swap may take.")] = 5.0
    drain_timeout: Annotated[
        Seconds, Meta(description="How long a swap, a drain or the end waits for the last lease.")
    ] = 30.0
    health_interval: Annotated[Seconds, Meta(description="Time between two probes of a live instance.")] = 30.0
    failure_threshold: Annotated[
        Count, Meta(description="Failed probes in a row after which a provider is quarantined.")
    ] = 3
    max_swaps_per_minute: Annotated[
        Count, Meta(description="How often a slot may swap by itself; operators are not limited.")
    ] = 12


class RemoteSettings(_Section, frozen=True):
    """Where signed manifests come from and what makes one acceptable."""

    manifest_url: Annotated[
        str | None, Meta(description="Where the manifest is: a URL (https, file, tuf+https) or a path.")
    ] = None
    mirrors: Annotated[
        tuple[str, ...], Meta(description="Copies of it, asked in this order while it does not answer.")
    ] = ()
    token: Annotated[
        str | None, Meta(description="Bearer token for the manifest's origin, as ${env:NAME} or ${file:path}.")
    ] = None
    public_key: Annotated[
        str | None, Meta(description="A key that may sign: base64, 64 hex digits, PEM, or a file of one.")
    ] = None
    public_keys: Annotated[tuple[str, ...], Meta(description="Further keys that may sign, each as in public_key.")] = ()
    signature_threshold: Annotated[Count, Meta(description="How many distinct keys must have signed.")] = 1
    require_signature: Annotated[bool, Meta(description="Whether a manifest that is not signed is refused.")] = True
    tuf_root: Annotated[str | None, Meta(description="File of the root.json by which a tuf+ URL is trusted.")] = None
    failure_threshold: Annotated[
        Count, Meta(description="Failures in a row after which the circuit breaker opens.")
    ] = 3
    reset_timeout: Annotated[Seconds, Meta(description="How long the circuit breaker stays open before a try.")] = 60.0
    refresh_interval: Annotated[Seconds, Meta(description="Time between two looks at the manifest.")] = 300.0
    max_age: Annotated[
        Span | None, Meta(description="Time since signed_at after which a manifest counts as expired.")
    ] = None
    max_stale: Annotated[
        float, Meta(ge=0, le=31_536_000, description="How long after its expiry a start may use the cached manifest.")
    ] = 604_800.0
    min_version: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Lowest manifest_version accepted, also when all state is lost."),
    ] = None
    timeout: Annotated[Seconds, Meta(description="How long one transfer may take, and its longest silence.")] = 30.0
    max_manifest_bytes: Annotated[
        Bytes, Meta(description="Size beyond which a manifest is refused before it is read.")
    ] = 33_554_432
    max_artifact_bytes: Annotated[Bytes, Meta(description="Size beyond which an artifact is refused.")] = 268_435_456
    allowed_factories: Annotated[
        tuple[str, ...], Meta(description="Modules, and all below them, whose factories a manifest may name.")
    ] = ()
    allowed_hosts: Annotated[tuple[str, ...], Meta(description="Further hosts of artifacts: host, or host:port.")] = ()
    allow_plain_http: Annotated[bool, Meta(description="Whether http may lead to another machine.")] = False


class PluginsSettings(_Section, frozen=True):
    """Which installed plugins may offer candidates; ``disabled`` names distributions or entry points."""

    enabled: Annotated[bool, Meta(description="Whether installed plugins are looked for.")] = True
    disabled: Annotated[tuple[str, ...], Meta(description="What is left out: distributions or entry points.")] = ()


class WatchSettings(_Section, frozen=True):
    """Whether the settings directory is watched, and how long it must be quiet before it is read."""

    enabled: Annotated[bool, Meta(description="Whether changes of the settings directory are followed.")] = True
    debounce: Annotated[Seconds, Meta(description="How long the directory must be quiet before it is read.")] = 0.5


class ApiSettings(_Section, frozen=True):
    """Where the daemon listens: the control socket, and HTTP for probes and metrics."""

    socket: Annotated[str, Meta(description="Path of the control socket, at most 107 bytes.")] = CONTROL_SOCKET
    http: Annotated[str, Meta(description="HOST:PORT of /metrics, /healthz and /readyz; port 0 takes a free one.")] = (
        "127.0.0.1:9464"
    )
    allowed_hosts: Annotated[
        tuple[str, ...], Meta(description="Names that HTTP answers to, besides IP addresses and localhost.")
    ] = ()


class LoggingSettings(_Section, frozen=True):
    """What the daemon writes to stdout."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least level that is written.")
    ] = "info"
    format: Annotated[Literal["json", "text"], Meta(description="One JSON object a line, or text for a terminal.")] = (
        "json"
    )


class MetricsSettings(_Section, frozen=True):
    """Where metrics are sent by OTLP over HTTP, and how often; they can always be fetched from ``api.http``."""

    otlp_endpoint: Annotated[str | None, Meta(description="URL of a collector that takes OTLP over HTTP.")] = None
    otlp_interval: Annotated[Seconds, Meta(description="Time between two exports.")] = 15.0


class AppSettings(_Section, frozen=True):
    """``settings/app.yml``."""

    lifecycle: LifecycleSettings = LifecycleSettings()
    remote: RemoteSettings = RemoteSettings()
    plugins: PluginsSettings = PluginsSettings()
    watch: WatchSettings = WatchSettings()
    api: ApiSettings = ApiSettings()
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()
    cache_dir: Annotated[str, Meta(description="Directory of the last manifest and its artifacts; may be deleted.")] = (
        CACHE_DIR
    )
    state_dir: Annotated[str, Meta(description="Directory of pins, pauses, history and lowest versions.")] = STATE_DIR


class CandidateSettings(_Section, frozen=True):
    """One entry of ``candidates:`` in a domain's file; the fields of a Candidate, as text."""

    key: Annotated[str, Meta(description="The slot's key in this domain.")]
    provider: Annotated[str, Meta(description="The name of who offers.")]
    factory: Annotated[str, Meta(description="What builds the instance: package.module:attribute.")]
    stack: Annotated[str, Meta(description="Who offers it; ONEIRIC_STACK_ORDER ranks stacks.")] = "settings"
    stack_level: Annotated[
        int | None, Meta(description="Its level, where ONEIRIC_STACK_ORDER names none for its stack.")
    ] = None
    priority: Annotated[int, Meta(description="The larger wins between equal stack levels.")] = 0
    version: Annotated[str, Meta(description="PEP 440; the newer wins between equal priorities.")] = "0"
    capabilities: Annotated[tuple[str, ...], Meta(description="What the provider can do beyond its protocol.")] = ()
    requires: Annotated[tuple[str, ...], Meta(description="PEP 508 requirements that must be installed.")] = ()
    python_version: Annotated[str, Meta(description="PEP 440 specifier that Python must meet, such as >=3.12.")] = ""
    os_platform: Annotated[tuple[str, ...], Meta(description="linux, darwin, windows; empty means any.")] = ()
    exclusive: Annotated[bool, Meta(description="Owns a port or a lock: closed before its successor is built.")] = False
    poolable: Annotated[bool, Meta(description="Keeps one drained instance, which a swap back takes.")] = False
    metadata: Annotated[
        dict[str, Any], Meta(description="For people; its hint is shown when the candidate is rejected.")
    ] = {}


class SlotSettings(_Section, frozen=True):
    """How one slot is swapped."""

    soak: Annotated[
        float,
        Meta(ge=0, le=86_400, description="How long the old instance stays warm after a swap, to take over again."),
    ] = 0.0
    failover: Annotated[bool, Meta(description="Whether the next best takes over from one in quarantine.")] = False
    before_swap: Annotated[str | None, Meta(description="module:attribute of a hook called before callers move.")] = (
        None
    )
    after_swap: Annotated[str | None, Meta(description="module:attribute of a hook called before the commit.")] = None


class DomainSettings(_Section, frozen=True):
    """``settings/<domain>s.yml``."""

    selections: Annotated[dict[str, str], Meta(description="The provider that fills each key, whatever its rank.")] = {}
    candidates: Annotated[tuple[CandidateSettings, ...], Meta(description="Candidates that need no plugin.")] = ()
    provider_settings: Annotated[
        dict[str, dict[str, Any]], Meta(description="Factories' arguments, by provider or key/provider.")
    ] = {}
    capabilities: Annotated[
        dict[str, tuple[str, ...]], Meta(description="What each key's provider must be able to do.")
    ] = {}
    slots: Annotated[dict[str, SlotSettings], Meta(description="How each key is swapped.")] = {}


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


def keep_fixed(running: AppSettings, proposed: AppSettings) -> tuple[AppSettings, tuple[str, ...]]:
    """Return *proposed* without what a daemon reads only when it starts, and the names of the settings held back."""
    fixed: dict[str, Any] = {name: getattr(running, name) for name in ("api", "logging", "cache_dir", "state_dir")}
    fixed["watch"] = msgspec.structs.replace(proposed.watch, enabled=running.watch.enabled)
    held = {name for name, value in fixed.items() if value != getattr(proposed, name)}
    names = ("watch.enabled" if name == "watch" else name for name in held)
    return msgspec.structs.replace(proposed, **fixed), tuple(sorted(names))


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
