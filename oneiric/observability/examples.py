"""What an event may look like: a value for every field, and those of events whose lines tell a story of their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_OPERATOR: Final = "ops (uid 1000)"
_URL: Final = "https://manifests.example/shop.json"
_DIGEST: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_UNHEALTHY: Final = "health() returned False, not True"

_USUAL: Final[Mapping[str, Any]] = {
    "activity": "paused",
    "actual_digest": _DIGEST,
    "artifact": f"{_DIGEST[:12]}-shop_pricing-2.0-py3-none-any.whl",
    "aside": False,
    "built": True,
    "by": _OPERATOR,
    "cause": "SIGTERM",
    "circuit_breaker": "closed",
    "consecutive_failures": 1,
    "delay_ms": 5000,
    "distribution": "shop-plugin",
    "domain": "adapter",
    "duration_ms": 14.125,
    "endpoint": "http://127.0.0.1:4318",
    "entries": 12,
    "error": "",
    "exception": "",
    "expected_digest": _DIGEST,
    "failed_provider": "redis",
    "failures": 3,
    "fetched": 1,
    "file": "settings/adapters.yml",
    "gap_ms": 0.0,
    "http": "127.0.0.1:9464",
    "instance_id": "adapter/cache#2",
    "key": "cache",
    "key_id": "3b6a27bcceb6a42d",
    "leases": 1,
    "manifest": "shop",
    "manifest_version": 42,
    "message": "Exception in ASGI application",
    "note": "maintenance",
    "origin": "fetched",
    "outcome": "success",
    "pid": 1323,
    "plugin": "shop",
    "previous": "closed",
    "previous_provider": "memory",
    "provider": "redis",
    "reason": "health-check",
    "rolled_back": True,
    "setting": "api",
    "slots": 4,
    "soak_ms": 30_000.0,
    "socket": ".oneiric_state/oneiric.sock",
    "source": "remote",
    "state": "open",
    "suppressed": 0,
    "target": "adapter/cache",
    "task": "remote",
    "uid": 1000,
    "unclosed": 0,
    "url": _URL,
    "verb": "swap",
    "version": "0.1.0",
}

_OWN: Final[Mapping[str, Mapping[str, Any]]] = {
    "candidate-quarantined": {"error": _UNHEALTHY},
    "circuit-breaker-changed": {"error": "circuit breaker open"},
    "cleanup-complete": {"provider": "memory", "instance_id": "adapter/cache#1", "duration_ms": 0.309},
    "cleanup-failed": {
        "provider": "memory",
        "instance_id": "adapter/cache#1",
        "error": "timeout: TimeoutError: cleanup took more than 10 s",
    },
    "cleanup-started": {"provider": "memory", "instance_id": "adapter/cache#1"},
    "config-held": {"error": "takes effect at a restart"},
    "config-rejected": {
        "file": "settings/adapters.yml:1:5",
        "error": "settings/adapters.yml:1:5: unknown key 'selection'; did you mean selections?",
    },
    "config-changed": {"domain": "adapter"},
    "daemon-stopped": {"duration_ms": 178.069},
    "digest-check-failed": {"actual_digest": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"},
    "health-check-failed": {"error": _UNHEALTHY},
    "instance-leaked": {
        "provider": "memory",
        "instance_id": "adapter/cache#1",
        "error": "1 lease still held after 30 s; closed when the last ends",
    },
    "library-log": {"exception": "Traceback (most recent call last): ..."},
    "metrics-export-failed": {
        "error": "connection: http://127.0.0.1:4318/v1/metrics: connection refused",
        "failures": 1,
    },
    "plugin-failed": {"error": "ImportError(ModuleNotFoundError): No module named 'shop'"},
    "plugin-unmatched": {"plugin": "shpo", "error": "plugins.disabled names it, and nothing is called that"},
    "remote-restore-failed": {"error": "manifest: ManifestError: the manifest expired", "reason": "expired"},
    "remote-sync-error": {"error": f"connection: {_URL}: connection refused", "reason": "connection"},
    "remote-sync-skipped": {"reason": "circuit-open"},
    "remote-sync-warning": {"error": f"{_URL} did not serve: connection refused"},
    "signature-verification-failed": {"error": "signature: TrustError: no trusted key signed the manifest"},
    "state-degraded": {"error": ".oneiric_state/state.db: OSError: [Errno 28] No space left on device"},
    "state-discarded": {"file": ".oneiric_state/state.db", "error": "DatabaseError: file is not a database"},
    "swap-failed": {"error": _UNHEALTHY, "duration_ms": 2.296},
    "swap-rollback": {"provider": "memory", "error": _UNHEALTHY},
    "swap-throttled": {
        "provider": "memory",
        "reason": "budget",
        "error": "more than 12 automatic swaps a minute; the last state asked for follows in 5 s",
    },
    "task-failed": {"error": "RuntimeError: no such luck"},
    "watch-degraded": {"error": "OSError: [Errno 28] inotify watch limit reached"},
}


def example(event: str, fields: tuple[str, ...]) -> Mapping[str, Any]:
    """Return *fields* of *event* with values as they may be; a field nobody gave one reads ``...``."""
    own = _OWN.get(event, {})
    return MappingProxyType({name: own.get(name, _USUAL.get(name, "...")) for name in fields})
