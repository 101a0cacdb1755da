"""Every event Oneiric reports: its level, its fields and what it tells, once.

A sink refuses an event that is not listed or that lacks a field, so nothing is emitted that is not documented here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

Level = Literal["debug", "info", "warning", "error"]


class Event(NamedTuple):
    """One kind of event. Every field named is on every such event; a value may be empty, never absent."""

    name: str
    level: Level
    fields: tuple[str, ...]
    tells: str


_SLOT = ("domain", "key")
_INSTANCE = ("domain", "key", "provider")

EVENTS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        event.name: event
        for event in (
            Event(
                "resolver-decision", "info", (*_INSTANCE, "outcome", "error"), "who fills a slot, or why nobody does"
            ),
            Event("instance-activated", "info", (*_INSTANCE, "instance_id", "duration_ms"), "an instance now serves"),
            Event("health-check-failed", "warning", (*_INSTANCE, "error"), "a probe said no, failed or took too long"),
            Event(
                "swap-complete",
                "info",
                (*_INSTANCE, "previous_provider", "duration_ms", "gap_ms", "by"),
                "callers now use another instance",
            ),
            Event(
                "swap-soaking",
                "info",
                (*_INSTANCE, "previous_provider", "soak_ms"),
                "callers moved; the old instance takes over again if the new one turns unhealthy",
            ),
            Event(
                "swap-throttled",
                "warning",
                (*_INSTANCE, "reason", "delay_ms", "error"),
                "a slot swapped too often by itself; the last state asked for follows later",
            ),
            Event(
                "candidate-quarantined",
                "error",
                (*_INSTANCE, "error", "failures"),
                "a provider failed its probes again and again and may not be chosen",
            ),
            Event("candidate-released", "info", _INSTANCE, "a quarantined provider is well, or changed"),
            Event(
                "swap-failed",
                "error",
                (*_INSTANCE, "error", "reason", "duration_ms", "rolled_back"),
                "a new instance did not take over",
            ),
            Event(
                "swap-rollback",
                "warning",
                (*_INSTANCE, "failed_provider", "error"),
                "the named provider still serves, the failed one was disposed of",
            ),
            Event("cleanup-started", "info", (*_INSTANCE, "instance_id"), "an instance is drained and being closed"),
            Event("cleanup-complete", "info", (*_INSTANCE, "instance_id", "duration_ms"), "an instance was closed"),
            Event("cleanup-failed", "error", (*_INSTANCE, "instance_id", "error"), "an instance could not be closed"),
            Event(
                "instance-leaked",
                "warning",
                (*_INSTANCE, "instance_id", "leases", "error"),
                "an instance that should be gone is still held",
            ),
            Event("selection-pinned", "info", (*_INSTANCE, "by"), "an operator's choice was recorded"),
            Event("selection-unpinned", "info", (*_INSTANCE, "by"), "an operator's choice was taken back"),
            Event(
                "activity-changed", "info", (*_SLOT, "activity", "note", "by"), "a slot was paused, drained, resumed"
            ),
            Event("config-changed", "info", ("file", "domain"), "a settings file changed and was applied"),
            Event(
                "config-rejected", "error", ("file", "error"), "a settings change is invalid; the last good one stays"
            ),
            Event("config-held", "warning", ("setting", "error"), "a setting takes effect only at a restart"),
            Event("plugin-failed", "error", ("plugin", "distribution", "error"), "a plugin was kept out"),
            Event("control-request", "info", ("verb", "target", "uid", "pid", "outcome"), "someone used the socket"),
            Event("state-degraded", "error", ("error",), "the state directory cannot be written; nothing is lost yet"),
            Event("state-discarded", "error", ("file", "error"), "unreadable state was moved aside"),
            Event("watch-degraded", "warning", ("error",), "changes are found by polling only"),
            Event("watch-paused", "warning", ("by",), "settings changes are not applied until watch resume"),
            Event("watch-resumed", "info", ("by",), "settings changes are applied again"),
            Event(
                "remote-sync-complete",
                "info",
                ("source", "url", "manifest", "manifest_version", "entries", "fetched", "duration_ms"),
                "a manifest was accepted and its entries are on offer",
            ),
            Event(
                "remote-sync-unchanged",
                "debug",
                ("source", "url", "manifest", "manifest_version", "entries", "duration_ms"),
                "the manifest is the one in force",
            ),
            Event(
                "remote-sync-error",
                "error",
                ("source", "url", "error", "reason", "consecutive_failures", "circuit_breaker", "duration_ms"),
                "a synchronisation failed and changed nothing",
            ),
            Event(
                "remote-sync-warning",
                "warning",
                ("source", "url", "error"),
                "an accepted manifest is not as it should be",
            ),
            Event(
                "signature-verification-failed",
                "error",
                ("source", "key_id", "error"),
                "a manifest is not signed as the settings demand",
            ),
            Event(
                "digest-check-success",
                "info",
                ("artifact", "expected_digest", "actual_digest"),
                "an artifact is right",
            ),
            Event(
                "digest-check-failed",
                "error",
                ("artifact", "expected_digest", "actual_digest"),
                "an artifact is not what the manifest names; it was not used",
            ),
            Event(
                "remote-restored",
                "info",
                ("source", "manifest", "manifest_version", "entries", "error"),
                "the cached manifest is on offer, verified again, before the network was asked",
            ),
            Event(
                "remote-restore-failed",
                "error",
                ("source", "error", "reason"),
                "the cached manifest is no longer acceptable and is not on offer",
            ),
            Event(
                "circuit-breaker-changed",
                "warning",
                ("source", "state", "previous"),
                "synchronisation pauses after failures, or goes on",
            ),
            Event("daemon-ready", "info", ("pid", "version", "socket", "http", "slots"), "the daemon serves"),
            Event("daemon-stopping", "info", ("pid", "cause"), "the daemon drains and stops"),
            Event("daemon-stopped", "info", ("pid", "unclosed", "duration_ms"), "every instance was dealt with"),
            Event("library-log", "warning", ("message", "exception"), "a library had something to say"),
            Event("task-failed", "error", ("task", "error"), "a background task raised and was started again"),
        )
    }
)
