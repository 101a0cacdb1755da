"""``oneiric remote-sync`` and ``remote-status``: through the daemon when one runs, else on the cache itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oneiric.cli.desk import ask, client, document
from oneiric.cli.options import Options, global_options
from oneiric.cli.output import note, print_document, safe, warn
from oneiric.errors import DaemonAbsentError

if TYPE_CHECKING:
    import msgspec


@click.command("remote-sync")
@global_options
@click.option("--manifest", metavar="URL", help="Another place to fetch from; trust is the same wherever it is.")
@click.option("--dry-run", is_flag=True, help="Fetch and verify everything, change nothing.")
@click.option("--force", is_flag=True, help="Go ahead although the circuit breaker is open.")
def remote_sync(options: Options, manifest: str | None, dry_run: bool, force: bool) -> int:
    """Fetch the signed manifest, verify it, keep it and offer what it names; exits 5 when it must not be trusted.

    Exits 1 when it cannot be fetched, or is skipped because the circuit breaker is open. What was accepted before stays
    in force whenever it fails.
    """
    body: dict[str, Any] = {"force": force, "dry_run": dry_run}
    if manifest:
        body["manifest"] = manifest = _from_here(manifest)
    try:
        answer = client(options).post("/v1/remote/sync", body)
    except DaemonAbsentError:
        kept = "tried from here" if dry_run else "straight into the cache; the next daemon starts from it"
        note(f"no daemon runs: {kept}", options)
        answer = document(_sync_here(options, manifest, dry_run=dry_run, force=force))
    print_document(answer, options, lambda found: safe(found["text"]))
    warn(answer["warnings"], options)
    if answer["outcome"] == "skipped":
        note("try: oneiric remote-sync --force", options)
        return 1
    return 0


def _from_here(url: str) -> str:
    """Return *url*; a file of this machine so that it is found from any working directory."""
    from oneiric.remote.urls import is_local

    if not is_local(url):
        return url
    if url[:5].lower() != "file:":
        return str(Path(url).absolute())
    return url if url[5:6] == "/" else f"{Path.cwd().as_uri()}/{url[5:]}"


def _sync_here(options: Options, manifest: str | None, *, dry_run: bool, force: bool) -> msgspec.Struct:
    import anyio

    from oneiric.api.remote_views import remote_sync_document
    from oneiric.config.loader import load
    from oneiric.runtime.delivery import syncer

    settings = load(options.directory, environ=os.environ, flags=options.flags)

    def tell(event: str, **fields: Any) -> None:
        if options.verbose:
            words = " ".join(f"{name}={value}" for name, value in fields.items() if value not in (None, ""))
            note(f"{event} {words}", options)

    show = _show_progress if sys.stderr.isatty() and not options.verbose else _ignore_progress
    here = syncer(lambda: settings.app, emit=tell, environ=os.environ, progress=show)

    async def sync() -> msgspec.Struct:
        return remote_sync_document(await here.sync(manifest, force=force, dry_run=dry_run), live=False)

    return anyio.run(sync)


def _show_progress(here: int, number: int) -> None:
    """Say how many artifacts are here, in a line that the next one takes the place of."""
    click.echo(f"{here} of {number} artifacts\r", nl=False, err=True)


def _ignore_progress(_here: int, _number: int) -> None:
    """Nobody watches."""


@click.command("remote-status")
@global_options
def remote_status(options: Options) -> None:
    """Show the last synchronisation, counts, registrations by domain, the breaker, version, expiry and keys."""

    def otherwise() -> msgspec.Struct:
        from oneiric.api.remote_views import remote_document
        from oneiric.config.loader import load
        from oneiric.runtime.delivery import facts, syncer

        settings = load(options.directory, environ=os.environ, flags=options.flags)
        here = syncer(lambda: settings.app, emit=_ignore, environ=os.environ)
        return remote_document(facts(here, settings.app), settings=settings.app.remote, live=False)

    print_document(ask(options, "/v1/remote", otherwise=otherwise), options, _status_text)


def _ignore(event: str, **fields: Any) -> None:
    """Looking is no event."""


def _status_text(found: dict[str, Any]) -> str:
    version = found["manifest_version"]
    domains = ", ".join(f"{domain} {count}" for domain, count in sorted(found["registrations"].items()))
    rows = [
        ("manifest", found["manifest_url"] or "no remote.manifest_url is set"),
        ("fetched from", found["url"] if found["url"] != found["manifest_url"] else ""),
        ("source", found["source"]),
        ("version", "" if version is None else version),
        ("accepted", found["accepted_at"]),
        ("expires", found["expires_at"] or ("never" if found["accepted_at"] else "")),
        ("keys", ", ".join(found["key_ids"])),
        ("registrations", domains),
        ("last sync", found["last_sync_at"] or "never"),
        ("last success", found["last_success_at"] or "never"),
        ("duration", f"{found['last_duration_ms']} ms" if found["last_sync_at"] else ""),
        ("syncs", f"{found['successes']} success, {found['failures']} failed"),
        ("failures in a row", found["consecutive_failures"]),
        ("circuit breaker", found["circuit_breaker"]),
        ("last error", found["last_error"]),
        ("quarantined", found["quarantined"]),
        ("cache", f"{found['cache_bytes']:,} bytes"),
    ]
    lines = [f"{name + ':':<19}{safe(value)}" for name, value in rows if value != ""]
    if not found["signature_required"]:
        lines.append("warning: signatures are not required (remote.require_signature: false)")
    return "\n".join(lines)
