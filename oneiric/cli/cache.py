"""``oneiric cache``: what lies in the cache, whether it is right, and what may go. Works beside a running daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oneiric.cli.options import Group, Options, global_options
from oneiric.cli.output import print_document, table

if TYPE_CHECKING:
    from oneiric.core.config import AppSettings


@click.group(cls=Group, no_args_is_help=False)
@global_options
def cache(_options: Options) -> None:
    """List, verify and prune the cache of manifests and artifacts."""


@cache.command("list")
@global_options
def list_artifacts(options: Options) -> None:
    """Show the cached artifacts, their size, whether the manifest names them, and whether their digest is right."""
    print_document(_found(options, "oneiric.cache-list/1"), options, _text)


@cache.command()
@global_options
def verify(options: Options) -> int:
    """Check every cached artifact against the digest that the manifest gives; exits 5 when one is wrong."""
    found = _found(options, "oneiric.cache-verify/1")
    print_document(found, options, _text)
    return 5 if any(row["verdict"] == "wrong" for row in found["artifacts"]) else 0


@cache.command()
@global_options
def prune(options: Options) -> None:
    """Remove the artifacts that the manifest does not name, and what a crash left behind."""
    from oneiric.remote.cache import Cache

    app = _settings(options)
    store = Cache(Path(app.cache_dir))
    named = _named(store, app)
    with store.lock():
        gone = store.prune(named)
    rows = [{"name": one.name, "size_bytes": one.size_bytes} for one in gone]
    freed = sum(one.size_bytes for one in gone)
    answer = {"schema": "oneiric.cache-prune/1", "removed": rows, "freed_bytes": freed}
    text = "\n".join(
        [*(f"removed {one.name}" for one in gone), f"{len(gone)} artifacts removed, {freed:,} bytes freed"]
    )
    print_document(answer, options, lambda _found: text)


def _settings(options: Options) -> AppSettings:
    from oneiric.config.loader import load

    return load(options.directory, environ=os.environ, flags=options.flags).app


def _named(store: Any, app: AppSettings) -> dict[str, str]:
    """Return the artifacts that the cached manifest names, by cached name, with their digests.

    Nothing is trusted by it: the manifest is only asked what it names.
    """
    from oneiric.core.document import read_document
    from oneiric.core.manifest import parse_manifest
    from oneiric.errors import ManifestError
    from oneiric.remote.cache import artifact_name

    content = store.read_manifest(app.remote.max_manifest_bytes)
    if not content:
        return {}
    try:
        entries = parse_manifest(read_document(content)).entries
    except ManifestError as error:
        raise ManifestError(
            f"{store.directory}/manifest.yaml: {error}", reason=error.reason, hint="oneiric remote-sync"
        ) from error
    return {artifact_name(e.sha256, e.uri): e.sha256 for e in entries if e.uri is not None and e.sha256 is not None}


def _found(options: Options, schema: str) -> dict[str, Any]:
    from oneiric.remote.cache import Cache

    app = _settings(options)
    store = Cache(Path(app.cache_dir))
    named = _named(store, app) if store.directory.exists() else {}
    stored = {one.name: one for one in store.stored()} if store.directory.exists() else {}
    rows = [
        {
            "name": name,
            "size_bytes": stored[name].size_bytes if name in stored else 0,
            "sha256": stored[name].sha256 if name in stored else "",
            "verdict": _verdict(stored[name].sha256 if name in stored else None, named.get(name)),
        }
        for name in sorted({*stored, *named})
    ]
    quarantined = list(store.quarantined()) if store.directory.exists() else []
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
