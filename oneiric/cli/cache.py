"""``oneiric cache``: what lies in the cache, whether it is right, and what may go. Works beside a running daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oneiric.cli.options import Group, Options, global_options
from oneiric.cli.output import print_document, table
from oneiric.core.words import plural
from oneiric.errors import ManifestError

if TYPE_CHECKING:
    from oneiric.core.config import AppSettings
    from oneiric.remote.cache import Cache


@click.group(cls=Group, no_args_is_help=False)
@global_options
def cache(_options: Options) -> None:
    """List, verify and prune the cache of manifests and artifacts."""


@cache.command("list")
@global_options
def list_artifacts(options: Options) -> None:
    """Show the cached artifacts, their size, whether the manifest names them, and whether their digest is right."""
    app, store = _opened(options)
    print_document(_found(store, _named(store, app), "oneiric.cache-list/1"), options, _text)


@cache.command()
@global_options
def verify(options: Options) -> int:
    """Check the cached manifest as a start would, and the artifacts it names by their digests; exits 5 on a wrong one.

    Of a manifest that cannot be read nothing is named; without a public key its signatures cannot be checked.
    """
    app, store = _opened(options)
    manifest = _judged(store, app)
    try:
        named = _named(store, app)
    except ManifestError as error:
        named, manifest = {}, {**manifest, "verdict": "wrong", "reason": error.reason, "error": str(error)}
    found = {**_found(store, named, "oneiric.cache-verify/1"), "manifest": manifest}
    print_document(found, options, _verified_text)
    return 5 if any(row["verdict"] == "wrong" for row in (manifest, *found["artifacts"])) else 0


@cache.command()
@global_options
def prune(options: Options) -> None:
    """Remove the artifacts that the manifest does not name, and what a crash left behind."""
    app, store = _opened(options)
    with store.lock():
        gone = store.prune(_named(store, app))
    rows = [{"name": one.name, "size_bytes": one.size_bytes} for one in gone]
    freed = sum(one.size_bytes for one in gone)
    answer = {"schema": "oneiric.cache-prune/1", "removed": rows, "freed_bytes": freed}
    text = "\n".join(
        [
            *(f"removed {one.name}" for one in gone),
            f"{plural(len(gone), 'artifact')} removed, {plural(freed, 'byte')} freed",
        ]
    )
    print_document(answer, options, lambda _found: text)


def _opened(options: Options) -> tuple[AppSettings, Cache]:
    from oneiric.config.loader import load
    from oneiric.remote.cache import Cache

    app = load(options.directory, environ=os.environ, flags=options.flags).app
    return app, Cache(Path(app.cache_dir))


def _named(store: Cache, app: AppSettings) -> dict[str, str]:
    """Return the artifacts that the cached manifest names, by cached name, with their digests.

    Nothing is trusted by it: the manifest is only asked what it names.
    """
    from oneiric.remote.kept import named_by

    content = store.read_manifest(app.remote.max_manifest_bytes)
    if not content:
        return {}
    try:
        return named_by(content)
    except ManifestError as error:
        raise ManifestError(
            f"{store.directory}/manifest.yaml: {error}", reason=error.reason, hint="oneiric remote-sync"
        ) from error


def _judged(store: Cache, app: AppSettings) -> dict[str, Any]:
    """Return whether the next start accepts the cached manifest, and why not."""
    from datetime import UTC, datetime

    from oneiric.remote.kept import place_of, verify_cached
    from oneiric.remote.ledger import Ledger
    from oneiric.remote.pinned import is_tuf
    from oneiric.remote.policy import trust_policy

    said: dict[str, Any] = {"verdict": "right", "reason": "", "error": "", "key_ids": [], "warnings": []}
    content = store.read_manifest(app.remote.max_manifest_bytes)
    if content is None:
        return {**said, "verdict": "missing"}
    policy = trust_policy(app.remote)
    try:
        record = Ledger(Path(app.state_dir)).load()
        if not policy.keys and not is_tuf(place_of(record, app.remote)):
            return {**said, "verdict": "not checked", "error": "no public key is configured (remote.public_key)"}
        kept = verify_cached(content, record=record, settings=app.remote, policy=policy, now=datetime.now(UTC))
    except ManifestError as error:
        return {**said, "verdict": "wrong", "reason": error.reason, "error": str(error)}
    warnings = [*kept.stale, *kept.verified.warnings]
    return {**said, "key_ids": list(kept.verified.key_ids), "warnings": warnings}


def _found(store: Cache, named: dict[str, str], schema: str) -> dict[str, Any]:
    is_there = store.directory.exists()
    stored = {one.name: one for one in store.stored()} if is_there else {}
    rows = [
        {
            "name": name,
            "size_bytes": stored[name].size_bytes if name in stored else 0,
            "sha256": stored[name].sha256 if name in stored else "",
            "verdict": _verdict(stored[name].sha256 if name in stored else None, named.get(name)),
        }
        for name in sorted({*stored, *named})
    ]
    quarantined = list(store.quarantined()) if is_there else []
    return {"schema": schema, "directory": str(store.directory), "artifacts": rows, "quarantined": quarantined}


def _verdict(actual: str | None, expected: str | None) -> str:
    if actual is None:
        return "missing"
    if expected is None:
        return "not named"
    return "right" if actual == expected else "wrong"


def _text(found: dict[str, Any]) -> str:
    if not found["artifacts"] and not found["quarantined"]:
        return f"{found['directory']}: no artifact"
    rows = [[row["name"], row["size_bytes"], row["verdict"], row["sha256"]] for row in found["artifacts"]]
    lines = [table(["ARTIFACT", "BYTES", "DIGEST", "SHA256"], rows)] if rows else []
    return "\n".join([*lines, *(f"quarantined: {name}" for name in found["quarantined"])])


def _verified_text(found: dict[str, Any]) -> str:
    said = found["manifest"]
    if said["verdict"] == "missing" and not found["artifacts"]:
        return _text(found)
    by = f", signed by {', '.join(said['key_ids'])}" if said["key_ids"] else ""
    why = "".join(f": {said[name]}" for name in ("reason", "error") if said[name])
    warnings = (f"manifest: warning: {warning}" for warning in said["warnings"])
    return "\n".join([_text(found), *warnings, f"manifest: {said['verdict']}{by}{why}"])
