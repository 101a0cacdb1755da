"""Where a command gets its answer: from the running daemon, or, when none runs, from settings and plugins on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from oneiric.api.client import Client
from oneiric.cli.output import note
from oneiric.config.control import control_socket
from oneiric.errors import DaemonAbsentError

if TYPE_CHECKING:
    from pathlib import Path

    import msgspec

    from oneiric.cli.options import Options
    from oneiric.core.candidate import Candidate
    from oneiric.core.config import AppSettings
    from oneiric.runtime.remembered import Remembered
    from oneiric.runtime.snapshot import Snapshot


def client(options: Options) -> Client:
    """Return a client of the daemon that the options, the environment or the settings name."""
    path = control_socket(options.settings, os.environ, options.socket)
    if options.verbose:
        note(f"asking {path}", options)
    return Client(path)


def ask(
    options: Options,
    route: str,
    *,
    otherwise: Callable[[], msgspec.Struct],
    **query: Any,
) -> dict[str, Any]:
    """Return the daemon's document at *route*, or what *otherwise* finds on disk, which is said on stderr.

    Raises DaemonUnreachableError when a daemon is there and does not answer: the disk would not tell what it does.
    """
    try:
        return client(options).get(route, **query)
    except DaemonAbsentError:
        answer = document(otherwise())
        note("no daemon runs: answered from settings and plugins on disk", options)
        return answer


def document(struct: msgspec.Struct) -> dict[str, Any]:
    """Return a document as the plain values that its JSON would give."""
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(struct)
    return plain


def from_disk(options: Options) -> Snapshot:
    """Return what a daemon started here and now would know before it built anything."""
    import sys
    from contextlib import redirect_stdout
    from pathlib import Path

    from oneiric.config.host import this_host
    from oneiric.config.loader import load, local_candidates, policy
    from oneiric.plugins.discovery import discover, registered
    from oneiric.runtime.snapshot import from_disk as snapshot

    settings = load(options.directory, environ=os.environ, flags=options.flags)
    with redirect_stdout(sys.stderr):  # what a plugin prints when it is imported is not our answer
        registry, plugins = registered(discover(settings.app.plugins))
    registry = registry.with_sources("settings/", local_candidates(settings))
    registry = registry.with_source("remote", _published(settings.app, options))
    remembered = _remembered(Path(settings.app.state_dir))
    pins = {slot: pin.selection for slot, pin in remembered.pins.items()} if remembered is not None else {}
    chosen = policy(settings, host=this_host(), pins=pins, environ=os.environ)
    return snapshot(registry, chosen, plugins, remembered)


def _published(app: AppSettings, options: Options) -> tuple[Candidate[Any], ...]:
    """Return what the cached manifest offers, verified as a daemon would."""
    from pathlib import Path

    if not (Path(app.cache_dir) / "manifest.yaml").exists():
        return ()
    from datetime import UTC, datetime

    from oneiric.errors import ManifestError
    from oneiric.remote.cache import Cache
    from oneiric.remote.ledger import Ledger
    from oneiric.remote.offers import listed
    from oneiric.remote.pinned import verify_kept
    from oneiric.remote.policy import trust_policy

    try:
        content = Cache(Path(app.cache_dir)).read_manifest(app.remote.max_manifest_bytes) or b""
        record = Ledger(Path(app.state_dir)).load()
        policy = trust_policy(app.remote)
        now = datetime.now(UTC)
        kept = verify_kept(content, record=record, place=record.url, settings=app.remote, policy=policy, now=now)
        return listed(kept.manifest)
    except ManifestError as error:
        note(f"warning: the cached manifest is not used: {error.reason}: {error}", options)
        return ()


def _remembered(state_dir: Path) -> Remembered | None:
    """Return what an earlier daemon left in the state directory; sqlite is imported only when there is something."""
    if not (state_dir / "state.db").exists():
        return None
    from oneiric.runtime.state import StateStore

    return StateStore(state_dir).peek()
