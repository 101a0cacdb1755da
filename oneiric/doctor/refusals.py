"""Synchronisations that fail for what no scenario of the runbook covers: the manifest itself, settings, disk, state."""

from __future__ import annotations

from typing import Final, NamedTuple

from oneiric.doctor.vitals import RemoteVital, Vitals
from oneiric.doctor.wording import app_file, quoted

_CHECK: Final = "oneiric remote-sync --dry-run"
_ARTIFACT: Final = frozenset(
    {
        *("name", "path", "duplicate", "link", "startup-file", "native", "encrypted", "compression", "count", "tags"),
        *("scripts", "length"),
    }
)
_NOT_ALLOWED: Final = frozenset({"uri", "factory", "policy"})
_CONTENTS: Final = frozenset({"malformed", "manifest", "schema", "entry", "size", "file", "future"})
_HERE: Final = frozenset({"state", "disk", "config", "internal"})
REASONS: Final = frozenset({*_ARTIFACT, *_NOT_ALLOWED, *_CONTENTS, *_HERE})
"""The reasons of failed synchronisations that are told of here."""


class Refusal(NamedTuple):
    """What it is, in the words of a finding."""

    code: str
    variant: str
    title: str
    commands: tuple[str, ...]


def refusal(vitals: Vitals, remote: RemoteVital, reason: str) -> Refusal:
    """Return what a synchronisation that failed for *reason* means."""
    if reason in _HERE:
        return _here(vitals, remote, reason)
    if "artifact " in remote.last_error or reason in _ARTIFACT:
        publish = (
            "# the publisher: build and publish it again: a pure-Python wheel or one .py file, lengths as they are"
        )
        return Refusal("manifest", "artifact", "an artifact of the manifest cannot be imported", (_CHECK, publish))
    if reason in _NOT_ALLOWED:
        allow = "remote.allowed_hosts, remote.allowed_factories or remote.allow_plain_http"
        edit = f"# {app_file(vitals)}: {allow}, if you trust what it names; it takes a restart"
        publish = "# else the publisher: name artifacts beside the manifest, and factories inside them"
        title = "the manifest names, or is at, what the settings do not allow"
        return Refusal("manifest", "not allowed", title, (_CHECK, edit, publish))
    return _contents(vitals, remote, reason)


def _contents(vitals: Vitals, remote: RemoteVital, reason: str) -> Refusal:
    file, url = app_file(vitals), quoted(remote.url.removeprefix("tuf+"))
    match reason:
        case "size" if " are free" in remote.last_error:
            return _no_room(vitals)
        case "size":
            edit = f"# {file}: raise remote.max_manifest_bytes or remote.max_artifact_bytes, if the size is right"
            return Refusal("manifest", "size", "what is published is larger than the settings allow", (_CHECK, edit))
        case "file":
            look = f"ls -l {url}"
            edit = f"# {file}: remote.manifest_url must name a file that the user who runs oneiric can read"
            return Refusal("manifest", "file", "the manifest's file cannot be read", (look, edit))
        case "future":
            clock = ("date -u", "timedatectl", "# set the clock, here or at the publisher's")
            return Refusal("manifest-expiry", "clock", "the manifest was signed in the future, by this clock", clock)
        case "schema" | "entry":
            publish = (
                "# the publisher: correct the field that the error names; oneiric manifest schema says what is taken"
            )
            return Refusal("manifest", "schema", "the manifest says what no manifest can say", (_CHECK, publish))
    publish = "# the publisher: correct what the error names, and sign and publish it again"
    return Refusal("manifest", "syntax", "the manifest cannot be read: a syntax error", (_CHECK, publish))


def _here(vitals: Vitals, remote: RemoteVital, reason: str) -> Refusal:
    file, state = app_file(vitals), quoted(vitals.state_dir)
    error = remote.last_error
    commands: tuple[str, ...]
    match reason:
        case "state":
            commands = (
                f"ls -la {state}",
                f"# restore {vitals.state_dir}/remote.json from a backup; only if there is none go on:",
                "# the next command has any version accepted that the publisher ever signed, also an old one",
                f"mv {state}/remote.json {state}/remote.json.damaged",
            )
            return Refusal("ledger", "", "what keeps old manifests out cannot be read, so none is accepted", commands)
        case "disk":
            return _no_room(vitals)
        case "config" if "cannot be used" in error or "another process" in error:
            look = (
                f"ls -ld {quoted(vitals.cache_dir)} {state}",
                "# make both directories of the user who runs oneiric",
            )
            return Refusal("disk", "directory", "the cache or the state directory cannot be used", look)
        case "config" if "public_key" in error or "tuf_root" in error:
            edit = f"# {file}: correct remote.public_key, remote.public_keys or remote.tuf_root"
            commands = ("oneiric config check", edit)
            return Refusal("3B", "key unreadable", "a configured public key cannot be read", commands)
        case "config":
            commands = ("oneiric config check", f"# {file}: correct what the error names below remote")
            return Refusal("remote-settings", "", "the settings do not allow a synchronisation", commands)
    report = ("oneiric remote-sync --dry-run --debug", "# it is a bug of oneiric: report it with what the command says")
    return Refusal("internal", "", "a synchronisation failed by a mistake in oneiric", report)


def _no_room(vitals: Vitals) -> Refusal:
    cache, state = quoted(vitals.cache_dir), quoted(vitals.state_dir)
    commands = (f"df -h {cache} {state}", "oneiric cache prune", "# free some space, or make the disk writable")
    return Refusal("disk", "synchronisation", "the disk refuses what a synchronisation has to keep", commands)
